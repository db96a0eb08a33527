"""What the tables of several commands share: how they look, and how numbers stand in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from longflow.paths import PLANS_NAME

#: with fewer subjects, percentile intervals are clearly too narrow
FEWEST_SUBJECTS = 10

Summary = Mapping[str, Any]


def counted(number: int, noun: str) -> str:
    """A number of things, for people.

    >>> counted(1, "subject"), counted(2, "subject")
    ('1 subject', '2 subjects')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def new_table(title: str, first: str, *headings: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column(escape(first), overflow="fold", min_width=len(first))
    for heading in headings:
        table.add_column(escape(heading), justify="right")
    return table


def mean_of(number: Summary, form: str) -> str:
    """The mean of a summary (:func:`longflow.evaluation.summary.summary`), or a dash."""
    return "–" if number["mean"] is None else format(number["mean"], form)


def cell(number: Summary, form: str) -> str:
    """The mean of a summary, and below it its interval."""
    return mean_of(number, form) + (f"\n{span(number['interval'], form)}" if number["interval"] else "")


def span(interval: Sequence[float], form: str) -> str:
    """An interval.

    >>> span([0.5, 1], ".2f")
    '0.50 to 1.00'
    """
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def span_or_nothing(low: float | None, high: float | None, form: str) -> str:
    """An interval, or an empty cell where there is none."""
    return "" if low is None else span((low, high), form)


def short_name(candidate: str) -> str:
    """The folder of a model without the name of the plans where that is the usual one.

    >>> short_name("mfm__longflowPlans__2d")
    'mfm 2d'
    """
    return candidate.replace(f"__{PLANS_NAME}__", " ")


def few_subjects(subjects: int) -> str | None:
    """What intervals over few subjects are worth; None where there are enough."""
    if subjects >= FEWEST_SUBJECTS:
        return None
    if subjects == 1:
        return "One subject: there are no intervals, and nothing is said about others."
    return f"{subjects} subjects: intervals over so few are too narrow, and about a cohort they say little."
