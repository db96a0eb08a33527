import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.diffusion import ddim_scheduler, denoised


def scheduler(timesteps=1000, sampling_steps=50, schedule="scaled_linear_beta", limits=(-5.0, 5.0)):
    return ddim_scheduler("name", timesteps, sampling_steps, schedule, (0.0015, 0.0205), limits)


@pytest.mark.parametrize("timesteps", [1000, 500, 41])
def test_betas_are_scaled_with_the_number_of_steps(timesteps):
    """The square root of beta grows linearly (Rombach et al. 2022)."""
    beta = np.linspace(np.sqrt(0.0015), np.sqrt(0.0205), timesteps) ** 2 * 1000 / timesteps
    found = scheduler(timesteps, 1)
    np.testing.assert_allclose(found.betas.numpy(), beta, rtol=1e-4)
    np.testing.assert_allclose(found.alphas_cumprod.numpy(), np.cumprod(1 - beta), rtol=2e-3)
    assert beta[-1] <= 0.5 and found.alphas_cumprod[-1] < 1e-3


@pytest.mark.parametrize(
    ("sampling_steps", "seen"), [(1, [999]), (4, [999, 749, 499, 249]), (1000, range(999, -1, -1))]
)
def test_steps_are_of_equal_length(sampling_steps, seen):
    assert scheduler(sampling_steps=sampling_steps).timesteps.tolist() == list(seen)


@pytest.mark.parametrize("sampling_steps", [1, 50])
def test_where_the_noise_is_known_the_way_ends_at_the_image(sampling_steps):
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64).unbind()
    steps = scheduler(sampling_steps=sampling_steps)
    seen = []

    def noise_in(noisy, timestep):
        seen.append(timestep.tolist())
        kept = steps.alphas_cumprod[timestep].double().view(-1, 1, 1, 1)
        return (noisy - kept.sqrt() * image) / (1 - kept).sqrt()

    torch.testing.assert_close(denoised(steps, noise, noise_in), image, atol=1e-3, rtol=0)
    assert seen == [[step] * 3 for step in steps.timesteps.tolist()]


def test_what_a_step_implies_is_limited():
    found = denoised(scheduler(sampling_steps=1, limits=(-2.0, 5.0)), torch.tensor([[3.0], [-3.0]]), lambda x, t: 0 * x)
    assert found.tolist() == [[5.0], [-2.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((40, 1), "'timesteps' of the method 'name' is 40, expected 41 or more"),
        ((10**12, 1), "is 1000000000000, expected 41 or more, up to 100000"),
        ((0, 1), "is 0, expected 41"),
        ((1000, 0), "'sampling_steps' of the method 'name' is 0, expected a number that divides 'timesteps'"),
        ((1000, 30), r"is 30, expected a number that divides 'timesteps' \(1000\)"),
        ((1000, 2000), "is 2000"),
    ],
)
def test_numbers_of_steps_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        scheduler(*options)
