from dataclasses import replace

import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.forecasting.latent_diffusion import KL_WEIGHT, LatentDiffusion
from longflow.methods.registry import build_method
from longflow.planning.memory import training_memory
from tests.methods.helpers import conditioned_plans, minimal_plans, random_batch
from tests.networks.helpers import awake


def latent_diffusion(stage=0, options=None, **plan) -> LatentDiffusion:
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    method = build_method("latent_diffusion", plans, *plans.configurations, options)
    method.stage = stage
    return method


def to_predict(**sizes):
    batch = random_batch(**sizes)
    return replace(batch, target=None, noise=torch.randn(batch.target.shape, generator=torch.manual_seed(3)))


@pytest.mark.parametrize(("channels", "dimensions"), [(1, 3), (2, 3), (1, 2)])
def test_loss_falls_in_both_stages_and_each_trains_its_own_network(channels, dimensions):
    method = latent_diffusion(channels=channels, dimensions=dimensions)
    batch = random_batch(channels=channels, shape=(4, 8, 8)[-dimensions:])
    batch.context[:, -1] = batch.target.roll(1, -1)
    for stage, (own, other) in enumerate([(method.autoencoder, method.unet), (method.unet, method.autoencoder)]):
        if stage:
            method.begin_stage(stage, batch)
        method.zero_grad()
        optimizer = torch.optim.AdamW(own.parameters(), lr=1e-2)
        losses = []
        for iteration in range(24):
            torch.manual_seed(iteration % 2)
            loss = method.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
        assert all(parameter.grad is None for parameter in other.parameters())


def test_the_first_loss_is_that_of_the_last_scan_or_the_target():
    method, batch = latent_diffusion(), random_batch(size=1)
    errors = set()
    for seed in range(8):
        torch.manual_seed(seed)
        image = batch.target if torch.rand(1) < 0.5 else batch.context[:, -1]
        mean, deviation = method.autoencoder.encode(image)
        found = method.autoencoder.decode(mean + torch.randn_like(deviation) * deviation)
        normal = torch.distributions.Normal
        divergence = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum()
        expected = (found - image).abs().mean() + KL_WEIGHT * divergence
        torch.manual_seed(seed)
        assert method.training_step(batch).item() == pytest.approx(expected.item(), rel=1e-5)
        assert method.terms["kl"].item() == pytest.approx(divergence.item(), rel=1e-4)
        errors.add(bool(image is batch.target))
    assert errors == {True, False}


def test_the_second_stage_begins_with_latents_of_unit_variance():
    method, batch = latent_diffusion(), random_batch()
    assert method.scale == 1
    method.begin_stage(1, batch)
    latents = [method.autoencoder.encode(image)[0] for image in (batch.context[:, -1], batch.target)]
    assert (torch.cat(latents) * method.scale).std().item() == pytest.approx(1, rel=1e-4)
    assert method.stage == 1 and "scale" in method.state_dict() and not method.scale.requires_grad
    nothing = replace(batch, context=torch.zeros_like(batch.context), target=torch.zeros_like(batch.target))
    for parameter in method.autoencoder.quant_conv_mu.parameters():
        torch.nn.init.zeros_(parameter)
    method.begin_stage(1, nothing)
    assert method.scale.item() == pytest.approx(1000)


def test_the_second_loss_is_the_error_of_the_noise():
    method, batch = awake(latent_diffusion(stage=1)), random_batch()
    method.scale.fill_(2.0)
    last, target = (2 * method.autoencoder.encode(image)[0] for image in (batch.context[:, -1], batch.target))
    torch.manual_seed(1)
    timestep = torch.randint(1000, (2,))
    noise = torch.randn(target.shape)
    kept = method.scheduler.alphas_cumprod[timestep].view(-1, 1, 1, 1, 1)
    noisy = kept.sqrt() * target + (1 - kept).sqrt() * noise
    expected = (method._noise_in(noisy, last, timestep, batch) - noise).square().mean()
    torch.manual_seed(1)
    assert method.training_step(batch).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_network_that_knows_the_noise_leads_to_the_targets_reconstruction(dimensions, monkeypatch):
    method, batch = latent_diffusion(stage=1, dimensions=dimensions), random_batch(shape=(4, 8, 8)[-dimensions:])
    method.begin_stage(1, batch)
    latent = method.autoencoder.encode(batch.target)[0]
    seen = []

    def noise_in(stacked, timestep, context):
        noisy, last = stacked.chunk(2, dim=1)
        seen.append(last)
        kept = method.scheduler.alphas_cumprod[timestep].view(-1, *[1] * (dimensions + 1))
        return (noisy - kept.sqrt() * latent * method.scale) / (1 - kept).sqrt()

    monkeypatch.setattr(method.unet, "forward", noise_in)
    batch.noise = torch.randn_like(batch.target)
    expected = method.autoencoder.decode(latent)
    torch.testing.assert_close(method.predict(batch)["forecast"], expected, atol=1e-3, rtol=1e-3)
    assert len(seen) == 50
    torch.testing.assert_close(seen[0], method.autoencoder.encode(batch.context[:, -1])[0] * method.scale)


