"""The files of a comparison."""

import csv

import pytest

from longflow.compare import perform as module
from longflow.compare.perform import Outcome, perform
from longflow.compare.results import draw_results, learning_curves, validation_lci, write_results
from longflow.compare.variants import STUDIES, Variant
from tests.compare.helpers import CRONOS, LCI, MEAN, Player, comparison_of, description_of, of, table


@pytest.fixture
def found(dataset, monkeypatch):
    """A comparison and its outcomes."""
    monkeypatch.setattr(module, "run_command", Player(dataset))
    comparison = comparison_of(dataset, CRONOS, MEAN, LCI, seeds=(0, 1))
    return comparison, list(perform(comparison, description_of(dataset)))


def test_the_table_as_json_and_csv(found):
    comparison, outcomes = found
    lines = write_results(comparison, outcomes)
    content = table(comparison)
    assert content["table"] == lines and [line["variant"] for line in lines] == ["cronos", "cronos, mean", "lci"]
    assert content["budget"] == "3 iterations" and content["seeds"] == [0, 1] and content["failures"] == []
    assert lines[0]["nrmse"]["sd"] == 0 and lines[2]["nrmse"]["sd"] is None
    assert lines[1]["settings"] == {
        **{"method": "cronos", "options": {}, "reduction": "mean"},
        **{"solver": None, "steps": None, "hide_context": None},
    }
    with open(comparison.paths.table_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["nrmse"]) for row in rows] == [line["nrmse"]["mean"] for line in lines]
    assert rows[0]["parameters"] == "9.0" and rows[2]["parameters"] == ""


def test_the_numbers_of_every_target(found):
    comparison, outcomes = found
    written = write_results(comparison, outcomes)
    with open(comparison.paths.targets_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    targets = len(comparison.targets[0].subjects)
    (best,) = {line["best_rung"]["name"] for line in written}
    assert {row["method"] for row in rows} == {"forecast", "lci", best}
    assert len(rows) == (2 + 2 + 1) * (3 if best != "lci" else 2) * targets


def test_a_failure_stands_in_the_table_file(found):
    comparison, outcomes = found
    outcomes = [Outcome(outcomes[0].run, failure="it broke"), *outcomes[2:]]
    assert len(write_results(comparison, outcomes)) == 3  # cronos has its second seed
    assert table(comparison)["failures"] == [{"run": "cronos, fold 0, seed 0", "why": "it broke"}]
    assert write_results(comparison, outcomes[:1]) == [] and table(comparison)["table"] == []


def test_figures(found):
    comparison, outcomes = found
    lines = write_results(comparison, outcomes)
    drawn = draw_results(comparison, outcomes, lines)
    assert drawn == ["cost.png", "horizon.png", "learning.png"]
    assert all((comparison.paths.folder / name).stat().st_size > 1000 for name in drawn)
    assert draw_results(comparison, [], []) == []


def test_the_figure_of_a_study(found):
    comparison, outcomes = found
    variants = [
        Variant(outcome.run.variant.name, "cronos", lines=("a", "b") if x == 0 else ("a",), x=x)
        for x, outcome in enumerate(outcomes[:2])
    ]
    study = [Outcome(of(comparison, one), was.rows) for one, was in zip(variants, outcomes, strict=False)]
    comparison = comparison_of(comparison.dataset, *variants)
    lines = write_results(comparison, study)
    assert draw_results(comparison, study, lines, STUDIES["masking"]) == ["cost.png", "study.png", "learning.png"]
    assert (comparison.paths.folder / "study.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("study", "draws"), [("change", "changes.draw_changes"), ("velocity", "velocities.draw_velocities")]
)
def test_a_study_that_draws_figures_of_its_own_gets_the_runs_with_results(found, monkeypatch, study, draws):
    comparison, outcomes = found
    drawn_of = []
    monkeypatch.setattr(f"longflow.compare.{draws}", lambda _, runs: drawn_of.append(runs) or ["one.csv", "one.png"])
    outcomes = [Outcome(outcomes[0].run, failure="it broke"), *outcomes[1:]]
    names = draw_results(comparison, outcomes, write_results(comparison, outcomes), STUDIES[study])
    assert names[-3:] == ["one.csv", "one.png", "learning.png"]
    assert drawn_of == [[outcome.run for outcome in outcomes[1:]]]


def test_learning_curves_of_every_training_once(found):
    comparison, outcomes = found
    curves = learning_curves(comparison, outcomes)
    assert curves == {"cronos": [[(1, 0.1), (2, 0.1)]] * 2}
    assert validation_lci(comparison, outcomes) == pytest.approx(0.2)
    assert validation_lci(comparison, []) is None
