"""Read the tensors of a file that ``torch.save`` wrote, without unpickling it.

A ``.pth`` file is a zip archive: a pickle names the tensors, and one record holds the numbers of each. A pickle is a
program, which may call any function and ask for any amount of memory. It is never run here: its steps are read one by
one, and only those are followed that make plain values and name tensors. Memory and time stay in proportion to the
size of the file.
"""

import math
import pickletools
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longflow.errors import ModelError

#: most bytes and steps of the pickle. nnU-Net's log of 4000 epochs with 100 structures has 20 MB and 7 million steps
LARGEST_PICKLE, MOST_STEPS = 32 * 2**20, 10_000_000
#: most axes of a tensor
MOST_AXES = 8

_TENSOR, _PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
_DICT = "collections OrderedDict"
_STORAGE = re.compile(r"torch (\w+)Storage")
#: further names of harmless things: they are read as None. NumPy's numbers are in the log of nnU-Net
_HARMLESS = re.compile(
    r"numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode|__builtin__ set|collections (Counter|defaultdict)"
    r"|torch (Size|device|b?float\d+|u?int\d+|bool)"
)
_KINDS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
#: what a damaged or made-up archive can raise
_DAMAGED = (
    *(zipfile.BadZipFile, struct.error, ArithmeticError, LookupError, TypeError, ValueError, AttributeError),
    *(RuntimeError, OSError, EOFError),
)

_MARK = object()
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class CodeError(Exception):
    """A pickle names a function or class that is no part of a tensor."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names; it is never imported."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Numbers of one kind: a record of the archive."""

    record: str
    kind: torch.dtype
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor in the file."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.storage.count, self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or len(self.size) > MOST_AXES:
            raise ValueError("a tensor has a wrong number of axes")
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise ValueError("the size of a tensor is no number, or too large")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        elements = math.prod(self.size)
        if elements > self.storage.count or (elements and last >= self.storage.count):
            raise ValueError("a tensor is larger than its record")


def read_torch_file(path: Path, part: str) -> Any:
    """Read a file of ``torch.save``; no code in it is run.

    :param path: of the file.
    :param part: key of its dictionary whose tensors are read. All others stay a :class:`StoredTensor`.
    :returns: the content: plain values and tensors. Only text is a key, and NumPy's numbers are None.
    :raises ModelError: the file is missing, damaged, not of this form, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _checked_folder(archive, path.stat().st_size)
            content = read_pickle(archive.read(f"{folder}data.pkl"))
            if isinstance(content, dict) and isinstance(content.get(part), dict):
                content[part] = _read_tensors(content[part], archive, folder)
            return content
    except CodeError as error:
        raise ModelError(
            f"{path} holds more than weights ({error}); to read that would run code that came with the file, so it is "
            "refused. Save the weights alone where it was trained: torch.save({'network_weights': "
            "network.state_dict()}, ...)."
        ) from error
    except _DAMAGED as error:
        raise ModelError(
            f"{path} is damaged, or was not written by torch 1.6 or later ({str(error)[:200]}). Copy it again from its "
            "source."
        ) from error


def _checked_folder(archive: zipfile.ZipFile, size: int) -> str:
    """Refuse an archive that is larger when it is read than on disk; return the folder of its records.

    :param size: bytes of the file.
    """
    records = archive.infolist()
    # torch compresses nothing, and no two records share a part of the file
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("its records are compressed, which torch does not do")
    if sum(record.file_size for record in records) > size:
        raise ValueError("its records are larger than the file")
    (pickled,) = (record for record in records if re.fullmatch(r"[^/]+/data\.pkl", record.filename))
    if pickled.file_size > LARGEST_PICKLE:
        raise ValueError(f"its list of contents has {pickled.file_size} bytes, expected at most {LARGEST_PICKLE}")
    folder = pickled.filename.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
        raise ValueError(f"its numbers are not {sys.byteorder}-endian")
    return folder


def _read_tensors(places: Mapping[str, Any], archive: zipfile.ZipFile, folder: str) -> dict[str, Any]:
    """Read tensors; those of one record share their memory, as where they were saved.

    :param places: a :class:`StoredTensor` by name; anything else is kept.
    """
    records: dict[str, Tensor] = {}
    tensors = dict(places)
    for name, place in places.items():
        if not isinstance(place, StoredTensor):
            continue
        storage = place.storage
        if storage.record not in records:
            content = bytearray(archive.read(f"{folder}data/{storage.record}"))
            # torch.frombuffer refuses an empty one
            records[storage.record] = torch.frombuffer(content or bytearray(8), dtype=torch.uint8)[: len(content)]
        numbers = records[storage.record].view(storage.kind)
        if len(numbers) != storage.count:
            raise ValueError("a record has another size than its tensors")
        tensors[name] = numbers.as_strided(place.size, place.stride, place.offset)
    return tensors


def read_pickle(pickled: bytes) -> Any:
    """Follow the steps of a pickle that make plain values and name tensors.

    :param pickled: as ``torch.save`` writes it (protocol 2).
    :returns: the content, as :func:`read_torch_file`, with a :class:`StoredTensor` for each tensor.
    :raises CodeError: it names anything else.
    :raises ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for step, argument, _ in islice(pickletools.genops(pickled), MOST_STEPS):
        name = step.name
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _VALUES:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            _combine(name, argument, stack)
    raise ValueError(f"its list of contents has more than {MOST_STEPS} steps")


def _combine(name: str, argument: Any, stack: list[Any]) -> None:
    """Follow a step that combines the values on top of the stack.

    :param name: of the step.
    :param argument: of the step.
    :param stack: changed in place.
    """
    if name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        values = _since_mark(stack) if name == "APPENDS" else [stack.pop()]
        if isinstance(stack[-1], list):
            stack[-1].extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        items = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        if isinstance(stack[-1], dict):
            # other keys than text are of no use here, and the hash of nested tuples can take forever
            stack[-1].update(
                (key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str
            )
    elif name == "GLOBAL":
        stack.append(_known(argument))
    elif name == "BINPERSID":
        _, kind, record, _, count = stack.pop()
        stack.append(_Storage(record, _KINDS[_STORAGE.fullmatch(kind.text)[1]], count))
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append(_made(stack.pop().text, arguments))
    elif name == "BUILD":  # attributes of a state_dict, or of a number of NumPy
        stack.pop()
    else:
        raise CodeError(name)


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take everything above the last mark, and the mark, from the stack."""
    values = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


def _known(argument: str) -> _Name:
    if not (argument in (_TENSOR, _PARAMETER, _DICT) or _STORAGE.fullmatch(argument) or _HARMLESS.fullmatch(argument)):
        raise CodeError(argument.replace(" ", ".")[:100])
    return _Name(argument)


def _made(function: str, arguments: tuple) -> Any:
    """Do what a named function would do, where it makes a tensor or a dictionary."""
    if function == _TENSOR:
        return StoredTensor(*arguments[:4])
    if function == _PARAMETER:
        return arguments[0]
    return {} if function == _DICT and not arguments else None
