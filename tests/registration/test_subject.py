import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import training_series
from longflow.data.images import Geometry, read_geometry
from longflow.errors import DataError
from longflow.registration.linear import matrix_of
from longflow.registration.subject import (
    SubjectToRegister,
    check_files,
    copy_scan,
    crop_scan,
    cropped,
    files_of,
    write_record,
    write_scan,
    write_transforms,
)
from tests.data.helpers import write_phase_dataset
from tests.data.test_nifti import saved
from tests.registration.helpers import moved


@pytest.fixture
def subject(tmp_path):
    raw = write_phase_dataset(tmp_path / "Dataset104_A", subjects=("p1",))
    description, (series,) = training_series(raw)
    return SubjectToRegister(series, "Tr", "rigid", description, raw, tmp_path / "B", ("native", "arterial"))


def test_a_subject_is_finished_where_all_of_it_is_written_from_the_same_files_and_phases(subject):
    assert not subject.is_finished
    for scan in subject.series.scans:
        copy_scan(scan, subject)
    write_record(subject, {"model": "rigid"})
    assert subject.is_finished and json.loads(subject.record.read_text())["phases"] == ["native", "arterial"]
    turned = SubjectToRegister(**{**subject.__dict__, "phases": ("arterial", "native")})
    assert not turned.is_finished
    subject.target_of(subject.series.scans[0].label).unlink()
    assert not subject.is_finished


def test_alone_is_who_has_nothing_to_be_registered_to(subject):
    assert not subject.alone
    assert SubjectToRegister(**{**subject.__dict__, "phases": ("native", "venous")}).alone
    assert not SubjectToRegister(**{**subject.__dict__, "phases": ()}).alone


def test_a_copy_is_equal_to_the_byte_and_a_crop_in_every_voxel_that_is_left(subject):
    scan = subject.series.scans[0]
    copy_scan(scan, subject)
    for path in files_of(scan):
        assert subject.target_of(path).read_bytes() == path.read_bytes()
    crop_scan(scan, [[1, 3], [2, 20], [0, 20]], subject)
    for path in files_of(scan):
        before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(subject.target_of(path)))
        whole, cut = (sitk.GetArrayFromImage(image) for image in (before, after))
        assert cut.dtype == whole.dtype and np.array_equal(cut, whole[1:3, 2:20])
        np.testing.assert_allclose(after.GetOrigin(), before.TransformIndexToPhysicalPoint((0, 2, 1)), atol=1e-4)


def test_a_scan_moves_with_its_label(subject):
    scan = subject.series.scans[0]
    image = sitk.ReadImage(str(scan.images[0]))
    step = np.eye(4)
    step[:3, 3] = np.reshape(image.GetDirection(), (3, 3)) @ (3.0, 0, 0)  # two voxels along x
    transform = sitk.AffineTransform(3)
    transform.SetTranslation(step[:3, 3].tolist())
    write_scan(scan, Geometry.of(image), transform, subject)
    for path, tolerance in zip(files_of(scan), (1, 0), strict=True):
        before, after = (sitk.GetArrayFromImage(sitk.ReadImage(str(one))) for one in (path, subject.target_of(path)))
        assert after.dtype == before.dtype
        np.testing.assert_allclose(after[..., :-3], before[..., 2:-1], atol=tolerance)
        assert (after[..., -1] == (before.min() if tolerance else 0)).all()


def test_a_channel_on_another_grid_is_refused(subject):
    scan = subject.series.scans[0]
    with pytest.raises(DataError, match=r"labelsTr/.*size is .* All files of a scan must be on one grid"):
        check_files(scan, Geometry((1, 2, 3), (1, 1, 1), (0, 0, 0), tuple(np.eye(3).ravel())))


def test_a_label_on_the_other_transform_must_not_be_resampled(subject):
    scan = subject.series.scans[0]
    (path,) = scan.images
    image = nibabel.load(path)
    turned = image.affine.copy()
    turned[:3, 3] += 3, 4, 0
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(scan.label).dataobj), turned), scan.label)
    image.set_sform(turned, 2)
    nibabel.save(image, path)
    with pytest.raises(DataError, match=r"labelsTr/.* Do not resample the label image"):
        check_files(scan, read_geometry(path))


def test_transforms_are_read_again(tmp_path, subject):
    field = sitk.Image([3, 4, 5], sitk.sitkVectorFloat64, 3)
    write_transforms(subject.series.scans, [moved(5), np.eye(4)], [None, field], tmp_path)
    names = sorted(path.name for path in (tmp_path / "transforms").iterdir())
    cases = [scan.case for scan in subject.series.scans]
    assert names == sorted([f"{cases[0]}.tfm", f"{cases[1]}.tfm", f"{cases[1]}_displacement.nii.gz"])
    read = matrix_of(sitk.ReadTransform(str(tmp_path / "transforms" / f"{cases[0]}.tfm")))
    np.testing.assert_allclose(read, moved(5), atol=1e-6)


def test_a_crop_keeps_both_transforms_where_they_were(subject):
    (path,) = subject.series.scans[0].images
    size = sitk.ReadImage(str(path)).GetSize()
    image = nibabel.load(path)
    turned = image.affine.copy()
    turned[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]] @ turned[:3, :3]
    image.set_sform(turned, 2)
    nibabel.save(image, path)
    subject.series.scans[0].label.unlink()
    scan = type(subject.series.scans[0])("c", "p1", 0.0, (path,))
    crop_scan(scan, [[1, 3], [2, size[1]], [3, size[0]]], subject)
    before, after = nibabel.load(path).header, nibabel.load(subject.target_of(path)).header
    for one, other in ((before.get_qform(), after.get_qform()), (before.get_sform(), after.get_sform())):
        np.testing.assert_allclose(other @ (0, 0, 0, 1), one @ (3, 2, 1, 1), atol=1e-4)
        np.testing.assert_allclose(other[:3, :3], one[:3, :3], atol=1e-6)
    assert (after["qform_code"], after["sform_code"]) == (before["qform_code"], 2)


def test_the_grid_of_a_crop_is_that_of_the_voxels_that_are_left(tmp_path):
    path = saved(tmp_path / "a.nii.gz")
    found = cropped(read_geometry(path), [[1, 3], [2, 8], [0, 8]])
    expected = sitk.ReadImage(str(path))[0:8, 2:8, 1:3]
    assert found == Geometry.of(expected)
    without = cropped(read_geometry(saved(tmp_path / "b.nii.gz", 0, 0)), [[1, 3], [2, 8], [0, 8]])
    assert without.nifti == b""  # no transform that could move
