from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from longflow.errors import DataError
from longflow.evaluation.crps import crps
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.horizon_intervals import ForecastError, calibrate_by_horizon
from longflow.evaluation.intervals import share_interval
from longflow.files import write_json
from longflow.inference.selection import select
from longflow.reading import read_json
from longflow.tasks.forecast.calibration_record import Calibration, identity
from longflow.tasks.forecast.evaluation import evaluate_forecasts
from longflow.tasks.forecast.interval_errors import (
    INTERVAL_COLUMNS,
    calibration_of_folder,
    judge_intervals,
    recorded_segmenter,
    summarise_intervals,
)
from longflow.tasks.forecast.segmented import LABELS, SEGMENTED_SCAN, load_segmenter
from longflow.tasks.forecast.tables import show_forecasts
from tests.tasks.conftest import SHAPE
from tests.tasks.forecast.segmenting import segment_by_threshold, segmenter_dataset

#: of every error 2 ml, at a horizon of 1: intervals of -+ 2 ml
INTERVALS = calibrate_by_horizon([ForecastError(f"s{fold}", fold, 1.0, 2.0) for fold in range(4)], 0.8, 0.001)


def calibration(reference=SEGMENTED_SCAN):
    return Calibration(0.8, {"core": INTERVALS}, {"core": reference}, {})


def rows_of(case, forecast, lci, truth, acquired=None, horizon=1.0):
    """Rows of a target; with ``acquired`` it has a label map."""
    place = {"case": case, "subject": case[:2], "structure": "core", "horizon": horizon}
    place |= {"reference": SEGMENTED_SCAN if acquired is None else LABELS, "true_volume_ml": truth}
    volumes = {"forecast": forecast, "lci": lci, **({} if acquired is None else {"acquired": acquired})}
    return [{**place, "method": method, "volume_ml": volume} for method, volume in volumes.items()]


def judged(rows, **settings):
    judge_intervals(rows, calibration(**settings))
    return next(row for row in rows if row["method"] == "forecast")


def test_an_interval_holds_the_reference_or_not():
    row = judged(rows_of("s1_1", forecast=10.0, lci=7.0, truth=11.5))
    assert (row["lower_ml"], row["upper_ml"], row["width_ml"]) == pytest.approx((8, 12, 4))
    assert row["covered"] == 1 and row["lci_error_ml"] == 4.5
    assert row["crps_ml"] == pytest.approx(crps([8] * 4 + [12] * 4, 11.5))
    assert judged(rows_of("s1_1", 10.0, 7.0, 12.5))["covered"] == 0
    assert judged(rows_of("s1_1", 10.0, 7.0, 12.0 - 1e-9))["covered"] == 1


def test_the_reference_is_of_the_kind_of_the_calibration():
    rows = rows_of("s1_1", forecast=10.0, lci=9.0, truth=13.0, acquired=11.0)
    assert judged([dict(row) for row in rows])["covered"] == 1
    by_label = judged([dict(row) for row in rows], reference=LABELS)
    assert by_label["covered"] == 0 and by_label["lci_error_ml"] == 4
    without = judged(rows_of("s1_1", 10.0, 9.0, 11.0), reference=LABELS)
    assert without["width_ml"] == pytest.approx(4) and "covered" not in without


def test_a_horizon_without_an_interval_and_other_methods_are_not_judged():
    rows = rows_of("s1_1", 10.0, 9.0, 11.0, horizon=2.0)
    judge_intervals(rows, calibration())
    assert not any(name in row for row in rows for name in INTERVAL_COLUMNS)
    rows = rows_of("s1_1", 10.0, 9.0, 11.0)
    judge_intervals(rows, calibration())
    assert not any(name in rows[1] for name in INTERVAL_COLUMNS)


def test_the_summary_counts_targets_and_averages_subjects():
    rows = [
        *rows_of("s1_1", 10.0, 9.0, 11.0),
        *rows_of("s1_2", 10.0, 9.0, 13.0),
        *rows_of("s2_1", 1.0, 9.0, 2.0),
        *rows_of("s3_1", 10.0, 9.0, 11.0, horizon=2.0),
    ]
    judge_intervals(rows, calibration())
    found = summarise_intervals(rows, calibration())
    assert found["coverage"] == {
        **{"share": pytest.approx(2 / 3), "covered": 2, "targets": 3},
        "interval": share_interval([1, 1], [2, 1]),
    }
    assert found["width_ml"]["mean"] == pytest.approx((4 + 3) / 2)  # the second one ends at 0
    assert found["lci_error_ml"]["mean"] == pytest.approx(((2 + 4) / 2 + 7) / 2)
    assert found["reference"] == SEGMENTED_SCAN


