from io import StringIO

import pytest
from rich.console import Console

from longflow.report.tables import (
    cell,
    counted,
    few_subjects,
    folds_in_words,
    mean_of,
    new_table,
    short_name,
    show_further_rows,
    span,
    span_or_nothing,
)


def test_numbers_of_things():
    assert (counted(1, "scan"), counted(0, "scan"), counted(3, "scan")) == ("1 scan", "0 scans", "3 scans")


def test_folds():
    assert (folds_in_words([3]), folds_in_words([0, 2])) == ("fold 3", "folds 0, 2")


@pytest.mark.parametrize(("rows", "expected"), [(20, ""), (23, "... and 3 more in the file.\n")])
def test_rows_that_a_table_does_not_show_are_counted(rows, expected):
    console = Console(file=StringIO())
    show_further_rows([{}] * rows, console)
    assert console.file.getvalue() == expected


def test_a_number_and_its_interval():
    number = {"mean": 0.5, "interval": [0.25, 0.75]}
    assert cell(number, "+.2f") == "+0.50\n+0.25 to +0.75"
    assert cell({"mean": 0.5, "interval": None}, ".1f") == "0.5"
    assert cell({"mean": None, "interval": None}, ".1f") == mean_of({"mean": None}, ".1f") == "–"
    assert span((1, 2), ".0f") == span_or_nothing(1, 2, ".0f") == "1 to 2"
    assert span_or_nothing(None, None, ".0f") == ""


def test_only_plans_of_another_name_are_named():
    assert short_name("mfm-unet__longflowPlans__2d") == "mfm-unet 2d"
    assert short_name("mfm__own__2d") == "mfm__own__2d"


def test_headings_are_text_not_markup():
    table = new_table("[bold]", "", "MAE [HU]")
    assert table.title == "\\[bold]" and table.columns[1].header == "MAE [HU]"


@pytest.mark.parametrize(("subjects", "words"), [(1, "One subject"), (9, "9 subjects: intervals over so few")])
def test_few_subjects(subjects, words):
    assert few_subjects(subjects).startswith(words)


def test_enough_subjects():
    assert few_subjects(10) is None
