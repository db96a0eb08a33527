import gzip

import nibabel
import numpy as np
import pytest
from scipy.ndimage import zoom

from longflow.data.dataset import read_description, read_rows
from longflow.errors import DataError, NotFoundError
from longflow.importers.acdc import read_info
from longflow.integrity.dataset import verify_dataset
from tests.conftest import outside_data
from tests.data.helpers import tiny_array, tiny_label, write_image
from tests.importers.helpers import run_import


def write_patient(folder, diastole=1, systole=3, count=5, cine=False):
    """A patient as in the official layout; frame n of the cine is ``tiny_array(n)``."""
    folder.mkdir(parents=True)
    name = folder.name
    (folder / "Info.cfg").write_text(
        f"ED: {diastole}\nES: {systole}\nGroup: DCM\nHeight: 184.0\nNbFrame: {count}\nWeight: 95.0\n"
    )
    for number in (diastole, systole):
        write_image(tiny_array(number), folder / f"{name}_frame{number:02d}.nii.gz")
        write_image(tiny_label(), folder / f"{name}_frame{number:02d}_gt.nii.gz")
    if cine:
        frames = np.stack([tiny_array(number).T for number in range(1, count + 1)], axis=-1)
        affine = nibabel.load(folder / f"{name}_frame{diastole:02d}.nii.gz").affine
        nibabel.save(nibabel.Nifti1Image(frames, affine), folder / f"{name}_4d.nii.gz")


@pytest.fixture
def source(tmp_path):
    write_patient(tmp_path / "acdc" / "patient001")
    write_patient(tmp_path / "acdc" / "patient002", systole=4)
    return tmp_path / "acdc"


def times(table):
    return {row.case: float(row.time) for row in read_rows(table)}


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj).T


