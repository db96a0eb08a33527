"""Plan the conditions of methods apart from times: the period after which scans repeat, and covariates."""

from collections.abc import Sequence
from typing import Any

from longflow.data.dataset import DatasetDescription
from longflow.fingerprint.covariates import CovariateFingerprint
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.planning.temporal import with_period, with_recurrence
from longflow.plans import CovariatePlan, TemporalPlan
from longflow.task import get_task


def plan_conditions(
    temporal: TemporalPlan, fingerprint: Fingerprint, description: DatasetDescription
) -> dict[str, Any]:
    """Plan period and covariates, for tasks whose methods use them.

    :param temporal: plan of the times.
    :param fingerprint: of the dataset.
    :param description: dataset.json.
    :returns: ``temporal``, ``covariates`` and ``excluded_covariates`` of the plans.
    """
    if get_task(description.task).uses_conditions:
        temporal = with_recurrence(with_period(temporal, description.period), fingerprint.recurrence)
    used, excluded = plan_covariates(fingerprint.covariates)
    return {"temporal": temporal, "covariates": used, "excluded_covariates": excluded}


def plan_covariates(found: Sequence[CovariateFingerprint]) -> tuple[list[CovariatePlan], dict[str, str]]:
    """Choose the covariates that say something, and their scaling.

    :param found: of the fingerprint.
    :returns: the plans of those that are used; the reason why each of the others is not, by name.
    """
    used, excluded = [], {}
    for one in found:
        if not one.known:
            excluded[one.name] = f"none of the {one.scans} scans has a value."
        elif one.minimum == one.maximum:
            excluded[one.name] = f"each of the {one.known} known values is {one.minimum:g}, which says nothing."
        else:
            numbers = one.model_dump(exclude={"scans", "known"})
            used.append(CovariatePlan(**numbers, reason=_reason(one)))
    return used, excluded


def _reason(found: CovariateFingerprint) -> str:
    return (
        f"known for {found.known} of {found.scans} scans, {found.minimum:g} to {found.maximum:g}; scaled by mean "
        f"{found.mean:.4g} and standard deviation {found.standard_deviation:.4g}."
    )