def test_nothing_to_judge():
    rows = rows_of("s1_1", 10.0, 9.0, 11.0, horizon=2.0)
    judge_intervals(rows, calibration())
    found = summarise_intervals(rows, calibration())
    assert found["coverage"] == {"share": None, "covered": 0, "targets": 0, "interval": None}
    assert found["crps_ml"]["mean"] is None


# ---- through files


@pytest.fixture
def job(tmp_path, paths, description, write_scan, write_forecast, monkeypatch):
    segment_by_threshold(monkeypatch)
    segmenter_dataset()
    generator = np.random.default_rng(0)
    for subject in ("s1", "s2"):
        for position in range(2):
            write_scan(paths.raw / "imagesTr", f"{subject}_{position}", 3 * generator.random(SHAPE))
        write_forecast(tmp_path / "out", f"{subject}_1", 3 * generator.random(SHAPE), [f"{subject}_0"])
    return EvaluationJob(tmp_path / "out", (), paths.raw, description, 1, device="cpu")


@pytest.fixture
def record(job):
    """The folder has intervals, by the model of Dataset103."""
    segmenter = load_segmenter(EvaluationJob(**{**vars(job), "segmenter": select("103")}))
    of_structures = {
        name: {"reference": SEGMENTED_SCAN, "intervals": INTERVALS.record()} for name in segmenter.structures
    }
    models = {"model": {}, "segmenter": identity(segmenter)}
    content = {"format": 1, "level": 0.8, "time_unit": "months", **models, "by_structure": of_structures}
    write_json(content, job.predictions / "intervals.json")
    return content


def test_a_folder_with_intervals_is_segmented_by_their_model(job, record):
    results = evaluate_forecasts(job).results
    found = results["structures"]["intervals"]
    assert found["level"] == 0.8 and set(found["by_structure"]) == {"whole", "core"}
    assert found["by_structure"]["core"]["coverage"]["targets"] == 2
    assert found["by_structure"]["core"]["coverage"]["share"] == 1  # -+ 2 ml of less than 1 ml
    assert read_json(job.predictions / "metrics.json")["structures"]["intervals"] == found
    assert "coverage" in results["structures"]["definitions"]
    header = (job.predictions / "metrics_structures.csv").read_text().splitlines()[0]
    assert header.endswith(",".join(INTERVAL_COLUMNS))
    console = Console(file=StringIO(), width=160)
    show_forecasts(results, console)
    text = console.file.getvalue()
    assert "Intervals of volumes, level 80%" in text and "100%" in text and "|error| of LCI" in text


def test_intervals_of_another_segmenter_are_not_judged(job, record, caplog):
    segmenter_dataset(seed=1)
    results = evaluate_forecasts(job).results
    assert "intervals" not in results["structures"]
    assert "they are of volumes by another segmentation model" in caplog.text


def test_a_segmenter_that_is_not_here(job, record, caplog):
    write_json({**record, "segmenter": {**record["segmenter"], "folds": [[3]]}}, job.predictions / "intervals.json")
    assert recorded_segmenter(job.predictions) is None
    assert "Fold 3 of unet__longflowPlans__3d_fullres is not trained" in caplog.text
    assert "structures" not in evaluate_forecasts(job).results


@pytest.mark.parametrize("change", [{"segmenter": {}}, {"segmenter": None}, {"format": 7}])
def test_a_record_that_was_changed(job, record, change):
    write_json({**record, **change}, job.predictions / "intervals.json")
    with pytest.raises(DataError, match="is not a calibration of this version of longflow"):
        recorded_segmenter(job.predictions)


def test_a_folder_without_intervals(job):
    assert recorded_segmenter(job.predictions) is None
    segmenter = load_segmenter(EvaluationJob(**{**vars(job), "segmenter": select("103")}))
    assert calibration_of_folder(job.predictions, segmenter) is None
