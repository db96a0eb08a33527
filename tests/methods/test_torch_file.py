import copy
import pickle
import random
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from longflow.errors import ModelError
from longflow.methods import torch_file
from longflow.methods.torch_file import StoredTensor, read_torch_file

PART = "network_weights"


def saved(path, content):
    torch.save(content, path / "a.pth")
    return path / "a.pth"


def with_records(path, change):
    """Write the file again, with other content of its records.

    :param change: maps the end of a record's name and its bytes to other bytes.
    """
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, change(name.partition("/")[2], content))
    return path


def with_pickle(path, pickled):
    saved(path, {PART: {"a": torch.arange(4.0)}})
    return with_records(path / "a.pth", lambda name, content: pickled if name == "data.pkl" else content)


KINDS = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@pytest.mark.parametrize("kind", [getattr(torch, name) for name in KINDS])
def test_tensors_are_those_that_torch_reads(tmp_path, kind):
    base = torch.arange(24).reshape(2, 3, 4).to(kind)
    tensors = {
        "whole": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2],
        "number": base[1, 2, 3],
        "none": torch.zeros(0, 3, dtype=kind),
        "parameter": torch.nn.Parameter(base, requires_grad=kind.is_floating_point),
    }
    path = saved(tmp_path, {PART: OrderedDict(tensors)})
    expected, found = torch.load(path, weights_only=True)[PART], read_torch_file(path, PART)[PART]
    assert list(found) == list(tensors)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor.detach())


def test_tensors_of_one_record_are_read_once(tmp_path):
    base = torch.randn(10)
    found = read_torch_file(saved(tmp_path, {PART: {"a": base, "b": base[2:]}}), PART)[PART]
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()


def test_plain_values_are_kept_and_other_tensors_are_not_read(tmp_path):
    plain = {"text": "ü", "numbers": [1, -2, 70000, 2**40, 0.5], "nothing": None, "pair": (True, (False,), ()), "d": {}}
    content = {**plain, PART: {}, "log": [np.float64(0.5), np.int64(3)], "more": {"a": torch.zeros(3)}}
    found = read_torch_file(saved(tmp_path, content), PART)
    assert {name: found[name] for name in plain} == plain
    assert found["log"] == [None, None]
    assert isinstance(found["more"]["a"], StoredTensor) and found["more"]["a"].size == (3,)


class Evil:
    ran = False

    def __reduce__(self):
        return (exec, ("from tests.methods import test_torch_file; test_torch_file.Evil.ran = True",))


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_is_ever_run(tmp_path, protocol):
    path = with_pickle(tmp_path, pickle.dumps({PART: Evil()}, protocol))
    with pytest.raises(ModelError, match=r"a\.pth (holds more than weights|is damaged)"):
        read_torch_file(path, PART)
    assert not Evil.ran


@pytest.mark.parametrize("name", ["os system", "builtins eval", "torch load", "torch._utils _rebuild_sparse_tensor"])
def test_a_function_that_makes_no_tensor_is_named(tmp_path, name):
    path = with_pickle(tmp_path, f"c{name.replace(' ', chr(10))}\n.".encode())
    with pytest.raises(ModelError, match=f"more than weights .{name.replace(' ', '.')}"):
        read_torch_file(path, PART)


def stored(*numbers: int) -> bytes:
    """Return a pickle of one tensor of the record "0"; the first number is its count.

    :param numbers: count, offset, then as many sizes as strides.
    """
    count, offset, *axes = (pickle.dumps(number, 2)[2:-1] for number in numbers)
    size, stride = (b"(" + b"".join(half) + b"t" for half in (axes[: len(axes) // 2], axes[len(axes) // 2 :]))
    text = [b"X" + len(word).to_bytes(4, "little") + word for word in (PART.encode(), b"a", b"storage", b"0", b"cpu")]
    persistent = b"(" + text[2] + b"ctorch\nFloatStorage\n" + text[3] + text[4] + count + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + offset + size + stride + b"\x89NtR"
    return b"\x80\x02}" + text[0] + b"}" + text[1] + tensor + b"ss."


def test_the_pickle_of_the_next_tests_is_one_of_torch(tmp_path):
    found = read_torch_file(with_pickle(tmp_path, stored(4, 1, 3, 1)), PART)[PART]["a"]
    assert torch.equal(found, torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((4, 2, 3, 1), "larger than its record"),
        ((4, 0, 2, 2, 4, 1), "larger than its record"),
        ((4, 0, 10**9, 0), "larger than its record"),
        ((4, 0, 10**6, 10**6, 10**6, 0, 0, 0), "larger than its record"),
        ((10**12, 0, 10**12, 1), "another size than its tensors"),
        ((10**12, 10**12 - 1, 1, 1), "another size than its tensors"),
        ((4, -1, 1, 1), "size of a tensor"),
        ((4, 0, -1, 1), "size of a tensor"),
        ((2**500, 0, 2**500, 1), "size of a tensor"),
        ((4, 0, *[1] * 200), "axes"),
    ],
)
def test_a_tensor_is_as_large_as_its_record(tmp_path, numbers, message):
    with pytest.raises(ModelError, match=message):
        read_torch_file(with_pickle(tmp_path, stored(*numbers)), PART)


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b".",
        b"0",
        b"}}s.",
        b"(((((t",
        b"\x80\x02h\x05.",
        b"X\xff\xff\xff\xffa.",
        b"NQ.",
        b"NNR.",
        b"))R.",
        b"]]a" * 1000,
        b"\x8b" + b"\xff" * 4,
    ],
)
def test_a_made_up_pickle_is_explained(tmp_path, pickled):
    with pytest.raises(ModelError, match=r"a\.pth"):
        read_torch_file(with_pickle(tmp_path, pickled), PART)


