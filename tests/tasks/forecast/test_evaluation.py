import csv

import nibabel
import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.errors import DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.reading import read_json
from longflow.registration.motion import Carried
from longflow.tasks.forecast.evaluation import columns, evaluate_forecasts
from tests.tasks.conftest import GEOMETRY, SHAPE
from tests.tasks.forecast.test_metrics import target_metrics


@pytest.fixture
def cohort(tmp_path, paths, write_scan, write_forecast):
    """Two subjects with two context scans and a target each; returns the volumes."""
    generator = np.random.default_rng(0)
    volumes = {}
    for subject in ("s1", "s2"):
        first = generator.random(SHAPE).astype(np.float32)
        scans = [first, first + 0.2 * generator.random(SHAPE).astype(np.float32)]
        target = scans[1] + 0.3 * generator.random(SHAPE).astype(np.float32)
        forecast = (scans[1] + target) / 2
        for position, scan in enumerate([*scans, target]):
            write_scan(paths.raw / "imagesTr", f"{subject}_{position}", scan)
        context = [f"{subject}_0", f"{subject}_1"]
        write_forecast(tmp_path / "out", f"{subject}_2", forecast, context, horizon=2.0 if subject == "s1" else 5.0)
        volumes[subject] = (*scans, target, forecast)
    return volumes


@pytest.fixture
def evaluate(tmp_path, paths, description):
    """The results of the folder."""

    def run(processes=1):
        job = EvaluationJob(tmp_path / "out", (), paths.raw, description, processes)
        return evaluate_forecasts(job).results

    return run


def test_motion_that_folds_is_said_once_for_all_targets(cohort, evaluate, monkeypatch, caplog):
    monkeypatch.setattr("longflow.tasks.forecast.ladder.carried_on", lambda last, *_: Carried(last, 0.25))
    evaluate()
    (message,) = (record.message for record in caplog.records if "folds" in record.message)
    assert "folds in 2 of 2 forecasts, at worst in 25 % of the voxels (s2)" in message


@pytest.mark.parametrize("processes", [1, 2])
def test_numbers_of_the_files_are_those_of_the_volumes(cohort, evaluate, tmp_path, processes):
    results = evaluate(processes)
    with open(tmp_path / "out" / "metrics.csv", newline="") as file:
        rows = {(row["case"], row["method"]): row for row in csv.DictReader(file)}
    assert {method for _, method in rows} == {"forecast", "lci", "context_mean", "linear", "motion"}
    assert len(rows) == 10
    nrmse = []
    for subject, (first, last, target, forecast) in cohort.items():
        expected = target_metrics(forecast[None], target[None], last[None])
        nrmse.append(expected["nrmse"])
        row = rows[f"{subject}_2", "forecast"]
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected)
        assert list(row) == columns()
        mean = target_metrics((first + last)[None] / 2, target[None], last[None])
        assert float(rows[f"{subject}_2", "context_mean"]["nrmse"]) == pytest.approx(mean["nrmse"], rel=1e-5)
        assert float(rows[f"{subject}_2", "lci"]["skill"]) == 0
    assert results["overall"]["forecast"]["nrmse"]["mean"] == pytest.approx(np.mean(nrmse))
    assert results["overall"]["better_than_lci"]["share"] == 1
    assert [part["from"] for part in results["by_horizon"]] == [2.0, 5.0]


def test_json_holds_the_results_with_their_definitions(cohort, evaluate, tmp_path):
    results = evaluate()
    assert read_json(tmp_path / "out" / "metrics.json") == results
    assert results["methods"] == ["cronos"]
    assert "range of the reference" in results["definitions"]["nrmse"]
    assert "by Student's t" in results["definitions"]["interval"]


def test_a_perfect_forecast_is_written_without_infinity(cohort, evaluate, tmp_path, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", cohort["s1"][2], ["s1_0", "s1_1"])
    results = evaluate()
    assert results["overall"]["forecast"]["psnr"]["undefined"] == 1
    assert "inf" not in (tmp_path / "out" / "metrics.csv").read_text()


def test_evaluating_twice_gives_the_same(cohort, evaluate, tmp_path):
    first = evaluate()
    assert evaluate() == first


def test_forecasts_without_reference_are_named(cohort, evaluate, tmp_path, write_forecast, caplog):
    write_forecast(tmp_path / "out", "s1_t9", cohort["s1"][2], ["s1_0"], target_time=9.0)
    results = evaluate()
    assert results["without_truth"] == ["s1_t9"]
    assert "1 of 3 forecasts have no reference" in caplog.text


def test_forecast_on_another_grid(cohort, evaluate, tmp_path, write_forecast):
    moved = Geometry(GEOMETRY.size, GEOMETRY.spacing, (5.0, 0.0, 0.0), GEOMETRY.direction)
    write_forecast(tmp_path / "out", "s1_2", cohort["s1"][3], ["s1_0", "s1_1"], geometry=moved)
    with pytest.raises(DataError, match=r"out/s1_2_0000.nii.gz: origin is 5 x 0 x 0, but .*imagesTr"):
        evaluate(2)


def test_forecast_of_another_size(cohort, evaluate, tmp_path, write_forecast):
    small = Geometry((9, 8, 3), GEOMETRY.spacing, GEOMETRY.origin, GEOMETRY.direction)
    write_forecast(tmp_path / "out", "s1_2", cohort["s1"][3][:3], ["s1_0", "s1_1"], geometry=small)
    with pytest.raises(DataError, match=r"size is 9 x 8 x 3, but .* has 9 x 8 x 4"):
        evaluate()


def test_forecast_with_a_voxel_that_is_not_a_number(cohort, evaluate, tmp_path, write_forecast):
    write_forecast(tmp_path / "out", "s1_2", cohort["s1"][3], ["s1_0", "s1_1"])
    path = tmp_path / "out" / "s1_2_0000.nii.gz"
    image = nibabel.load(path)
    broken = np.asarray(image.dataobj).copy()
    broken[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(broken, None, image.header), path)
    with pytest.raises(DataError, match=r"out/s1_2_0000.nii.gz .*1 NaN"):
        evaluate()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_subjects_that_the_model_may_have_seen_are_said(cohort, evaluate, paths, write_table, caplog):
    results = evaluate()
    assert results["subjects_of_training"] == [] and "imagesTr" not in caplog.text
    write_table(paths.raw / "scans.csv", ("s1_0", "s1", 0.0), ("s1_1", "s1", 1.0), ("s1_2", "s1", 2.0))
    results = evaluate()
    assert results["subjects_of_training"] == ["s1"]
    assert "1 of the subjects are in imagesTr (s1)" in caplog.text
