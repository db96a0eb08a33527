import pytest
import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

from longflow.networks.latent import BLOCKS, build_autoencoder, build_diffusion_unet, latent_stage, latent_strides
from longflow.networks.precision import GuardedConv3d
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake

THIN = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]]


def plan(strides: list[list[int]]) -> NetworkPlan:
    return NetworkPlan(
        features_per_stage=[8 * (stage + 1) for stage in range(len(strides))],
        strides=strides,
        kernel_sizes=[[3] * len(strides[0])] * len(strides),
        attention=False,
    )


def halving(stages: int, dimensions: int = 2) -> NetworkPlan:
    return plan([[1] * dimensions] + [[2] * dimensions] * (stages - 1))


@pytest.mark.parametrize(("stages", "latent", "stride"), [(1, 0, 1), (2, 1, 2), (4, 2, 4), (5, 2, 4), (6, 3, 8)])
def test_half_of_the_stages_lie_before_the_latent(stages, latent, stride):
    assert latent_stage(halving(stages)) == latent
    assert latent_strides(halving(stages)) == [stride, stride]
    features = build_autoencoder(1, 3, halving(stages)).encoder.channels
    below = build_diffusion_unet(6, 3, 4, halving(stages)).block_out_channels
    assert features[-1] == below[0] and len(features) + len(below) == stages + 1


@pytest.mark.parametrize(
    ("plan", "shape", "latent"),
    [
        (halving(1), (8, 5), (8, 5)),
        (halving(5), (16, 48), (4, 12)),
        (halving(4, 3), (8, 16, 8), (2, 4, 2)),
        (plan(THIN), (6, 16, 24), (3, 4, 6)),
        (plan([[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]]), (5, 16, 24), (5, 4, 6)),
    ],
)
def test_axes_are_divided_as_planned_and_come_back(plan, shape, latent):
    torch.manual_seed(0)
    autoencoder = build_autoencoder(2, 3, plan)
    mean, deviation = autoencoder.encode(torch.randn(1, 2, *shape))
    assert mean.shape == deviation.shape == (1, 3, *latent)
    assert autoencoder.decode(mean).shape == (1, 2, *shape)
    unet = awake(build_diffusion_unet(6, 3, 4, plan))
    found = unet(torch.randn(2, 6, *latent), torch.tensor([1, 999]), context=torch.randn(2, 1, 4))
    assert found.shape == (2, 3, *latent)


def test_where_all_axes_are_halved_the_unet_is_monais_own():
    torch.manual_seed(0)
    ours = awake(build_diffusion_unet(6, 3, 4, halving(6)))
    theirs = DiffusionModelUNet(
        2, 6, 3, BLOCKS, [32, 40, 48], [False, False, True], 8, num_head_channels=[32, 40, 48],
        with_conditioning=True, cross_attention_dim=4,
    )  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    seen = torch.randn(2, 6, 8, 12), torch.tensor([3, 700]), torch.randn(2, 1, 4)
    torch.testing.assert_close(ours(*seen), theirs(*seen))


def test_the_decoder_is_monais_own_where_all_axes_are_halved():
    torch.manual_seed(0)
    ours = build_autoencoder(1, 3, halving(4))
    theirs = AutoencoderKL(
        2, 1, 1, BLOCKS, [8, 16, 24], [False] * 3, 3, 8,
        with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    theirs.decoder.load_state_dict(ours.decoder.state_dict())
    latent = torch.randn(1, 3, 4, 6)
    torch.testing.assert_close(ours.decoder(latent), theirs.decoder(latent))


@pytest.mark.parametrize("plan", [halving(4), plan(THIN)])
def test_gradients_reach_every_parameter(plan):
    torch.manual_seed(0)
    autoencoder, unet = build_autoencoder(1, 3, plan), awake(build_diffusion_unet(6, 3, 4, plan))
    image, mean, deviation = autoencoder(torch.randn(1, 1, *[16] * plan.dimensions))
    (image.square().mean() + deviation.mean()).backward()
    unet(
        torch.cat([mean, mean], 1).detach(), torch.tensor([5]), context=torch.randn(1, 1, 4)
    ).square().mean().backward()
    # one token is all that cross-attention sees, so that its weight is 1 whatever query and key are
    single = (".attn2.to_q.", ".attn2.to_k.", ".norm2.")
    for network in (autoencoder, unet):
        for name, parameter in network.named_parameters():
            if not (".transformer_blocks." in name and any(part in name for part in single)):
                assert parameter.grad is not None and parameter.grad.any(), name


def test_fresh_it_predicts_zero_awake_it_uses_step_and_code():
    torch.manual_seed(0)
    unet = build_diffusion_unet(6, 3, 4, halving(4))
    x, step, code = torch.randn(1, 6, 8, 8), torch.tensor([10]), torch.randn(1, 1, 4)
    assert not unet(x, step, context=code).any()
    awake(unet)
    found = unet(x, step, context=code)
    assert not torch.allclose(found, unet(x, step + 500, context=code))
    assert not torch.allclose(found, unet(x, step, context=code + 1))


def test_convolutions_in_3d_are_guarded():
    for network in (build_autoencoder(1, 3, plan(THIN)), build_diffusion_unet(6, 3, 4, plan(THIN))):
        convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
        assert convolutions and all(isinstance(module, GuardedConv3d) for module in convolutions)
