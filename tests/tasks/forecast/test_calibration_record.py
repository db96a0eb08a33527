import pytest

from longflow.errors import ConfigurationError, DataError
from longflow.evaluation.horizon_intervals import ForecastError, calibrate_by_horizon
from longflow.evaluation.repeatability import Repeatability
from longflow.files import write_json
from longflow.tasks.forecast.calibration_record import Calibration

VOXEL = 0.001


@pytest.fixture
def calibration(tmp_path):
    """A record of a structure, as a file."""
    models = {
        "model": {"method": ["cronos"], "plan_identity": ["a"], "folds": [[0, 1]], "digests": {"weights": [["w"]]}},
        "segmenter": {
            **{"dataset": "Dataset103_Segment", "method": ["unet"], "configuration": ["3d_fullres"], "folds": [[0]]},
            "digests": {"weights": [["v"]]},
        },
    }
    intervals = calibrate_by_horizon([ForecastError(f"s{fold}", fold, 1.0, 2.0) for fold in range(4)], 0.8, VOXEL)
    of_structures = {"core": {"reference": "labels", "intervals": intervals.record()}}
    record = {"format": 1, "level": 0.8, "time_unit": "days", **models, "by_structure": of_structures}
    write_json(record, tmp_path / "calibration.json")
    return Calibration.read(tmp_path / "calibration.json")


def test_the_segmenter_is_named(calibration):
    assert calibration.segmenter == ("Dataset103_Segment", "unet", "3d_fullres", (0,))


def test_the_same_models_are_recognised(calibration, tmp_path):
    calibration.check(calibration.record["model"], calibration.record["segmenter"], tmp_path)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "model",
            {"method": ["tfm"]},
            r"that forecasts: its method differ \(\['cronos'\], now \['tfm'\]\)",
        ),
        ("model", {"plan_identity": ["x"]}, "another model that forecasts: its plan_identity differ"),
        ("model", {"folds": [[0]]}, "another model that forecasts: its folds differ"),
        ("model", {"digests": {}}, "another model that forecasts: its weights or plans differ"),
        ("segmenter", {"digests": {}}, "another model that segments: its weights or plans differ"),
        ("segmenter", {"dataset": "Dataset104_Other"}, "another model that segments: its dataset differ"),
    ],
)
def test_other_models_are_refused(calibration, tmp_path, key, change, message):
    models = {name: calibration.record[name] for name in ("model", "segmenter")}
    models[key] = {**models[key], **change}
    with pytest.raises(ConfigurationError, match=message):
        calibration.check(models["model"], models["segmenter"], tmp_path / "calibration.json")


@pytest.mark.parametrize(
    "change", [{"format": 0}, {"by_structure": {"core": {}}}, {"by_structure": []}, {"level": "x"}]
)
def test_a_record_that_was_changed(calibration, tmp_path, change):
    write_json({**calibration.record, **change}, tmp_path / "calibration.json")
    with pytest.raises(DataError, match="is not a calibration of this version of longflow"):
        Calibration.read(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    ("reference", "observed", "expected"),
    [
        ("segmented scan", 7.0, True),
        ("segmented scan", 8.5, False),  # beyond the interval, within the noise
        ("segmented scan", 9.5, False),  # within the interval
        ("labels", 7.0, None),
    ],
)
def test_a_change_is_beyond_both(reference, observed, expected):
    noise = {"core": Repeatability(0.7, 0.5, 1.0, 2.0, 10, 10)}
    calibration = Calibration(0.9, {}, {"core": reference}, {}, repeatability=noise)
    assert calibration.is_change("core", 10.0, (9.0, 11.0), observed) is expected


def test_without_pairs_no_change_is_called():
    assert Calibration(0.9, {}, {"core": "segmented scan"}, {}).is_change("core", 10.0, (9.0, 11.0), 1.0) is None
