"""Compare the changes of predicted lesions with those of the reference: which were called right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longflow.evaluation.summary import summary
from longflow.tasks.segment.lesion_changes import CHANGES, FIRST, GONE, STABLE, Call, Lesions, Visit, shared_voxels
from longflow.tasks.segment.lesions import LesionCounts

#: that are compared; what is stable has not changed, so that it does not count for F1
COMPARED = tuple(change for change in CHANGES if change != FIRST)
CHANGED = tuple(change for change in COMPARED if change != STABLE)

CHANGE_DEFINITIONS = {
    "called right": "a change of the reference is called right where a predicted lesion with the same change overlaps "
    "its lesion by any voxel, in the later scan; in the earlier one for lesions that are gone. A predicted change is "
    "correct where the reference has the same. A lesion that merged into another counts with that one",
    "f1": "of all changes but 'stable', over the visits of a subject: harmonic mean of the share of the reference's "
    "changes that were called right and of the predicted changes that are correct; undefined where there is no change, "
    "neither in the reference nor in the prediction",
    "subjects_right": "subjects whose every change was called right, and no other change",
}


def count_calls(predicted: Sequence[Visit], reference: Sequence[Visit]) -> dict[str, LesionCounts]:
    """Count the changes between two visits that were called right.

    :param predicted: the earlier and the later visit.
    :param reference: the same visits.
    :returns: counts of each change of :data:`COMPARED`.
    """
    earlier, later = (
        shared_voxels(one.lesions, other.lesions) > 0 for one, other in zip(predicted, reference, strict=True)
    )
    return {
        change: _counts(
            earlier if change == GONE else later,
            *(_places(one[1].calls, change, one[change != GONE].lesions) for one in (predicted, reference)),
        )
        for change in COMPARED
    }


def _places(calls: Sequence[Call], change: str, lesions: Lesions) -> np.ndarray:
    """Which lesions of a scan have a change, bool; those that are part of another now count with that one."""
    found = np.zeros(lesions.number, bool)
    found[[call.place - 1 for call in calls if call.change == change and call.ml is not None]] = True
    return found


def _counts(overlap: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> LesionCounts:
    agree = overlap[np.ix_(predicted, reference)]
    return LesionCounts(
        reference=int(reference.sum()),
        detected=int(agree.any(0).sum()),
        predicted=int(predicted.sum()),
        correct=int(agree.any(1).sum()),
    )


def total(counts: Sequence[LesionCounts]) -> LesionCounts:
    """Add counts up."""
    names = ("reference", "detected", "predicted", "correct")
    return LesionCounts(*(sum(getattr(one, name) for one in counts) for name in names))


def summarise_calls(by_subject: Mapping[str, Sequence[Mapping[str, LesionCounts]]]) -> dict[str, Any]:
    """Summarise how changes were called over subjects; JSON-ready.

    :param by_subject: of each subject the counts between its visits.
    :returns: ``by_change`` (counts over all subjects), ``f1`` (a summary over subjects), ``subjects_right``.
    """
    changed = {
        subject: total([one[change] for one in visits for change in CHANGED]) for subject, visits in by_subject.items()
    }
    every = [one for visits in by_subject.values() for one in visits]
    return {
        "by_change": {change: vars(total([one[change] for one in every])) for change in COMPARED},
        "f1": summary(list(changed), [one.f1 for one in changed.values()]),
        "subjects": len(changed),
        "subjects_right": sorted(subject for subject, one in changed.items() if one.f1 in (None, 1)),
    }
