import logging

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import read_description, read_rows
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.importers.lumiere import times_of_visits
from longflow.integrity.dataset import verify_dataset
from longflow.reading import read_json
from tests.data.helpers import tiny_array, tiny_label, write_image
from tests.importers.helpers import run_import

MODALITIES = ("CT1", "T1", "T2", "FLAIR")
RATINGS = "LUMIERE-ExpertRating-v202211.csv"
HEADER = 'Patient,Date,LessThan3M,"Rating (according to RANO, PD: Progressive disease)",Rating rationale (CRET: ...)\n'


def write_visit(patient, visit, seed=0):
    """A visit as it is released; in the atlas, voxels are those of ``seed + 100``."""
    folder = patient / visit
    for number, modality in enumerate(MODALITIES):
        write_image(tiny_array(seed + number), folder / f"{modality}.nii.gz")
        label = folder / "HD-GLIO-AUTO-segmentation" / "native" / f"segmentation_{modality}_origspace.nii.gz"
        write_image(2 * tiny_label(), label)
        atlas = folder / "DeepBraTumIA-segmentation" / "atlas"
        write_image(tiny_array(seed + number + 100), atlas / "skull_strip" / f"{modality.lower()}_skull_strip.nii.gz")
        write_image(3 * tiny_label(), atlas / "segmentation" / "seg_mask.nii.gz")


@pytest.fixture
def source(tmp_path):
    for patient, visits in {
        "Patient-001": ("week-000-1", "week-000-2", "week-044"),
        "Patient-020": ("week-000", "week-000-1"),
    }.items():
        for number, visit in enumerate(visits):
            write_visit(tmp_path / "lumiere" / "Imaging" / patient, visit, 10 * number)
    return tmp_path / "lumiere"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset106_LUMIERE"


def run(source, raw, **options):
    return run_import("lumiere", source, raw, **options)


def times(raw):
    return {row.case: float(row.time) for row in read_rows(raw / "scans.csv")}


def excluded(raw):
    return read_json(raw / "import.json")["settings"]["left_out"]


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj).T


def test_visits_become_scans_in_weeks(source, raw, caplog):
    with caplog.at_level(logging.WARNING):
        assert run(source, raw)
    assert times(raw) == {
        "Patient-001_week-000-1": 0,
        "Patient-001_week-000-2": 0.5,
        "Patient-001_week-044": 44,
        "Patient-020_week-000": 0,
        "Patient-020_week-000-1": 0.5,
    }
    assert "no LUMIERE-ExpertRating*.csv next to the patients" in caplog.text
    np.testing.assert_array_equal(voxels(raw / "imagesTr" / "Patient-001_week-044_0000.nii.gz"), tiny_array(20))
    np.testing.assert_array_equal(voxels(raw / "labelsTr" / "Patient-001_week-044.nii.gz"), 2 * tiny_label())
    description = read_description(raw / "dataset.json")
    assert (description.channels, description.is_ct, description.time_unit) == (["CT1"], [False], "weeks")
    assert list(description.labels) == ["background", "non-enhancing T2 abnormality", "contrast-enhancing tumour"]
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []
    assert not run(source, raw)


def test_another_modality_in_the_atlas_from_the_folder_of_the_patients(source, raw):
    run(source / "Imaging", raw, modality="FLAIR", space="registered")
    np.testing.assert_array_equal(voxels(raw / "imagesTr" / "Patient-001_week-000-1_0000.nii.gz"), tiny_array(103))
    np.testing.assert_array_equal(voxels(raw / "labelsTr" / "Patient-001_week-000-1.nii.gz"), 3 * tiny_label())
    description = read_description(raw / "dataset.json")
    assert description.channels == ["FLAIR"]
    assert list(description.labels) == ["background", "label_1", "label_2", "label_3"]


