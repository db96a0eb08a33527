import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longflow.networks.precision import (
    GroupNorm,
    GuardedConv3d,
    InstanceNorm,
    autocast,
    channels_last,
    computes_bf16,
    speed_up_norms,
)
from longflow.private import cpu_has_bf16

PACKAGE = Path(__file__).parents[2] / "longflow"

#: (channels in, out), image, kernel: first those that oneDNN's AMX kernels do to memory what they should not,
#: then those in which its other kernels read memory that was never written: fewer slices than the kernel has
CONVOLUTIONS = {
    "AMX": [
        ((16, 16), (8, 96, 96), (1, 3, 3)),
        ((1, 16), (8, 96, 96), (3, 3, 3)),
        ((16, 16), (4, 96, 96), (1, 3, 3)),
    ],
    "slices": [((16, 16), (slices, 12, 12), (size,) * 3) for size in (3, 5, 7) for slices in range(1, size + 1)],
}

GRADIENTS = """
from longflow.cli.command import set_up_process
set_up_process()
import torch
from longflow.networks.precision import GuardedConv3d
torch.manual_seed(0)
for (inputs, outputs), size, kernel in {convolutions}:
    layer = GuardedConv3d(inputs, outputs, kernel, padding=[k // 2 for k in kernel])
    for _ in range(3):
        litter = [torch.full((2**18,), torch.nan) for _ in range(8)]
        del litter  # what is read without having been written is now likely NaN
        image = torch.randn(2, inputs, *size)
        gradients = []
        for bf16 in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = layer(image).float().square().mean()
            gradients.append(torch.autograd.grad(loss, layer.weight)[0])
        error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
        assert error < 0.01, (size, kernel, error)
"""


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has no bf16 instructions, and longflow uses none")
@pytest.mark.parametrize("convolutions", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_bf16_gradients_keep_to_their_memory(convolutions):
    # in a process of its own, since a wrong one takes the process with it
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    command = [sys.executable, "-c", GRADIENTS.format(convolutions=convolutions)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("avx512, amx, expected", [(True, False, True), (True, True, False), (False, False, False)])
def test_bf16_where_the_processor_is_faster_in_it(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr("longflow.networks.precision.cpu_has_bf16", lambda: avx512)
    monkeypatch.setattr("longflow.networks.precision.cpu_has_amx", lambda: amx)
    assert computes_bf16("cpu") is expected


@pytest.mark.parametrize("bf16", [True, False])
def test_an_autocast_of_the_caller_brings_no_bf16_to_a_processor_with_amx(monkeypatch, bf16):
    """oneDNN's gradients write beyond their memory there, also where longflow is called from Python."""
    monkeypatch.setattr("longflow.networks.precision.cpu_has_bf16", lambda: True)
    monkeypatch.setattr("longflow.networks.precision.cpu_has_amx", lambda: not bf16)
    with torch.autocast("cpu", torch.bfloat16), autocast("cpu"):
        computed = torch.ones(2, 2) @ torch.ones(2, 2)
    assert computed.dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_bf16_is_turned_on_in_one_place():
    """And in the estimate of memory, which computes nothing."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.autocast":
                off = any(word.arg == "enabled" and ast.unparse(word.value) == "False" for word in node.keywords)
                if not off:
                    found.add(path.relative_to(PACKAGE).as_posix())
    # segment/windows.py: nnU-Net's half precision on CUDA
    assert found == {"networks/precision.py", "planning/memory.py", "tasks/segment/windows.py"}


@pytest.mark.parametrize("spatial", [(6, 5), (3, 6, 5)])
def test_group_norm_in_bf16_and_channels_last_is_that_of_float32(spatial):
    torch.manual_seed(0)
    norm, x, direction = GroupNorm(8, 16), torch.randn(2, 16, *spatial), torch.randn(2, 16, *spatial)
    torch.nn.init.normal_(norm.weight)
    low = x.bfloat16().contiguous(memory_format=channels_last(len(spatial))).requires_grad_()
    high = low.detach().float().requires_grad_()
    found, expected = norm(low), torch.nn.GroupNorm.forward(norm, high)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=channels_last(len(spatial)))
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.02)
    (found.float() * direction).sum().backward()
    (expected * direction).sum().backward()
    assert (low.grad.float() - high.grad).norm() < 0.02 * high.grad.norm()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_small_maps_are_convolved_by_onednn_with_the_results_of_float64(layout):
    torch.manual_seed(0)
    layer, image = GuardedConv3d(4, 8, 3, padding=1), torch.randn(1, 4, 6, 5, 7)
    image = image.contiguous(memory_format=layout).requires_grad_()
    exact, double = torch.nn.Conv3d(4, 8, 3, padding=1).double(), image.detach().double().requires_grad_()
    exact.load_state_dict(layer.state_dict())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, autocast_off():
        found = layer(image)
        found.square().sum().backward()
    exact(double).square().sum().backward()
    torch.testing.assert_close(found.double(), exact(double), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image.grad.double(), double.grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(layer.weight.grad.double(), exact.weight.grad, atol=1e-3, rtol=1e-5)
    names = {event.key for event in profile.key_averages()}
    if torch.backends.mkldnn.is_available():
        assert not [name for name in names if "slow_conv" in name]


def autocast_off():
    return torch.autocast("cpu", enabled=False)


@pytest.mark.parametrize("spatial", [(6, 5), (3, 6, 5)])
def test_instance_norm_in_channels_last_stays_there_and_is_that_of_float64(spatial):
    torch.manual_seed(0)
    kind = {2: torch.nn.InstanceNorm2d, 3: torch.nn.InstanceNorm3d}[len(spatial)]
    norm = speed_up_norms(torch.nn.Sequential(kind(4, affine=True)))[0]
    assert type(norm) is InstanceNorm
    torch.nn.init.normal_(norm.weight)
    exact = kind(4, affine=True).double()
    exact.load_state_dict(norm.state_dict())
    x, direction = torch.randn(2, 4, *spatial), torch.randn(2, 4, *spatial)
    image = x.contiguous(memory_format=channels_last(len(spatial))).requires_grad_()
    double = x.double().requires_grad_()
    found, expected = norm(image), exact(double)
    assert found.is_contiguous(memory_format=channels_last(len(spatial)))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(image.grad.double(), double.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.weight.grad.double(), exact.weight.grad, atol=1e-4, rtol=1e-4)
