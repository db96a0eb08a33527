"""Generated NIfTI headers: whatever a header holds, reading ends in our error or in what nibabel alone reads.

``pytest tests/data/test_nifti_headers.py --hypothesis-profile long`` tries 100,000 instead of 1,000.
"""

import gzip
import zlib
from contextlib import suppress
from itertools import product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from longflow.data.images import read_array, read_geometry, read_image, read_label, read_scan, write_volume
from longflow.errors import DataError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CODES = st.sampled_from([0, 1, 1, 2, 4])
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}

floats = st.floats(width=32)
odd = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -1.0, -2.5, 1e-40, 1e5, 1e30, -1e30, 3e38]) | floats


def mostly(usual, unusual):
    """Take the usual values seven times in eight, so that most headers have few faults."""
    return st.integers(0, 7).flatmap(lambda draw: usual if draw else unusual)


def mm(least, most):
    return st.floats(least, most, width=32)


def rotations(turns):
    """Rows of rotations about x and z, (3, 3)."""
    return turns.map(
        lambda two: (
            np.array([[1, 0, 0], [0, np.cos(two[0]), -np.sin(two[0])], [0, np.sin(two[0]), np.cos(two[0])]])
            @ np.array([[np.cos(two[1]), -np.sin(two[1]), 0], [np.sin(two[1]), np.cos(two[1]), 0], [0, 0, 1]])
        )
    )


@st.composite
def files(draw):
    """The bytes of a file, with faults here and there, and its name."""
    order = draw(st.sampled_from("<<<>"))
    header = nibabel.Nifti1Header(endianness=order, check=False)
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    sizes = draw(mostly(st.just(sizes), st.lists(st.integers(-1, 4), min_size=1, max_size=7)))
    header["dim"][: 1 + len(sizes)] = [len(sizes), *sizes]
    header["dim"][0] = draw(mostly(st.just(len(sizes)), st.integers(-1, 9)))
    if draw(st.integers(0, 30)) == 0:
        header["dim"][1:4] = 32767
    code = draw(mostly(st.sampled_from(sorted(TYPES)), st.sampled_from([0, 1, 32, 128, 1536, 1792, 2304, 77])))
    header["datatype"] = code
    stored = np.dtype(TYPES.get(code, "u1"))
    header["bitpix"] = draw(mostly(st.just(8 * stored.itemsize), st.integers(0, 64)))
    spacing = draw(st.lists(mm(0.25, 6), min_size=3, max_size=3))
    header["pixdim"][1:4] = spacing
    header["pixdim"][0] = draw(mostly(st.sampled_from([1, -1]), odd))
    with suppress(OverflowError):
        header["pixdim"][draw(st.integers(1, 4))] = draw(mostly(mm(0.25, 6), odd))
    turn = draw(rotations(st.tuples(mm(-3, 3), mm(-3, 3))))
    affine = nibabel.affines.from_matvec(turn * spacing, draw(st.lists(mm(-200, 200), min_size=3, max_size=3)))
    header.set_qform(affine)
    header["pixdim"][0] = draw(mostly(st.just(float(header["pixdim"][0])), odd))
    header["pixdim"][1:4] = draw(mostly(st.just(spacing), st.lists(odd, min_size=3, max_size=3)))
    other = draw(mostly(st.just(affine), rotations(st.tuples(mm(-3, 3), mm(-3, 3))).map(nibabel.affines.from_matvec)))
    header.set_sform(other)
    for row in draw(mostly(st.just([]), st.lists(st.sampled_from(["srow_x", "srow_y", "srow_z"]), max_size=2))):
        header[row][draw(st.integers(0, 3))] = draw(odd)
    for name in draw(mostly(st.just([]), st.just(["quatern_b", "qoffset_x", "quatern_d"]))):
        header[name] = draw(odd)
    header["qform_code"] = draw(mostly(CODES, st.integers(-5, 99)))
    header["sform_code"] = draw(mostly(CODES, st.integers(-5, 99)))
    header["scl_slope"] = draw(mostly(st.sampled_from([0, 1, 1, 2.5, -0.125]), odd))
    header["scl_inter"] = draw(mostly(st.sampled_from([0, 0, -1024, 3.5]), odd))
    header["xyzt_units"] = draw(mostly(st.sampled_from([0, 2, 10]), st.integers(0, 255)))
    header["intent_code"] = draw(mostly(st.just(0), st.sampled_from([1005, 1006, 1007, 2, 1002])))
    header["magic"] = draw(mostly(st.just(b"n+1"), st.sampled_from([b"ni1", b"", b"n+2", b"abc"])))
    header["vox_offset"] = draw(
        mostly(st.sampled_from([352, 352, 368]), st.sampled_from([0, 348, 350, 352.5, 1000]) | odd)
    )
    offset = float(header["vox_offset"])
    gap = int(offset) - 348 if 348 <= offset <= 2000 else 4
    count = int(np.prod([max(1, size) for size in sizes]))
    voxels = np.random.default_rng(count).integers(0, 100, count).astype(stored.newbyteorder(order))
    if stored.kind == "f":
        voxels[draw(st.integers(0, count - 1))] = draw(mostly(mm(-1e4, 1e4), odd))
    content = header.binaryblock + bytes(gap) + voxels.tobytes()
    content = content[: draw(mostly(st.just(len(content)), st.integers(0, len(content))))]
    content += draw(mostly(st.just(b""), st.binary(max_size=20)))
    compressed = draw(st.booleans())
    if compressed:
        content = gzip.compress(content, 1, mtime=0)
        content = content[: draw(mostly(st.just(len(content)), st.integers(0, len(content))))]
        content += draw(mostly(st.just(b""), st.binary(max_size=20)))
    named = draw(mostly(st.just(compressed), st.booleans()))
    return content, "a.nii.gz" if named else "a.nii"