def doubled(depth: int) -> bytes:
    """Return a pickle with a tuple whose hash, and text, would take 2 ** depth steps, as a key."""
    return b"\x80\x02})" + b"q\x00h\x00\x86" * depth + b"Ns."


def nested(depth: int) -> bytes:
    return b"\x80\x02})" + b"\x85" * depth + b"Ns."


@pytest.mark.parametrize(
    "pickled", [doubled(200), nested(300_000), b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."]
)
def test_bombs_of_nesting_end_at_once(tmp_path, pickled):
    started = time.monotonic()
    read_torch_file(with_pickle(tmp_path, pickled), PART)
    assert time.monotonic() - started < 10


def test_a_pickle_of_too_many_steps_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MOST_STEPS", 100)
    with pytest.raises(ModelError, match="more than 100 steps"):
        read_torch_file(with_pickle(tmp_path, nested(100)), PART)
    monkeypatch.setattr(torch_file, "LARGEST_PICKLE", 100)
    with pytest.raises(ModelError, match="has 107 bytes, expected at most 100"):
        read_torch_file(with_pickle(tmp_path, nested(100)), PART)


def zeros(path, name: str, size: int) -> None:
    """Append a record of zeros that is small in the file."""
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as record,
    ):
        for _ in range(size // 2**20):
            record.write(bytes(2**20))


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_a_record_that_grows_on_reading_is_refused_before_it_is_read(tmp_path, name):
    """256 MB of zeros: their size makes no difference, since they are not read."""
    path = saved(tmp_path, {PART: {"a": torch.arange(4.0)}})
    with zipfile.ZipFile(path) as archive:
        records = {one: archive.read(one) for one in archive.namelist() if not one.endswith(name)}
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in records.items():
            archive.writestr(one, content)
    zeros(path, f"a/{name}", 256 * 2**20)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="records are compressed"):
            read_torch_file(path, PART)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_part_of_the_file_in_many_records_is_refused(tmp_path):
    path = saved(tmp_path, {PART: {"a": torch.zeros(1000)}})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/more", b"")  # so that the directory is written again
        large = archive.getinfo("a/data/0")
        for number in range(1, 100):
            another = copy.copy(large)
            another.filename = f"a/data/{number}"
            archive.filelist.append(another)
    with pytest.raises(ModelError, match="records are larger than the file"):
        read_torch_file(path, PART)


def test_numbers_of_another_order_of_bytes_are_not_misread(tmp_path):
    path = saved(tmp_path, {PART: {"a": torch.zeros(1)}})
    with_records(path, lambda name, content: b"big" if name == "byteorder" else content)
    with pytest.raises(ModelError, match="not little-endian"):
        read_torch_file(path, PART)


def test_an_archive_of_something_else_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("../data.pkl/x", b"")
    with pytest.raises(ModelError, match=r"a\.pth is damaged"):
        read_torch_file(tmp_path / "a.pth", PART)


def test_whatever_the_bytes_are_it_is_read_or_explained(tmp_path):
    """Bytes of the whole file are changed, or of the pickle within a sound archive."""
    path, draw = saved(tmp_path, {PART: {"a": torch.zeros(2, 3)}, "x": [1, 2.5, {"b": (None, True)}]}), random.Random(0)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("a/data.pkl")
    for number in range(300):
        changed = bytearray(pickled if number % 2 else whole)
        for _ in range(draw.choice((1, 2, 10))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        if number % 2:
            with_pickle(tmp_path, bytes(changed))
        else:
            path.write_bytes(changed[: draw.randrange(len(changed))] if number % 10 == 0 else changed)
        try:
            read_torch_file(path, PART)
        except ModelError as error:
            assert str(path) in str(error)
