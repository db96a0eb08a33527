from types import SimpleNamespace

import pytest
from rich.console import Console

from longflow.compare.comparison import Budget
from longflow.compare.tables import show_comparison
from longflow.compare.variant_table import Measured, correct_verdicts, line_of
from longflow.paths import DatasetPaths
from tests.compare.test_variant_table import rows_of

COMPARISON = SimpleNamespace(dataset=DatasetPaths("Dataset101_Tiny"), budget=Budget(max_time=90), seeds=(0, 1))
COST = {
    **{"parameters": 1234567, "seconds": 90.4, "iterations": 321, "looks": 4},
    **{"peak_memory": 2.5e9, "seconds_per_prediction": 1.25},
}


def lines_rows(value):
    """Rows of 12 subjects."""
    return rows_of({f"s{n:02d}_1": value for n in range(12)})


@pytest.fixture
def lines():
    """Lines of 12 subjects, with two seeds of the trained method."""
    lci, good, better = ({f"s{n:02d}_1": value for n in range(12)} for value in (0.5, 0.4, 0.3))
    found = [
        line_of("lci", [Measured("0", rows_of(lci))]),
        line_of("cronos [a]", [Measured("0", rows_of(good), COST), Measured("1", rows_of(better))]),
    ]
    correct_verdicts(found)
    return found


def shown(lines, **further):
    console = Console(width=160)
    with console.capture() as capture:
        show_comparison(lines, COMPARISON, console, **further)
    return capture.get()


def test_errors_with_deviations_and_differences(lines):
    text = shown(lines)
    title = "Dataset101_Tiny: 12 targets of 12 subjects, 2 runs of each; 90s of training and validating"
    assert title in " ".join(text.split())
    row = next(row for row in text.splitlines() if "cronos [a]" in row)
    assert "0.3500" in row and "35.00" in row and "-0.1500" in row and "100%" in row
    assert "± 0.0707" in text and "± standard deviation over folds and seeds" in text
    assert "-0.7853 to +0.4853" in text  # 12.7 x 0.05: two seeds say little about a third
    assert "95 % interval over subjects and seeds" in text and "Looks" not in text


def test_costs_and_dashes_for_unknown_ones(lines):
    costs = shown(lines).split("Costs (means")[1]
    row = next(row for row in costs.splitlines() if "cronos" in row)
    assert [cell for cell in row.split() if cell not in ("cronos", "[a]", "s")] == [
        "1,234,567",
        "90",
        "321",
        "4",
        "2.50",
        "1.25",
    ]
    assert next(row for row in costs.splitlines() if " lci " in row).count("–") == 6


def test_unequal_numbers_of_looks_are_said(lines):
    further = line_of("tfm", [Measured("0", lines_rows(0.45), {**COST, "looks": 20})])
    correct_verdicts([*lines, further])
    text = " ".join(shown([*lines, further]).split())
    assert "Looks: the weights of a variant are the best of 4 to 20 validations." in text and "--iterations" in text


def test_best_first_or_in_the_requested_order(lines):
    for best_first, first in ((True, "cronos"), (False, "lci")):
        text = shown(lines, best_first=best_first).split("Costs (means")[0]
        assert (text.index("cronos [a]") < text.index(" lci ")) == (first == "cronos")


def test_an_undefined_error_stands_last(lines):
    undefined = line_of("flat", [Measured("0", [{**row, "nrmse": None} for row in rows_of({"s00_1": 0.1})])])
    text = shown([undefined, *lines]).split("Costs (means")[0]
    assert text.index(" flat ") > text.index(" lci ")


def test_few_subjects_and_nothing_at_all(lines):
    few = line_of("lci", [Measured("0", rows_of({"a_1": 0.1, "b_1": 0.2}))])
    assert "2 subjects: intervals over so few are wide" in shown([few])
    assert "too narrow" not in shown(lines) and "every variant failed" in shown([])