@pytest.mark.parametrize("folder", ["lumiere", "lumiere/Imaging"])
def test_the_visit_before_the_operation_is_the_first_of_its_week(source, raw, folder, caplog):
    (source.parent / folder / RATINGS).write_text(
        HEADER
        + "Patient-020,week-000,,Post-Op ,\nPatient-020,week-000-1,,Pre-Op,\n"
        + "Patient-001,week-044,,PD,T2-Progr\n"
    )
    with caplog.at_level(logging.WARNING):
        run(source, raw)
    assert times(raw)["Patient-020_week-000-1"] == 0 and times(raw)["Patient-020_week-000"] == 0.5
    ratings = {row.case: row.covariates["rating"] for row in read_rows(raw / "scans.csv")}
    assert (ratings["Patient-020_week-000"], ratings["Patient-001_week-044"]) == ("Post-Op", "PD")
    assert ratings["Patient-001_week-000-1"] == ""
    assert "ExpertRating" not in caplog.text


def test_times_stay_where_a_visit_of_the_week_is_excluded(source, raw, caplog):
    (source / "Imaging" / "Patient-001" / "week-000-1" / "CT1.nii.gz").unlink()
    (source / "Imaging" / "Patient-001" / "notes").mkdir()
    with caplog.at_level(logging.WARNING):
        run(source, raw)
    assert times(raw)["Patient-001_week-000-2"] == 0.5 and "Patient-001_week-000-1" not in times(raw)
    assert excluded(raw) == [
        "Patient-001/notes: not the name of a visit, as week-044 or week-000-1",
        "Patient-001/week-000-1: no CT1.nii.gz",
    ]
    assert "Excluded: Patient-001/week-000-1: no CT1.nii.gz" in caplog.text


def test_a_scan_without_segmentation_has_no_label(source, raw):
    (
        source / "Imaging/Patient-020/week-000/HD-GLIO-AUTO-segmentation/native/segmentation_CT1_origspace.nii.gz"
    ).unlink()
    run(source, raw, task="segment")
    assert "Patient-020_week-000.nii.gz" not in {path.name for path in (raw / "labelsTr").iterdir()}
    assert read_description(raw / "dataset.json").task == "segment"


def test_times_of_three_visits_of_a_week_differ_and_stay_below_the_next():
    assert list(times_of_visits(["week-013", "week-012-3", "week-012-1", "week-012-2"], {}).items()) == [
        ("week-012-1", 12.0),
        ("week-012-2", 12.333333),
        ("week-012-3", 12.666667),
        ("week-013", 13.0),
    ]


def test_test_patients(source, raw):
    run(source, raw, test=["Patient-001"])
    assert sorted(path.name for path in (raw / "targetsTs").iterdir()) == ["Patient-001_week-044_0000.nii.gz"]
    assert set(times(raw)) == {"Patient-020_week-000", "Patient-020_week-000-1"}


def test_sources_and_flags_that_cannot_be_used(source, raw, tmp_path):
    with pytest.raises(DataError, match=r"has no LUMIERE patients. Expected .*week-000-1.*no such folder"):
        run(tmp_path / "nowhere", raw)
    (tmp_path / "other" / "Patient-001" / "2011-01-01").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no LUMIERE patients.*Found: Patient-001"):
        run(tmp_path / "other", raw)
    with pytest.raises(NotFoundError, match=r"no modality 'FLAIRE'. Did you mean 'FLAIR'"):
        run(source, raw, modality="FLAIRE")
    with pytest.raises(NotFoundError, match=r"Did you mean 'Patient-020'"):
        run(source, raw, test=["Patient-021"])
    with pytest.raises(ConfigurationError, match=r"--test_targets 2: subject Patient-020 has 2 scans"):
        run(source, raw, test=["Patient-020"], test_targets=2)
    for path in source.rglob("t2_skull_strip.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"No visit of .* has the file .*atlas/skull_strip/t2_skull_strip.nii.gz"):
        run(source, raw, modality="T2", space="registered")
    assert not raw.exists()


def test_files_that_cannot_be_read(source, raw):
    (source / RATINGS).write_text("Patient,When\nPatient-001,week-044\n")
    with pytest.raises(DataError, match=r"has the columns Patient, When; expected Patient, Date .* and Rating"):
        run(source, raw)
    (source / RATINGS).write_bytes(b"Patient,Date,Rating\n\xff\xfe,,\n")
    with pytest.raises(DataError, match=r"LUMIERE-ExpertRating.*csv is not a text file in UTF-8"):
        run(source, raw)
    (source / RATINGS).unlink()
    path = source / "Imaging" / "Patient-001" / "week-044" / "CT1.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"CT1.nii.gz"):
        run(source, raw)
    assert not raw.exists()
