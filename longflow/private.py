"""Parts of libraries that are not public, behind one function each.

Such a part can change in any release. ``tests/test_library_contracts.py`` tests what longflow relies on: run it before
setup.py allows another release. Those of nnunetv2 are in :mod:`longflow.nnunet`.

Every library is imported inside the function.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import blosc2
    import torch
    from torch import nn


def fake_tensors() -> AbstractContextManager:
    """Create tensors without contents within a ``with`` block: shapes and types are right, nothing is computed.

    :returns: the context; existing tensors may be used within it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def watch_operations(after: Callable[[Any, tuple, list["torch.Tensor"]], None]) -> AbstractContextManager:
    """Call a function after each operation of torch within a ``with`` block, those of backward included.

    :param after: called with the operation (``torch.ops.aten...``), its positional arguments and the tensors of its
        result.
    :returns: the context. Within :func:`fake_tensors` it sees fake tensors.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            # torch would run its formula step by step to find three shapes; real tensors, and norms without a weight,
            # take the usual way
            norm = operation is torch.ops.aten.native_group_norm_backward.default
            if norm and type(args[0]) is not torch.Tensor and args[4] is not None:
                result = tuple(torch.empty_like(one) for one in (args[1], args[4], args[4]))
            else:
                result = operation(*args, **(kwargs or {}))
            after(operation, args, [leaf for leaf in tree_iter(result) if isinstance(leaf, torch.Tensor)])
            return result

    return Watch()


def storage_key(storage: "torch.UntypedStorage") -> int:
    """Return the identity of a storage: equal for all views of a tensor, unique among the storages that are alive."""
    return storage._cdata


def return_freed_memory(at_least: int = 1024**2) -> None:
    """Let this process return large blocks of memory to the system as soon as they are freed, where glibc is.

    By itself glibc keeps freed blocks of up to 32 MiB. The tensors of a training step then leave holes that the next do
    not fit in, which took up to as much memory again as the tensors. In return the system clears pages for every large
    tensor, and small networks train slower by up to a half. ``mallopt`` is public in glibc, but not in Python.

    :param at_least: size of a large block, bytes.
    """
    import ctypes
    import sys

    threshold = -3  # M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(threshold, at_least)


def cpu_has_bf16() -> bool:
    """Tell whether the processor has bf16 instructions (avx512_bf16)."""
    import torch

    return torch.cpu._is_avx512_bf16_supported()


def cpu_has_amx() -> bool:
    """Tell whether the processor has AMX instructions, whether libraries may use them or not.

    A virtual machine can hide them. Every processor with avx512_fp16 has them (Intel since Sapphire Rapids).
    """
    import torch

    # older releases of torch do not tell
    fp16 = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_fp16", False)
    return torch.cpu._is_amx_tile_supported() or fp16


def open_blosc2(path: Path) -> "blosc2.NDArray":
    """Open a Blosc2 file for reading, as the array that it holds, with one thread.

    ``blosc2.open`` does more: where a file says so, it follows a link to a server, and older releases compile Python
    that the file holds.

    :param path: of the file.
    :returns: the array; nothing is read from it yet. Another object where the file holds no array.
    :raises OSError, RuntimeError, ValueError: the file is damaged.
    """
    import blosc2

    return blosc2.blosc2_ext.open(str(path), "r", 0, dparams={"nthreads": 1})


def swin_stage(features: int, heads: int, window: Sequence[int], blocks: int) -> "nn.Module":
    """Build a stage of MONAI's Swin UNETR: Swin blocks, then the merging of neighbours.

    :param features: channels, a multiple of ``heads``.
    :param heads: of attention.
    :param window: voxels along each of 2 or 3 axes.
    :param blocks: Swin blocks.
    :returns: (batch, features, *spatial) to (batch, 2 features, *half of it).
    """
    from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging

    return BasicLayer(
        dim=features,
        depth=blocks,
        num_heads=heads,
        window_size=tuple(window),
        drop_path=[0.0] * blocks,
        qkv_bias=True,
        downsample=PatchMerging,
    )
