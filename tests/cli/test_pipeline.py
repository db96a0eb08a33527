"""A user's whole journey on the tiny phantom, with the commands as a user types them."""

import csv
import shutil

import numpy as np
import pytest

from longflow.data.dataset import read_description, read_rows, series_of_folder
from longflow.data.images import read_scan
from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.training.logbook import read_progress

NAME = "Dataset900_Phantom"
METHODS, FOLDS = ("cronos", "tfm"), (0, 1)


@pytest.fixture(scope="module")
def journey(phantom_dataset, tmp_path_factory, run_command):
    """Home, and what each command said."""
    home = tmp_path_factory.mktemp("journey")
    shutil.copytree(phantom_dataset / "raw", home / "raw")
    said = {}

    def go(key, *arguments):
        result = run_command(*arguments, home=home)
        assert result.returncode == 0, f"{key}: {result.stderr}"
        assert "Traceback" not in result.stderr
        said[key] = result.stdout + result.stderr

    go("plan", "longflow_plan_and_preprocess", "-d", 900, "--preset", "tiny", "-np", 1)
    for method in METHODS:
        for fold in FOLDS:
            go((method, fold), "longflow_train", 900, "3d_fullres", fold, "-m", method, "--iterations", 4)
    go("best", "longflow_find_best", "-d", 900, "-np", 1)
    go("predict", "longflow_predict", "-i", home / "raw" / NAME / "imagesTs", "-o", home / "out")
    go("evaluate", "longflow_evaluate", "-d", 900, "-i", home / "out", "-np", 1)
    return home, said


@pytest.fixture
def home(journey, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(journey[0]))
    return journey[0]


pytestmark = pytest.mark.slow


def test_plans_say_why(home, journey):
    plans = read_plans(DatasetPaths(NAME).plans())
    assert plans.preset == "tiny" and "3d_fullres" in plans.configurations
    assert plans.temporal.reasons and plans.configurations["3d_fullres"].reasons
    assert "Next: longflow_train 900 3d_fullres 0" in journey[1]["plan"]


def test_every_subject_is_preprocessed(home):
    paths = DatasetPaths(NAME)
    cache = paths.cache("longflowPlans", "3d_fullres")
    assert len(list(cache.glob("*.json"))) == 8 and not list(cache.glob(".unfinished-*"))


def test_folds_share_splits_and_targets(home):
    paths = DatasetPaths(NAME)
    assert len(read_json(paths.splits)) == 5
    targets = [
        {target["target"] for target in fold} for fold in read_json(paths.validation_targets)["protocols"]["deployment"]
    ]
    for method in METHODS:
        model = paths.model(method, "longflowPlans", "3d_fullres")
        assert model.finished_folds() == list(FOLDS)
        for fold in FOLDS:
            for reduction in ("last", "mean"):
                written = {row.case for row in read_rows(model.fold(fold).validation(reduction) / "scans.csv")}
                assert written == targets[fold]
            (record,) = read_progress(model.fold(fold).progress_csv)
            assert record.iteration == 4 and record.found["lci_nrmse"] > 0
            assert model.fold(fold).progress_png.is_file() and model.fold(fold).log.read_text()


def test_the_best_is_never_worse_than_lci(home, journey):
    best = read_json(DatasetPaths(NAME).best)
    assert best["nrmse"] <= best["lci_nrmse"] and best["folds"] == [0, 1]
    names = " ".join(row["candidate"] for row in best["table"])
    assert "cronos" in names and "tfm" in names and "lci" in names and "context_mean" in names
    assert "Chosen:" in journey[1]["best"]


def test_forecasts_are_scans_of_the_wanted_times(home, journey):
    raw, out = home / "raw" / NAME, home / "out"
    best = read_json(DatasetPaths(NAME).best)
    wanted = {
        row.case: float(row.time)
        for row in read_rows(raw / "imagesTs" / "scans.csv")
        if not (raw / "imagesTs" / f"{row.case}_0000.nii.gz").is_file()
    }
    assert len(wanted) == 4
    assert {row.case: float(row.time) for row in read_rows(out / "scans.csv")} == wanted
    for case, time in wanted.items():
        sidecar = read_json(out / f"{case}.json")
        assert sidecar["target_time"] == time and sidecar["time_unit"] == "ms"
        assert sidecar["shrinkage"] == best["shrinkage"]
        assert sidecar["method"] == [member["method"] for member in best["members"]]
        forecast = read_scan((out / f"{case}_0000.nii.gz",))
        last = read_scan((raw / "imagesTs" / f"{sidecar['context'][-1]}_0000.nii.gz",))
        assert not forecast.geometry.differences(last.geometry) and forecast.data_type == last.data_type
        assert np.ptp(forecast.array) > 0
    assert f"as recorded in {home}" in journey[1]["predict"] and "best.json)" in journey[1]["predict"]
    assert len(series_of_folder(out, read_description(out / "dataset.json"))) == 2


