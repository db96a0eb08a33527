import torch

from longflow.networks.motion_unet import MotionUNet
from tests.methods.helpers import minimal_plans
from tests.networks.helpers import awake


def network(dimensions=2):
    configuration = "3d_fullres" if dimensions == 3 else "2d"
    return MotionUNet(4, 2, 1, minimal_plans(dimensions=dimensions).configuration(configuration).network, 6)


def test_all_outputs_start_at_zero_with_a_place_for_each():
    velocity, weights, residual = network(3)(torch.randn(2, 4, 1, 4, 8, 8), torch.randn(2, 6))
    assert velocity.shape == (2, 2, 3, 4, 8, 8) and weights.shape == (2, 4, 1, 4, 8, 8)
    assert residual.shape == (2, 1, 4, 8, 8)
    assert not any(part.any() for part in (velocity, weights, residual))


def test_a_shorter_stack_uses_the_last_places():
    torch.manual_seed(0)
    trained = awake(network()).eval()
    stack, code = torch.randn(2, 1, 1, 8, 8), torch.randn(2, 6)
    padded = torch.cat([torch.zeros(2, 3, 1, 8, 8), stack], dim=1)
    velocity, weights, residual = trained(stack, code)
    of_padded = trained(padded, code)
    assert velocity.shape == (2, 1, 2, 8, 8) and weights.shape == (2, 1, 1, 8, 8)
    torch.testing.assert_close(velocity, of_padded[0][:, -1:])
    torch.testing.assert_close(weights, of_padded[1][:, -1:])
    torch.testing.assert_close(residual, of_padded[2])
