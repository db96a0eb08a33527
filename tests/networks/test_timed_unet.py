import pytest
import torch

from longflow.networks.timed_unet import TimedUNet
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake, in_bf16_and_float32

THIN = NetworkPlan(
    features_per_stage=[8, 8, 16],
    strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    attention=False,
    blocks_per_stage=[1, 2, 1],
)
FLAT = NetworkPlan(features_per_stage=[8, 16], strides=[[1, 1], [2, 2]], kernel_sizes=[[3, 3]] * 2, attention=False)


@pytest.mark.parametrize(("plan", "blocks"), [(THIN, [1, 2, 1]), (FLAT, [1, 1])])
def test_strides_kernels_and_blocks_are_the_plans_and_all_blocks_of_the_encoder_are_conditioned_on_time(plan, blocks):
    network = TimedUNet(2, 1, plan)
    assert [len(stage) for stage in network.encoder] == blocks
    for stage, kernel, stride in zip(network.encoder, plan.kernel_sizes, plan.strides, strict=True):
        assert stage[0].conv1.stride == tuple(stride)
        assert all(block.conv1.kernel_size == tuple(kernel) and block.time is not None for block in stage)
        assert all(block.conv1.stride == (1,) * plan.dimensions for block in list(stage)[1:])
    assert all(block.time is None for block in network.decoder)


def test_thin_images_are_padded_only_where_the_plan_pools_them():
    network, seen = TimedUNet(1, 1, THIN), []
    network.encoder[0][0].register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[2:]))
    assert network(torch.randn(1, 1, 3, 5, 4), torch.zeros(1)).shape == (1, 1, 3, 5, 4)
    assert seen == [(4, 8, 4)]


@pytest.mark.parametrize(("plan", "shape"), [(THIN, (4, 8, 8)), (THIN, (2, 8, 8)), (FLAT, (12, 10))])
def test_gradients_in_bf16_are_those_of_float32(plan, shape):
    torch.manual_seed(0)
    low, high = in_bf16_and_float32(awake(TimedUNet(1, 1, plan)), torch.randn(2, 1, *shape), torch.rand(2))
    assert (low - high).norm() < 0.05 * high.norm()
