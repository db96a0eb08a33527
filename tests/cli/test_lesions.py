import re

import numpy as np
import pytest

from longflow.cli import lesions
from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import Geometry, write_volume

GRID = Geometry((60, 24, 8), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Label maps of two subjects at two visits: one lesion that grows, one that goes. They are their own reference."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    raw = tmp_path / "raw" / "Dataset103_Tiny"
    labels = {"background": 0, "lesion": 1}
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", task="segment", labels=labels
    )
    write_description(description, raw / "dataset.json")
    scans = []
    for subject in ("p1", "p2"):
        for visit in (0, 1):
            array = np.zeros((8, 24, 60), np.uint8)
            array[:, 8:16, 0 : 4 + 4 * visit] = 1
            array[:, 8:16, 30:33] = 1 - visit
            case = f"{subject}_{visit}"
            for folder in (tmp_path / "out", raw / "labelsTs"):
                write_volume(array, GRID, "uint8", folder / f"{case}.nii.gz")
            scans.append(Scan(case, subject, 30.0 * visit, ()))
    write_scans(scans, tmp_path / "out" / "scans.csv")
    return tmp_path / "out"


def run(out, *arguments):
    return lesions.main(["-d", "103", "-i", str(out), "--structure", "lesion", "-np", "1", *arguments])


def test_lesions_of_a_folder(out, capsys):
    assert run(out) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Lesions of lesion over time" in shown and "30 4.096 2.048 grown" in shown and "30 0.000 1.536 gone" in shown
    assert "gone 2 2 2 2" in shown and "Every change called right in 2 of 2 subjects" in shown
    assert "not checked for 2 pairs" in shown and f"Written: {out / 'lesions.csv'}" in shown
    assert (out / "lesions.csv").read_text().startswith("subject,lesion,case,time,ml,before_ml,change,with,x_mm")


def test_a_lesion_is_tracked_by_a_place(out, capsys):
    assert run(out, "--subject", "p2", "--track", "62", "20", "7.5") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The place is in lesion 2 of p2." in shown and "gone" in shown and "30 4.096" not in shown
    assert run(out, "--subject", "p2", "--track", "-62", "20", "7.5") == 1
    assert "outside the field of view" in capsys.readouterr().err


def test_one_subject_is_shown_and_all_are_written(out, capsys):
    assert run(out, "--subject", "p1", "--change", "200") == 0
    shown = capsys.readouterr().out
    assert "p1" in shown and "p2" not in shown.split("Changes between")[0] and "stable" in shown
    assert "p2" in (out / "lesions.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "30"], "Add --track X Y Z"),
        (["-r", "nowhere"], "folder of -r does not exist"),
        (["--subject", "p9"], "no lesions of a subject p9. Subjects with lesions: p1, p2"),
        (["--structure", "tumour"], "no structure 'tumour'"),
    ],
)
def test_bad_input(out, capsys, arguments, message):
    assert run(out, *arguments) == 1
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
