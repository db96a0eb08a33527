import json

import pytest

from longflow.cli import extract_fingerprint, plan, plan_and_preprocess
from longflow.paths import DatasetPaths

NAME = "Dataset900_Phantom"


def test_everything_between_raw_data_and_training(phantom_home, capsys):
    arguments = ["-d", "900", "--preset", "tiny", "--gpu_memory", "0.1", "-np", "1"]
    assert plan_and_preprocess.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Time scale" in shown and "Next: longflow_train 900 3d_fullres 0" in shown
    paths = DatasetPaths(NAME)
    plans = json.loads(paths.plans().read_text())
    assert plans["gpu_memory"] == 0.1
    assert paths.cache("longflowPlans", "3d_fullres").is_dir()
    before = paths.fingerprint.stat().st_mtime_ns
    assert plan_and_preprocess.main(arguments) == 0
    assert "said something else" not in capsys.readouterr().out
    assert paths.fingerprint.stat().st_mtime_ns == before


def test_errors_of_the_data_stop_before_planning(phantom_home, capsys):
    image = next((phantom_home / "raw" / NAME / "imagesTr").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    assert plan_and_preprocess.main(["-d", "900", "-np", "1"]) == 1
    written = capsys.readouterr()
    assert image.name in written.out
    assert "cannot be used as it is: 1 error" in written.err.replace("\n", " ")
    assert not DatasetPaths(NAME).plans().exists()


@pytest.mark.parametrize("command", [extract_fingerprint, plan, plan_and_preprocess])
def test_an_unknown_dataset_names_the_nearest(phantom_home, capsys, command):
    assert command.main(["-d", "Dataset900_Fantom"]) == 1
    assert "Did you mean 'Dataset900_Phantom'" in capsys.readouterr().err.replace("\n", " ")
