"""Tables of what commands wrote as JSON: means over subjects with their intervals, whatever a task measures.

Nothing here knows a task: a number is an object with ``mean`` and ``interval``
(:func:`longflow.evaluation.summary.summary`), wherever it is in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, ...]


@dataclass
class NumberTable:
    """Numbers of one part of a file.

    :param title: the keys above, as "overall, best_rung".
    :param columns: the last key of each group of numbers, as "forecast" and "lci".
    :param rows: names of numbers.
    :param cells: the number in a row and column.
    """

    title: str
    columns: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


def is_number(found: object) -> bool:
    """Tell whether a part of a file is a mean over subjects."""
    return isinstance(found, Mapping) and {"mean", "interval"} <= set(found) and not isinstance(found["mean"], Mapping)


def number_tables(content: Mapping[str, Any], unit: str = "") -> list[NumberTable]:
    """Collect all numbers of a file.

    :param content: as read.
    :param unit: of spans, that lists have (``from``, ``to``).
    """
    tables: dict[Place, NumberTable] = {}
    for place, number in _numbers(content, (), unit):
        *above, column, row = ("",) * (2 - len(place)) + place
        table = tables.setdefault(tuple(above), NumberTable(", ".join(above)))
        for name, names in ((column, table.columns), (row, table.rows)):
            if name not in names:
                names.append(name)
        table.cells[row, column] = number
    return list(tables.values())


def _numbers(content: object, place: Place, unit: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for key, found in _children(content, unit):
        if is_number(found):
            yield (*place, key), found
        else:
            yield from _numbers(found, (*place, key), unit)


def _children(content: object, unit: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of an object, or of a list of objects with spans."""
    if isinstance(content, Mapping):
        yield from ((str(key), found) for key, found in content.items() if key != "definitions")
    elif isinstance(content, list):
        for one in content:
            if isinstance(one, Mapping) and {"from", "to"} <= set(one):
                yield span_text(one, unit), one


def span_text(one: Mapping[str, Any], unit: str) -> str:
    """Write out a span. :param one: with ``from`` and ``to``.

    >>> span_text({"from": 58.39999, "to": 68.4}, "ms")
    '58.4 to 68.4 ms'
    """
    low, high = (
        f"{one[name]:.4g}" if isinstance(one[name], int | float) else str(one[name]) for name in ("from", "to")
    )
    return f"{low} to {high} {unit}".strip()


def facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says apart from numbers over subjects, by key: single values, and objects of single values."""
    found = {}
    for key, one in content.items():
        if isinstance(one, Mapping):
            inner = {name: value for name, value in one.items() if _is_single(value)}
            if inner and not is_number(one):
                found[key] = inner
        elif _is_single(one):
            found[key] = one
    return found


def parts_named(content: object, words: tuple[str, ...], place: Place = ()) -> Iterator[tuple[str, Any]]:
    """Yield every part of a file whose key has one of some words, with the keys that lead to it."""
    for key, found in _children(content, ""):
        if any(word in key for word in words):
            yield ", ".join((*place, key)), found
        else:
            yield from parts_named(found, words, (*place, key))


def _is_single(value: object) -> bool:
    return not isinstance(value, Mapping) and not (
        isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value)
    )


def table_by_span(content: Mapping[str, Any], number: str, unit: str) -> list[NumberTable]:
    """Collect one number over the spans of each list of a file, as over horizons: a row for each span.

    :param number: its name, as "nrmse".
    """
    tables = []
    for key, found in content.items():
        table = NumberTable(f"{number}, {key.replace('_', ' ')}")
        for span, one in _children(found, unit) if isinstance(found, list) else ():
            row = f"{span} ({one['subjects']} subjects)" if "subjects" in one else span
            columns = {name: group[number] for name, group in one.items() if is_group(group, number)}
            table.rows += [row] if columns else []
            table.columns += [name for name in columns if name not in table.columns]
            table.cells |= {(row, name): cell for name, cell in columns.items()}
        tables += [table] if table.rows else []
    return tables


def is_group(found: object, number: str) -> bool:
    """Tell whether a part of a file is a group of numbers that has this one."""
    return isinstance(found, Mapping) and is_number(found.get(number))
