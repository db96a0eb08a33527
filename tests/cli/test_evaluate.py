import numpy as np
import pytest

from longflow.cli import evaluate
from longflow.data.dataset import DatasetDescription, write_description
from longflow.data.images import write_volume
from longflow.files import write_json
from tests.evaluation.conftest import GEOMETRY, SHAPE


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Forecasts of three subjects at two horizons, halfway between the last context image and the truth."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw = tmp_path / "raw" / "Dataset101_Tiny"
    write_description(
        DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months"), raw / "dataset.json"
    )
    generator = np.random.default_rng(0)
    for subject in ("s1", "s2", "s3"):
        last = generator.random(SHAPE)
        write_volume(last, GEOMETRY, "float32", raw / "imagesTs" / f"{subject}_0_0000.nii.gz")
        for horizon in (1, 2):
            truth = last + horizon * 0.3 * generator.random(SHAPE)
            case = f"{subject}_{horizon}"
            write_volume(truth, GEOMETRY, "float32", raw / "targetsTs" / f"{case}_0000.nii.gz")
            write_volume((last + truth) / 2, GEOMETRY, "float32", tmp_path / "out" / f"{case}_0000.nii.gz")
            sidecar = {"case": case, "subject": subject, "target_time": horizon, "horizon": horizon}
            sidecar |= {"context": [f"{subject}_0"], "context_times": [0.0], "method": "cronos"}
            write_json(sidecar, tmp_path / "out" / f"{case}.json")
    return tmp_path / "out"


def test_tables_and_files(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert evaluate.main(["-d", "101", "-i", str(out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "6 targets of 3 subjects" in shown
    assert "By horizon" in shown
    for name in ("(cronos)", "image (LCI)", "PSNR [dB]", "[months]", "changed region", "6 of 6 targets (100%"):
        assert name in shown
    assert "better than LCI)" in shown
    for name in ("metrics.csv", "metrics.json", "figures/forecasts.png"):
        assert (out / name).is_file()


def test_reference_folder_that_does_not_exist(out, capsys):
    assert evaluate.main(["-d", "101", "-i", str(out), "-r", str(out / "nowhere")]) == 1
    assert "folder of -r does not exist" in capsys.readouterr().err


def test_folder_without_forecasts(out, capsys):
    assert evaluate.main(["-d", "101", "-i", str(out.parent)]) == 1
    assert "holds no forecasts" in capsys.readouterr().err


def test_unchanged_subjects_are_shown_as_not_defined(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    targets = out.parent / "raw" / "Dataset101_Tiny" / "targetsTs"
    for path in targets.iterdir():
        write_volume(np.full(SHAPE, 2.0), GEOMETRY, "float32", path)
    assert evaluate.main(["-d", "101", "-i", str(out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "not defined" in shown
    assert "NRMSE of forecast: 6" in shown
