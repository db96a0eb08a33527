import shutil

import pytest

from longflow.cli.extract_fingerprint import main
from longflow.paths import DatasetPaths

NAME = "Dataset900_Phantom"


@pytest.fixture
def home(tmp_path, monkeypatch, phantom_dataset):
    """LONGFLOW_HOME with the phantom cohort's raw data alone."""
    shutil.copytree(phantom_dataset / "raw", tmp_path / "raw")
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_the_fingerprint_is_written(home, capsys):
    assert main(["-d", NAME, "-np", "1"]) == 0
    assert str(DatasetPaths(NAME).fingerprint) in capsys.readouterr().out.replace("\n", "")


def test_worker_processes_give_the_same(home):
    assert main(["-d", "900", "-np", "1"]) == 0
    one = DatasetPaths(NAME).fingerprint.read_text()
    assert main(["-d", "900", "-np", "2", "--overwrite"]) == 0
    assert DatasetPaths(NAME).fingerprint.read_text() == one


def test_a_truncated_image_is_named(home, capsys):
    image = next((home / "raw" / NAME / "imagesTr").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    assert main(["-d", "900", "-np", "1"]) == 1
    assert image.name in capsys.readouterr().err.replace("\n", "")
