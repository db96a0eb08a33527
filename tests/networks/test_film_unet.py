import pytest
import torch

from longflow.networks.film_unet import FiLMUNet
from longflow.networks.precision import autocast, computes_bf16
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake

ANISOTROPIC = NetworkPlan(
    features_per_stage=[8, 8, 16],
    strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    attention=True,
)
FLAT = NetworkPlan(features_per_stage=[8, 16], strides=[[1, 1], [2, 2]], kernel_sizes=[[3, 3], [3, 3]], attention=False)


def network(plan: NetworkPlan, channels: int = 6) -> FiLMUNet:
    torch.manual_seed(0)
    return FiLMUNet(channels, plan, code_size=12)


@pytest.mark.parametrize(("plan", "shape"), [(ANISOTROPIC, (6, 16, 24)), (FLAT, (16, 24))])
def test_the_velocity_has_the_shape_of_the_stack_and_starts_at_zero(plan, shape):
    stack = torch.randn(2, 6, *shape)
    found = network(plan)(stack, torch.randn(2, 12))
    assert found.shape == stack.shape
    assert not found.any()


def test_fewer_scans_use_the_last_weights_which_equals_zeros_in_front():
    net = awake(network(ANISOTROPIC))
    short, code = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 12)
    padded = torch.cat([torch.zeros(1, 2, 4, 8, 8), short], dim=1)
    torch.testing.assert_close(net(short, code), net(padded, code)[:, 2:])


def test_the_code_matters_and_gradients_reach_every_parameter():
    net = awake(network(ANISOTROPIC))
    stack = torch.randn(1, 6, 4, 8, 8)
    assert not torch.allclose(net(stack, torch.zeros(1, 12)), net(stack, torch.ones(1, 12)))
    net(stack, torch.ones(1, 12)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.skipif(not computes_bf16("cpu"), reason="this processor does not compute in bf16")
@pytest.mark.parametrize("slices", [1, 2, 3, 4, 6, 8])
def test_gradients_in_bf16_are_those_of_float32_whatever_the_number_of_slices(slices):
    """The processor's library gets 2 slices wrong: NaN, or numbers that look like gradients."""
    plan = NetworkPlan(
        features_per_stage=[8, 16], strides=[[1, 1, 1], [1, 2, 2]], kernel_sizes=[[3, 3, 3]] * 2, attention=False
    )
    if slices % 2 == 0 and slices > 4:
        plan.strides[1] = [2, 2, 2]
    net = awake(network(plan)).to(memory_format=torch.channels_last_3d)
    stack, code = torch.randn(2, 6, slices, 8, 8), torch.randn(2, 12)
    gradients = []
    for context in (autocast("cpu"), torch.autocast("cpu", enabled=False)):
        net.zero_grad()
        litter = [torch.full((100_000,), torch.nan) for _ in range(4)]
        del litter  # what is read without having been written is now likely NaN
        with context:
            loss = net(stack, code).square().mean()
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
    low, high = gradients
    assert (low - high).norm() < 0.05 * high.norm()
