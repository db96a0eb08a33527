from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from longflow.evaluation.solvers import (
    SOLVERS,
    cheapest_alike,
    predictions_of_solvers,
    rows_of_folds,
    write_solvers,
)


@dataclass
class Item:
    case: str
    fold: int


def test_of_solvers_that_are_alike_the_cheapest_then_the_one_with_the_lowest_error():
    errors = {("rk4", 1): 3.0, ("midpoint", 1): 3.029, ("heun2", 1): 3.028, ("euler", 1): 3.031}
    assert cheapest_alike(errors, 0.03) == ("heun2", 1)
    assert cheapest_alike(errors, 0.04) == ("euler", 1)
    assert cheapest_alike(errors, 0.0) == ("rk4", 1)


def test_every_item_is_measured_by_its_own_fold():
    items, told = [Item("a", 1), Item("b", 0), Item("c", 1)], []

    def rows_of(item, models, first):
        return [{"case": item.case, "loaded": models.fold, "first": first}] * 2

    rows, device = rows_of_folds(
        items, lambda fold: SimpleNamespace(device="cpu", fold=fold), rows_of, 5, lambda *what: told.append(what)
    )
    assert [(row["case"], row["loaded"], row["first"]) for row in rows[::2]] == [
        ("b", 0, True),
        ("a", 1, True),
        ("c", 1, False),
    ]
    assert len(rows) == 6 and device == "cpu"
    assert told == [(0, 3, "b, 5 solvers"), (1, 3, "a, 5 solvers"), (2, 3, "c, 5 solvers"), (3, 3, "")]


def test_every_method_is_given_every_solver():
    methods = [SimpleNamespace(solver="", steps=0) for _ in range(3)]
    models = SimpleNamespace(members=[SimpleNamespace(methods=methods[:2]), SimpleNamespace(methods=methods[2:])])
    used = []

    def predict():
        used.append({(method.solver, method.steps) for method in methods})
        return np.zeros(1)

    found = [how for how, _, seconds in predictions_of_solvers(models, SOLVERS[:5], predict, warm_up=True)]
    assert used == [{SOLVERS[0]}, *({one} for one in SOLVERS[:5])]
    assert found[3] == {"solver": "euler", "steps": 5, "evaluations": 5}
    assert found[4] == {"solver": "heun2", "steps": 1, "evaluations": 2}


def test_the_table_of_an_earlier_choice_does_not_stay(tmp_path):
    path = tmp_path / "best_solvers.csv"
    write_solvers({"table": [{"solver": "euler", "steps": 1}]}, path)
    assert path.read_text().split() == ["solver,steps", "euler,1"]
    write_solvers(None, path)
    assert not path.exists()
    write_solvers(None, path)


def test_every_solver_is_named_once():
    assert len(set(SOLVERS)) == len(SOLVERS) == 10
    with pytest.raises(ValueError):
        cheapest_alike({}, 0.0)
