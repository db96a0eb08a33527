import csv
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from longflow.errors import DataError
from longflow.evaluation.energy import gaussian_energy_score
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.horizon_intervals import Scale
from longflow.tasks.forecast import sample_errors
from longflow.tasks.forecast.evaluation import evaluate_forecasts
from tests.tasks.conftest import SHAPE


@pytest.fixture
def evaluate(tmp_path, paths, description, write_scan, write_forecast):
    """The evaluation of two subjects whose forecasts are means of four samples; each scan is drawn as a sample is."""
    generator = np.random.default_rng(0)
    for subject, horizon in (("s1", 2.0), ("s2", 5.0)):
        law = 100 * generator.random(SHAPE)
        scans = [(law + generator.normal(size=SHAPE)).astype(np.float32) for _ in range(7)]
        for position in range(3):
            write_scan(paths.raw / "imagesTr", f"{subject}_{position}", scans[position])
        case, record = f"{subject}_2", {"number": 4, "sources": ["noise"], "seed": 0, "sigma": 0.1}
        context = [f"{subject}_0", f"{subject}_1"]
        mean = np.mean(scans[3:], axis=0)
        write_forecast(tmp_path / "out", case, mean, context, horizon=horizon, samples=record)
        for number, sample in enumerate(scans[3:]):
            write_scan(tmp_path / "out" / "samples" / case, f"{case}_s{number:02d}", sample)
    return lambda: evaluate_forecasts(EvaluationJob(tmp_path / "out", (), paths.raw, description, 1))


def test_spread_and_energy_of_samples_like_the_truth(evaluate, tmp_path, caplog):
    evaluation = evaluate()
    found = evaluation.results["samples"]
    assert found["number"] == 4 and [part["from"] for part in found["by_horizon"]] == [2.0, 5.0]
    assert found["overall"]["spread_skill"] == pytest.approx(1, abs=0.1)
    assert found["overall"]["energy_score"]["mean"] < found["overall"]["nrmse"]["mean"]
    # no model of that name is here
    assert found["out_of_fold"] is None and "samples are not compared with the usual error" in caplog.text
    with open(tmp_path / "out" / "metrics_samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["s1_2", "s2_2"] and rows[0]["gaussian_energy_score"] == ""
    assert float(rows[0]["nrmse"]) == pytest.approx(evaluation.results["overall"]["forecast"]["nrmse"]["mean"], rel=0.2)
    console = Console(file=StringIO(), width=200)
    evaluation.show(console)
    assert "4 samples, in units of the NRMSE" in console.file.getvalue()


def test_next_to_the_usual_error(evaluate, monkeypatch):
    monkeypatch.setattr(sample_errors, "usual_error", lambda *_: Scale(0.02, 0.01, 1e-9))
    found = evaluate().results["samples"]
    first = found["by_horizon"][0]
    expected = gaussian_energy_score(first["nrmse"]["mean"], 0.04)
    assert first["gaussian_energy_score"]["mean"] == pytest.approx(expected)
    assert found["out_of_fold"] == {"at_zero": 0.02, "per_time_unit": 0.01}
    assert found["overall"]["difference_to_gaussian"]["mean"] < 0


def test_a_sample_is_missing(evaluate, tmp_path):
    (tmp_path / "out" / "samples" / "s1_2" / "s1_2_s03_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"names 4 samples, but there is no .*s1_2_s03_0000.nii.gz"):
        evaluate()


@pytest.mark.parametrize("record", [7, {}, {"number": 1}, {"number": "4"}])
def test_a_sidecar_that_was_changed(evaluate, tmp_path, write_forecast, record):
    write_forecast(tmp_path / "out", "s1_2", np.ones(SHAPE, np.float32), ["s1_0", "s1_1"], samples=record)
    with pytest.raises(DataError, match=r"s1_2.json: samples is .*, expected an object with 'number' of 2 or more"):
        evaluate()