def test_still_frames(source, tmp_path):
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    assert run_import("acdc", source, raw)
    assert times(raw / "scans.csv") == {
        "patient001_frame01": 0.2,
        "patient001_frame03": 0.6,
        "patient002_frame01": 0.2,
        "patient002_frame04": 0.8,
    }
    row = read_rows(raw / "scans.csv")[1]
    assert row.covariates == {"moment": "ES", "group": "DCM", "height": "184.0", "weight": "95.0"}
    description = read_description(raw / "dataset.json")
    assert description.time_unit == "cycles"
    assert description.labels == {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}
    before = nibabel.load(source / "patient001" / "patient001_frame03.nii.gz")
    after = nibabel.load(raw / "imagesTr" / "patient001_frame03_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-4)
    assert before.get_data_dtype() == after.get_data_dtype() == np.int16
    np.testing.assert_array_equal(voxels(raw / "labelsTr" / "patient001_frame03.nii.gz"), tiny_label())
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []
    assert not (raw / "imagesTs").exists()


def test_4d_files_give_every_frame_and_labels_at_diastole_and_systole(tmp_path):
    write_patient(tmp_path / "acdc" / "patient001", cine=True)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", tmp_path / "acdc", raw, time="frames")
    assert list(times(raw / "scans.csv").values()) == [1, 2, 3, 4, 5]
    for number in range(1, 6):
        image = voxels(raw / "imagesTr" / f"patient001_frame{number:02d}_0000.nii.gz")
        np.testing.assert_array_equal(image, tiny_array(number))
    assert sorted(path.name for path in (raw / "labelsTr").iterdir()) == [
        "patient001_frame01.nii.gz",
        "patient001_frame03.nii.gz",
    ]
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []


def test_systole_before_diastole_in_the_file_is_that_of_the_next_cycle(tmp_path):
    write_patient(tmp_path / "acdc" / "patient090", diastole=4, systole=2)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", tmp_path / "acdc", raw)
    assert times(raw / "scans.csv") == {"patient090_frame04": 0.8, "patient090_frame02": 1.4}


@pytest.mark.parametrize("cine", [False, True])
def test_a_test_subject_has_systole_as_its_target(source, tmp_path, cine):
    write_patient(source / "patient003", cine=cine)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", source, raw, test=["patient003"])
    context = ["patient003_frame01"] + (["patient003_frame02"] if cine else [])
    assert list(times(raw / "imagesTs" / "scans.csv")) == [*context, "patient003_frame03"]
    names = sorted(path.name for path in (raw / "imagesTs").glob("*.nii.gz"))
    assert names == [f"{case}_0000.nii.gz" for case in context]
    np.testing.assert_array_equal(voxels(raw / "targetsTs" / "patient003_frame03_0000.nii.gz"), tiny_array(3))
    assert (raw / "labelsTs" / "patient003_frame03.nii.gz").is_file()
    assert "patient003" not in (raw / "scans.csv").read_text()
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []


def test_from_diastole_to_systole_a_cine_is_resampled_as_the_released_code_does(tmp_path):
    """The spline of scipy's zoom over the frames from ED to ES, at 12 places; both ends are the frames themselves."""
    write_patient(tmp_path / "acdc" / "patient001", diastole=2, systole=6, count=7, cine=True)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    assert run_import("acdc", tmp_path / "acdc", raw, frames="ed_es")
    assert times(raw / "scans.csv") == {f"patient001_step{step:02d}": step for step in range(1, 13)}
    assert read_description(raw / "dataset.json").time_unit == "frames"
    expected = zoom(np.stack([tiny_array(number) for number in range(2, 7)]).astype(float), (12 / 5, 1, 1, 1))
    for step in range(12):
        found = voxels(raw / "imagesTr" / f"patient001_step{step + 1:02d}_0000.nii.gz")
        np.testing.assert_allclose(found, expected[step], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(voxels(raw / "imagesTr" / "patient001_step01_0000.nii.gz"), tiny_array(2))
    np.testing.assert_array_equal(voxels(raw / "imagesTr" / "patient001_step12_0000.nii.gz"), tiny_array(6))
    labels = sorted(path.name for path in (raw / "labelsTr").iterdir())
    assert labels == ["patient001_step01.nii.gz", "patient001_step12.nii.gz"]
    assert [row.covariates["moment"] for row in read_rows(raw / "scans.csv")] == ["ED", *[""] * 10, "ES"]
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []


def test_resampled_frames_go_on_into_the_next_cycle_where_systole_comes_first(tmp_path):
    write_patient(tmp_path / "acdc" / "patient001", diastole=6, systole=2, count=7, cine=True)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", tmp_path / "acdc", raw, frames="ed_es", time="cycles")
    found = list(times(raw / "scans.csv").values())
    np.testing.assert_allclose(found, np.linspace(6, 9, 12) / 7, atol=1e-6)
    expected = zoom(np.stack([tiny_array(number) for number in (6, 7, 1, 2)]).astype(float), (3, 1, 1, 1))
    middle = voxels(raw / "imagesTr" / "patient001_step06_0000.nii.gz")
    np.testing.assert_allclose(middle, expected[5], rtol=1e-5, atol=1e-3)


def test_the_normal_form_of_the_authors_code_is_asked_of_the_plans(source, tmp_path):
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", source, raw, frames="ed_es", normalization="min_max")
    assert read_description(raw / "dataset.json").normalization == {"0": "min_max"}
    with pytest.raises(DataError, match="was made differently"):
        run_import("acdc", source, raw, frames="ed_es")


def test_of_still_frames_diastole_and_systole_are_the_first_and_the_last(source, tmp_path):
    write_patient(source / "patient003", systole=2, diastole=4)
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", source, raw, frames="ed_es", test=["patient003"])
    assert times(raw / "scans.csv") == {
        f"patient{number}_step{step:02d}": step for number in ("001", "002") for step in (1, 12)
    }
    np.testing.assert_array_equal(voxels(raw / "targetsTs" / "patient003_step12_0000.nii.gz"), tiny_array(2))
    with pytest.raises(DataError, match="was made differently"):
        run_import("acdc", source, raw, test=["patient003"])


def test_the_testing_folder_becomes_test_subjects(tmp_path):
    write_patient(tmp_path / "database" / "training" / "patient001")
    write_patient(tmp_path / "database" / "testing" / "patient101")
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", tmp_path / "database", raw)
    assert {row.subject for row in read_rows(raw / "scans.csv")} == {"patient001"}
    assert {row.subject for row in read_rows(raw / "imagesTs" / "scans.csv")} == {"patient101"}


def test_sources_that_cannot_be_used(source, tmp_path):
    with pytest.raises(DataError, match="has no ACDC patients"):
        run_import("acdc", tmp_path / "nowhere", tmp_path / "raw")
    with pytest.raises(NotFoundError, match="Did you mean 'patient002'"):
        run_import("acdc", source, tmp_path / "raw", test=["patient02"])
    (source / "patient001" / "patient001_frame03.nii.gz").unlink()
    with pytest.raises(DataError, match=r"patient001_frame03\.nii\.gz does not exist"):
        run_import("acdc", source, tmp_path / "raw" / "Dataset101_ACDC")
    assert not (tmp_path / "raw" / "Dataset101_ACDC").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("ED: 1\nNbFrame: 5\n", "ES is ''"), ("ED: 1\nES: 9\nNbFrame: 5\n", "different frames of the 5")],
)
def test_info_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "Info.cfg").write_text(text)
    with pytest.raises(DataError, match=message):
        read_info(tmp_path / "Info.cfg")


