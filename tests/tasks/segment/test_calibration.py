import numpy as np
import pytest

from longflow.errors import DataError
from longflow.files import write_json
from longflow.tasks.segment.calibration import (
    CALIBRATED_COLUMNS,
    calibrate_volumes,
    calibrated_columns,
    calibration_of,
    fit_line,
)


def cohort(subjects=10, scans=3, noise=0.0, seed=0):
    """Subject of each scan, and true volumes, ml."""
    generator = np.random.default_rng(seed)
    names = [f"s{number:02d}" for number in range(subjects) for _ in range(scans)]
    volumes = np.repeat(generator.uniform(20, 60, subjects), scans) + generator.uniform(0, 5, subjects * scans)
    return names, volumes, noise * generator.normal(size=len(volumes))


def test_a_known_distortion_is_undone():
    names, reference, _ = cohort()
    predicted = (reference - 3) / 1.25
    found = calibrate_volumes(names, predicted, reference)
    assert (found["slope"], found["intercept"]) == pytest.approx((1.25, 3))
    assert (found["subjects"], found["scans"], found["correlation"]) == (10, 30, 1.0)
    assert found["error"] == pytest.approx(np.abs(predicted - reference).mean(), abs=1e-6)
    assert found["calibrated_error"] == pytest.approx(0, abs=1e-6) == found["half_width"]
    assert found["range"] == pytest.approx([predicted.min(), predicted.max()])
    columns = calibrated_columns(20, found)
    assert tuple(columns) == CALIBRATED_COLUMNS and columns["volume_calibrated_ml"] == pytest.approx(28)


def test_errors_are_of_subjects_that_the_line_was_not_fitted_on():
    names, reference, noise = cohort(subjects=6, noise=1.0)
    predicted = 0.7 * reference + noise
    of_scan, expected = np.array(names), []
    scores = []
    for name in sorted(set(names)):
        own = of_scan == name
        slope, intercept = np.polyfit(predicted[~own], reference[~own], 1)
        errors = np.abs(intercept + slope * predicted[own] - reference[own])
        expected.append(errors.mean())
        scores.append(errors.max())
    found = calibrate_volumes(names, predicted, reference)
    assert found["calibrated_error"] == pytest.approx(np.mean(expected), abs=1e-6)
    # six subjects give no interval of 90 %: the largest score is that of 6 / 7
    assert found["level"] == pytest.approx(6 / 7) and found["half_width"] == pytest.approx(max(scores), abs=1e-6)


def test_subjects_weigh_the_same_however_many_scans_they_have():
    subjects = np.array(["a"] * 10 + ["b", "c"])
    predicted = np.array([1.0] * 10 + [2.0, 3.0])
    reference = np.array([1.0] * 10 + [2.5, 3.0])
    once = np.polyfit([1.0, 2.0, 3.0], [1.0, 2.5, 3.0], 1)
    assert fit_line(subjects, predicted, reference) == pytest.approx(tuple(once))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda names, volumes: (names[:12], volumes[:12], volumes[:12]), "4 subjects, expected 5 or more"),
        (lambda names, volumes: (names, np.zeros(len(names)), volumes), "predicted or all reference volumes are equal"),
        (lambda names, volumes: (names, np.roll(volumes, 9), volumes), "a correlation of -?0.*expected 0.8 or more"),
        (lambda names, volumes: (names, volumes, volumes), "do not become better"),
    ],
)
def test_a_line_that_means_nothing_is_refused(change, reason):
    names, volumes, _ = cohort()
    found = calibrate_volumes(*change(names, volumes))
    assert "slope" not in found
    assert pytest.raises(ValueError, match=reason).matches(ValueError(found["refused"]))
    assert calibrated_columns(20, found) == dict.fromkeys(CALIBRATED_COLUMNS, "")


def test_a_prediction_that_follows_in_one_subject_alone_is_refused():
    names, reference, _ = cohort(subjects=5, scans=1)
    predicted = np.array([1.0, 1, 1, 1, 9])
    reference = np.array([10.0, 10, 10, 10.5, 40])
    found = calibrate_volumes(names, predicted, reference)
    assert found["refused"] == "without s04 all predicted volumes are equal"


def test_without_references_there_is_nothing_to_calibrate_by():
    expected = {"subjects": 0, "scans": 0, "refused": "0 subjects, expected 5 or more"}
    assert calibrate_volumes([], [], []) == expected


def test_the_record_is_for_the_model_and_the_weights_that_it_was_fitted_on(tmp_path):
    best, line = tmp_path / "best.json", {"slope": 2.0, "intercept": 0.5, "half_width": 1.0}
    assert calibration_of(best, "unet", ["w"]) == {}
    record = {"candidate": "unet", "volume_calibration": {"weights": ["w"], "structures": {"core": line}}}
    write_json(record, best)
    assert calibration_of(best, "unet", ["w"]) == {"core": line}
    assert calibration_of(best, "unet_consistent", ["w"]) == calibration_of(best, "unet", ["trained again"]) == {}
    del record["volume_calibration"]
    write_json(record, best)  # of an earlier version
    assert calibration_of(best, "unet", ["w"]) == {}


def test_a_record_that_was_changed_is_named(tmp_path):
    structures = {"core": {"slope": "2", "intercept": 0.5, "half_width": 1.0}}
    record = {"candidate": "unet", "volume_calibration": {"weights": [], "structures": structures}}
    write_json(record, tmp_path / "best.json")
    with pytest.raises(DataError, match=r"best.json is not what longflow_find_best writes. Run it again"):
        calibration_of(tmp_path / "best.json", "unet", [])


def test_volumes_and_intervals_are_not_below_0():
    line = {"slope": 1.0, "intercept": -5.0, "half_width": 2.0}
    assert list(calibrated_columns(3, line).values()) == [0, 0, 2]
    assert list(calibrated_columns(10, line).values()) == [5, 3, 7]
    assert calibrated_columns(10, None) == dict.fromkeys(CALIBRATED_COLUMNS, "")


def test_intervals_hold_for_new_subjects_as_often_as_they_say():
    """All scans of a subject together, over draws of the cohort and of the new subject."""
    held = []
    for seed in range(300):
        names, reference, noise = cohort(subjects=20, noise=1.5, seed=seed)
        predicted = 0.8 * reference + noise
        old = np.array(names) != "s19"
        found = calibrate_volumes(list(np.array(names)[old]), predicted[old], reference[old])
        rows = [calibrated_columns(volume, found) for volume in predicted[~old]]
        held.append(
            all(
                row["calibrated_low_ml"] <= truth <= row["calibrated_high_ml"]
                for row, truth in zip(rows, reference[~old], strict=True)
            )
        )
    assert found["level"] == 0.9 and 0.85 < np.mean(held) < 0.99
