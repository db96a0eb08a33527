import csv

import pytest

from longflow.errors import ConfigurationError
from longflow.evaluation.horizon_intervals import ForecastError, calibrate_by_horizon
from longflow.files import write_json
from longflow.inference.models import PredictionSettings
from longflow.inference.predictor import predict_folder
from longflow.inference.selection import select
from longflow.reading import read_json
from longflow.tasks.forecast.calibration_record import identity
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.volumes import COLUMNS, ForecastVolumes
from tests.tasks.forecast.calibrating import THRESHOLDS, VOXEL, threshold_segmenter, volume_of

#: days after the first scan; the last one is at 40
TIMES = (50.0, 90.0)


@pytest.fixture
def forecaster(validated_dataset):
    return Forecaster.of(select("1", folds=(0,)), PredictionSettings("cpu"))


@pytest.fixture
def segmented(validated_dataset, monkeypatch):
    return threshold_segmenter(monkeypatch, validated_dataset)


@pytest.fixture
def intervals():
    """Errors of 0.02 ml of the core and of 0 of the whole, at horizons of 10 to 30 days."""
    return {
        name: calibrate_by_horizon(
            [ForecastError(f"s{fold}", fold, 10.0 + 5 * fold, error) for fold in range(5)], 0.8, VOXEL
        )
        for name, error in (("whole", 0.0), ("core", 0.02))
    }


@pytest.fixture
def calibrate(validated_dataset, forecaster, segmented, intervals):
    """Write a calibration of both models."""

    def write(**change):
        segmenter = ForecastVolumes.load(forecaster, select("103"), "cpu").segmenter
        models = {"model": identity(forecaster), "segmenter": identity(segmenter)}
        of_structures = {
            name: {"reference": "segmented scan", "intervals": one.record()} for name, one in intervals.items()
        }
        record = {"format": 1, "level": 0.8, "time_unit": "days", **models, "by_structure": of_structures, **change}
        write_json(record, validated_dataset.calibration("Dataset103_Segment") / "calibration.json")
        return record

    return write


def forecast(forecaster, dataset, out, **options):
    source = dataset.raw / "imagesTr"
    (source / "scans.csv").write_text((dataset.raw / "scans.csv").read_text())
    return predict_folder(forecaster, source, out, {"times": TIMES, **options})


