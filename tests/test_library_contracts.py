"""The contract with the private parts of libraries that ``longflow/private.py`` calls; nnunetv2 has its own test."""

import re
import subprocess
import sys
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch

from longflow.private import (
    cpu_has_amx,
    cpu_has_bf16,
    fake_tensors,
    open_blosc2,
    storage_key,
    swin_stage,
    watch_operations,
)

ROOT = Path(__file__).parents[1]

#: private parts, as they are written in code
PRIVATE_PARTS = re.compile(
    r"\b(torch|monai|blosc2)[\w.]*\._[a-z]|\._cdata\b|\bblosc2_ext\b"
    r"|\b(BasicLayer|TorchDispatchMode|FakeTensorMode)\b"
)


def test_private_parts_are_used_in_one_module():
    found = {path.name for path in (ROOT / "longflow").rglob("*.py") if PRIVATE_PARTS.search(path.read_text())}
    # torch_file.py compares the names that stand in a file, and uses none of them
    assert found == {"private.py", "torch_file.py"}


# ---- glibc

#: blocks of 24 MiB raise the size from which glibc maps, to 24 MiB; VmRSS then shows whether 8 MiB stay in the heap
KEPT = """
import ctypes, resource, sys
from pathlib import Path
from longflow.private import return_freed_memory
if sys.argv[1] == "return":
    return_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
pages = lambda: int(Path("/proc/self/statm").read_text().split()[1])
library.free(library.malloc(24 * 2**20))
before = pages()
block, above = library.malloc(8 * 2**20), library.malloc(1000)
ctypes.memset(block, 1, 8 * 2**20)
library.free(block)
print((pages() - before) * resource.getpagesize())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_returns_to_the_system():
    """A block of 8 MiB is freed below one that stays: by itself glibc keeps it."""
    kept = {
        mode: int(subprocess.run([sys.executable, "-c", KEPT, mode], check=True, capture_output=True, text=True).stdout)
        for mode in ("keep", "return")
    }
    assert kept["keep"] > 7 * 2**20 > 2**20 > kept["return"]


# ---- torch


def test_fake_tensors_have_shapes_and_no_contents():
    real = torch.ones(3)
    with fake_tensors():
        huge = torch.zeros(10**6, 10**6)  # 4 TB
        product = huge[:, :3] * real
        convolved = torch.nn.Conv3d(1, 2, 3)(torch.rand(1, 1, 8, 8, 8))
    assert product.shape == (10**6, 3) and product.untyped_storage().nbytes() == 12 * 10**6
    assert convolved.shape == (1, 2, 6, 6, 6)


@pytest.mark.parametrize("fake", [False, True])
def test_operations_are_watched_with_their_results_backward_too(fake):
    seen = []
    layer, image = torch.nn.Conv2d(1, 2, 3), torch.rand(1, 1, 8, 8)

    def after(operation, inputs, made):
        seen.append((operation, [tuple(tensor.shape) for tensor in made]))
        if operation is torch.ops.aten.convolution_backward.default:
            gradient, source = inputs[:2]
            assert gradient.shape == (1, 2, 6, 6) and source.shape == image.shape

    if fake:
        with fake_tensors(), watch_operations(after):
            layer(image).sum().backward()
    else:
        with watch_operations(after):
            layer(image).sum().backward()
    operations = dict(seen)
    assert operations[torch.ops.aten.convolution.default] == [(1, 2, 6, 6)]
    # the image needs no gradient: what is not made is not in the list
    assert operations[torch.ops.aten.convolution_backward.default] == [(2, 1, 3, 3), (2,)]
    count = len(seen)
    layer(image)
    assert len(seen) == count


def test_views_share_the_key_of_a_storage_and_copies_do_not():
    tensor = torch.zeros(10)
    key = storage_key(tensor.untyped_storage())
    assert storage_key(tensor[3:].untyped_storage()) == key
    copy = tensor.clone()
    assert storage_key(copy.untyped_storage()) != key
    with fake_tensors():
        first, second = torch.zeros(10), torch.zeros(10)
        assert storage_key(first.view(2, 5).untyped_storage()) == storage_key(first.untyped_storage())
        assert storage_key(first.untyped_storage()) != storage_key(second.untyped_storage())


def flags_of_the_processor() -> set[str]:
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        pytest.skip("this system does not list the processor's instructions")
    return set(listed.read_text().split())


def test_instructions_of_the_processor():
    flags = flags_of_the_processor()
    assert cpu_has_bf16() is ("avx512_bf16" in flags)
    assert cpu_has_amx() is bool({"amx_tile", "avx512_fp16"} & set(flags))


# ---- Blosc2


def test_an_array_is_opened_and_read_in_part(tmp_path):
    path, content = tmp_path / "a.b2nd", np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    blosc2.asarray(content, urlpath=str(path), mode="w", chunks=(1, 3, 4), blocks=(1, 1, 4))
    array = open_blosc2(path)
    assert isinstance(array, blosc2.NDArray) and array.shape == content.shape and array.dtype == content.dtype
    np.testing.assert_array_equal(array[1:, :2], content[1:, :2])
    assert set(array.schunk.meta) == {"b2nd"}
    with pytest.raises((ValueError, RuntimeError, PermissionError)):
        array[:] = 0


def test_a_damaged_file_is_an_error_that_is_known(tmp_path):
    path = tmp_path / "a.b2nd"
    with pytest.raises((OSError, RuntimeError, ValueError)):
        open_blosc2(path)
    path.write_bytes(b"no array")
    with pytest.raises((OSError, RuntimeError, ValueError)):
        open_blosc2(path)


def test_what_reaches_out_of_a_file_is_opened_as_it_is_and_named(tmp_path):
    """``blosc2.open`` follows these; here they are an array with one more layer, which the caller refuses."""
    path = tmp_path / "a.b2nd"
    blosc2.asarray(np.zeros(4), urlpath=str(path), mode="w", meta={"b2o": {"urlpath": "x"}})
    assert set(open_blosc2(path).schunk.meta) == {"b2nd", "b2o"}


def test_a_file_without_an_array_is_another_object(tmp_path):
    path = tmp_path / "a.b2frame"
    blosc2.SChunk(data=b"bytes", urlpath=str(path), mode="w")
    assert not isinstance(open_blosc2(path), blosc2.NDArray)


# ---- MONAI


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_swin_stage_doubles_features_and_halves_edges(dimensions):
    torch.manual_seed(0)
    stage = swin_stage(12, 3, (3,) * dimensions, 2)
    image = torch.randn(2, 12, *(6,) * dimensions)
    assert stage(image).shape == (2, 24, *(3,) * dimensions)
    assert len(stage.blocks) == 2 and all(block.attn.qkv.bias is not None for block in stage.blocks)
    # blocks after the first look across windows
    assert [any(block.shift_size) for block in stage.blocks] == [False, True]


def test_names_of_weights_of_a_swin_stage_stay():
    """Checkpoints hold them."""
    names = set(swin_stage(12, 3, (3, 3), 1).state_dict())
    block = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.linear1", "mlp.linear2")
    expected = {f"blocks.0.{part}.{kind}" for part in block for kind in ("weight", "bias")}
    expected |= {"blocks.0.attn.relative_position_bias_table", "blocks.0.attn.relative_position_index"}
    assert names == expected | {"downsample.reduction.weight", "downsample.norm.weight", "downsample.norm.bias"}


@pytest.mark.parametrize("affine", [True, False])
def test_watching_changes_no_gradient_of_a_norm(affine):
    torch.manual_seed(0)
    norm, image = torch.nn.GroupNorm(2, 4, affine=affine), torch.randn(2, 4, 3, 5, requires_grad=True)
    (expected,) = torch.autograd.grad(norm(image).square().sum(), image)
    with watch_operations(lambda *_: None):
        (found,) = torch.autograd.grad(norm(image).square().sum(), image)
    assert torch.equal(found, expected)
    with fake_tensors(), watch_operations(lambda *_: None):
        fake = torch.empty(2, 4, 3, 5, requires_grad=True)
        (of_fake,) = torch.autograd.grad(torch.nn.GroupNorm(2, 4, affine=affine)(fake).sum(), fake)
    assert of_fake.shape == image.shape
