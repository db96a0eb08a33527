import pytest
import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet, SpatialAttentionBlock, get_timestep_embedding

from longflow.networks.diffusion_unet import ConcatenationUNet, DiffusionUNet
from longflow.networks.precision import GuardedConv3d
from longflow.plans import NetworkPlan
from tests.networks.helpers import awake

NETWORKS = (DiffusionUNet, ConcatenationUNet)
CODE = 12


def plan_of(strides: list[list[int]], attention: bool = False) -> NetworkPlan:
    features = [8, 16, 24][: len(strides)]
    return NetworkPlan(
        features_per_stage=features, strides=strides, kernel_sizes=[[3] * len(strides[0])] * len(strides),
        attention=attention,
    )  # fmt: skip


THIN = plan_of([[1, 1, 1], [1, 2, 2], [2, 2, 2]])
FLAT = plan_of([[1, 1], [2, 2], [2, 1]])
SINGLE = plan_of([[1, 1]])


def network(kind: type, plan: NetworkPlan, channels: int = 6):
    torch.manual_seed(0)
    return kind(channels, plan, CODE)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("plan", "shape"), [(THIN, (6, 8, 12)), (FLAT, (8, 6)), (SINGLE, (5, 3))])
def test_the_velocity_has_the_shape_of_the_stack_and_starts_at_zero(kind, plan, shape):
    stack = torch.randn(2, 6, *shape)
    found = network(kind, plan)(stack, torch.randn(2, CODE))
    assert found.shape == stack.shape and found.dtype == torch.float32
    assert not found.any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_fewer_scans_equal_zeros_in_front(kind):
    net = awake(network(kind, THIN))
    short, code = torch.randn(1, 4, 4, 8, 8), torch.randn(1, CODE)
    padded = torch.cat([torch.zeros(1, 2, 4, 8, 8), short], dim=1)
    torch.testing.assert_close(net(short, code), net(padded, code)[:, 2:])


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("plan", [THIN, FLAT])
def test_the_code_matters_and_gradients_reach_every_parameter(kind, plan):
    net = awake(network(kind, plan))
    stack = torch.randn(1, 6, *[8] * plan.dimensions)
    assert not torch.allclose(net(stack, torch.zeros(1, CODE)), net(stack, torch.ones(1, CODE)))
    net(stack, torch.ones(1, CODE)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_where_all_axes_are_halved_it_is_monais_network_with_its_embedding_as_the_code():
    plan = plan_of([[1, 1], [2, 2], [2, 2]])
    torch.manual_seed(0)
    ours = awake(DiffusionUNet(6, plan, code_size=8))
    theirs = DiffusionModelUNet(
        2, 6, 6, 1, [8, 16, 24], [False, False, True], norm_num_groups=8, num_head_channels=[8, 16, 24]
    )
    theirs.load_state_dict(ours.state_dict())
    stack, steps = torch.randn(2, 6, 8, 12), torch.tensor([3, 700])
    torch.testing.assert_close(ours(stack, get_timestep_embedding(steps, 8)), theirs(stack, steps))


@pytest.mark.parametrize("plan", [THIN, plan_of(THIN.strides, attention=True)])
def test_attention_is_at_the_coarsest_level_and_in_the_middle_or_nowhere(plan):
    blocks = {
        kind: [name for name, one in network(kind, plan).named_modules() if isinstance(one, SpatialAttentionBlock)]
        for kind in NETWORKS
    }
    coarsest = [name for name in blocks[DiffusionUNet] if name.startswith(("down_blocks.2", "middle", "up_blocks.0"))]
    assert coarsest == blocks[DiffusionUNet] and len(coarsest) == 4
    assert not blocks[ConcatenationUNet]


def test_a_code_is_concatenated_in_the_bottleneck_and_enters_nowhere_else():
    """With no weight on the concatenated places, nothing is left of the code."""
    net = awake(network(ConcatenationUNet, THIN))
    stack = torch.randn(1, 6, 4, 8, 8)
    with torch.no_grad():
        net.middle_block.merge.weight[:, THIN.features_per_stage[-1] :] = 0
        assert torch.equal(net(stack, torch.zeros(1, CODE)), net(stack, torch.ones(1, CODE)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_convolutions_in_3d_are_guarded(kind):
    found = [module for module in network(kind, THIN).modules() if isinstance(module, torch.nn.Conv3d)]
    assert found and all(isinstance(module, GuardedConv3d) for module in found)
