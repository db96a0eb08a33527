"""Curves of volumes over time, as a figure of a subject's page."""

from collections.abc import Iterator
from typing import Any

from longflow.reading import parse_number
from longflow.report.drawing import BASELINE_COLOUR, PREDICTION_COLOUR, as_svg, plt
from longflow.report.timeline import Results, Subject

#: of the tables with volumes: time, structure, predicted volume, and the reference's where it is known
TIME, STRUCTURE, VOLUME, REFERENCE = "time", "structure", "volume_ml", "true_volume_ml"
#: limits of the interval of a volume, where it has one
LOWER, UPPER = "lower_ml", "upper_ml"


def volume_curves(results: Results, subject: Subject) -> list[dict[str, Any]]:
    """Draw the volumes of a subject over time, a part for each structure; values are those of the table.

    The table is the one with references where a table has them (``longflow_evaluate``), else the one without.

    :returns: ``svg`` (base64) and ``alt`` of the figure; empty where no table has volumes.
    """
    tables = [
        [row for row in rows if row["subject"] == subject.name and parse_number(row[TIME]) is not None]
        for rows in results.tables.values()
        if {TIME, STRUCTURE, VOLUME} <= set(rows[0])
    ]
    tables = sorted((rows for rows in tables if rows), key=lambda rows: REFERENCE not in rows[0])
    return [_figure(tables[0], results.description.time_unit)] if tables else []


def _figure(rows: list[dict[str, str]], unit: str) -> dict[str, Any]:
    """Draw one figure."""
    names = list(dict.fromkeys(row[STRUCTURE] for row in rows))
    figure, axes = plt.subplots(
        1, len(names), figsize=(min(4 * len(names), 16), 3), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        own = [row for row in rows if row[STRUCTURE] == name]
        for column, label, colour, style in (
            (VOLUME, "predicted labels", PREDICTION_COLOUR, "o-"),
            (REFERENCE, "reference", BASELINE_COLOUR, "s--"),
        ):
            points = sorted(_points(own, column))
            if points:
                axis.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
        limits = [dict(_points(own, column)) for column in (LOWER, UPPER)]
        if times := sorted(limits[0].keys() & limits[1].keys()):
            low, high = ([of_time[time] for time in times] for of_time in limits)
            axis.vlines(times, low, high, color=PREDICTION_COLOUR, linewidth=2, alpha=0.5, label="interval")
        axis.set_title(name.replace("$", r"\$"), fontsize=10)
        axis.set_xlabel(f"time [{unit}]")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("volume [mL]")
    axes[0][0].legend(fontsize=8)
    return {"svg": as_svg(figure), "alt": f"Volumes over time of {', '.join(names)}; the table has the numbers"}


def _points(rows: list[dict[str, str]], column: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        time, volume = parse_number(row[TIME]), parse_number(row.get(column, ""))
        if time is not None and volume is not None:
            yield time, volume
