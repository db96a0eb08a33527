"""Tables of lesions over time: what ``longflow_lesions`` shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from longflow.errors import first_few
from longflow.report.tables import cell, counted, new_table

#: rows of the table of all subjects; the others are in the file
MOST_LINES = 60


def show_lesions(
    rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any], console: Console, most: int | None = MOST_LINES
) -> None:
    """Print a table with a row for each lesion and visit.

    :param rows: of lesions.csv.
    :param results: content of lesions.json.
    :param most: rows that are shown; None: all.
    """
    table = new_table(
        f"Lesions of {results['structure']} over time",
        *("subject", "lesion", f"time\n[{results['time_unit']}]", "volume\n[ml]", "visit before\n[ml]"),
    )
    table.add_column("change")
    table.add_column("centre x, y, z\n[mm, RAS]", justify="right", no_wrap=True)
    shown, before = rows[:most], None
    for row in shown:
        if before is not None and before["subject"] != row["subject"]:
            table.add_section()
        new = before is None or (before["subject"], before["lesion"]) != (row["subject"], row["lesion"])
        with_others = f" with {row['with'].replace(' ', ', ')}" if row["with"] else ""
        table.add_row(
            escape(row["subject"]) if new else "",
            str(row["lesion"]) if new else "",
            f"{row['time']:g}",
            *("" if row[name] is None else f"{row[name]:.3f}" for name in ("ml", "before_ml")),
            f"{row['change']}{with_others}",
            ", ".join(f"{row[f'{axis}_mm']:.0f}" for axis in "xyz"),
        )
        before = row
    console.print(table)
    if len(rows) > len(shown):
        console.print(f"... and {len(rows) - len(shown)} more rows in the file. One subject: --subject")
    if not rows:
        console.print(f"No lesion of {escape(results['structure'])} in any visit.", highlight=False)


def show_calls(results: Mapping[str, Any], console: Console) -> None:
    """Print how changes were called, where there are references. :param results: content of lesions.json."""
    compared = results["compared"]
    if compared is None:
        return
    table = new_table(
        f"Changes between consecutive visits of {counted(compared['subjects'], 'subject')}, against the reference",
        *("change", "in the reference", "called right", "predicted", "correct"),
    )
    for change, one in compared["by_change"].items():
        table.add_row(change, *(str(one[name]) for name in ("reference", "detected", "predicted", "correct")))
    console.print(table)
    f1 = cell(compared["f1"], ".3f").replace("\n", ", 95 % interval ")
    console.print(
        f"F1 of changes (all but stable), mean over subjects: {f1}. Every change called right in "
        f"{len(compared['subjects_right'])} of {counted(compared['subjects'], 'subject')}.",
        highlight=False,
    )


def show_remarks(results: Mapping[str, Any], console: Console) -> None:
    """Print the rule, and what cannot be trusted. :param results: content of lesions.json."""
    rule = results["rule"]
    lines = [
        f"Grown, shrunk: by {rule['relative']:.0%} and {rule['absolute_ml']:g} ml at least. Components below "
        f"{rule['smallest_ml']:g} ml are no lesions. Lesions of two visits are one where they share 10 % of the "
        f"smaller one's voxels, or are the nearest, at most {rule['gap']:g} mm apart."
    ]
    if single := results["subjects_with_one_visit"]:
        lines.append(f"One visit, nothing to follow: {first_few(single)}.")
    for subject, why in results["other_grids"].items():
        lines.append(f"[bold]Not followed: {escape(subject)}.[/] {escape(why)}. Register the scans: longflow_register")
    if shifted := results["shifted"]:
        lines.append(
            f"[bold]These scans look shifted against each other: {escape(first_few(shifted))}.[/] Their lesions may be "
            "called new and gone although they are the same. Register the scans: longflow_register"
        )
    if results["pairs_not_checked"]:
        lines.append(
            f"Whether scans are registered was not checked for {counted(results['pairs_not_checked'], 'pair')} of "
            "visits: the scans were not found. Give their folder with -r."
        )
    for line in lines:
        console.print(line, highlight=False)
