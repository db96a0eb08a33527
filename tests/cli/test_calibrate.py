import csv
import shutil

import pytest

from longflow.cli import calibrate, predict
from longflow.reading import read_json
from tests.tasks.forecast.calibrating import threshold_segmenter


@pytest.fixture
def dataset(validated_dataset, monkeypatch):
    threshold_segmenter(monkeypatch, validated_dataset)
    return validated_dataset


def run(*arguments):
    return calibrate.main(["-d", "1", "--structures", "103", "--device", "cpu", *arguments])


def test_from_out_of_fold_forecasts_to_volumes_with_intervals(dataset, tmp_path, capsys):
    assert run("--level", "0.8") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "intervals of 80% from" in shown and "of 6 subjects" in shown and "85.7%" in shown
    assert "calibration.json, calibration.csv" in shown
    record = read_json(dataset.calibration("Dataset103_Segment") / "calibration.json")
    source = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", source / "scans.csv")
    longest = max(group["longest"] for group in record["by_structure"]["core"]["intervals"]["groups"])
    arguments = ["-d", "1", "-i", str(source), "-o", str(tmp_path / "out"), "--device", "cpu", "--structures", "103"]
    assert predict.main([*arguments, "-t", f"{40 + longest}"]) == 0
    assert "volumes.csv, intervals.json, segmented/" in " ".join(capsys.readouterr().out.split())
    with open(tmp_path / "out" / "volumes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    forecasts = [row for row in rows if row["source"] == "forecast"]
    assert len(forecasts) == 6 * 2 and all(row["level"] == "0.8" for row in forecasts)
    assert all(float(row["lower_ml"]) <= float(row["volume_ml"]) <= float(row["upper_ml"]) for row in forecasts)
    assert predict.main([*arguments, "-t", "50", "-m", "cronos", "-f", "0"]) == 1
    assert "another model that forecasts: its folds differ" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "intervals of 90% need 9. The highest level of these is 85.7%. Choose a lower --level"),
        (["-f", "7"], "Fold 7 of cronos__longflowPlans__3d_fullres is not trained"),
        (["-m", "tfm"], "trained method 'tfm'"),
        (["--level", "0.8", "--retest", "no_pairs.csv"], "no_pairs.csv"),
        (["--structures", "199"], "dataset '199'"),
        (["--structures", "1"], "a model for the task 'forecast', not for 'segment'"),
        (["-d", "103"], "(--structures) is for forecasts; the predictions of this dataset are label maps"),
    ],
)
def test_what_cannot_be_calibrated(dataset, capsys, arguments, message):
    assert run(*arguments) == 1
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split()) and "Traceback" not in shown


@pytest.mark.parametrize("level", ["0", "1", "90", "many"])
def test_levels_that_cannot_be(dataset, capsys, level):
    with pytest.raises(SystemExit):
        run("--level", level)


def test_a_model_that_segments_has_no_volumes_of_forecasts(dataset, tmp_path, capsys):
    arguments = ["-d", "103", "-i", str(dataset.raw / "imagesTr"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main([*arguments, "--structures", "103"]) == 1
    assert "(--structures) is for forecasts" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
