"""Judge the scans of a request with the reference that a model brings along."""

from collections.abc import Sequence

from longflow.data.images import Volume
from longflow.fitness.looks import Look, look_at_scan
from longflow.fitness.series import observe_scans, observe_series
from longflow.fitness.stored import FitnessReference
from longflow.fitness.verdict import UNKNOWN, Verdict, judge
from longflow.plans import Plans


def reference_of(plans: Plans) -> FitnessReference | None:
    """Return what new scans are compared with; None: the plans are of an earlier version, or of too few subjects."""
    return plans.training_data.fitness if plans.training_data else None


def look_at(volume: Volume, plans: Plans) -> Look | None:
    """Measure a scan, as read; None where there is nothing to compare it with."""
    return look_at_scan(volume.array, volume.geometry.array_spacing) if reference_of(plans) else None


def judge_scan(volume: Volume, plans: Plans, case: str, phase: str = "") -> Verdict:
    """Judge a scan that is predicted from alone.

    :param volume: the scan, as read.
    :param plans: of the model.
    :param case: its name, for the reasons.
    :param phase: its contrast phase, for models that know phases.
    :returns: the verdict.
    """
    look = look_at(volume, plans)
    return UNKNOWN if look is None else judge(observe_scans([look], [phase]), reference_of(plans), [case])


def judge_series(
    looks: Sequence[Look | None], times: Sequence[float], horizon: float, plans: Plans, cases: Sequence[str]
) -> Verdict:
    """Judge the scans that a forecast is made from.

    :param looks: of :func:`look_at`, of the scans that are taken, in order of time.
    :param times: of all scans that are given.
    :param horizon: target time minus the last of them.
    :param plans: of the model.
    :param cases: names of the scans that are taken, for the reasons.
    :returns: the verdict.
    """
    known = [look for look in looks if look is not None]
    if len(known) < len(looks):
        return UNKNOWN
    return judge(observe_series(known, times, [horizon]), reference_of(plans), cases, plans.temporal.time_unit)
