"""The verdict of the fitness gate on a subject, with reasons in a clinician's words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from longflow.fitness.reference import Distance, distances
from longflow.fitness.series import Observed
from longflow.fitness.stored import FitnessReference

#: reasons of a verdict, at most
MOST_REASONS = 4

Level = Literal["fit", "doubtful", "unfit", "unknown"]

#: the finding by the first words of a measure; {axis} is the measure's axis, {found} and {range} are values in {unit}
FINDINGS: dict[str, tuple[str, str, Callable[[float], float]]] = {
    "spacing": ("the voxel size along {axis} is {found}", "mm", np.exp),
    "field": ("the field of view along {axis} is {found}", "mm", np.exp),
    "histogram": ("the distribution of intensities is another one: another contrast, sequence or content", "", float),
    "units": ("the spread of the intensities is {found}: another unit or scaling", "units of the file", np.exp),
    "level": ("the mean intensity relative to its spread is {found}: another unit or offset", "", np.sinh),
    "noise": ("noise or fine detail is {found} of the contrast", "", np.exp),
    "sharpness": ("sharpness is another one: smoothed, interpolated or noisy", "", float),
    "anatomy": (
        "the anatomy does not look like that of the training: another organ, position or field of view",
        "",
        float,
    ),
    "mirrored": (
        "it may be mirrored or placed otherwise along {axis}: its mirror image is too much alike",
        "",
        float,
    ),
    "agreement": ("it does not agree with the scan before it: not aligned, or of another patient", "", float),
    "pair mirrored": ("it may be mirrored along {axis} against the scan before it", "", float),
    "direction": ("it does not change as the training scans do: scans or times may be exchanged", "", float),
    "shift": ("it is shifted against the scan before it by {found} along {axis}", "mm", float),
    "gain": ("the spread of the intensities changes by a factor of {found} from the scan before it", "", np.exp),
    "step": ("the mean intensity changes more from the scan before it than between training scans", "", float),
    "change of": (
        "intensities, noise or sharpness change otherwise from the scan before it: scans may be exchanged",
        "",
        float,
    ),
    "course": ("it does not lie between the scans before and after it: times may be exchanged", "", float),
    "interval": ("the interval to the scan before it is {found}", "time", np.exp),
    "horizon": ("the prediction is requested {found} after the last scan", "time", np.exp),
    "scans": ("{found} scans are given", "", np.exp),
}


@dataclass(frozen=True)
class Verdict:
    """Whether a subject is of the kind that a model was trained on.

    :param level: fit, doubtful, unfit; unknown where the model has no reference.
    :param reasons: sentences, the strongest first; empty for fit.
    :param score: largest distance from the training subjects, relative to their own; None: unknown.
    :param reference: what it was compared with.
    """

    level: Level
    reasons: list[str] = field(default_factory=list)
    score: float | None = None
    reference: FitnessReference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a sidecar."""
        known = self.reference
        return {
            "verdict": self.level,
            "reasons": self.reasons,
            "score": None if self.score is None else round(self.score, 2),
            "doubtful_above": known and round(known.doubtful, 2),
            "unfit_above": known and round(known.unfit, 2),
            "training_subjects": known and known.subjects,
            "false_alarms": known and round(known.false_alarms, 4),
        }


#: of a model that was planned by an earlier version, or on too few subjects
UNKNOWN = Verdict("unknown", ["The model has no reference of its training scans, so fitness is unknown."])


def judge(
    subject: Observed, reference: FitnessReference | None, names: Sequence[str] = (), time_unit: str = ""
) -> Verdict:
    """Judge a subject.

    :param subject: everything that is compared.
    :param reference: of the training; None: the verdict is unknown.
    :param names: of the scans, for the reasons.
    :param time_unit: of intervals and horizons, for the reasons.
    :returns: the verdict.
    """
    if reference is None:
        return UNKNOWN
    found = distances(subject, reference)
    score = max((one.score for one in found), default=0.0)
    if score <= reference.doubtful:
        return Verdict("fit", [], score, reference)
    reasons: dict[str, str] = {}
    for one in found:
        if one.score > reference.doubtful:
            reasons.setdefault(_finding(one.measure), _sentence(one, reference, names, time_unit))
    level: Level = "unfit" if score > reference.unfit else "doubtful"
    return Verdict(level, list(reasons.values())[:MOST_REASONS], score, reference)


def _finding(measure: str) -> str:
    return next(name for name in sorted(FINDINGS, key=len, reverse=True) if measure.startswith(name))


def _sentence(one: Distance, reference: FitnessReference, names: Sequence[str], time_unit: str) -> str:
    """Say what is unlike the training, with the range of the training where the value has a unit."""
    text, unit, natural = FINDINGS[_finding(one.measure)]
    spread = reference.spreads[one.kind][one.measure]
    unit = time_unit if unit == "time" else unit
    low, high = natural(spread.low), natural(spread.high)
    shown = f"{natural(one.value):.3g} {unit}".strip()
    sentence = text.format(found=shown, axis=one.measure.split()[-1])
    expected = f" (training: {low:.3g} to {high:.3g} {unit}".rstrip() + ")" if "{found}" in text else ""
    return (
        f"{_name(one, names)}{sentence}{expected}; {one.score:.1f} times as far from the training as its own subjects."
    )


def _name(one: Distance, names: Sequence[str]) -> str:
    """Name the scan that an observation is of: of neighbours the later one, of three the one between."""
    later = {"pair": 1, "course": 1, "interval": 1}.get(one.kind, 0)
    if one.kind in ("horizon", "series") or not one.position + later < len(names):
        return ""
    return f"{names[one.position + later]}: "
