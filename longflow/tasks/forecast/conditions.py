"""The conditions of a forecast apart from times: the subject's period, and its covariates at the target time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from longflow.data.covariates import Covariates, covariates_of
from longflow.data.dataset import Scan
from longflow.data.periods import period_of
from longflow.errors import unknown_name
from longflow.plans import Plans
from longflow.preprocessing.prepared import SeriesProperties
from longflow.tasks.forecast.requests import ForecastRequest


def covariates_at_target(properties: SeriesProperties, last: int, target: int) -> Covariates:
    """Return the covariates of a prepared series at the time of a target.

    :param properties: of the series.
    :param last: position of the last context scan.
    :param target: position of the target.
    :returns: by name; empty where the plans have none.
    """
    found = properties.covariates
    return known_or_last(found[target], found[last]) if found else {}


def known_or_last(target: Covariates, last: Covariates) -> Covariates:
    """Return the covariates of a target; where one is not known, that of the last context scan.

    :param target: of the target's row.
    :param last: of the last context scan, with the same names.
    """
    return {name: last[name] if value is None else value for name, value in target.items()}


def with_conditions(item: ForecastRequest, plans: Plans) -> ForecastRequest:
    """Add the subject's period and covariates to a request, where the model has them.

    :param item: the requested forecast.
    :param plans: of the model.
    :returns: the request with its ``conditions``, which the sidecar holds.
    :raises DataError: a cell of scans.csv is not a number, or a period not above 0; the case is named.
    """
    return replace(item, conditions=conditions_of(item.target, item.context, plans))


def conditions_of(target: Scan, context: Sequence[Scan], plans: Plans) -> dict[str, Any]:
    """Return ``period`` and ``covariates`` of a forecast, each where the model has it.

    :param target: the scan to forecast.
    :param context: the scans that are given, in order of time.
    :param plans: of the model.
    :raises DataError: as :func:`with_conditions`.
    """
    conditions: dict[str, Any] = {}
    if plans.temporal.period is not None:
        conditions["period"] = period_of(context, plans.temporal.period)
    if names := [covariate.name for covariate in plans.covariates]:
        conditions["covariates"] = known_or_last(covariates_of(target, names), covariates_of(context[-1], names))
    return conditions


def given_covariates(covariates: Mapping[str, float | None], plans: Plans) -> Covariates:
    """Return the covariates that the plans have; those that the plans exclude are ignored.

    :param covariates: by name.
    :raises NotFoundError: the dataset has no covariate of this name.
    """
    used = [covariate.name for covariate in plans.covariates]
    for name in covariates:
        if name not in used and name not in plans.excluded_covariates:
            raise unknown_name("covariate", name, used, hint=f"(Covariates of {plans.dataset_name}.)")
    return {name: covariates.get(name) for name in used}


def covariate_warnings(covariates: Covariates, plans: Plans) -> list[str]:
    """Warn of values outside the range of the training.

    :param covariates: at the target time, by name.
    :param plans: with the ranges.
    :returns: one sentence for each such value.
    """
    found = []
    for plan in plans.covariates:
        value = covariates.get(plan.name)
        if value is not None and not plan.minimum <= value <= plan.maximum:
            trained = f"{plan.minimum:g} to {plan.maximum:g}"
            found.append(f"The covariate {plan.name} is {value:g}, but was {trained} in training: an extrapolation.")
    return found
