import logging

import nibabel
import numpy as np
import pytest
from scipy.ndimage import zoom

from longflow.data.dataset import read_description, read_rows
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.importers.isles24 import series_of_folder
from longflow.integrity.dataset import verify_dataset
from longflow.reading import read_json
from tests.data.helpers import tiny_array
from tests.importers.helpers import run_import
from tests.importers.test_nifti4d import AFFINE


def write_series(path, frames=6, step=1.0, unit="sec", first=0):
    """A perfusion series; volume n is ``tiny_array(first + n)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.stack([tiny_array(first + frame).T for frame in range(frames)], axis=-1)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    nibabel.save(image, path)


def write_patient(root, subject, session="ses-01", **series):
    """What is released of a patient, as far as it concerns us: other files are there, and not to be taken."""
    name = f"{subject}_{session}"
    acute, derived = (root / folder / subject / session for folder in ("raw_data", "derivatives"))
    write_series(acute / f"{name}_ctp.nii.gz", **series)
    write_series(derived / f"{name}_space-ncct_ctp.nii.gz", **{"first": 50, **series})
    for path in (
        acute / f"{name}_ncct.nii.gz",
        acute / f"{name}_cta.nii.gz",
        acute / "perfusion-maps" / f"{name}_tmax.nii.gz",
        derived / f"{name}_space-ncct_cta.nii.gz",
        derived.parent / "ses-02" / f"{subject}_ses-02_space-ncct_lesion-msk.nii.gz",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")


@pytest.fixture
def source(tmp_path):
    for subject in ("sub-stroke0001", "sub-stroke0004"):
        write_patient(tmp_path / "isles", subject)
    return tmp_path / "isles"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset105_ISLES24"


def run(source, raw, **options):
    return run_import("isles24", source, raw, **options)


def times(raw, subject="sub-stroke0001"):
    return [float(row.time) for row in read_rows(raw / "scans.csv") if row.subject == subject]


def voxels(raw, case):
    return np.asarray(nibabel.load(raw / "imagesTr" / f"{case}_0000.nii.gz").dataobj).T


def test_the_perfusion_series_becomes_scans_in_seconds(source, raw):
    assert run(source, raw)
    assert times(raw) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(voxels(raw, "sub-stroke0001_frame004"), tiny_array(4))
    description = read_description(raw / "dataset.json")
    assert (description.channels, description.is_ct, description.time_unit) == (["CTP"], [True], "s")
    assert (description.task, description.labels) == ("forecast", {})
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []
    assert not run(source, raw)


def test_registered_series_and_every_other_volume(source, raw):
    run(source, raw, space="registered", every=2)
    assert times(raw) == [0, 2, 4]
    np.testing.assert_array_equal(voxels(raw, "sub-stroke0004_frame002"), tiny_array(52))


def test_a_series_is_resampled_as_the_released_code_does(source, raw):
    """4 volumes of 6: cubic splines over the whole series, and times that are spread evenly over it."""
    run(source, raw, volumes=4)
    assert times(raw) == pytest.approx([0, 5 / 3, 10 / 3, 5], abs=1e-5)
    expected = zoom(np.stack([tiny_array(frame).astype(float) for frame in range(6)]), (4 / 6, 1, 1, 1))
    for step in range(4):
        np.testing.assert_allclose(voxels(raw, f"sub-stroke0001_step{step:02d}"), expected[step], atol=0.51)
    np.testing.assert_array_equal(voxels(raw, "sub-stroke0001_step03"), tiny_array(5))


@pytest.mark.parametrize("options", [{"volumes": 1}, {"volumes": -3}, {"volumes": 32, "every": 2}])
def test_impossible_numbers_of_volumes(source, raw, options):
    with pytest.raises(ConfigurationError, match=f"--volumes {options['volumes']} .* of 2 or more, without --every"):
        run(source, raw, **options)


def test_folders_as_other_releases_name_them_and_below_train(tmp_path, raw):
    write_patient(tmp_path / "download" / "train", "sub-strokecase0007", session="ses-0001")
    run(tmp_path / "download", raw)
    assert read_rows(raw / "scans.csv")[0].case == "sub-strokecase0007_frame000"


def test_the_header_counts_first_and_one_second_is_assumed_without(source, raw, caplog):
    write_patient(source, "sub-stroke0001", step=1.5)
    write_patient(source, "sub-stroke0004", unit="unknown")
    with caplog.at_level(logging.WARNING):
        run(source, raw)
    assert times(raw) == [0, 1.5, 3, 4.5, 6, 7.5]
    assert times(raw, "sub-stroke0004") == [0, 1, 2, 3, 4, 5]
    assert "1 series give no time between volumes (sub-stroke0004). 1 s is used" in caplog.text


def test_test_subjects_end_with_their_targets(source, raw):
    run(source, raw, test=["sub-stroke0004"], test_targets=2)
    assert {row.subject for row in read_rows(raw / "scans.csv")} == {"sub-stroke0001"}
    assert sorted(path.name for path in (raw / "targetsTs").iterdir()) == [
        "sub-stroke0004_frame004_0000.nii.gz",
        "sub-stroke0004_frame005_0000.nii.gz",
    ]
    assert len(list((raw / "imagesTs").glob("*.nii.gz"))) == 4


def test_who_is_excluded_is_reported_and_kept(source, raw, caplog):
    (source / "raw_data" / "sub-stroke0009" / "ses-01").mkdir(parents=True)
    write_patient(source, "sub-stroke0004", frames=1)
    with caplog.at_level(logging.WARNING):
        run(source, raw)
    left_out = read_json(raw / "import.json")["settings"]["left_out"]
    assert left_out == [
        "sub-stroke0009: no CT perfusion series (ses-*/*_ctp.nii.gz)",
        "sub-stroke0004: sub-stroke0004_ses-01_ctp.nii.gz has 1 volumes, of which fewer than two would be kept",
    ]
    assert all(part in caplog.text for part in left_out)
    assert {row.subject for row in read_rows(raw / "scans.csv")} == {"sub-stroke0001"}


def test_sources_that_cannot_be_used(source, raw, tmp_path):
    with pytest.raises(DataError, match=r"has no folder raw_data.*Expected: raw_data/sub-stroke0001"):
        run(tmp_path / "nowhere", raw)
    (tmp_path / "empty" / "raw_data" / "sub-1" / "ses-01").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no CT perfusion series.*found: sub-1"):
        run(tmp_path / "empty", raw)
    with pytest.raises(ConfigurationError, match=r"--every 0: expected 1"):
        run(source, raw, every=0)
    with pytest.raises(DataError, match=r"has two volumes to keep: sub-stroke0001: .* has 6 volumes"):
        run(source, raw, every=9)
    with pytest.raises(NotFoundError, match=r"Did you mean 'sub-stroke0004'"):
        run(source, raw, test=["sub-stroke0003"])
    assert not raw.exists()


def test_two_series_of_one_patient(source):
    write_series(source / "raw_data" / "sub-stroke0001" / "ses-03" / "sub-stroke0001_ses-03_ctp.nii.gz")
    with pytest.raises(DataError, match=r"sub-stroke0001 has two perfusion series: .*ses-01.* and .*ses-03"):
        series_of_folder(source, "native")


def test_series_that_cannot_be_read(source, raw):
    path = source / "raw_data" / "sub-stroke0001" / "ses-01" / "sub-stroke0001_ses-01_ctp.nii.gz"
    nibabel.save(nibabel.Nifti1Image(tiny_array().T, AFFINE), path)
    with pytest.raises(DataError, match=r"ctp.nii.gz has 3 dimensions .* expected 4"):
        run(source, raw)
    path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"ctp\.nii\.gz is not NIfTI, or damaged"):
        run(source, raw)
    write_series(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"ctp.nii.gz"):
        run(source, raw)
    assert not raw.exists()
