"""Agreement of two phases before and after registration, subject by subject (MFM B.6).

The paper judges its registration by the improvement of mean absolute error (MAE) and mutual information (MI). It does
not say below which value a pair is excluded. Here no pair is excluded by them: pairs that stand out are named.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.reading import read_json
from longflow.registration.checks import seen_by_both

#: classes of intensity of each image
CLASSES = 32
#: percentiles of an image between which its classes are; values beyond are in the outermost
LIMITS = (0.5, 99.5)

#: a pair stands out where a number is this many interquartile ranges beyond the quartiles of all pairs (Tukey 1977)
WHISKER = 1.5
#: share by which a number must be worse than before; resampling alone changes it a little
WORSE = 0.02
#: pairs that quartiles need
FEWEST = 8

#: key of the record of a pair, and its two numbers
AGREEMENT, MAE, MI = "agreement in the body", "mean absolute error", "mutual information"
BEFORE, AFTER = "by the headers", "after"

COLUMNS = ("subject", "pair", "mae_before", "mae_after", "mi_before", "mi_after", "stands_out")


def mean_absolute_error(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float | None:
    """Compute the mean absolute difference of two volumes where both are finite.

    :param one: (z, y, x), NaN where unknown.
    :param other: likewise.
    :param mask: (z, y, x), voxels that count.
    :returns: in input units; None where no voxel counts.
    """
    a, b = seen_by_both(one, other, mask)
    return float(np.abs(a - b).mean()) if len(a) else None


def mutual_information(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float | None:
    """Compute the mutual information of two volumes where both are finite, from a joint histogram.

    :param one: (z, y, x), NaN where unknown.
    :param other: likewise.
    :param mask: (z, y, x), voxels that count.
    :returns: nats, at most log(CLASSES); None where no voxel counts.
    """
    a, b = seen_by_both(one, other, mask)
    if not len(a):
        return None
    joint = np.zeros((CLASSES, CLASSES))
    np.add.at(joint, (_classes(a), _classes(b)), 1)
    joint /= joint.sum()
    expected = np.outer(joint.sum(1), joint.sum(0))
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / expected[filled])).sum())


def _classes(values: np.ndarray) -> np.ndarray:
    """Class of each value, all of one width."""
    low, high = np.percentile(values, LIMITS)
    width = (high - low) / CLASSES or 1.0
    return np.clip((values - low) / width, 0, CLASSES - 1).astype(int)


def agreement(reference: np.ndarray, before: np.ndarray, after: np.ndarray, body: np.ndarray) -> dict[str, Any]:
    """Measure how a scan agrees with the reference before and after registration.

    :param reference: (z, y, x), NaN outside its field of view.
    :param before: (z, y, x), the scan on the grid of the reference, by the headers alone.
    :param after: the same, registered.
    :param body: (z, y, x), bool.
    :returns: entries of the record of a pair; both numbers over the voxels that all three show.
    """
    shown = body & np.isfinite(before) & np.isfinite(after)
    return {
        name: {key: _rounded(measure(reference, image, shown)) for key, image in ((BEFORE, before), (AFTER, after))}
        for name, measure in ((MAE, mean_absolute_error), (MI, mutual_information))
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def agreement_of_dataset(folder: Path) -> list[dict[str, Any]]:
    """Collect the agreement of all pairs of a registered dataset from the records of its subjects.

    :param folder: of the registered dataset.
    :returns: a row of :data:`COLUMNS` for each pair; records of earlier versions have none.
    """
    rows = [
        {
            "subject": subject,
            "pair": pair,
            **{f"mae_{when}": report[AGREEMENT][MAE][key] for when, key in (("before", BEFORE), ("after", AFTER))},
            **{f"mi_{when}": report[AGREEMENT][MI][key] for when, key in (("before", BEFORE), ("after", AFTER))},
        }
        for subject, path in ((path.stem, path) for path in sorted((folder / "transforms").glob("*.json")))
        for pair, report in read_json(path, dict).get("pairs", {}).items()
        if AGREEMENT in report
    ]
    for row, reasons in zip(rows, stands_out(rows), strict=True):
        row["stands_out"] = "; ".join(reasons)
    return rows


def stands_out(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Say of each pair in which way it stands out: worse after registration, or far from the others.

    :param rows: with the four numbers.
    :returns: reasons of each row; empty for pairs like the others.
    """
    reasons: list[list[str]] = [[] for _ in rows]
    for column, sign, words in (("mae", 1, "MAE"), ("mi", -1, "MI")):
        known = [sign * row[f"{column}_after"] for row in rows if row[f"{column}_after"] is not None]
        low, high = np.percentile(known, (25, 75)) if len(known) >= FEWEST else (0.0, np.inf)
        limit = high + WHISKER * (high - low) if len(known) >= FEWEST else np.inf
        for row, own in zip(rows, reasons, strict=True):
            before, after = row[f"{column}_before"], row[f"{column}_after"]
            if after is None:
                continue
            if sign * after > limit:
                own.append(f"{words} {'above' if sign > 0 else 'below'} that of the other pairs")
            if sign * (after - before) > WORSE * abs(before):
                own.append(f"{words} worse than before registration")
    return reasons
