import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data import nifti
from longflow.data.nifti import describe_infinite, is_nifti, read_header, read_nifti_array
from longflow.errors import DataError
from tests.data.helpers import tiny_array, write_image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_arrays_are_as_simpleitk_reads_them(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write_image(np.stack([tiny_array(0), tiny_array(1)]), path)
    array = read_nifti_array(path)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert array.shape == (2, 6, 8, 8) and array.dtype == np.int16


def test_big_endian_and_concatenated_gzip(tmp_path):
    image = nibabel.Nifti1Image(tiny_array().T, np.eye(4), nibabel.Nifti1Header(endianness=">"))
    content = image.to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    np.testing.assert_array_equal(read_nifti_array(tmp_path / "a.nii.gz"), tiny_array())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("slope", "share"), [(1, 1), (0.5, 3)])
def test_a_volume_is_read_without_copies(tmp_path, ending, slope, share):
    """Besides the piece that is decompressed, the file's voxels are in memory, and those in float32 where scaled."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (64, 128, 128)).astype(np.int16)
    image = nibabel.Nifti1Image(voxels.T, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(image.to_bytes(), 1) if ending == ".nii.gz" else image.to_bytes())
    header = read_header(path)
    tracemalloc.start()
    array = read_nifti_array(path, header)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.dtype == (np.int16 if slope == 1 else np.float32)
    assert np.array_equal(array, nibabel.load(path).get_fdata().T)
    assert peak < share * voxels.nbytes + 2**20 + 2**19


def test_a_volume_is_compressed_slice_by_slice(tmp_path):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (64, 128, 128)).astype(np.int16)
    header = nibabel.Nifti1Image(voxels.T, np.eye(4)).header.binaryblock
    tracemalloc.start()
    nifti.write_nifti(voxels, header, tmp_path / "a.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < voxels.nbytes / 3
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj).T, voxels)


def test_nothing_at_all(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(DataError, match="is truncated"):
        read_nifti_array(tmp_path / "a.nii.gz")


def test_names():
    assert is_nifti("x/a.nii.gz") and is_nifti("a.nii") and not is_nifti("a.nrrd")


def test_describe_infinite():
    array = np.zeros((2, 3, 4), np.float32)
    assert describe_infinite(array) == ""
    assert describe_infinite(np.full((2, 2, 2), 3e38, np.float32)) == ""
    assert describe_infinite(np.full((2, 2, 2), 1e308)) == ""
    assert describe_infinite(np.zeros((2, 2, 2), np.int16)) == ""
    array[1, 2, 3], array[1, 2, 0], array[0, 1, 0] = np.nan, np.nan, -np.inf
    assert describe_infinite(array) == "2 NaN and 1 infinite, the first at (0, 1, 0)"
    array[0, 1, 1] = np.inf
    assert describe_infinite(array).startswith("2 NaN and 2 infinite")


PIXDIM, SCL_SLOPE, DIM, UNITS, VOX_OFFSET = 80, 112, 40, 123, 108


def saved(path, qcode=1, scode=1, turn=0.0, **patches):
    """A volume of 1.5 x 1.5 x 5 mm; the sform is the qform, turned. Patches: at_OFFSET = (format, values)."""
    affine = np.diag([1.5, 1.5, 5.0, 1.0])
    affine[:3, 3] = -10, -20, 30
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = nibabel.Nifti1Image(tiny_array().T, affine)
    image.set_qform(affine, qcode)
    image.set_sform(rotation @ affine, scode)
    content = bytearray(image.to_bytes())
    for place, (kind, *values) in patches.items():
        struct.pack_into(f"<{kind}", content, int(place.removeprefix("at_")), *values)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize("bad", [0.0, float("nan"), -1.5, float("inf")])
def test_a_spacing_that_cannot_be_used_is_that_of_the_sform(tmp_path, bad):
    path = saved(tmp_path / "a.nii.gz", **{f"at_{PIXDIM}": ("f", bad)})
    assert read_header(path)["pixdim"][1:4].tolist() == [1.5, 1.5, 5.0]
    path = saved(tmp_path / "a.nii.gz", scode=0, **{f"at_{PIXDIM}": ("f", bad)})
    with pytest.raises(DataError, match=r"a\.nii\.gz has the spacing .* \(pixdim\), without an sform to take it from"):
        read_header(path)


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_none_leaves_the_stored_numbers(tmp_path, slope):
    path = saved(tmp_path / "a.nii.gz", **{f"at_{SCL_SLOPE}": ("ff", slope, -1024.0)})
    np.testing.assert_array_equal(read_nifti_array(path), tiny_array())
    saved(path, **{f"at_{SCL_SLOPE}": ("ff", 2.0, float("nan"))})
    with pytest.raises(DataError, match="a finite scl_inter"):
        read_header(path)


def test_scaled_numbers_are_as_simpleitk_has_them(tmp_path):
    path = saved(tmp_path / "a.nii.gz", **{f"at_{SCL_SLOPE}": ("ff", 0.3, -1024.0)})
    array = read_nifti_array(path)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("place", "kind", "value", "found"),
    [
        (DIM, "h", 0, "header that cannot be used: dim 0"),
        (DIM + 2, "h", -8, "header that cannot be used: dim 3 -8"),
        (VOX_OFFSET, "f", 348.0, "voxels from byte 348"),
        (VOX_OFFSET, "f", 352.5, "voxels from byte 352.5"),
        (UNITS, "b", 3, "unit of length micrometres"),
        (252, "h", 99, "qform_code 99"),
        (344, "4s", b"ni1\0", "one file"),
        (70, "h", 1536, "datatype 1536"),
        (280, "f", float("nan"), "an sform that is no transform"),
    ],
)
def test_headers_that_programs_read_differently_are_refused(tmp_path, place, kind, value, found):
    path = saved(tmp_path / "a.nii", **{f"at_{place}": (kind, value)})
    with pytest.raises(DataError, match=found):
        read_header(path)


def test_a_header_that_claims_more_than_the_file_or_the_memory_holds(tmp_path):
    for ending in (".nii", ".nii.gz"):
        path = saved(tmp_path / f"a{ending}", **{f"at_{DIM}": ("hhhh", 3, 32767, 32767, 32767)})
        with pytest.raises(DataError, match=r"its header describes 70[0-9]* bytes, the file has"):
            read_header(path)


def test_a_header_is_refused_before_its_voxels_are_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.nii")
    monkeypatch.setattr("longflow.data.memory.free_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"8 x 8 x 6 voxels, which need .* expected at most 1e-06 GB"):
        read_header(path)


def test_a_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "MOST_FURTHER", 2**20)
    inside = gzip.decompress(saved(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(inside + bytes(64 * 2**20), 9))
    with pytest.raises(DataError, match="more than 1 MB after the last voxel"):
        read_nifti_array(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_bytes_after_the_end_are_ignored(tmp_path, ending):
    path = saved(tmp_path / f"a{ending}")
    content = path.read_bytes()
    path.write_bytes(content + b"a note of the archive")
    np.testing.assert_array_equal(read_nifti_array(path), tiny_array())
    if ending == ".nii.gz":
        path.write_bytes(gzip.compress(gzip.decompress(content) + b"x" * 100))
        np.testing.assert_array_equal(read_nifti_array(path), tiny_array())


def test_a_name_that_does_not_fit_says_how_to_convert(tmp_path):
    content = saved(tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"a\.nii is a compressed file \(gzip\).* && gunzip a\.nii\.gz"):
        read_header(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not compressed.* mv b\.nii\.gz b\.nii && gzip b\.nii"):
        read_header(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("value", [3e38, -1e30, 2e5])
def test_an_impossible_spacing_is_refused_also_where_an_sform_has_another(tmp_path, value):
    """SimpleITK does not come back from the first one."""
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.diag([1.0, 1.5, 4.0, 1.0])), path)
    content = bytearray(path.read_bytes())
    content[84:88] = struct.pack("<f", value)  # pixdim[2]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.nii.*at most 100000 mm"):
        read_header(path)
