"""Map predicted volumes to volumes that are right on average: fitted on subjects that the model did not learn from.

A network that draws a structure too large or too small in all scans has biased volumes, and biased changes. Where the
predicted volume follows the reference, a straight line removes most of it:

    reference = intercept + slope x predicted

It is fitted on out-of-fold label maps, every subject weighing the same. Its benefit is measured without the subject
that is corrected: each subject's volumes by the line of the others. Where there is none, nothing is corrected.

The line is that of the training subjects. For subjects whose volumes lie outside theirs it is an extrapolation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.errors import DataError
from longflow.evaluation.conformal import attainable_level, conformal_factor, subject_scores
from longflow.reading import read_json

#: fewest subjects, and lowest correlation of predicted and reference volumes over scans, for a line
FEWEST_SUBJECTS, LOWEST_CORRELATION = 5, 0.8
#: probability that the intervals of all scans of a new subject hold; lower where the subjects are too few
LEVEL = 0.9

#: columns of volumes.csv that a calibration adds
CALIBRATED_COLUMNS = ("volume_calibrated_ml", "calibrated_low_ml", "calibrated_high_ml")


def calibrate_volumes(
    subjects: Sequence[str], predicted: Sequence[float], reference: Sequence[float]
) -> dict[str, Any]:
    """Fit the line of a structure, or say why there is none.

    :param subjects: of each scan.
    :param predicted: volume of each scan in the out-of-fold label map, ml.
    :param reference: volume of each scan in the reference, ml.
    :returns: subjects, scans, correlation, error (mean over subjects of the mean absolute error, ml) and
        calibrated_error (the same of volumes that were corrected by the line of the other subjects). Then slope,
        intercept, range (lowest and highest predicted volume), half_width and level of the interval; or refused, the
        reason, and what was computed before.
    """
    names = sorted(set(subjects))
    of_scan, x, y = np.array(subjects), np.asarray(predicted, float), np.asarray(reference, float)
    found: dict[str, Any] = {"subjects": len(names), "scans": len(x)}
    if len(names) < FEWEST_SUBJECTS:
        return {**found, "refused": f"{len(names)} subjects, expected {FEWEST_SUBJECTS} or more"}
    if not x.std() or not y.std():
        return {**found, "refused": "all predicted or all reference volumes are equal"}
    found["correlation"] = round(float(np.corrcoef(x, y)[0, 1]), 4)
    if found["correlation"] < LOWEST_CORRELATION:
        why = f"predicted and reference volumes have a correlation of {found['correlation']:.2f}"
        return {**found, "refused": f"{why}, expected {LOWEST_CORRELATION} or more"}
    held_out = np.empty_like(x)
    for name in names:
        own = of_scan == name
        if not x[~own].std():
            return {**found, "refused": f"without {name} all predicted volumes are equal"}
        held_out[own] = corrected(x[own], *fit_line(of_scan[~own], x[~own], y[~own]))
    found["error"], found["calibrated_error"] = (
        round(float(np.mean([np.abs(one - y)[of_scan == name].mean() for name in names])), 6) for one in (x, held_out)
    )
    if found["calibrated_error"] >= found["error"]:
        return {**found, "refused": "volumes of subjects that the line was not fitted on do not become better"}
    slope, intercept = fit_line(of_scan, x, y)
    level = min(LEVEL, attainable_level(len(names)))
    scores = subject_scores(subjects, list(held_out - y), [1.0] * len(x))
    return {
        **found,
        "slope": slope,
        "intercept": intercept,
        "range": [float(x.min()), float(x.max())],
        "half_width": round(conformal_factor(scores, level), 6),
        "level": level,
    }


def fit_line(subjects: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Fit reference = intercept + slope x predicted by least squares; every subject has the same weight.

    :param subjects: of each scan.
    :param predicted: ml, not all equal.
    :param reference: ml.
    :returns: slope and intercept.
    """
    _, number, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    slope, intercept = np.polyfit(predicted, reference, 1, w=1 / np.sqrt(counts[number]))
    return float(slope), float(intercept)


def corrected(volume: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Map volumes, ml; none is below 0."""
    return np.maximum(intercept + slope * volume, 0)


def calibrated_columns(volume: float, calibration: Mapping[str, Any] | None) -> dict[str, float | str]:
    """Return the cells of a volume: its corrected value and its interval; empty cells where there is no line.

    :param volume: predicted, ml.
    :param calibration: of the structure (:func:`calibrate_volumes`); None: it has none.
    """
    if not calibration or "slope" not in calibration:
        return dict.fromkeys(CALIBRATED_COLUMNS, "")
    value = float(corrected(np.array(volume), calibration["slope"], calibration["intercept"]))
    half = calibration["half_width"]
    cells = (round(one, 6) for one in (value, max(0.0, value - half), value + half))
    return dict(zip(CALIBRATED_COLUMNS, cells, strict=True))


def calibration_of(best: Path, candidate: str, weights: Sequence[str]) -> dict[str, Any]:
    """Read the lines that ``longflow_find_best`` fitted for a model.

    :param best: file of its record.
    :param candidate: name of the model's folder.
    :param weights: digests of the weights that predict: the lines are for all folds that they were fitted on, as they
        were then.
    :returns: by structure; empty where there is no record, or one of another model or of other weights.
    :raises DataError: the record was changed.
    """
    record = read_json(best, dict) if best.is_file() else {}
    found = record.get("volume_calibration")
    if not found or record.get("candidate") != candidate or found.get("weights") != list(weights):
        return {}
    lines = [one for one in found["structures"].values() if "slope" in one]
    if not all(
        isinstance(line.get(key), int | float) for line in lines for key in ("slope", "intercept", "half_width")
    ):
        raise DataError(f"volume_calibration in {best} is not what longflow_find_best writes. Run it again.")
    return found["structures"]
