import pytest
import torch
from torch import nn

from longflow.networks.early_backward import with_gradients
from longflow.planning.memory import LiveBytes
from longflow.private import fake_tensors


def terms(network, images):
    return [network(image).square().mean() for image in images]


def network_and_images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3))
    return network, torch.randn(3, 2, 1, 8, 8)


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_gradients_are_those_of_the_sum(precision):
    network, images = network_and_images()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        first, second, third = terms(network, images)
        whole = first + 2 * second + 0.5 * third
    expected = gradients(network, whole)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        first, second, third = (with_gradients(term, network.parameters()) for term in terms(network, images))
        early = first + 2 * second + 0.5 * third
    assert early.item() == whole.item()
    tolerance = 1e-6 if precision is torch.float32 else 1e-2
    for found, value in zip(gradients(network, early), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=tolerance, atol=tolerance / 100)


def test_parameters_that_the_loss_does_not_use_have_no_gradient():
    used, unused, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), False)
    with_gradients((used * frozen).sum(), [used, unused, frozen]).backward()
    assert used.grad.tolist() == [1, 1] and unused.grad is None and frozen.grad is None


def test_without_gradients_the_loss_is_returned_as_it_is():
    network, images = network_and_images()
    with torch.no_grad():
        (loss, *_) = terms(network, images)
    assert with_gradients(loss, network.parameters()) is loss


def peak(early: bool) -> int:
    """Bytes at the peak of a step of two equal terms."""
    with fake_tensors(), LiveBytes("cpu") as memory:
        network = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())))
        loss = 0
        for _ in range(2):
            term = network(torch.rand(1, 4, 64, 64)).mean()
            loss = loss + (with_gradients(term, network.parameters()) if early else term)
            del term
        loss.backward()
    return memory.peak


def test_two_terms_take_the_memory_of_one():
    assert peak(early=True) < 0.62 * peak(early=False)