def corners(affine, size):
    """Centres of the outermost voxels, mm, by a 4 x 4 transform."""
    index = np.array([(*corner, 1) for corner in product(*((0, max(number - 1, 1)) for number in size))])
    return (index @ affine.T)[:, :3]


def affine_of(grid):
    """The 4 x 4 transform of a Geometry or an image of SimpleITK, in the axes of NIfTI."""
    if isinstance(grid, sitk.Image):
        spacing, origin, direction = grid.GetSpacing(), grid.GetOrigin(), grid.GetDirection()
    else:
        spacing, origin, direction = grid.spacing, grid.origin, grid.direction
    return LPS @ nibabel.affines.from_matvec(np.reshape(direction, (3, 3)) * spacing, origin)


def assert_same_place(one, other, size):
    expected = corners(other, size)
    np.testing.assert_allclose(corners(one, size), expected, rtol=0, atol=0.11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    nibabel.imageglobals.logger.setLevel("CRITICAL")  # it reports what it mends
    yield
    nibabel.imageglobals.logger.setLevel("NOTSET")


@given(file=files())
def test_reading_ends_in_our_error_or_in_what_nibabel_reads(folder, file):
    path, (content, name) = folder / file[1], file
    path.write_bytes(content)
    with suppress(DataError):
        read_image(path)
    with suppress(DataError):
        read_label(path, path, read_geometry(path))
    try:
        array, geometry = read_array(path)
    except DataError as error:
        assert name in str(error)
        return
    image = nibabel.Nifti1Image.from_bytes(plain(path))
    expected = np.asarray(image.dataobj).reshape(geometry.size).T
    np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-44)
    assert np.isfinite(array).all() and min(geometry.spacing) > 0
    if np.abs(array).max() > np.finfo(np.float32).max:
        with pytest.raises(DataError, match="beyond the range of 32-bit numbers"):
            read_scan((path,))
        return
    by_nibabel = [transform for transform, code in transforms(image.header) if code > 0]
    if not by_nibabel:
        np.testing.assert_allclose(geometry.spacing, image.header.get_zooms()[:3], rtol=1e-5)
        return
    found = corners(affine_of(geometry), geometry.size)
    nearest = min(by_nibabel, key=lambda one: np.nan_to_num(np.abs(corners(one, geometry.size) - found), nan=1e9).max())
    assert_same_place(affine_of(geometry), nearest, geometry.size)
    written_is_placed_on_the_input(path, folder, image, nearest)


def transforms(header):
    """qform and sform with their codes; a quaternion that is none has no transform."""
    with suppress(ValueError):
        yield header.get_qform(), int(header["qform_code"])
    yield header.get_sform(), int(header["sform_code"])


def written_is_placed_on_the_input(path, folder, image, used):
    volume = read_scan((path,))
    out = folder / f"out_{path.name}"
    write_volume(volume.array[0], volume.geometry, volume.data_type, out)
    written, size = nibabel.load(out), volume.geometry.size
    spacing = nibabel.Nifti1Header(plain(path)[:348], check=False)["pixdim"][1:4]
    is_usable = (spacing > 0).all() and np.isfinite(spacing).all()  # else the qform gets the spacing of the sform
    for (one, code), (other, same_code) in zip(transforms(image.header), transforms(written.header), strict=False):
        if is_usable:
            assert code == same_code
        if code > 0 and (is_usable or np.array_equal(one, image.affine)):
            assert_same_place(other, one, size)
    assert_same_place(written.affine, image.affine, size)
    again = read_scan((out,))
    assert_same_place(affine_of(again.geometry), affine_of(volume.geometry), size)
    np.testing.assert_array_equal(again.array, volume.array)
    with suppress(RuntimeError):  # transforms that SimpleITK refuses, in the input as in the output
        by_itk = sitk.ReadImage(str(path))
        if by_itk.GetDimension() == 3:  # a line or slice of vectors is another image to it than to nibabel
            expected = affine_of(by_itk) if is_usable else used
            assert_same_place(affine_of(sitk.ReadImage(str(out))), expected, size)


def plain(path):
    """The content without compression and without bytes after it."""
    content = path.read_bytes()
    return zlib.decompressobj(31).decompress(content) if path.suffix == ".gz" else content
