from pathlib import Path

from longflow.cli.extract_fingerprint import main as extract
from longflow.cli.plan import main
from longflow.paths import DatasetPaths

NAME = "Dataset900_Phantom"


def test_the_steps_one_by_one(phantom_home, capsys):
    assert main(["-d", "900", "--preset", "tiny"]) == 1
    assert "longflow_extract_fingerprint" in capsys.readouterr().err
    assert extract(["-d", NAME, "-np", "1"]) == 0
    assert main(["-d", "900", "--preset", "tiny", "--gpu_memory", "0.0001"]) == 1
    assert "--gpu_memory" in capsys.readouterr().err


def test_without_a_gpu_the_default_is_said(phantom_home, capsys, monkeypatch):
    monkeypatch.setattr("longflow.planning.run.default_preset", lambda: "tiny")
    assert extract(["-d", "900", "-np", "1"]) == 0
    assert main(["-d", "900", "--gpu_memory", "0.1"]) == 0
    assert "Preset tiny: no CUDA GPU was found" in capsys.readouterr().out


def test_an_encoder_is_for_segmentation_alone(phantom_home, capsys):
    assert extract(["-d", "900", "-np", "1"]) == 0
    assert main(["-d", "900", "--preset", "tiny", "--encoder", "residual"]) == 1
    assert "--encoder residual has no meaning" in capsys.readouterr().err


def test_a_reference_plan_is_used_by_its_file(phantom_home, capsys):
    assert extract(["-d", "900", "-np", "1"]) == 0
    file = str(Path(__file__).parents[2] / "plans" / "phantom_tiny.json")
    assert main(["-d", "900", "-p", file]) == 0
    out = capsys.readouterr().out
    assert "phantom_tiny.json" in out and "Preset tiny: no" not in out
    assert (DatasetPaths(NAME).plans("phantom_tiny")).is_file()
    assert main(["-d", "900", "-p", file, "--preset", "S"]) == 1
    assert "has its own sizes" in capsys.readouterr().err
    assert main(["-d", "900", "-p", "nowhere.json"]) == 1
    assert "nowhere.json does not exist" in capsys.readouterr().err
