"""Curves of volumes over time, as a figure of a subject's page; every value is read from a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from longflow.reading import parse_number
from longflow.report.drawing import BASELINE_COLOUR, PREDICTION_COLOUR, SECOND_BASELINE_COLOUR, as_svg, plt
from longflow.report.timeline import Results, Subject, Table

STRUCTURE, SLOPE, REFERENCE_SLOPE = "structure", "slope", "true_slope"
#: of a calendar unit of time, how many are a year
OF_A_YEAR = {"days": 365.25, "months": 12.0, "years": 1.0}


@dataclass(frozen=True)
class Source:
    """Where tables have volumes, and how they are drawn.

    :param time: column with the time, in the time unit of the dataset.
    :param volume: column with the volume, ml.
    :param where: cells that a row must have; None: the table has no such column.
    :param limits: columns with the ends of the interval.
    """

    label: str
    time: str
    volume: str
    colour: str
    style: str
    where: Mapping[str, str | None] = field(default_factory=dict)
    limits: tuple[str, str] | None = None

    def points(self, rows: Table, structure: str) -> Iterator[tuple[float, float, float | None, float | None]]:
        """Yield time, volume and the ends of the interval of the rows that have them."""
        for row in rows:
            if row.get(STRUCTURE) != structure or any(row.get(key) != cell for key, cell in self.where.items()):
                continue
            time, volume = (parse_number(row.get(name, "")) for name in (self.time, self.volume))
            low, high = (parse_number(row.get(name, "")) for name in self.limits) if self.limits else (None, None)
            if time is not None and volume is not None:
                yield time, volume, low, high


LIMITS, CORRECTED_LIMITS = ("lower_ml", "upper_ml"), ("calibrated_low_ml", "calibrated_high_ml")
#: of one label, the first table that has points counts
SOURCES = (
    Source("acquired scans, segmented", "time", "volume_ml", SECOND_BASELINE_COLOUR, "o-", {"source": "observed"}),
    Source("forecast, segmented", "time", "volume_ml", PREDICTION_COLOUR, "D", {"source": "forecast"}, LIMITS),
    Source("predicted labels", "time", "volume_ml", PREDICTION_COLOUR, "o-", {"source": None}, LIMITS),
    Source("corrected volumes", "time", "volume_calibrated_ml", SECOND_BASELINE_COLOUR, "o:", {}, CORRECTED_LIMITS),
    Source("forecast, segmented", "target_time", "volume_ml", PREDICTION_COLOUR, "D", {"method": "forecast"}),
    Source("reference", "time", "true_volume_ml", BASELINE_COLOUR, "s--"),
    Source("reference", "target_time", "true_volume_ml", BASELINE_COLOUR, "s", {"method": "forecast"}),
)


def volume_curves(results: Results, subject: Subject) -> list[dict[str, Any]]:
    """Draw the volumes of a subject over time, a part for each structure; values are those of the tables.

    :returns: ``svg`` (base64) and ``alt`` of the figure; empty where no table has volumes.
    """
    tables = [[row for row in rows if row["subject"] == subject.name] for rows in results.tables.values()]
    tables = [rows for rows in tables if rows and STRUCTURE in rows[0]]
    names = list(dict.fromkeys(row[STRUCTURE] for rows in tables for row in rows))
    drawn = {name: curves for name in names if (curves := _curves(tables, name))}
    times = [one.time for one in subject.moments]
    return [_figure(drawn, tables, results.description.time_unit, (min(times), max(times)))] if drawn else []


def _curves(tables: list[Table], structure: str) -> dict[str, tuple[Source, list[Any]]]:
    """Return the sources that have points of a structure, with their points in order of time, by label."""
    found: dict[str, tuple[Source, list[Any]]] = {}
    for source in SOURCES:
        for rows in tables:
            points = sorted(set(source.points(rows, structure)), key=lambda point: point[:2])
            if points and source.label not in found:
                found[source.label] = source, points
    return found


def _figure(drawn: Mapping[str, Any], tables: list[Table], unit: str, span: tuple[float, float]) -> dict[str, Any]:
    """Draw one figure. :param span: first and last time of the subject's scans and predictions."""
    margin = 0.05 * (span[1] - span[0]) or 1.0
    across = min(len(drawn), 4)
    down = -(-len(drawn) // across)
    figure, axes = plt.subplots(down, across, figsize=(4 * across, 3 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (name, curves) in zip(axes.flat, drawn.items(), strict=False):
        for label, (source, points) in curves.items():
            _draw(axis, label, source, points)
        axis.set_title("\n".join([name, *_slopes(tables, name, unit)]).replace("$", r"\$"), fontsize=9)
        axis.set_xlabel(f"time [{unit}]")
        axis.set_xlim(span[0] - margin, span[1] + margin)
        highest = max(
            (value for _, points in curves.values() for one in points for value in one[1:] if value), default=1.0
        )
        axis.set_ylim(0, 1.15 * highest)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("volume [mL]")
    return {"svg": as_svg(figure), "alt": f"Volumes over time of {', '.join(drawn)}; the tables have the numbers"}


def _draw(axis, label: str, source: Source, points: list[Any]) -> None:
    times, volumes, *_ = zip(*points, strict=True)
    axis.plot(times, volumes, source.style, color=source.colour, label=label, markersize=4)
    between = [point for point in points if None not in point]
    if between:
        times, _, lows, highs = zip(*between, strict=True)
        axis.vlines(times, lows, highs, color=source.colour, linewidth=5, alpha=0.35, label="interval")


def _slopes(tables: list[Table], structure: str, unit: str) -> Iterator[str]:
    """Yield the change per year of a structure, from the table that has slopes per time unit."""
    factor, per = (OF_A_YEAR[unit], "year") if unit in OF_A_YEAR else (1.0, unit)
    for row in (row for rows in tables for row in rows if row[STRUCTURE] == structure):
        slope, reference = (parse_number(row.get(name, "")) for name in (SLOPE, REFERENCE_SLOPE))
        if slope is not None:
            compared = "" if reference is None else f" (reference {factor * reference:+.3g})"
            yield f"{factor * slope:+.3g} mL per {per}{compared}"
            return
