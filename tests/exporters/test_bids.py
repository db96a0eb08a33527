import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.errors import DataError
from longflow.exporters.bids import export_bids, session_of
from longflow.files import write_json

GRID = Geometry((4, 5, 6), (1.0, 1.5, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
VOXELS = np.arange(120, dtype=np.int16).reshape(6, 5, 4)


def predictions(folder, channel="T1", ending=".nii.gz", subjects=("p-01", "p-02")):
    """Write for each subject a label map at time 0, a forecast at 365.5, and a translation at 1."""
    labels = {"background": 0, "liver": 1, "whole": [1, 2]}
    described = {"channel_names": {"0": channel}, "file_ending": ending, "time_unit": "days", "labels": labels}
    folder.mkdir()
    scans = []
    for subject in subjects:
        for number, time in enumerate((0.0, 365.5, 1.0)):
            case = f"{subject}_{number}"
            scans.append(Scan(case, subject, time, ()))
            sidecar = [
                {"volumes": {"liver": {"voxels": 5, "volume_ml": 0.015}}},
                {"horizon": 365.5, "context": ["a", "b"]},
                {"source": "a", "target_phase": "native"},
            ]
            write_json(sidecar[number], folder / f"{case}.json")
            name = f"{case}{ending}" if number == 0 else f"{case}_0000{ending}"
            write_volume(VOXELS % 3 if number == 0 else VOXELS, GRID, "int16", folder / name)
    write_scans(scans, folder / "scans.csv")
    write_description(DatasetDescription(**described, regions_class_order=[1, 2]), folder / "dataset.json")
    return folder


def validator() -> str:
    """Return the validator next to this Python, or skip."""
    found = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or ""
    if not found:
        pytest.skip("no bids-validator-deno (pip install bids-validator-deno)")
    return found


def errors_of_validator(folder):
    result = subprocess.run([validator(), "--json", str(folder)], capture_output=True, text=True, timeout=300)
    issues = json.loads(result.stdout)["issues"]["issues"]
    return [(one["code"], one.get("location")) for one in issues if one["severity"] == "error"]


@pytest.mark.parametrize(("channel", "ending"), [("T1", ".nii.gz"), ("CT", ".nrrd")])
def test_the_validator_of_bids_accepts_it(tmp_path, channel, ending):
    validator()
    assert export_bids(predictions(tmp_path / "in", channel, ending), tmp_path / "out") == 6
    assert errors_of_validator(tmp_path / "out") == []


def test_the_validator_finds_errors_where_there_are_some(tmp_path):
    validator()
    export_bids(predictions(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "out" / "sub-p01" / "scan.nii.gz").write_bytes(b"")
    assert ("NOT_INCLUDED", "/sub-p01/scan.nii.gz") in errors_of_validator(tmp_path / "out")


def test_images_are_in_a_session_of_their_time(tmp_path):
    export_bids(predictions(tmp_path / "in"), tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "sub-p01").rglob("*.nii.gz")}
    assert found == {
        "sub-p01/ses-t0/anat/sub-p01_ses-t0_desc-longflow_dseg.nii.gz",
        "sub-p01/ses-t365p5/anat/sub-p01_ses-t365p5_desc-forecast_T1w.nii.gz",
        "sub-p01/ses-t1/anat/sub-p01_ses-t1_desc-translationNative_T1w.nii.gz",
    }
    image = nibabel.load(tmp_path / "out" / "sub-p01/ses-t365p5/anat/sub-p01_ses-t365p5_desc-forecast_T1w.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, VOXELS)
    sidecar = json.loads(
        (tmp_path / "out/sub-p01/ses-t1/anat/sub-p01_ses-t1_desc-translationNative_T1w.json").read_text()
    )
    assert sidecar["longflow"]["source"] == "a"


def test_tables_hold_times_volumes_and_names_of_labels(tmp_path):
    export_bids(predictions(tmp_path / "in"), tmp_path / "out")
    out = tmp_path / "out"
    assert (
        out / "sub-p01" / "sub-p01_sessions.tsv"
    ).read_text() == "session_id\tdays\nses-t0\t0.0\nses-t1\t1.0\nses-t365p5\t365.5\n"
    assert (out / "phenotype" / "volumes.tsv").read_text().splitlines() == [
        "participant_id\tsession_id\tliver",
        "sub-p01\tses-t0\t0.015",
        "sub-p02\tses-t0\t0.015",
    ]
    assert (out / "desc-longflow_dseg.tsv").read_text() == "index\tname\n1\tliver, whole\n2\twhole\n"


def test_images_of_other_formats_become_nifti_and_ct_is_where_bids_does_not_look(tmp_path):
    export_bids(predictions(tmp_path / "in", "CT", ".nrrd"), tmp_path / "out")
    image = nibabel.load(tmp_path / "out/sub-p01/ses-t365p5/other/sub-p01_ses-t365p5_desc-forecast_CT.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, VOXELS)
    np.testing.assert_allclose(image.header.get_zooms(), (1.0, 1.5, 2.0))


def test_it_can_be_written_again_but_not_among_other_files(tmp_path):
    folder = predictions(tmp_path / "in")
    export_bids(folder, tmp_path / "out")
    assert export_bids(folder, tmp_path / "out") == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DataError, match="did not write"):
        export_bids(folder, tmp_path / "mine")


@pytest.mark.parametrize("subjects", [("p-1", "p1"), ("--",)])
def test_subjects_that_bids_cannot_tell_apart_are_refused(tmp_path, subjects):
    with pytest.raises(DataError, match="letters and digits alone"):
        export_bids(predictions(tmp_path / "in", subjects=subjects), tmp_path / "out")


def test_a_folder_without_predictions_is_refused(tmp_path):
    folder = predictions(tmp_path / "in")
    for path in folder.glob("p-*.json"):
        path.unlink()
    with pytest.raises(DataError, match="holds no prediction"):
        export_bids(folder, tmp_path / "out")
    with pytest.raises(DataError, match=r"has no scans\.csv"):
        export_bids(tmp_path, tmp_path / "out")


def test_names_of_sessions_differ_for_all_times_that_differ():
    times = [0, 1, 10, 1.5, 15, -1.5, 1e-5, 1e5, 123456.75]
    names = [session_of(float(time)) for time in times]
    assert all(name.isalnum() for name in names)
    assert len(set(names)) == len(times)
