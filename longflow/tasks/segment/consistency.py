"""How consistent the segmentations of consecutive scans of a subject are: STCS and ASPC (Ren et al., section 4).

Both are computed for the prediction and for the reference on the same pairs of scans. Anatomy does change: a prediction
that changes *less* than the reference is over-smoothed, it hides change that was there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longflow.evaluation.significance import FEWEST_FOR_A_VERDICT, holm, is_difference
from longflow.evaluation.summary import differences, paired_summary, summary
from longflow.tasks.segment.overlap import dice

#: what each number means, in the order of tables; written next to every result
CONSISTENCY_DEFINITIONS = {
    "stcs": (
        "spatiotemporal consistency of segmentation, 2 |S1 ∩ S2| / (|S1| + |S2|), 0 to 1, S1 and S2 being the "
        "segmentations of consecutive scans; undefined where these are on different grids, and where the structure is "
        "in neither"
    ),
    "aspc": (
        "absolute symmetrised percent change, 100 |V2 - V1| / (0.5 (V1 + V2)), 0 to 200, of the volumes of consecutive "
        "scans; undefined where the structure is in neither"
    ),
    "true_stcs, true_aspc": (
        "the same of the reference, on the same pairs: where one of the two is undefined, both are excluded and counted"
    ),
    "verdict": (
        "over-smoothed: ASPC below or STCS above the reference's; less consistent: the other way round. Judged by the "
        "sign-flip test over subjects of the paired difference, with p_holm <= 0.05; above that, both are not told "
        "apart, which is no proof that they are alike. Null with fewer than 6 subjects, over which the test cannot "
        "reach 0.05"
    ),
    "p_holm": "p, corrected for STCS and ASPC of all structures (Holm 1979)",
}

OVER_SMOOTHED, LESS_CONSISTENT, NOT_TOLD_APART = "over-smoothed", "less consistent", "not told apart"


def stcs(first: np.ndarray, second: np.ndarray) -> float | None:
    """Compute the spatiotemporal consistency of segmentation, 0 to 1.

    It is the Dice coefficient of the two scans' segmentations.

    :param first: (z, y, x), bool, on the grid of ``second``.
    :returns: None where both are empty.
    """
    return dice(first, second)


def aspc(first: float, second: float) -> float | None:
    """Compute the absolute symmetrised percent change of a volume, 0 to 200; None where both volumes are 0."""
    return 100 * abs(second - first) / (0.5 * (first + second)) if first + second else None


def summarise_consistency(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise STCS and ASPC of prediction and reference of one structure over subjects.

    :param rows: one for each pair of consecutive scans: subject, same_grid, stcs, true_stcs, aspc, true_aspc.
    """
    result: dict[str, Any] = {"pairs": len(rows), "on_other_grids": sum(not row["same_grid"] for row in rows)}
    subjects = [row["subject"] for row in rows]
    for name in ("stcs", "aspc"):
        predicted, reference = ([row[column] for row in rows] for column in (name, f"true_{name}"))
        difference = differences(predicted, reference)
        for column, values in ((name, predicted), (f"true_{name}", reference)):
            # means are printed next to each other, so all three are of the same pairs
            paired = [None if d is None else value for value, d in zip(values, difference, strict=True)]
            result[column] = summary(subjects, paired)
        result[f"{name}_difference"] = paired_summary(subjects, predicted, reference)
    return result


def judge(of_structures: Mapping[str, dict[str, Any]]) -> None:
    """Add ``p_holm`` to the differences of all structures, and a ``verdict`` to each structure.

    Several structures are several chances of a false finding, so their p values are corrected together.

    :param of_structures: of :func:`summarise_consistency`, by structure.
    """
    keys = ("stcs_difference", "aspc_difference")
    tests = {(name, key): one[key]["p"] for name, one in of_structures.items() for key in keys}
    for (name, key), p in holm(tests).items():
        of_structures[name][key]["p_holm"] = p
    for one in of_structures.values():
        one["verdict"] = verdict(*(one[key] for key in keys))


def verdict(stcs_difference: dict[str, Any], aspc_difference: dict[str, Any]) -> str | None:
    """Judge the differences, prediction minus reference, together.

    :param stcs_difference: mean, subjects and p_holm.
    :param aspc_difference: likewise.
    :returns: None where neither is defined for enough subjects.
    """
    said = {"STCS": _direction(stcs_difference, smoother=+1), "ASPC": _direction(aspc_difference, smoother=-1)}
    said = {name: words for name, words in said.items() if words}
    telling = {name: words for name, words in said.items() if words != NOT_TOLD_APART}
    if len(set(telling.values())) == 2:
        return "; ".join(f"{name}: {words}" for name, words in telling.items())
    return next(iter(telling.values()), NOT_TOLD_APART if said else None)


def _direction(difference: dict[str, Any], smoother: int) -> str | None:
    """Judge one difference. :param smoother: its sign where the prediction changes less than the reference."""
    if difference["subjects"] < FEWEST_FOR_A_VERDICT:
        return None
    if not is_difference(difference["p_holm"]):
        return NOT_TOLD_APART
    return OVER_SMOOTHED if smoother * difference["mean"] > 0 else LESS_CONSISTENT
