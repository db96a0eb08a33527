from longflow.cli.extract_fingerprint import main as extract
from longflow.cli.plan import main

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
    assert "--encoder residual is for the task 'segment'" in capsys.readouterr().err
