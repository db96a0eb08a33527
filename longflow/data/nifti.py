"""NIfTI files, read by nibabel alone: the header first, then as many bytes as it describes.

SimpleITK fills the missing end of a truncated file with zeros, replaces NaN by zero, and scales with an intercept whose
slope is 0. nibabel takes a spacing of 0 for 1 mm. Therefore a header is checked here before anything is done with it.
"""

import math
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import nibabel
import nibabel.nifti1
import nibabel.wrapstruct
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from longflow.data.memory import check_memory
from longflow.errors import FileError, file_error

HEADER_BYTES, NIFTI2_HEADER_BYTES = 348, 540  # a file starts with this number
GZIP = b"\x1f\x8b"
#: no gzip stream is longer than this many times its compressed form
MOST_INFLATION = 1040
#: bytes after the voxels that are ignored; they are decompressed to reach the checksum
MOST_FURTHER = 16 * 2**20
PIECE = 2**16
NIBABEL_ERRORS = (
    nibabel.spatialimages.HeaderDataError,
    nibabel.filebasedimages.ImageFileError,
    nibabel.wrapstruct.WrapStructError,
)
#: the fields that place voxels in space
PLACING = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
#: values per voxel of the intents whose fifth axis holds them
VECTOR_INTENTS = (1005, 1006, 1007)
LENGTH_UNITS = {1: "metres", 3: "micrometres"}
CONVERT_UNITS = (
    'Convert it: python -c "import sys, nibabel; i = nibabel.load(sys.argv[1]); '
    "a = i.affine.copy(); a[:3] *= {factor}; h = i.header; h.set_xyzt_units('mm'); "
    'nibabel.save(nibabel.Nifti1Image(i.dataobj, a, h), sys.argv[2])" OLD NEW'
)


#: mm; with some larger ones (3e38) SimpleITK computes for ever
LARGEST_SPACING = 1e5