def rows_of(out):
    with open(out / "volumes.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_volumes_over_time_with_intervals(validated_dataset, forecaster, calibrate, intervals, tmp_path, caplog):
    record = calibrate()
    items = forecast(forecaster, validated_dataset, tmp_path / "out")
    written = ForecastVolumes.load(forecaster, select("103"), "cpu").write(items, tmp_path / "out")
    assert written == ("volumes.csv", "intervals.json", "segmented/")
    assert read_json(tmp_path / "out" / "intervals.json") == record
    rows = rows_of(tmp_path / "out")
    assert list(rows[0]) == list(COLUMNS) and len(rows) == 6 * (4 + 2) * 2
    of_subject = [row for row in rows if row["subject"] == "s2" and row["structure"] == "core"]
    assert [float(row["time"]) for row in of_subject] == [0, 10, 25, 40, 50, 90]
    assert [row["source"] for row in of_subject] == ["observed"] * 4 + ["forecast"] * 2
    for position, row in enumerate(of_subject[:4]):
        assert float(row["volume_ml"]) == pytest.approx(volume_of(validated_dataset, f"s2_{position}", "core"))
        assert row["lower_ml"] == row["upper_ml"] == row["level"] == row["horizon"] == ""
    near, far = of_subject[4:]
    volume = volume_of(validated_dataset, "s2_3", "core")  # the model forecasts LCI
    expected = intervals["core"].interval(volume, 10.0)
    assert expected == pytest.approx((volume - 0.02, volume + 0.02))
    assert (float(near["lower_ml"]), float(near["upper_ml"]), float(near["level"])) == pytest.approx((*expected, 0.8))
    assert (near["horizon"], far["horizon"]) == ("10.0", "50.0")
    assert far["lower_ml"] == far["upper_ml"] == far["level"] == ""
    assert "6 forecasts have no intervals (s0_t90" in caplog.text and "10 to 30 days" in caplog.text


@pytest.mark.parametrize(("coefficient", "changed"), [(0.0, "1"), (1e6, "0")])
def test_a_change_is_beyond_interval_and_repeatability(
    validated_dataset, forecaster, calibrate, intervals, tmp_path, coefficient, changed
):
    noise = {"within_sd": 1.0, "within_sd_from": 0.5, "within_sd_to": 2.0, "subjects": 4, "pairs": 4}
    of_structures = {
        name: {"reference": "segmented scan", "intervals": one.record()} for name, one in intervals.items()
    }
    of_structures["core"]["repeatability"] = {**noise, "coefficient": coefficient}
    calibrate(by_structure=of_structures)
    items = forecast(forecaster, validated_dataset, tmp_path / "out")
    volumes = ForecastVolumes.load(forecaster, select("103"), "cpu")
    volumes.write(items, tmp_path / "out")
    rows = [row for row in rows_of(tmp_path / "out") if row["source"] == "forecast" and row["level"]]
    core = [row for row in rows if row["structure"] == "core"]
    # the model forecasts LCI: nothing changes
    assert core and all((row["changed"], row["repeatability_ml"]) == ("0", str(coefficient)) for row in core)
    assert all(row["changed"] == row["repeatability_ml"] == "" for row in rows if row["structure"] == "whole")
    assert all(row["changed"] == "" for row in rows_of(tmp_path / "out") if row["source"] == "observed")
    found = volumes.calibration.is_change("core", 5.0, (4.0, 6.0), 1.0)
    assert str(int(found)) == changed


def test_label_maps_are_kept(validated_dataset, forecaster, calibrate, segmented, tmp_path):
    calibrate()
    items = forecast(forecaster, validated_dataset, tmp_path / "out")
    volumes = ForecastVolumes.load(forecaster, select("103"), "cpu")
    volumes.write(items, tmp_path / "out")
    assert len(segmented) == 6 * (4 + 2)
    volumes.write(items, tmp_path / "out")
    assert len(segmented) == 6 * (4 + 2)


def test_volumes_without_a_calibration(validated_dataset, forecaster, segmented, tmp_path, caplog):
    items = forecast(forecaster, validated_dataset, tmp_path / "out")
    write_json({}, tmp_path / "out" / "intervals.json")  # of an earlier command
    written = ForecastVolumes.load(forecaster, select("103"), "cpu").write(items, tmp_path / "out")
    assert written == ("volumes.csv", "segmented/") and not (tmp_path / "out" / "intervals.json").exists()
    assert all(row["lower_ml"] == row["level"] == "" for row in rows_of(tmp_path / "out"))
    assert {row["structure"] for row in rows_of(tmp_path / "out")} == set(THRESHOLDS)
    assert "longflow_calibrate -d 001 --structures 103" in caplog.text


def test_hidden_context_is_another_kind_of_forecast(validated_dataset, forecaster, calibrate, tmp_path, caplog):
    calibrate()
    items = forecast(forecaster, validated_dataset, tmp_path / "out", hide_context="first:1")
    ForecastVolumes.load(forecaster, select("103"), "cpu").write(items, tmp_path / "out")
    assert all(row["level"] == "" for row in rows_of(tmp_path / "out"))
    assert "Forecasts with hidden context scans (--hide_context) have no intervals" in caplog.text


def test_a_calibration_of_other_folds(validated_dataset, calibrate):
    calibrate()
    with pytest.raises(ConfigurationError, match="another model that forecasts: its folds differ"):
        ForecastVolumes.load(Forecaster.of(select("1", folds=(1,)), PredictionSettings("cpu")), select("103"), "cpu")


def test_a_calibration_of_another_segmenter(validated_dataset, forecaster, calibrate, monkeypatch):
    calibrate()
    threshold_segmenter(monkeypatch, validated_dataset, seed=1)
    with pytest.raises(ConfigurationError, match="another model that segments: its weights or plans differ"):
        ForecastVolumes.load(forecaster, select("103"), "cpu")