def test_before_there_is_diffusion_the_forecast_is_the_reconstruction_of_the_last_scan():
    method, batch = latent_diffusion(), random_batch()
    torch.testing.assert_close(method.predict(batch)["forecast"], method.autoencoder.reconstruct(batch.context[:, -1]))


def test_last_scan_horizon_and_noise_decide_and_nothing_else_does():
    method, batch = awake(latent_diffusion(1, {"sampling_steps": 2})).eval(), to_predict()

    def changed(**fields):
        return not torch.allclose(found, method.predict(replace(batch, **fields))["forecast"], atol=1e-5)

    found = method.predict(batch)["forecast"]
    assert torch.equal(found, method.predict(batch)["forecast"])
    context = batch.context.clone()
    context[:, :-1] += 1
    assert not changed(context=context) and not changed(context_times=batch.context_times - 1)
    context[:, -1] += 1
    assert changed(context=context)
    assert changed(target_time=batch.target_time + 1)
    assert changed(noise=-batch.noise)


def test_covariates_decide_too():
    torch.manual_seed(0)
    plans, batch = conditioned_plans(names=("age",)), to_predict()
    method = awake(build_method("latent_diffusion", plans, "3d_fullres", {"sampling_steps": 2})).eval()
    method.stage, batch.covariates = 1, torch.tensor([[0.5, 1.0], [0.5, 1.0]])
    first, second = (
        method.predict(replace(batch, covariates=torch.tensor([[-2.0, 1.0], [0.5, 1.0]])))["forecast"]
        - method.predict(batch)["forecast"]
    )
    assert first.abs().max() > 1e-4 and second.abs().max() < 1e-5


def test_padding_changes_nothing():
    method, batch = awake(latent_diffusion(1, {"sampling_steps": 2})).eval(), to_predict()
    padded = replace(batch, context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1))
    padded.context_mask = torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1)
    assert torch.equal(method.predict(batch)["forecast"], method.predict(padded)["forecast"])


def test_the_noise_of_a_latent_is_made_of_different_voxels_and_moves_with_them():
    method = latent_diffusion(channels=2)
    field = torch.arange(2 * 4 * 8 * 8.0).view(1, 2, 4, 8, 8)
    noise = method.latent_noise(field)
    assert noise.shape == (1, 6, 2, 4, 4) == method.autoencoder.encode(torch.zeros(1, 2, 4, 8, 8))[0].shape
    assert len(noise.unique()) == noise.numel()
    assert noise[0, 0, 1, 2, 3] == field[0, 0, 2, 4, 6] and noise[0, 5, 1, 2, 3] == field[0, 1, 2, 5, 6]
    moved = method.latent_noise(field[..., 2:, 4:, :])
    assert torch.equal(moved, noise[..., 1:, 2:, :])


def test_noise_is_required():
    assert LatentDiffusion.noise and LatentDiffusion.stages == (0.0, 0.5) and not LatentDiffusion.integrates
    with pytest.raises(ConfigurationError, match=r"begins with noise: set Batch\.noise"):
        latent_diffusion(stage=1).predict(random_batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_steps": 30}, "'sampling_steps' of the method 'latent_diffusion' is 30"),
        ({"timesteps": 10, "sampling_steps": 1}, "'timesteps' of the method 'latent_diffusion' is 10, expected 41"),
        ({"sampling_steps": "few"}, "expected a whole number"),
    ],
)
def test_numbers_of_steps_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        latent_diffusion(options=options)


def test_fewer_steps_are_an_option():
    method, batch = latent_diffusion(stage=1, options={"sampling_steps": "2"}), to_predict()
    steps = []
    method.unet.register_forward_hook(lambda module, inputs, output: steps.append(inputs[1][0].item()))
    method.predict(batch)
    assert steps == [999, 499]


def test_the_larger_stage_is_what_is_estimated(monkeypatch):
    plans = minimal_plans()

    def estimate():
        return training_memory("latent_diffusion", plans, "3d_fullres", "cuda")

    both, second = estimate(), LatentDiffusion._noise_loss
    monkeypatch.setattr(LatentDiffusion, "_noise_loss", LatentDiffusion._reconstruction_loss)
    first_alone = estimate()
    monkeypatch.undo()
    monkeypatch.setattr(LatentDiffusion, "_reconstruction_loss", second)
    second_alone = estimate()
    assert first_alone != second_alone and both == max(first_alone, second_alone)