def is_nifti(path: Path) -> bool:
    """Tell whether a path has the name of a NIfTI file in one piece."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def read_header(path: Path) -> nibabel.Nifti1Header:
    """Read and check the header of a file; its voxels are not read.

    :param path: the file.
    :returns: the header. A spacing that is not usable is replaced by that of the sform.
    :raises FileError: the file is not NIfTI-1 in one piece, is shorter than its header says, or has a header that
        programs read differently.
    """
    try:
        block = bytes(_content(path, HEADER_BYTES))
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    _check_kind(block, path)
    little = int.from_bytes(block[:4], "little") == HEADER_BYTES
    header = nibabel.Nifti1Header(block, "<" if little else ">", check=False).as_byteswapped("<")
    _check_voxels(header, path)
    _check_length(header, path)
    _check_transforms(header, path)
    return header


def read_nifti_array(path: Path, header: nibabel.Nifti1Header | None = None) -> np.ndarray:
    """Read all voxels with the scaling of the file.

    :param path: the file.
    :param header: its header, where it is read already.
    :returns: (z, y, x) or (t, z, y, x), SimpleITK's order of axes. Scaled integers are float32, as SimpleITK has them.
    :raises FileError: the file is truncated, damaged (its checksum is wrong), or not NIfTI.
    """
    header = header or read_header(path)
    try:
        content = _content(path, _end(header), checksum=True)
        if len(content) < _end(header):
            raise EOFError(f"{len(content)} of {_end(header)} bytes")
        return _voxels(content, header).T
    except (OSError, EOFError, ValueError, zlib.error, *NIBABEL_ERRORS) as error:
        raise damaged(path, error) from error


def _voxels(content: bytearray, header: nibabel.Nifti1Header) -> np.ndarray:
    """Return the voxels of a file, (x, y, z) or (x, y, z, t), scaled; a view of its content where nothing is scaled."""
    shape, stored = voxel_shape(header), header.get_data_dtype()
    little = int.from_bytes(content[:4], "little") == HEADER_BYTES
    kind, offset = stored.newbyteorder("<" if little else ">"), header.get_data_offset()
    array = np.frombuffer(content, kind, math.prod(shape), offset).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()  # None: the slope 0 stands for no scaling
    if slope in (None, 1) and not inter:
        return array.astype(stored.newbyteorder("="), copy=not array.flags.aligned)
    scaled = np.empty(shape, np.float64 if stored == np.float64 else np.float32, order="F")
    with np.errstate(over="ignore"):  # infinite voxels are found by whoever reads
        for place in range(shape[-1]):
            scaled[..., place] = apply_read_scaling(array[..., place], np.float64(slope), np.float64(inter))
    return scaled


def voxel_shape(header: nibabel.Nifti1Header) -> tuple[int, ...]:
    """Return the voxels along x, y, z and, in a series, t; sizes of 1 beyond the third axis do not count."""
    sizes = [int(size) for size in header["dim"][1 : 1 + int(header["dim"][0])]]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def damaged(path: Path, error: Exception) -> FileError:
    """Make the error for a file of which not every byte can be read."""
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    found = "truncated, damaged or not an image"
    advice = f"Copy it again from its source. (The reader said: {cause})"
    return file_error(path, "file", found, "a readable image", advice, says=f"is {found}")


def placements(header: nibabel.Nifti1Header) -> dict[str, np.ndarray]:
    """Return the transforms of a header that are set, by name.

    :param header: of a file, checked.
    :returns: "qform", "sform" -> 4 x 4, from voxels to mm (right, anterior, superior).
    """
    found = {}
    if header["qform_code"] > 0:
        try:
            found["qform"] = header.get_qform()
        except (ValueError, *NIBABEL_ERRORS):  # its quaternion is none
            pass
    if header["sform_code"] > 0:
        found["sform"] = header.get_sform()
    return {name: affine for name, affine in found.items() if np.isfinite(affine).all()}


def has_no_scale(header: nibabel.Nifti1Header) -> bool:
    """Tell whether the only transform is an sform with axes of 1 mm, but the voxels have another size (pixdim).

    Some programs wrote such files (those of ACDC are an example). Their pixdim is right.
    """
    transforms = placements(header)
    if set(transforms) != {"sform"}:
        return False
    lengths = np.linalg.norm(transforms["sform"][:3, :3], axis=0)
    return bool(np.allclose(lengths, 1, atol=1e-4) and not np.allclose(header["pixdim"][1:4], 1, atol=1e-3))


def moved(header: bytes, start: tuple[int, int, int]) -> bytes:
    """Return the header of a crop.

    :param header: of the whole volume.
    :param start: x, y, z of the first voxel that is kept.
    :returns: the header with both transforms moved; its size is not changed.
    """
    result = nibabel.Nifti1Header(header, check=False)
    for name, affine in placements(result).items():
        first = affine @ (*start, 1)
        for axis, value in zip("xyz", first[:3], strict=True):
            if name == "qform":
                result[f"qoffset_{axis}"] = value
            else:
                result[f"srow_{axis}"][3] = value
    return result.binaryblock


def write_nifti(array: np.ndarray, placing: bytes, path: Path) -> None:
    """Write a volume with the transforms of another file, so that every program places it on that file.

    :param array: (z, y, x).
    :param placing: header of the other file; its spacing, transforms, codes and unit of length are kept.
    :param path: the file.
    """
    source, header = nibabel.Nifti1Header(placing, check=False), nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    for name in PLACING:
        header[name] = source[name]
    header["pixdim"][4:] = 1
    header["xyzt_units"] = source["xyzt_units"] & 0b111
    header["scl_slope"], header["vox_offset"] = 1, header.single_vox_offset
    slices = (np.ascontiguousarray(one, array.dtype.newbyteorder("<")).data.cast("B") for one in array)
    with open(path, "wb") as file:
        # level 4 is as small as SimpleITK's files, and as fast
        stream = zlib.compressobj(4, wbits=31) if str(path).lower().endswith(".gz") else None
        for part in chain((header.binaryblock, bytes(4)), slices):
            file.write(stream.compress(part) if stream else part)
        file.write(stream.flush() if stream else b"")


def describe_infinite(array: np.ndarray) -> str:
    """Count the voxels that are NaN or infinite.

    :param array: (z, y, x) or (t, z, y, x).
    :returns: numbers and place of the first (x, y, z), human-readable; empty where all are finite.
    """
    # the sum of finite numbers is finite unless they are huge; it saves testing every voxel
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
            return ""
    counts = ((int(np.isnan(array).sum()), "NaN"), (int(np.isinf(array).sum()), "infinite"))
    if not any(count for count, _ in counts):
        return ""
    first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0][::-1])
    return f"{' and '.join(f'{count} {name}' for count, name in counts if count)}, the first at {first}"


def _content(path: Path, most: int, checksum: bool = False) -> bytearray:
    """Read at most so many bytes of a file, decompressed.

    :param checksum: read a compressed file to its end, so that its checksum is compared.
    """
    with open(path, "rb") as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        content, size = bytearray(most), 0
        if not compressed:
            size = file.readinto(content)
        for part in _inflated(file, 2**20 if checksum else most) if compressed else ():
            kept = part[: max(0, most - size)]
            content[size : size + len(kept)] = kept
            size += len(part)
            if size >= most and not checksum:
                break
            if size > most + MOST_FURTHER:
                found = f"more than {MOST_FURTHER // 2**20} MB after the last voxel that its header describes"
                advice = "The header describes only a part of it. Write it again from its source."
                raise file_error(path, "file", found, "nothing", advice, says=f"holds {found}")
    del content[size:]
    return content


def _inflated(file: BinaryIO, most: int) -> Iterator[bytes]:
    """Decompress gzip streams, at most so many bytes at once, and compare their checksums.

    Bytes after the last stream are ignored.
    """
    waiting = file.read(PIECE)
    while (waiting := waiting if len(waiting) > 1 else waiting + file.read(PIECE))[:2] == GZIP:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            waiting = waiting or file.read(PIECE)
            if not waiting:
                raise EOFError("the compressed data end too early")
            yield stream.decompress(waiting, most)
            waiting = stream.unconsumed_tail
        waiting = stream.unused_data


def _check_kind(block: bytes, path: Path) -> None:
    """Check that a file is NIfTI-1 in one piece, compressed where its name says so."""
    first = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if NIFTI2_HEADER_BYTES in first:
        says = "is NIfTI-2, which SimpleITK cannot read"
        raise file_error(path, "file", "NIfTI-2", "NIfTI-1", "Write it again as NIfTI-1.", says)
    if HEADER_BYTES not in first or len(block) < HEADER_BYTES:
        raise damaged(path, EOFError("it does not begin with a NIfTI header"))
    magic = block[344:348]
    if magic != b"n+1\0":
        advice = f"Write it as one file: nib-convert {Path(path).name} NEW.nii.gz"
        raise file_error(path, "header", f"magic {magic!r}", "magic b'n+1\\x00': header and voxels in one file", advice)
    with open(path, "rb") as file:
        compressed = file.read(2) == GZIP
    if compressed != str(path).lower().endswith(".gz"):
        found = "a compressed file (gzip)" if compressed else "a file that is not compressed"
        name = Path(path).name
        other, tool = (f"{name}.gz", "gunzip") if compressed else (name[: -len(".gz")], "gzip")
        advice = f"Programs judge a file by its name. Convert it: mv {name} {other} && {tool} {other}"
        raise file_error(path, "name", found, "a name that fits", advice, says=f"is {found}")


def _check_voxels(header: nibabel.Nifti1Header, path: Path) -> None:
    """Check number, type, place and scaling of the voxels."""
    dimensions = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : 1 + dimensions]] if 1 <= dimensions <= 7 else []
    if not sizes or min(sizes) < 1:
        found = " ".join(str(value) for value in header["dim"])
        raise _unusable(path, f"dim {found}", "one to seven sizes of at least 1")
    try:
        values = _values_per_voxel(header)
        header.get_slope_inter()
    except (KeyError, *NIBABEL_ERRORS) as error:
        found = (
            f"datatype {int(header['datatype'])}, scl_slope {header['scl_slope']:g}, scl_inter {header['scl_inter']:g}"
        )
        raise _unusable(path, found, "a known datatype, and a finite scl_inter") from error
    if values != 1:
        found = f"{values} (colour or vector)"
        says = f"has {values} values per voxel (a colour or vector image)"
        raise file_error(path, "values per voxel", found, "1", "Save each channel as a file of its own.", says)
    if header.get_data_dtype().kind not in "iuf" or header.get_data_dtype().itemsize > 8:
        raise _unusable(path, f"datatype {header['datatype']}", "whole or floating numbers of at most 64 bits")
    offset = float(header["vox_offset"])
    if not (offset >= header.single_vox_offset and offset.is_integer()):
        raise _unusable(path, f"voxels from byte {offset:g} on (vox_offset)", "352 or more, whole")


def _values_per_voxel(header: nibabel.Nifti1Header) -> int:
    stored = header.get_data_dtype()
    if stored.fields:
        return len(stored.fields)
    if int(header["intent_code"]) in VECTOR_INTENTS and header["dim"][0] == 5:
        return int(header["dim"][5])
    return 2 if stored.kind == "c" else 1


def _check_length(header: nibabel.Nifti1Header, path: Path) -> None:
    """Check that a file can hold the voxels of its header, and memory too."""
    length, needed = Path(path).stat().st_size, _end(header)
    if length * (MOST_INFLATION if str(path).lower().endswith(".gz") else 1) < needed:
        raise damaged(path, EOFError(f"its header describes {needed} bytes, the file has {length}"))
    check_memory(
        needed + 4 * math.prod(voxel_shape(header)), path, f"{' x '.join(map(str, voxel_shape(header)))} voxels"
    )


def _check_transforms(header: nibabel.Nifti1Header, path: Path) -> None:
    """Check units, codes and spacing; replace a spacing that cannot be used by that of the sform."""
    if unit := LENGTH_UNITS.get(int(header["xyzt_units"]) & 0b111):
        advice = f"Some programs convert lengths and others do not. {CONVERT_UNITS}"
        factor = "1000" if unit == "metres" else "0.001"
        raise file_error(path, "unit of length", unit, "mm (xyzt_units 2)", advice.format(factor=factor))
    for name in ("qform_code", "sform_code"):
        if int(header[name]) not in nibabel.nifti1.xform_codes.value_set("code"):
            raise _unusable(path, f"{name} {int(header[name])}", "a code from 0 to 5")
    if header["pixdim"][0] < 0 and header["pixdim"][0] != -1 and header["qform_code"] > 0:
        raise _unusable(path, f"pixdim[0] {header['pixdim'][0]:g}", "-1 or 1, the handedness of the qform")
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # as all programs read it
    sform = header.get_sform().astype(np.float64) if header["sform_code"] > 0 else None
    if sform is not None and not (np.isfinite(sform).all() and abs(np.linalg.det(sform[:3, :3])) > 0):
        found = "an sform that is no transform"
        raise _unusable(path, found, "finite rows that span three axes, or sform_code 0, so that the qform is used")
    spacing = header["pixdim"][1:4]
    if any(LARGEST_SPACING < abs(value) < math.inf for value in spacing.tolist()):
        found = f"{' x '.join(f'{value:g}' for value in spacing)} (pixdim)"
        raise file_error(
            path, "spacing", found, f"at most {LARGEST_SPACING:g} mm", "Write the file again from its source."
        )
    if not _usable(spacing) and sform is not None:
        header["pixdim"][1:4] = np.linalg.norm(sform[:3, :3], axis=0)
        if not np.allclose(placements(header).get("qform", sform), sform, rtol=0, atol=1e-3):
            header["qform_code"] = 0  # it was made for a spacing that is lost
    if not _usable(spacing):
        found = f"{' x '.join(f'{value:g}' for value in spacing)} (pixdim), without an sform to take it from"
        advice = "Write the file again from its source, or set pixdim to the true distances of the voxels."
        raise file_error(path, "spacing", found, "three finite numbers above 0, mm", advice)
    if header["qform_code"] > 0 and not placements(header):
        raise _unusable(path, "a qform that is no rotation (quatern_b, quatern_c, quatern_d)", "a unit quaternion")


def _usable(spacing: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(spacing) & (spacing > 0)))


def _unusable(path: Path, found: str, expected: str) -> FileError:
    advice = "Write the file again with a valid header."
    return file_error(path, "header", found, expected, advice, says=f"has a header that cannot be used: {found}")


def _end(header: nibabel.Nifti1Header) -> int:
    """Return the byte after the last voxel."""
    return int(header["vox_offset"]) + math.prod(voxel_shape(header)) * header.get_data_dtype().itemsize
