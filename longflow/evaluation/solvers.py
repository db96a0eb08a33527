"""Compare the solvers of a trained flow on its validation data, and choose the cheapest of those that are alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np

from longflow.evaluation.summary import Row
from longflow.files import write_csv
from longflow.flow.solvers import ORDERS, count_evaluations
from longflow.inference.models import Models
from longflow.parallel import Progress
from longflow.plans import Solver

#: a solver and its number of steps
Setting = tuple[Solver, int]

#: those of table 5 of MFM, where RK2 is ``heun2`` and RK3 ``heun3``, and Adams, which A.2 names
SOLVERS: tuple[Setting, ...] = (
    *(("euler", 1), ("euler", 2), ("euler", 3), ("euler", 5)),
    *(("heun2", 1), ("heun3", 1), ("rk4", 1), ("midpoint", 1), ("midpoint", 3), ("explicit_adams", 3)),
)

#: solvers that differ by less than this share are alike, and the cheapest is taken: a tenth of a HU is not worth
#: several times the work. In table 5 of MFM the best is 2.4 % better than the next
ALIKE = 0.01


class OutOfFold(Protocol):
    """What a solver is tried on: something that one fold was not trained on."""

    fold: int | None
    case: str


Item = TypeVar("Item", bound=OutOfFold)


def rows_of_folds(
    items: Sequence[Item],
    load: Callable[[int], Models],
    rows_of: Callable[[Item, Models, bool], list[Row]],
    solvers: int,
    progress: Progress | None = None,
) -> tuple[list[Row], str]:
    """Measure every item by the fold that was not trained on it.

    :param load: loads the models of a fold.
    :param rows_of: measures an item with these models, every solver in a row; True for the first item of a fold.
    :param solvers: how many are tried, for the progress.
    :returns: all rows, and the device.
    """
    rows: list[Row] = []
    done, device = 0, ""
    for fold in sorted({one.fold for one in items}):
        models = load(fold)
        device = str(models.device)
        for number, one in enumerate(item for item in items if item.fold == fold):
            if progress:
                progress(done, len(items), f"{one.case}, {solvers} solvers")
            rows += rows_of(one, models, number == 0)
            done += 1
    if progress:
        progress(len(items), len(items), "")
    return rows, device


def predictions_of_solvers(
    models: Models, solvers: Sequence[Setting], predict: Callable[[], np.ndarray], warm_up: bool = False
) -> Iterator[tuple[dict[str, Any], np.ndarray, float]]:
    """Predict with every solver.

    :param models: whose methods are given each solver.
    :param predict: predicts with the models as they are.
    :param warm_up: predict once before time is taken.
    :returns: solver, steps and evaluations (of the network), for a row; the prediction; its seconds.
    """
    if warm_up:
        _use(models, *solvers[0])
        predict()
    for solver, steps in solvers:
        _use(models, solver, steps)
        begun = perf_counter()
        prediction = predict()
        seconds = perf_counter() - begun
        yield {"solver": solver, "steps": steps, "evaluations": count_evaluations(solver, steps)}, prediction, seconds


def planned_setting(models: Models) -> Setting:
    """Return the solver and steps that the first flow predicts with as it was loaded."""
    method = next(method for member in models.members for method in member.methods if method.integrates)
    return method.solver, method.steps


def settings_to_try(models: Models) -> tuple[list[Setting], Setting]:
    """Return the solvers to compare, and the planned one, which is among them if its number of steps is fixed.

    :param models: a flow as it was validated.
    :returns: ``SOLVERS`` and the planned one; the planned one.
    """
    planned = planned_setting(models)
    return list(dict.fromkeys((*SOLVERS, *([planned] if planned[0] in ORDERS else [])))), planned


def _use(models: Models, solver: Solver, steps: int) -> None:
    """Give every method of the models a solver."""
    for method in (method for member in models.members for method in member.methods):
        method.solver, method.steps = solver, steps


def cheapest_alike(errors: Mapping[Setting, float], tolerance: float) -> Setting:
    """Choose the solver with the fewest evaluations among those with nearly the lowest error; then the lowest error.

    :param errors: of each solver, at least one.
    :param tolerance: largest difference to the lowest.
    :returns: solver and steps.
    """
    lowest = min(errors.values())
    good = [one for one, error in errors.items() if error <= lowest + tolerance]
    return min(good, key=lambda one: (count_evaluations(*one), errors[one]))


def write_solvers(solvers: Mapping[str, Any] | None, path: Path) -> None:
    """Write the table of solvers; delete that of an earlier choice where there is none.

    :param solvers: with ``table``, a row for each solver.
    :param path: of the CSV.
    """
    if solvers:
        write_csv(list(solvers["table"][0]), solvers["table"], path)
    else:
        path.unlink(missing_ok=True)
