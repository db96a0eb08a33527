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


@pytest.mark.parametrize(("solver", "order"), ORDERS.items())
def test_backward_the_error_falls_with_the_order_too(solver, order):
    """The same field from x(1) = 2 e - 2 back to x(0) = 1: tau runs from 1 to 0."""

    def error(steps: int) -> float:
        end = torch.tensor([2 * math.e - 2], dtype=torch.float64)
        return abs(integrate(lambda tau, x: x + tau, end, solver, steps, backward=True).item() - 1)

    few, many = (32, 64) if solver == "explicit_adams" else (8, 16)
    assert error(many) < 0.1
    assert math.log2(error(few) / error(many)) > order - 0.35


@pytest.mark.parametrize("solver", [*ORDERS, "dopri5"])
def test_there_and_back_is_where_it_began(solver):
    """dx/dtau = A x, whose way there and back is exact but for the solver's error."""
    matrix = torch.tensor([[0.5, -1.0], [1.0, -0.25]], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    steps = 800 if solver == "euler" else 50
    there = integrate(lambda tau, x: matrix @ x, start, solver, steps)
    back = integrate(lambda tau, x: matrix @ x, there, solver, steps, backward=True)
    torch.testing.assert_close(there, torch.linalg.matrix_exp(matrix) @ start, atol=5e-3, rtol=0)
    torch.testing.assert_close(back, start, atol=5e-3, rtol=0)


@pytest.mark.parametrize("solver", ORDERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_backward_the_field_is_evaluated_between_1_and_0_alone(solver, steps):
    steps_seen = []

    def field(tau, x):
        steps_seen.append(tau.item())
        return torch.ones_like(x)

    end = integrate(field, torch.zeros(1), solver, steps, backward=True)
    assert end.item() == pytest.approx(-1)
    assert steps_seen[0] == 1 and min(steps_seen) >= 0 and max(steps_seen) <= 1


def test_dopri5_is_accurate_and_ignores_the_number_of_steps():
    end = integrate(lambda tau, x: x, torch.ones(1, dtype=torch.float64), "dopri5", 1)
    assert abs(end.item() - math.e) < 1e-3


def test_evaluations_are_counted():
    found = {solver: count_evaluations(solver, 5) for solver in ("euler", "midpoint", "heun2", "heun3", "rk4")}
    assert found == {"euler": 5, "midpoint": 10, "heun2": 10, "heun3": 15, "rk4": 20}
