"""What the tables of several commands share: how they look, and how numbers are printed in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longflow.paths import PLANS_NAME

#: with fewer subjects, intervals of skewed values are clearly too narrow
FEWEST_SUBJECTS = 10

#: of a table of models; the others are in the file
MOST_ROWS = 20

Summary = Mapping[str, Any]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "subject"), counted(2, "subject")
    ('1 subject', '2 subjects')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def folds_in_words(folds: Sequence[int]) -> str:
    """Return folds as text.

    >>> folds_in_words([0]), folds_in_words([0, 1])
    ('fold 0', 'folds 0, 1')
    """
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def new_table(title: str, first: str, *headings: str) -> Table:
    """Make a table whose first column is text and whose others are numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column(escape(first), overflow="fold", min_width=len(first))
    for heading in headings:
        table.add_column(escape(heading), justify="right")
    return table


def show_further_rows(rows: Sequence[Any], console: Console) -> None:
    """Print how many rows the table does not show."""
    if len(rows) > MOST_ROWS:
        console.print(f"... and {len(rows) - MOST_ROWS} more in the file.")


def mean_of(number: Summary, form: str) -> str:
    """Return the mean of a summary (:func:`longflow.evaluation.summary.summary`), or a dash."""
    return "–" if number["mean"] is None else format(number["mean"], form)


def cell(number: Summary, form: str) -> str:
    """Return the mean of a summary, and below it its interval."""
    return mean_of(number, form) + (f"\n{span(number['interval'], form)}" if number["interval"] else "")


def span(interval: Sequence[float], form: str) -> str:
    """Return an interval as text.

    >>> span([0.5, 1], ".2f")
    '0.50 to 1.00'
    """
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def span_or_nothing(low: float | None, high: float | None, form: str) -> str:
    """Return an interval as text, or an empty cell where there is none."""
    return "" if low is None else span((low, high), form)


def short_name(candidate: str) -> str:
    """Return the folder of a model without the name of the plans where that is the usual one.

    >>> short_name("mfm__longflowPlans__2d")
    'mfm 2d'
    """
    return candidate.replace(f"__{PLANS_NAME}__", " ")


def few_subjects(subjects: int) -> str | None:
    """Say what intervals over few subjects take for granted; return None where there are enough."""
    if subjects >= FEWEST_SUBJECTS:
        return None
    if subjects == 1:
        return "One subject: there are no intervals, and nothing is said about others."
    return (
        f"{subjects} subjects: intervals over so few are wide, and too narrow still where one subject is far from the "
        "others."
    )
