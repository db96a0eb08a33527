"""bf16 where the device computes in it, float32 elsewhere."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch


def computes_bf16(device: torch.device | str) -> bool:
    """Whether bf16 pays on this device.

    On a CPU it does where the processor has avx512_bf16 or AMX; elsewhere it is emulated and far slower than float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def bf16_gradient_is_wrong(spatial: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether a CPU computes the weight gradient of this convolution wrongly in bf16.

    oneDNN (torch 2.15) reads memory that was never written where a 3D kernel of 3 slices meets 2 slices: NaN, or
    numbers that look like gradients. Other sizes, 2D and float32 are right (tests/networks/test_film_unet.py).
    """
    return len(spatial) == 3 and spatial[0] == 2 and kernel[0] > 1


def autocast(device: torch.device | str) -> AbstractContextManager:
    """The context in which networks run on this device, for training and for prediction."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if computes_bf16(device) else nullcontext()


def default_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
