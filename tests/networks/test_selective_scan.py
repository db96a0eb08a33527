import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longflow.networks import selective_scan as module
from longflow.networks.selective_scan import LinearRecurrence, compiled_kernel, recur, recur_in_chunks, selective_scan

FEATURES, STATES = 3, 4


def inputs(length: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(length)
    return {
        "u": torch.randn(batch, length, FEATURES, dtype=dtype),
        "delta": torch.rand(batch, length, FEATURES, dtype=dtype) + 0.01,
        "A": -torch.rand(FEATURES, STATES, dtype=dtype) - 0.1,
        "B": torch.randn(batch, length, STATES, dtype=dtype),
        "C": torch.randn(batch, length, STATES, dtype=dtype),
        "D": torch.randn(FEATURES, dtype=dtype),
    }


def one_after_the_other(u, delta, A, B, C, D) -> np.ndarray:
    """The recurrence as it is written, in float64."""
    u, delta, A, B, C, D = (tensor.double().numpy() for tensor in (u, delta, A, B, C, D))
    y = np.zeros_like(u)
    for sample in range(u.shape[0]):
        h = np.zeros(A.shape)
        for place in range(u.shape[1]):
            step = delta[sample, place][:, None]
            h = np.exp(step * A) * h + step * B[sample, place] * u[sample, place][:, None]
            y[sample, place] = h @ C[sample, place] + D * u[sample, place]
    return y


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 10, 64, 101])
def test_it_is_the_recurrence_whatever_the_length(length):
    given = inputs(length)
    np.testing.assert_allclose(selective_scan(**given), one_after_the_other(**given), atol=1e-4, rtol=1e-4)


def test_states_that_are_forgotten_at_once_leave_no_nan():
    given = inputs(50)
    given["A"] = given["A"] * 1000
    np.testing.assert_allclose(selective_scan(**given), one_after_the_other(**given), atol=1e-4, rtol=1e-4)


def test_it_is_computed_in_float32_under_autocast():
    given = inputs(20)
    with torch.autocast("cpu", torch.bfloat16):
        found = selective_scan(**given)
    assert found.dtype == torch.float32
    assert torch.equal(found, selective_scan(**given))


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("chunk", [4, 100])
def test_gradients_of_the_recurrence_are_those_of_finite_differences(length, chunk, monkeypatch):
    monkeypatch.setattr(module, "recur", lambda decay, inputs: recur_in_chunks(decay, inputs, chunk))
    torch.manual_seed(0)
    decay = torch.rand(1, length, 2, dtype=torch.float64, requires_grad=True)
    given = torch.randn(1, length, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LinearRecurrence.apply, (decay, given))


@pytest.mark.parametrize("length", [1, 2, 12, 13])
@pytest.mark.parametrize("chunk", [1, 2, 5, 13])
@pytest.mark.parametrize("rate", [1.0, 1e-20])
def test_chunks_change_nothing_not_even_where_products_of_decays_underflow(length, chunk, rate):
    torch.manual_seed(0)
    decay, given = rate * torch.rand(2, length, 3), torch.randn(2, length, 3)
    before = decay.clone(), given.clone()
    expected = [given[:, 0]]
    for place in range(1, length):
        expected.append(decay[:, place] * expected[-1] + given[:, place])
    torch.testing.assert_close(recur_in_chunks(decay, given, chunk), torch.stack(expected, dim=1))
    assert torch.equal(decay, before[0]) and torch.equal(given, before[1])


class Steps(TorchDispatchMode):
    """Counts the operations that change the states."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.addcmul_.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "steps"), [("cpu", 99), ("meta", 18)])
def test_a_long_sequence_takes_few_steps_where_the_device_is_not_a_cpu(device, steps):
    given = torch.rand(1, 100, 2, device=device)
    with Steps() as counted:
        assert recur(given, given).shape == given.shape
    assert counted.count == steps


def test_what_is_kept_for_the_gradient_grows_with_the_length_and_not_with_its_square():
    kept = []
    for length in (64, 256):
        given = {name: tensor.requires_grad_() for name, tensor in inputs(length, batch=1).items()}
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.setdefault(tensor.data_ptr(), tensor.numel()), lambda size: size
        ):
            selective_scan(**given)
        kept.append(sum(sizes.values()))
    assert 3.5 < kept[1] / kept[0] < 4.5


def test_the_kernel_of_mamba_ssm_is_used_where_it_is_installed_and_the_device_is_its(monkeypatch):
    calls = []

    def selective_scan_fn(u, delta, A, B, C, D):
        calls.append((u.shape, B.shape))
        assert all(tensor.is_contiguous() for tensor in (u, delta, B, C))
        u, delta, B, C = (tensor.transpose(1, 2) for tensor in (u, delta, B, C))
        return torch.from_numpy(one_after_the_other(u, delta, A, B, C, D)).float().transpose(1, 2)

    given = inputs(11)
    expected = selective_scan(**given)
    fake = ModuleType("mamba_ssm.ops.selective_scan_interface")
    fake.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)

    assert compiled_kernel() is selective_scan_fn
    selective_scan(**given)
    assert not calls  # it has none for a CPU
    monkeypatch.setattr(module, "KERNEL_DEVICES", ("cpu",))
    torch.testing.assert_close(selective_scan(**given), expected, atol=1e-4, rtol=1e-4)
    assert calls == [((2, FEATURES, 11), (2, STATES, 11))]


def test_without_the_package_there_is_no_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", None)
    assert compiled_kernel() is None
    monkeypatch.setattr(module, "KERNEL_DEVICES", ("cpu",))
    assert selective_scan(**inputs(3)).shape == (2, 3, FEATURES)
