"""Use bf16 where the device computes in it, float32 elsewhere."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.private import cpu_has_amx, cpu_has_bf16

#: channels times slices times rows up to which torch convolves a single image without oneDNN
FEWEST_ROWS = 20480


def computes_bf16(device: torch.device | str) -> bool:
    """Check whether bf16 pays on this device.

    On a CPU it does where the processor has avx512_bf16; elsewhere it is emulated and far slower than float32. Where it
    has AMX, too, bf16 is never used. oneDNN (torch 2.15) writes beyond its memory in bf16 gradients of some 3D
    convolutions with AMX instructions: the process dies, or continues with damaged memory. Without AMX instructions,
    as where a virtual machine hides them, bf16 is slower than float32 on such processors (a 3 x 3 x 3 convolution and
    its gradient: 1.5 to 1.7 times).
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return cpu_has_bf16() and not cpu_has_amx()
    return False


def bf16_gradient_is_wrong(spatial: Sequence[int], kernel: Sequence[int]) -> bool:
    """Check whether a CPU computes the weight gradient of this convolution wrongly in bf16.

    oneDNN (torch 2.15) reads memory that was never written where a 3D kernel meets more than one slice, but fewer
    slices than the kernel has. The result is NaN, or numbers that look like gradients. Other sizes, 2D and float32 are
    right (test_precision.py). Kernels of 2 were not tested, and count as those of 3.

    :param spatial: size of the input.
    :param kernel: size along each axis.
    :returns: True where float32 must be used.
    """
    return len(spatial) == 3 and kernel[0] > 1 and 1 < spatial[0] < max(3, kernel[0])


class GuardedConv3d(nn.Conv3d):
    """Convolve in 3D, in float32 where a CPU would compute the bf16 gradient wrongly, and always with oneDNN there."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply :class:`torch.nn.Conv3d`."""
        if x.device.type != "cpu":
            return super().forward(x)
        wrong = bf16_gradient_is_wrong(x.shape[2:], self.kernel_size)
        # result and gradient of one channel of one slice are wrong too (tests/networks/test_conv_lstm.py)
        wrong |= x.shape[1] == x.shape[2] == 1 < self.kernel_size[0]
        if wrong:
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float())
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if torch_avoids_onednn(x, self.kernel_size):
            return super().forward(x.to_mkldnn()).to_dense()
        return super().forward(x)


def torch_avoids_onednn(x: Tensor, kernel: Sequence[int]) -> bool:
    """Check whether torch convolves a map of a CPU without oneDNN, which takes 2 to 6 times as long.

    In float32 it does for a single image with few rows, and on one thread for a kernel of one voxel
    (``ConvParams::use_mkldnn``). False for tensors without contents, which know no other way.

    :param x: (batch, channels, *spatial), 3D, on a CPU.
    :param kernel: size along each axis.
    :returns: True where the map should be handed to oneDNN.
    """
    if type(x) is not Tensor or torch.compiler.is_compiling() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    pointwise = max(kernel) == 1 and torch.get_num_threads() == 1
    return pointwise or (len(x) == 1 and math.prod(x.shape[:4]) <= FEWEST_ROWS)


def guard_convolutions(network: nn.Module) -> nn.Module:
    """Guard the 3D convolutions of another library's network; parameters and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = GuardedConv3d
    return network


class GroupNorm(nn.GroupNorm):
    """Apply torch's GroupNorm by :func:`group_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply :class:`torch.nn.GroupNorm`."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Apply torch's GroupNorm, faster on a CPU in bf16 and channels-last, where its gradient takes ten times as long.

    There it is computed in torch's usual layout, which costs two copies. The result is channels-last again.
    """
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.is_contiguous():
        return F.group_norm(x, groups, weight, bias, eps)
    normalized = F.group_norm(x.contiguous(), groups, weight, bias, eps)
    return normalized.contiguous(memory_format=channels_last(x.ndim - 2))


class InstanceNorm(nn.InstanceNorm3d):
    """Apply torch's InstanceNorm in 2D or 3D, faster on a CPU in channels-last.

    There torch's own copies its input into the usual layout, and every convolution after it copies that back. That of a
    single image is BatchNorm, which knows both layouts. Its sums are less exact: 1e-5 of the largest value in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply :class:`torch.nn.InstanceNorm3d` or the one for 2D."""
        if x.device.type != "cpu" or x.is_contiguous():
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        images = [F.batch_norm(one, None, None, self.weight, self.bias, True, eps=self.eps) for one in x.split(1)]
        return torch.cat(images)


def speed_up_norms(network: nn.Module) -> nn.Module:
    """Make the InstanceNorms of another library's network faster; parameters and their names stay."""
    for module in network.modules():
        if type(module) in (nn.InstanceNorm2d, nn.InstanceNorm3d):
            module.__class__ = InstanceNorm
    return network


def channels_last(dimensions: int) -> torch.memory_format:
    """Return the layout in which images of 2 or 3 dimensions are convolved fastest."""
    return {2: torch.channels_last, 3: torch.channels_last_3d}[dimensions]


def autocast(device: torch.device | str) -> AbstractContextManager:
    """Return the context in which networks run on this device, for training and for prediction.

    On a CPU without bf16 it turns autocast off: an autocast of the caller would bring bf16 to a processor with AMX.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.autocast("cpu", torch.bfloat16, enabled=computes_bf16(device))
    return torch.autocast(kind, torch.bfloat16) if computes_bf16(device) else nullcontext()


def default_device() -> torch.device:
    """Return CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