def test_an_sform_without_scale_gets_that_of_pixdim(source, tmp_path, caplog):
    """As in the files of the challenge; nibabel takes the axes of 1 mm as they are."""
    for path in source.rglob("*.nii.gz"):
        image = nibabel.load(path)
        image.header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=2)
        image.header.set_qform(None, code=0)
        image.header["pixdim"][1:4] = 1.5, 1.5, 10
        path.write_bytes(gzip.compress(nibabel.Nifti1Image(image.dataobj, None, image.header).to_bytes()))
        assert nibabel.load(path).header.get_zooms() == (1.5, 1.5, 10)
        np.testing.assert_array_equal(nibabel.load(path).affine, np.diag([-1, -1, 1, 1]))
    with caplog.at_level("WARNING"):
        run_import("acdc", source, tmp_path / "raw" / "Dataset101_ACDC")
    assert "The sform of 4 images has no scale (axes of 1 mm), unlike their pixdim" in caplog.text
    for kind in ("imagesTr", "labelsTr"):
        for path in (tmp_path / "raw" / "Dataset101_ACDC" / kind).glob("*.nii.gz"):
            np.testing.assert_allclose(nibabel.load(path).affine, np.diag([-1.5, -1.5, 10, 1]))


def test_a_real_patient(tmp_path):
    patient = outside_data("acdc/training/patient001")
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", patient, raw)
    before = nibabel.load(patient / "patient001_frame12.nii.gz")
    after = nibabel.load(raw / "imagesTr" / "patient001_frame12_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
    # its sform has no scale; pixdim is right
    np.testing.assert_allclose(np.linalg.norm(after.affine[:3, :3], axis=0), before.header.get_zooms(), rtol=1e-5)
    assert times(raw / "scans.csv") == {"patient001_frame01": 0.033333, "patient001_frame12": 0.4}


def test_for_segmentation_a_test_subject_has_scans_to_segment_and_no_targets(source, tmp_path):
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    run_import("acdc", source, raw, task="segment", test=["patient002"])
    assert read_description(raw / "dataset.json").task == "segment"
    assert len(list((raw / "imagesTs").glob("patient002_frame*.nii.gz"))) == 2 and not (raw / "targetsTs").exists()
    assert len(list((raw / "labelsTs").glob("*.nii.gz"))) == 2
    with pytest.raises(DataError, match="was made differently"):
        run_import("acdc", source, raw, test=["patient002"])


def test_numbers_of_frames_have_the_frames_of_a_beat_as_their_period(source, tmp_path):
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    write_patient(source / "patient003", systole=9, count=12)
    assert run_import("acdc", source, raw, time="frames")
    periods = {row.subject: row.covariates["frames_per_beat"] for row in read_rows(raw / "scans.csv")}
    assert periods == {"patient001": "5", "patient002": "5", "patient003": "12"}
    assert read_description(raw / "dataset.json").period == "frames_per_beat"


def test_cycles_need_no_period(source, tmp_path):
    raw = tmp_path / "raw" / "Dataset101_ACDC"
    assert run_import("acdc", source, raw)
    assert "period" not in (raw / "dataset.json").read_text()
