import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.translation.ddpm import value_range
from longflow.planning.memory import training_memory
from longflow.plans import ChannelPlan
from tests.inference.helpers import plans_to_translate
from tests.methods.translation.helpers import phase_batch, translator


def alphas_bar(timesteps: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """beta_t and the product of 1 - beta_s (MFM section 3.1), t = 0 ... T - 1."""
    beta = np.linspace(1e-4, 0.02, timesteps) * 1000 / timesteps
    return beta, np.cumprod(1 - beta)


def diffusion(function=lambda image, time: 0 * image[:, :1], **options):
    return translator("ddpm", function, **options)


@pytest.mark.parametrize("timesteps", [1000, 100, 40])
def test_the_schedule_is_linear_and_leaves_little_of_the_image(timesteps):
    method = diffusion(timesteps=timesteps, sampling_steps=10)
    _, expected = alphas_bar(timesteps)
    np.testing.assert_allclose(method.scheduler.alphas_cumprod.numpy(), expected, rtol=1e-4)
    assert expected[-1] < 1e-4


def sampling_step(image, noise, beta, first, second):
    """The paper's: sqrt(1 / (1 - beta_t)) x_t + [sqrt(1 - first) - sqrt((1 - second) / (1 - beta_t))] eps."""
    return np.sqrt(1 / (1 - beta)) * image + (np.sqrt(1 - first) - np.sqrt((1 - second) / (1 - beta))) * noise


@pytest.mark.parametrize("timestep", [999, 500, 1, 0])
def test_a_sampling_step_is_the_papers_with_its_indices_put_right(timestep):
    scheduler = diffusion(sampling_steps=1000).scheduler
    scheduler.clip_sample = False
    beta, bar = alphas_bar()
    before = bar[timestep - 1] if timestep else 1.0
    image, noise = phase_batch((0,)).source.double(), phase_batch((0,)).target.double()
    found, _ = scheduler.step(noise, timestep, image)
    expected = sampling_step(image.numpy(), noise.numpy(), beta[timestep], before, bar[timestep])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_as_printed_the_papers_sampler_misses_the_image_even_where_the_noise_is_known():
    """It has abar_t first and abar_t-1 second."""
    beta, bar = alphas_bar()
    image, noise = phase_batch((0,)).source.double().numpy(), phase_batch((0,)).noise.double().numpy()
    right = printed = np.sqrt(bar[-1]) * image + np.sqrt(1 - bar[-1]) * noise
    for timestep in range(999, -1, -1):
        now, before = bar[timestep], bar[timestep - 1] if timestep else 1.0
        right = sampling_step(right, noise, beta[timestep], before, now)
        printed = sampling_step(printed, noise, beta[timestep], now, before)
    np.testing.assert_allclose(right, image, atol=1e-9)
    assert np.abs(printed - image).mean() > 1


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("steps", [1, 20, 250])
def test_a_network_that_knows_the_noise_leads_to_the_target(steps, phase):
    batch = phase_batch((phase, phase))
    batch.target = batch.target.tanh()
    bar = torch.from_numpy(alphas_bar()[1])

    def noise_in(image, time):
        kept = bar[((time - 2 * (1 - phase)) * 1000).round().long()]
        return ((image[:, 1:] - kept.sqrt() * batch.target) / (1 - kept).sqrt()).float()

    method = diffusion(noise_in, sampling_steps=steps)
    torch.testing.assert_close(method.predict(batch)["translation"], batch.target, atol=2e-3, rtol=0)
    assert len(method.network.seen) == steps


def test_the_network_sees_the_source_and_gets_step_and_direction():
    for phase, first in ((1, 0.0), (0, 2.0)):
        method, batch = diffusion(sampling_steps=4), phase_batch((phase, phase))
        method.predict(batch)
        assert [time.tolist() for _, time in method.network.seen] == [
            pytest.approx([first + step / 1000] * 2) for step in (999, 749, 499, 249)
        ]
        assert all(torch.equal(image[:, :1], batch.source) for image, _ in method.network.seen)
        assert torch.equal(method.network.seen[0][0][:, 1:], batch.noise)


def test_the_loss_is_equation_2_squared():
    method, batch = diffusion(lambda image, time: image[:, 1:] + time), phase_batch((0, 1, 1))
    torch.manual_seed(5)
    timestep = torch.randint(1000, (3,)).numpy()
    noise = torch.randn(batch.target.shape).numpy()
    bar = alphas_bar()[1][timestep].reshape(-1, 1, 1, 1, 1)
    noisy = np.sqrt(bar) * batch.target.numpy() + np.sqrt(1 - bar) * noise
    time = (timestep / 1000 + np.array([2, 0, 0])).reshape(-1, 1, 1, 1, 1)
    torch.manual_seed(5)
    assert method.training_step(batch).item() == pytest.approx(((noisy + time - noise) ** 2).mean(), rel=1e-4)


def test_every_timestep_is_drawn_and_none_beyond():
    method = diffusion(timesteps=40, sampling_steps=1)
    batch = phase_batch((1,) * 8, (1, 1, 1))
    for _ in range(100):
        method.training_step(batch)
    times = torch.cat([time for _, time in method.network.seen]) * 40
    assert sorted(set(times.round().int().tolist())) == list(range(40))


def test_the_same_noise_makes_the_same_image_and_another_one_another():
    method, batch = diffusion(lambda image, time: image[:, :1] * time, sampling_steps=5), phase_batch((1,))
    found = method.predict(batch)["translation"]
    assert torch.equal(found, method.predict(batch)["translation"])
    batch.noise = -batch.noise
    assert not torch.allclose(found, method.predict(batch)["translation"])


def test_what_the_network_implies_stays_within_the_range_of_the_normal_form():
    """Without noise to take away, the image is the noise itself, 157 times."""
    method, batch = diffusion(sampling_steps=1), phase_batch((1,))
    torch.testing.assert_close(
        method.predict(batch)["translation"], (batch.noise * 157).clamp(-1, 1), atol=0.01, rtol=0
    )


def test_the_range_is_that_of_all_channels():
    ct = ChannelPlan(name="CT", normal_form="absolute", offset=100, scale=500, clip=(-900, 1100))
    own = ChannelPlan(name="T1", normal_form="per_scan", clip=(0, 900))
    assert value_range([ct]) == (-2, 2)
    assert value_range([own]) == value_range([ct, own]) == (-20, 20)


def test_noise_is_required():
    batch = phase_batch((1,))
    batch.noise = None
    assert diffusion().noise and not diffusion().integrates
    with pytest.raises(ConfigurationError, match="begins with noise"):
        diffusion().predict(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_steps": 30}, "'sampling_steps' of the method 'ddpm' is 30, expected a number that divides"),
        ({"sampling_steps": 0}, "is 0, expected a number"),
        ({"sampling_steps": 2000}, "is 2000, expected a number"),
        ({"timesteps": 10, "sampling_steps": 1}, "'timesteps' of the method 'ddpm' is 10, expected 40 or more"),
        ({"sampling_steps": "few"}, "expected a whole number"),
    ],
)
def test_numbers_of_steps_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        diffusion(**options)


def test_memory_is_estimated_without_computing():
    found = {name: training_memory(name, plans_to_translate(2), "2d") for name in ("mfm", "ddpm")}
    assert found["ddpm"] > found["mfm"] > 0
