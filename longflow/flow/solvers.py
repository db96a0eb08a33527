"""Integrate a velocity field from tau = 0 to 1 (CRONOS eq. 3, 10) or back (MFM eq. 3), by torchdiffeq."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint

#: fixed-step solvers and the order of their error; dopri5 chooses its own steps
ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "explicit_adams": 4}
ADAPTIVE_TOLERANCE = 1e-4

#: torchdiffeq uses one step less; its own default of 12 is unstable at the step sizes of forecasts
ADAMS_MAX_ORDER = 5


def integrate(
    field: Callable[[Tensor, Tensor], Tensor], start: Tensor, solver: str, steps: int, backward: bool = False
) -> Tensor:
    """Integrate X_0 to X_1 along ``field``; with ``backward``, X_1 to X_0.

    :param field: velocity as a function of (tau, X); tau is a scalar tensor.
    :param start: X_0 (backward: X_1), any shape.
    :param solver: a name in ``ORDERS``, or ``dopri5``, which ignores ``steps``.
    :param steps: number of equal steps from 0 to 1. RK2 in the papers is ``heun2``.
    :param backward: integrate from tau = 1 to 0.
    :returns: the shape of ``start``.
    """
    ends = torch.tensor([1.0, 0.0] if backward else [0.0, 1.0], device=start.device)
    if solver == "dopri5":
        return odeint(field, start, ends, method="dopri5", rtol=ADAPTIVE_TOLERANCE, atol=ADAPTIVE_TOLERANCE)[-1]
    options: dict[str, float] = {"step_size": 1 / steps}
    if solver == "explicit_adams":
        options["max_order"] = ADAMS_MAX_ORDER
    return odeint(field, start, ends, method=solver, options=options)[-1]


def count_evaluations(solver: str, steps: int) -> int:
    """Count the function evaluations of a fixed-step solver: the cost of a forecast that is reported.

    :param solver: a name in ``ORDERS``.
    :param steps: number of equal steps.
    :returns: evaluations from tau = 0 to 1.
    """
    calls = 0

    def field(tau: Tensor, state: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.ones_like(state)

    integrate(field, torch.zeros(1), solver, steps)
    return calls
