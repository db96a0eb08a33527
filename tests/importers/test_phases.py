import nibabel
import numpy as np
import pytest

from longflow.data.dataset import read_description, read_rows, series_of_folder
from longflow.data.phases import phase_pairs
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.importers.phases import scans_of_folder
from longflow.integrity.dataset import verify_dataset
from tests.conftest import outside_data
from tests.data.helpers import phase_array, phase_label, write_image
from tests.importers.helpers import run_import


@pytest.fixture
def source(tmp_path):
    """Two subjects with underscores in their names, in two phases, with masks."""
    folder = tmp_path / "scans"
    for number, subject in enumerate(("a_1", "b_2")):
        for phase in ("arterial", "native"):
            write_image(phase_array(number, phase == "arterial"), folder / f"{subject}_{phase}.nii.gz")
            write_image(phase_label(), folder / "masks" / f"{subject}_{phase}.nii.gz")
    return folder


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset104_Phases"


def run(source, raw, **options):
    return run_import("phases", source, raw, **{"channel": "CT", **options})


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj).T


def test_files_become_pairs_with_their_voxels(source, raw):
    assert run(source, raw, labels="masks/{subject}_{phase}.nii.gz", label_names=["vessel"])
    rows = read_rows(raw / "scans.csv")
    assert [(row.case, row.subject, row.time, row.covariates["phase"]) for row in rows] == [
        ("a_1_native", "a_1", "0.0", "native"),
        ("a_1_arterial", "a_1", "0.0", "arterial"),
        ("b_2_native", "b_2", "0.0", "native"),
        ("b_2_arterial", "b_2", "0.0", "arterial"),
    ]
    description = read_description(raw / "dataset.json")
    assert (description.task, description.phases, description.channels) == ("translate", ["native", "arterial"], ["CT"])
    assert description.labels == {"background": 0, "vessel": 1} and description.time_unit == "days"
    np.testing.assert_array_equal(voxels(raw / "imagesTr" / "b_2_arterial_0000.nii.gz"), phase_array(1, True))
    np.testing.assert_array_equal(voxels(raw / "labelsTr" / "b_2_native.nii.gz"), phase_label())
    assert verify_dataset(raw, processes=1) == []
    assert not run(source, raw, labels="masks/{subject}_{phase}.nii.gz", label_names=["vessel"])


def test_phases_of_different_modalities_have_channels_of_their_own(source, raw):
    run(source, raw, phase_channels=["arterial=CT", "native=T1"])
    description = read_description(raw / "dataset.json")
    assert description.phase_channels == {"native": {"0": "T1"}, "arterial": {"0": "CT"}}


@pytest.mark.parametrize("given", [["native=T1", "ct=CT"], ["native=T1", "arterial"], ["native=T1", "native=CT"]])
def test_channels_that_do_not_name_both_phases_are_refused(source, raw, given):
    with pytest.raises(ConfigurationError, match="native=CHANNEL arterial=CHANNEL"):
        run(source, raw, phase_channels=given)


def test_times_are_read_from_the_names(tmp_path, raw):
    for time in ("0", "182.5"):
        for phase in ("t1", "t1c"):
            write_image(phase_array(0, phase == "t1c"), tmp_path / "scans" / "p" / f"{time}_{phase}.nii.gz")
    run(tmp_path / "scans", raw, images="{subject}/{time}_{phase}.nii.gz", time_unit="months", channel="T1")
    (series,) = series_of_folder(raw / "imagesTr", read_description(raw / "dataset.json"))
    pairs = phase_pairs(series, ["t1", "t1c"])
    assert [(pair.first.case, pair.first.time, pair.second.phase) for pair in pairs] == [
        ("p_0_t1", 0.0, "t1c"),
        ("p_182.5_t1", 182.5, "t1c"),
    ]
    assert read_description(raw / "dataset.json").time_unit == "months"


def test_one_mask_may_serve_both_phases(source, raw):
    (source / "masks" / "a_1_native.nii.gz").rename(source / "masks" / "a_1.nii.gz")
    run(source, raw, labels="masks/{subject}.nii.gz")
    assert sorted(path.name for path in (raw / "labelsTr").iterdir()) == ["a_1_arterial.nii.gz", "a_1_native.nii.gz"]


def test_named_phases_are_taken_in_their_order_and_others_left_alone(source, raw):
    write_image(phase_array(0, True), source / "a_1_venous.nii.gz")
    with pytest.raises(DataError, match=r"are in native, arterial, venous: 3 phases.* --phases native arterial"):
        run(source, raw)
    run(source, raw, phases=["arterial", "venous"])
    assert read_description(raw / "dataset.json").phases == ["arterial", "venous"]
    assert [row.case for row in read_rows(raw / "scans.csv")] == ["a_1_arterial", "a_1_venous", "b_2_arterial"]


def test_test_subjects_have_both_phases(source, raw):
    run(source, raw, labels="masks/{subject}_{phase}.nii.gz", test=["b_2"])
    assert [row.case for row in read_rows(raw / "scans.csv")] == ["a_1_native", "a_1_arterial"]
    assert [row.case for row in read_rows(raw / "imagesTs" / "scans.csv")] == ["b_2_native", "b_2_arterial"]
    assert len(list((raw / "imagesTs").glob("*.nii.gz"))) == len(list((raw / "labelsTs").iterdir())) == 2
    assert not (raw / "targetsTs").exists()


def test_folders_and_flags_that_cannot_be_used(source, raw):
    with pytest.raises(ConfigurationError, match="two different names"):
        run(source, raw, phases=["native", "native"])
    with pytest.raises(DataError, match=r"no file of .* is in the phase 'venous', only native"):
        run(source, raw, phases=["native", "venous"])
    with pytest.raises(NotFoundError, match="Did you mean 'b_2'"):
        run(source, raw, test=["b_3"])
    with pytest.raises(ConfigurationError, match="Every subject is a test subject"):
        run(source, raw, test=["a_1", "b_2"])
    with pytest.raises(ConfigurationError, match=r"must hold \{phase\}"):
        run(source, raw, images="{subject}.nii.gz")
    with pytest.raises(DataError, match=r"No file of .* has a name as --labels"):
        run(source, raw, labels="{subject}_{phase}_mask.nii.gz")
    for path in source.glob("*_arterial.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"are in native: 1 phases, expected two"):
        run(source, raw)
    assert not raw.exists()


def test_two_files_of_one_moment(tmp_path):
    for time in ("0", "0.0"):
        write_image(phase_array(0, False), tmp_path / f"p_{time}_native.nii.gz")
    with pytest.raises(DataError, match=r"p_0.0_native.nii.gz and .* are both subject p at time 0 in phase native"):
        scans_of_folder(tmp_path, "{subject}_{time}_{phase}.nii.gz", None, ())


def test_t1_before_and_after_contrast():
    scans = scans_of_folder(outside_data("t1_t1c"), "{subject}_{phase}.nii.gz", None, ())
    assert [scan.case for scan in scans[:2]] == ["TCGA-DU-7294_t1", "TCGA-DU-7294_t1c"] and len(scans) == 8
    assert {scan.subject for scan in scans} > {"ms_patient07", "TCGA-FG-6692"}
