import pytest
import torch

from longflow.flow.times import time_frequencies
from longflow.networks.longitudinal_unet import LongitudinalUNet
from longflow.networks.unet import UNet
from tests.methods.segmentation.helpers import segmentation_plans


def network_of(dimensions=3, encoder="plain", trained=True):
    """The network, its weights moved from where they start."""
    torch.manual_seed(0)
    (configuration,) = segmentation_plans(dimensions, channels=2, encoder=encoder).configurations.values()
    network = LongitudinalUNet(2, 3, configuration.network, time_frequencies(0.5, 6, 8))
    if trained:
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    return network, torch.randn(2, 2, *configuration.patch_size), torch.randn(2, 3, 2, *configuration.patch_size)


TIMES = torch.tensor([[-2.0, -1.0, 1.5], [-1.0, 0.5, 3.0]])
ALL = torch.ones(2, 3, dtype=torch.bool)


def plain(network: LongitudinalUNet) -> UNet:
    unet = UNet.__new__(UNet)
    torch.nn.Module.__init__(unet)
    unet.unet = network.unet
    return unet.train(network.training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("encoder", ["plain", "residual"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_without_another_scan_it_is_exactly_the_unet(dimensions, encoder, training):
    network, image, others = network_of(dimensions, encoder)
    network.train(training)
    expected = plain(network)(image)
    empty = others[:, :0], TIMES[:, :0], ALL[:, :0]
    for found in (network(image), network(image, others, TIMES, ~ALL), network(image, *empty)):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(network.finest(image, others, TIMES, ~ALL), expected[0])


def test_it_starts_as_the_unet_also_with_other_scans():
    network, image, others = network_of(trained=False)
    expected = plain(network)(image)
    assert all(torch.equal(*pair) for pair in zip(network(image, others, TIMES, ALL), expected, strict=True))


def test_other_scans_and_their_times_matter():
    network, image, others = network_of()
    network.eval()
    found = network.finest(image, others, TIMES, ALL)
    assert not torch.allclose(found, network.finest(image), atol=1e-3)
    assert not torch.allclose(found, network.finest(image, others, -TIMES, ALL), atol=1e-4)
    assert not torch.allclose(found, network.finest(image, others.flip(0), TIMES, ALL), atol=1e-3)


def test_masked_scans_do_not_matter_and_the_number_of_places_neither():
    network, image, others = network_of()
    network.eval()
    used = torch.tensor([[True, False, True], [True, False, True]])
    found = network.finest(image, others, TIMES, used)
    filled = others.clone()
    filled[:, 1] = 7
    times = TIMES.clone()
    times[:, 1] = 5
    torch.testing.assert_close(network.finest(image, filled, times, used), found)
    without = network.finest(image, others[:, ::2], TIMES[:, ::2], ALL[:, ::2])
    torch.testing.assert_close(without, found, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_scans_does_not_matter_and_twice_the_same_one_is_once():
    network, image, others = network_of()
    network.eval()
    found = network.finest(image, others, TIMES, ALL)
    torch.testing.assert_close(network.finest(image, others.flip(1), TIMES.flip(1), ALL), found, rtol=1e-4, atol=1e-5)
    once = network.finest(image, others[:, :1], TIMES[:, :1], ALL[:, :1])
    twice = network.finest(image, others[:, [0, 0]], TIMES[:, [0, 0]], ALL[:, :2])
    torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-5)


def test_samples_of_a_batch_do_not_mix():
    network, image, others = network_of()
    network.eval()
    used = torch.tensor([[True, True, False], [False, False, False]])
    found = network.finest(image, others, TIMES, used)
    torch.testing.assert_close(found[1:], plain(network).finest(image[1:]), rtol=1e-4, atol=1e-5)
    alone = network.finest(image[:1], others[:1], TIMES[:1], used[:1])
    torch.testing.assert_close(found[:1], alone, rtol=1e-4, atol=1e-5)


def test_every_weight_has_a_gradient_in_each_step_also_without_other_scans():
    """Distributed training needs the same weights in each step."""
    network, image, others = network_of()
    for used in (ALL, ~ALL):
        network.zero_grad()
        sum(scale.square().mean() for scale in network(image, others, TIMES, used)).backward()
        assert all(weight.grad is not None for weight in network.parameters())
