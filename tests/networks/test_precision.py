import os
import subprocess
import sys

import pytest
import torch

from longflow.networks.precision import GroupNorm, channels_last, computes_bf16

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
import longflow, torch
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


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this processor has no bf16 instructions, and longflow uses none"
)
@pytest.mark.parametrize("convolutions", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_bf16_gradients_keep_to_their_memory(convolutions):
    # in a process of its own, since a wrong one takes the process with it
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    command = [sys.executable, "-c", GRADIENTS.format(convolutions=convolutions)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_a_user_may_choose_the_instructions():
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", "import os, longflow; print(os.environ['ONEDNN_MAX_CPU_ISA'])"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == "AVX2"


@pytest.mark.parametrize("avx512, amx, expected", [(True, False, True), (True, True, False), (False, False, False)])
def test_bf16_where_the_processor_is_faster_in_it(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert computes_bf16("cpu") is expected


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
