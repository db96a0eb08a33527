import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.cli import extract_fingerprint, plan, plan_and_preprocess
from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.preprocessing.store import load_prepared, prepared_subjects
from tests.data.helpers import edit_table, write_phase_dataset

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
    assert "The previous plans" not in capsys.readouterr().out
    assert paths.fingerprint.stat().st_mtime_ns == before


def test_by_a_reference_plan(phantom_home, capsys):
    file = Path(__file__).parents[2] / "plans" / "phantom_tiny.json"
    assert plan_and_preprocess.main(["-d", "900", "-p", str(file), "-c", "3d_fullres", "-np", "1"]) == 0
    assert "Next: longflow_train 900 3d_fullres 0 -p phantom_tiny" in capsys.readouterr().out
    assert len(prepared_subjects(DatasetPaths(NAME).cache("phantom_tiny", "3d_fullres"))) > 1


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


def test_to_segment_labels_and_further_scans_are_not_needed(tmp_path, monkeypatch, capsys):
    """Three subjects of one scan each, none labelled; no message mentions forecasts."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    paths = DatasetPaths("Dataset952_Single")
    lines = ["case,subject,time"]
    for name in ("a", "b", "c"):
        image = sitk.GetImageFromArray(np.random.default_rng(len(lines)).uniform(1, 2, (10, 12, 14)).astype(np.float32))
        paths.raw.joinpath("imagesTr").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(paths.raw / "imagesTr" / f"{name}_0000.nii.gz"))
        lines.append(f"{name},{name},0")
    (paths.raw / "scans.csv").write_text("\n".join(lines))
    described = {"channel_names": {"0": "T1"}, "file_ending": ".nii.gz", "time_unit": "visits", "task": "segment"}
    write_json(described, paths.raw / "dataset.json")
    options = ["-d", "952", "--preset", "tiny", "--encoder", "residual", "-np", "1"]
    assert plan_and_preprocess.main(options) == 0
    planned = capsys.readouterr().out.split("Fingerprint:")[1]
    assert "forecast" not in planned
    assert "residual U-Net" in planned and "serve pretraining alone" in planned
    assert prepared_subjects(paths.cache("longflowPlans", "3d_fullres")) == ["a", "b", "c"]


@pytest.fixture
def phases(tmp_path, monkeypatch):
    """Two subjects with slices of different sizes and a pair each, and one without a pair."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    # what a network takes is tested in tests/planning; here no training step is gone through
    monkeypatch.setattr("longflow.planning.plan.training_memory", lambda *_: 1e8)
    paths = DatasetPaths("Dataset904_Phases")
    write_phase_dataset(paths.raw, ("p1", "p2", "p3"), shapes=((4, 24, 20), (6, 16, 28), (4, 24, 20)))
    edit_table(paths.raw, "p3_0_arterial,p3,0", "p3_0_arterial,p3,9")
    return paths


def test_to_translate_slices_keep_their_grid_and_come_first(phases, capsys):
    assert plan_and_preprocess.main(["-d", "904", "--preset", "tiny", "-np", "1"]) == 0
    shown = capsys.readouterr().out
    planned = shown.split("Fingerprint:")[1]
    assert "Next: longflow_train 904 2d 0" in planned
    assert "1 subject without a pair (p3)" in planned and "2 of one subject and time" in planned
    for word in ("forecast", "context", "Time scale"):
        assert word not in planned
    plans = read_plans(phases.plans())
    assert plans.phases == ["native", "arterial"] and plans.configurations["2d"].own_grid
    for name, (first, second) in {"2d": ([4, 24, 20], [6, 16, 28]), "3d_fullres": ([4, 24, 20], [6, 16, 28])}.items():
        cache = phases.cache("longflowPlans", name)
        assert prepared_subjects(cache) == ["p1", "p2"]
        for subject, shape in (("p1", first), ("p2", second)):
            prepared = load_prepared(cache, subject)
            ((native, arterial),) = prepared.properties.pairs(plans.phases)
            assert prepared.properties.shape == shape
            change = prepared.images[arterial] - prepared.images[native]
            assert change.max() == pytest.approx(0.25, abs=1e-5) and change.min() == 0  # 50 to 300 HU
            assert np.abs(prepared.images[:]).max() <= 1


def test_without_a_pair_there_is_nothing_to_plan(phases, capsys):
    table = (phases.raw / "scans.csv").read_text()
    (phases.raw / "scans.csv").write_text(table.replace(",0,native", ",3,native"))
    assert plan_and_preprocess.main(["-d", "904", "--preset", "tiny", "-np", "1", "--no_verify"]) == 1
    assert "so there is no pair to learn from" in " ".join(capsys.readouterr().err.split())
    assert not phases.plans().exists()


def test_scans_of_one_slice_are_trained_in_2d(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths, lines = DatasetPaths("Dataset953_Slice"), ["case,subject,time"]
    for number in range(6):
        array = np.random.default_rng(number).uniform(1, 2, (1, 20, 24)).astype(np.float32)
        paths.raw.joinpath("imagesTr").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(paths.raw / "imagesTr" / f"c{number}_0000.nii.gz"))
        lines.append(f"c{number},p{number // 2},{number % 2}")
    (paths.raw / "scans.csv").write_text("\n".join(lines) + "\n")
    described = {"channel_names": {"0": "T1"}, "file_ending": ".nii.gz", "time_unit": "days"}
    write_json(described, paths.raw / "dataset.json")
    assert plan_and_preprocess.main(["-d", "953", "--preset", "tiny", "--gpu_memory", "0.1", "-np", "1"]) == 0
    assert "Next: longflow_train 953 2d 0" in capsys.readouterr().out
