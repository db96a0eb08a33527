import numpy as np
import pytest
import torch
from torch import nn

from longflow.methods.forecasting.simvp import (
    Inception,
    SimVPNetwork,
    SpatiotemporalTranslator,
    inception_kernels,
    scan_features,
)
from longflow.plans import NetworkPlan

ANISOTROPIC = NetworkPlan(
    features_per_stage=[8, 8, 16],
    strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    attention=False,
)
FLAT = NetworkPlan(
    features_per_stage=[8, 16, 32],
    strides=[[1, 1], [2, 2], [2, 2]],
    kernel_sizes=[[3, 3]] * 3,
    attention=False,
)


@pytest.mark.parametrize(("plan", "shape"), [(ANISOTROPIC, (6, 16, 24)), (FLAT, (16, 24))])
def test_an_image_of_the_patch_and_gradients_reach_every_parameter(plan, shape):
    torch.manual_seed(0)
    network = SimVPNetwork(3, 2, plan, shape)
    found = network(torch.randn(2, 3, 2, *shape))
    assert found.shape == (2, 2, *shape)
    found.square().mean().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_scans_are_encoded_alike_and_apart():
    """The first layer of a scan does not depend on the others, and all of them reach the last one."""
    network, seen = SimVPNetwork(3, 1, FLAT, (16, 16)), []
    network.last.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    scans = torch.randn(1, 3, 1, 16, 16)
    network(scans)
    network(torch.stack([scans[:, 1], scans[:, 0], torch.zeros_like(scans[:, 2])], dim=1))
    narrow = scan_features(3, FLAT.features_per_stage)[0]
    assert seen[0].shape[1] == 8 + 3 * narrow
    first, second, _ = seen[0][:, 8:].split(narrow, dim=1)
    torch.testing.assert_close(torch.cat([second, first], dim=1), seen[1][:, 8 : 8 + 2 * narrow])
    assert not torch.allclose(first, second)


def test_every_scan_reaches_every_voxel_through_the_translator():
    torch.manual_seed(0)
    network = SimVPNetwork(2, 1, FLAT, (16, 16))
    scans = torch.randn(1, 2, 1, 16, 16, requires_grad=True)
    network(scans)[0, 0, 0, 0].backward()
    assert scans.grad[0, 0, 0, -1, -1] != 0 and scans.grad[0, 1, 0, -1, -1] != 0


def test_an_inception_module_is_the_sum_of_its_branches():
    torch.manual_seed(0)
    module, x = Inception(nn.Conv2d, 6, 16, [9, 9]), torch.randn(2, 6, 9, 9)
    kernels = [branch[0].kernel_size for branch in module.branches]
    assert kernels == [(3, 3), (5, 5), (7, 7), (9, 9)]
    squeezed, expected = module.squeeze(x), 0
    for branch in module.branches:
        found = branch[0](squeezed).view(2, branch[1].num_groups, -1)
        found = (found - found.mean(2, keepdim=True)) / (found.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        found = found.view(2, 16, 9, 9)
        expected = expected + torch.where(found > 0, found, 0.2 * found)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)
    # each group of the eight sees one of the eight squeezed features alone
    assert {branch[0].groups for branch in module.branches} == {8}


def test_the_translator_hands_the_first_half_to_the_second_in_reverse():
    class Note(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def forward(self, x):
            seen.append(x.flatten().tolist())
            return torch.full((1, 1, 1, 1), float(self.number))

    seen: list[list[float]] = []
    translator = SpatiotemporalTranslator(nn.Conv2d, 1, 8, [4, 4])
    translator.inward = nn.ModuleList(map(Note, (1, 2, 3, 4)))
    translator.outward = nn.ModuleList(map(Note, (5, 6, 7, 8)))
    assert translator(torch.zeros(1, 1, 1, 1)).item() == 8
    assert seen == [[0], [1], [2], [3], [4], [5, 3], [6, 2], [7, 1]]


@pytest.mark.parametrize(
    ("size", "kernels"),
    [
        ([24, 24], [(3, 3), (5, 5), (7, 7), (11, 11)]),
        ([1, 3, 6], [(1, 3, 3), (1, 3, 5)]),
        ([2, 2], [(3, 3)]),
        ([1, 1, 1], [(1, 1, 1)]),
    ],
)
def test_no_kernel_is_wider_than_the_map(size, kernels):
    assert inception_kernels(size) == kernels


@pytest.mark.parametrize("scans", [1, 2, 5, 11, 22])
@pytest.mark.parametrize("features", [[16, 16, 32, 64], [32, 32, 64, 128, 256, 256], [8, 8], [20, 30]])
def test_features_of_scans_are_even_and_stay_within_their_share(scans, features):
    found = scan_features(scans, features)
    assert not np.any(np.array(found) % 2)
    assert found[0] == 4 or scans * found[0] <= 4 * features[0]
    assert all(one <= max(4, most) for one, most in zip(found, features, strict=True)) or features[0] < 4