def test_the_evaluation_stands_beside_both_baselines(home, journey):
    metrics = read_json(home / "out" / "metrics.json")["overall"]
    assert metrics["targets"] == 4
    for name in ("forecast", "lci", "context_mean"):
        assert 0 < metrics[name]["nrmse"]["mean"] < 1
    assert (home / "out" / "figures" / "forecasts.png").is_file() and (home / "out" / "metrics.csv").is_file()
    assert "LCI" in journey[1]["evaluate"] and "4 targets of 2 subjects" in journey[1]["evaluate"]


def test_everything_is_kept_when_the_commands_are_run_again(home, journey, capsys):
    """In this process, for speed: finished work is not redone."""
    from longflow.cli import plan_and_preprocess, predict, train

    results = [path for folder in ("results", "out") for path in (home / folder).rglob("*") if path.is_file()]
    cache = list(DatasetPaths(NAME).cache("longflowPlans", "3d_fullres").iterdir())
    before = {path: path.stat().st_mtime_ns for path in (*results, *cache)}
    assert plan_and_preprocess.main(["-d", "900", "--preset", "tiny", "-np", "1"]) == 0
    assert train.main(["900", "3d_fullres", "0", "-m", "tfm", "--iterations", "4"]) == 0
    assert predict.main(["-i", str(home / "raw" / NAME / "imagesTs"), "-o", str(home / "out")]) == 0
    assert "4 forecasts are in" in capsys.readouterr().out
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed <= {"scans.csv", "dataset.json"}


def test_structures_of_forecasts_by_a_trained_segmenter(journey, tmp_path, monkeypatch, run_command):
    """The same hearts as a dataset of the task segment; numbers are counted again in the files."""
    home, segmented = tmp_path / "home", "Dataset903_Structures"
    shutil.copytree(journey[0], home)
    monkeypatch.setenv("LONGFLOW_HOME", str(home))
    raw, own = DatasetPaths(NAME).raw, DatasetPaths(segmented).raw
    shutil.copytree(raw, own)
    write_json({**read_json(raw / "dataset.json"), "task": "segment"}, own / "dataset.json")
    for command in (
        ("longflow_plan_and_preprocess", "-d", 903, "--preset", "tiny", "-np", 1),
        ("longflow_train", 903, "2d", 0, "--iterations", 100),
        ("longflow_evaluate", "-d", 900, "-i", home / "out", "--segmenter", 903, "-np", 1),
    ):
        result = run_command(*command, home=home)
        assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert "Segmented by Dataset903_Structures unet 2d" in result.stdout and "Without a label map" not in result.stdout
    with open(home / "out" / "metrics_structures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["case"] for row in rows}) == 4
    for row in rows:
        value = read_json(raw / "dataset.json")["labels"][row["structure"]]
        truth = read_scan((raw / "labelsTs" / f"{row['case']}.nii.gz",))
        reference, voxel = truth.array[0] == value, np.prod(truth.geometry.spacing) / 1000
        assert row["reference"] == row["change_reference"] == "labels"
        assert float(row["true_volume_ml"]) == pytest.approx(reference.sum() * voxel)
        if row["method"] in ("forecast", "acquired"):
            mask = read_scan((home / "out" / "segmented" / row["method"] / f"{row['case']}.nii.gz",)).array[0] == value
            assert float(row["volume_ml"]) == pytest.approx(mask.sum() * voxel)
            overlap = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
            assert float(row["dice"]) == pytest.approx(overlap)
    found = read_json(home / "out" / "metrics.json")["structures"]["by_structure"]["left ventricle"]
    assert found["acquired"]["dice"]["mean"] > 0.2  # it has learned something; a training of so few steps had 0.47
    assert found["lci"]["volume_change"]["mean"] == 0 and found["reference"]["volume_change"]["mean"] != 0
