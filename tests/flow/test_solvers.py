import math

import pytest
import torch

from longflow.flow.solvers import ORDERS, count_evaluations, integrate


@pytest.mark.parametrize("solver", [*ORDERS, "dopri5"])
def test_a_constant_field_is_transported_exactly(solver):
    start = torch.tensor([[1.0, -2.0]])
    end = integrate(lambda tau, x: torch.full_like(x, 3.0), start, solver, 2)
    torch.testing.assert_close(end, start + 3.0)


@pytest.mark.parametrize(("solver", "order"), ORDERS.items())
def test_the_error_falls_with_the_order_of_the_solver(solver, order):
    """dx/dtau = x + tau, x(0) = 1 has x(1) = 2 e - 2."""

    def error(steps: int) -> float:
        end = integrate(lambda tau, x: x + tau, torch.ones(1, dtype=torch.float64), solver, steps)
        return abs(end.item() - (2 * math.e - 2))

    few, many = (32, 64) if solver == "explicit_adams" else (8, 16)
    assert math.log2(error(few) / error(many)) > order - 0.35


def test_dopri5_is_accurate_and_ignores_the_number_of_steps():
    end = integrate(lambda tau, x: x, torch.ones(1, dtype=torch.float64), "dopri5", 1)
    assert abs(end.item() - math.e) < 1e-3


def test_evaluations_are_counted():
    found = {solver: count_evaluations(solver, 5) for solver in ("euler", "midpoint", "heun2", "heun3", "rk4")}
    assert found == {"euler": 5, "midpoint": 10, "heun2": 10, "heun3": 15, "rk4": 20}
