"""How much of an image changes until the target, and how much of that change is forecast (TFM figure 7).

Most voxels hardly change, so an error over the whole volume says little of the change itself. With t = target - last
context image and f = forecast - last context image, each divided by the range of the target:

- the share of voxels whose change exceeds a level, for t and for f;
- the root mean square of t and of f;
- f.t / t.t, the share of the true change that is forecast: 0 for the last context image, 1 for a perfect forecast;
- f.t / (|f| |t|), their agreement (cosine): whether the forecast change is in the right places with the right sign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from longflow.compare.comparison import Comparison, Run
from longflow.compare.figures import COLOURS, MARKERS, outside_legend
from longflow.compare.perform import pairs_of
from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.evaluation.references import peak_bytes, read_like
from longflow.evaluation.summary import summary
from longflow.files import write_csv
from longflow.parallel import for_each_subject, processes_that_fit
from longflow.report.drawing import save
from longflow.tasks.forecast.metrics import CHANGED_THRESHOLD, value_range
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction

#: shares of the target's range at which the changed voxels are counted
LEVELS = np.geomspace(1e-3, 1, 61)
#: of the table
COLUMNS = ("variant", "fold", "seed", "case", "subject", "horizon", "change", "forecast_change", "share", "agreement")
TRUE_COLOUR = "#000000"
#: volumes of float32 that a target takes at the peak
_VOLUMES_AT_PEAK = 16


@dataclass(frozen=True)
class Change:
    """The change of one target; None or NaN where a number is not defined.

    :param exceeding: (levels,), share of voxels whose true change exceeds each of ``LEVELS``.
    :param forecast_exceeding: likewise, of the forecast change.
    :param change: root mean square of the true change, share of the target's range.
    :param forecast_change: likewise, of the forecast change.
    :param share: of the true change that is forecast.
    :param agreement: cosine of both changes.
    """

    exceeding: np.ndarray
    forecast_exceeding: np.ndarray
    change: float
    forecast_change: float
    share: float | None
    agreement: float | None


def draw_changes(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    """Measure the change of every target under every variant that is trained; write ``change.csv`` and ``change.png``.

    :param runs: finished ones.
    :returns: names of the files.
    """
    found: dict[str, list[tuple[str, Change]]] = {}
    rows = []
    description = read_description(comparison.dataset.raw / "dataset.json")
    for run in (run for run in runs if run.variant.trains):
        pairs, _ = pairs_of(comparison, run, description)
        changes = changes_of_pairs(pairs)
        place = {"variant": run.variant.name, "fold": run.fold, "seed": run.seed}
        for pair in (pair for pair in pairs if pair.case in changes):
            change = changes[pair.case]
            found.setdefault(run.variant.name, []).append((pair.subject, change))
            of_pair = {"case": pair.case, "subject": pair.subject, "horizon": pair.horizon}
            rows.append({**place, **of_pair, **{name: getattr(change, name) for name in COLUMNS[6:]}})
    table, figure = comparison.paths.folder / "change.csv", comparison.paths.figure("change")
    write_csv(COLUMNS, rows, table)
    change_figure(found, figure)
    return [table.name, figure.name]


def changes_of_pairs(pairs: Sequence[ForecastPrediction], processes: int | None = None) -> dict[str, Change]:
    """Measure the change of every target by its case; constant targets are excluded.

    :param pairs: with references and context scans.
    """
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, _VOLUMES_AT_PEAK) for pair in pairs])
    measured = dict(for_each_subject(change_of_pair, {pair.case: pair for pair in pairs}, fitting))
    return {case: change for case, change in measured.items() if change is not None}


def change_of_pair(pair: ForecastPrediction) -> Change | None:
    """Measure the change of one target; None where it is constant.

    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    target = read_scan(pair.reference)
    last, forecast = (
        read_like(files, target, pair.reference[0], OWN_GRID).array for files in (pair.context_images[-1], pair.images)
    )
    ranges = [value_range(channel) for channel in target.array]
    defined = [channel for channel, size in enumerate(ranges) if size > 0]
    if not defined:
        return None
    true, made = (
        np.stack([(volume[channel] - last[channel]) / np.float32(ranges[channel]) for channel in defined])
        for volume in (target.array, forecast)
    )
    return change_of(true, made)


def change_of(true: np.ndarray, made: np.ndarray) -> Change:
    """Measure two changes.

    :param true: target - last context image, any shape, in shares of the target's range.
    :param made: forecast - last context image, likewise.
    """
    dots = [float(np.vdot(one.astype(np.float64), other)) for one, other in ((true, true), (made, made), (made, true))]
    of_true, of_made, both = dots
    return Change(
        exceeding=exceeding(true),
        forecast_exceeding=exceeding(made),
        change=float(np.sqrt(of_true / true.size)),
        forecast_change=float(np.sqrt(of_made / made.size)),
        share=both / of_true if of_true else None,
        agreement=both / float(np.sqrt(of_true * of_made)) if of_true and of_made else None,
    )


def exceeding(change: np.ndarray) -> np.ndarray:
    """Compute the share of voxels whose absolute change exceeds each of ``LEVELS``.

    >>> exceeding(np.array([0.0, 0.0, -0.5, 1.5]))[[0, -1]].tolist()
    [0.5, 0.25]
    """
    ascending = np.sort(np.abs(change), axis=None)
    return 1 - np.searchsorted(ascending, LEVELS, side="right") / change.size


def change_figure(found: Mapping[str, Sequence[tuple[str, Change]]], path: Path) -> None:
    """Draw how many voxels change by how much, and how much of every target's change is forecast.

    :param found: of each variant, for each target in each run: subject and change.
    :param path: to write.
    :raises DataError: there is nothing to show.
    """
    if not found:
        raise DataError("There is no forecast of a trained model whose change could be shown.")
    figure, (voxels, targets) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    lines = [*_draw_voxels(voxels, found), *_draw_targets(targets, found)]
    outside_legend(figure, lines, [str(line.get_label()) for line in lines])
    figure.supxlabel(
        "Left: mean over subjects; shaded: the middle 80 % of them. Right: a point for each target; the last context "
        "image would lie on 0.\nShare: how much of the true change is forecast. Agreement: cosine of both changes, 1 "
        "where they have the same places and signs.",
        fontsize=8,
    )
    save(figure, path)


def _draw_voxels(axes: Axes, found: Mapping[str, Sequence[tuple[str, Change]]]) -> list[Artist]:
    """Draw the share of voxels that change by more than a level, true and forecast; return what the legend names."""
    true = [(subject, one.exceeding) for subject, one in next(iter(found.values()))]
    lines = [_draw_exceeding(axes, "true change", true, TRUE_COLOUR, "-")]
    for (name, changes), colour in zip(found.items(), cycle(COLOURS)):
        forecast = [(subject, one.forecast_exceeding) for subject, one in changes]
        lines.append(_draw_exceeding(axes, f"{name}: forecast change", forecast, colour, "--"))
    axes.axvline(100 * CHANGED_THRESHOLD, color="0.5", linestyle=":", linewidth=1, zorder=0)
    place = 100 * CHANGED_THRESHOLD, 0.97
    axes.text(*place, " changed region →", transform=axes.get_xaxis_transform(), fontsize=8, color="0.4", va="top")
    axes.set(xscale="log", yscale="log", xlim=(100 * LEVELS[0], 100), ylim=(1e-2, 130))
    axes.set_xlabel("change of a voxel since the last context scan, % of the target's range")
    axes.set_ylabel("% of voxels that change more")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    return lines


def _draw_exceeding(axes: Axes, name: str, curves: Sequence[tuple[str, np.ndarray]], colour: str, style: str) -> Artist:
    """Draw the mean over subjects, and the middle 80 % of them."""
    subjects: dict[str, list[np.ndarray]] = {}
    for subject, curve in curves:
        subjects.setdefault(subject, []).append(100 * curve)
    of_subjects = np.array([np.mean(own, axis=0) for own in subjects.values()])
    axes.fill_between(100 * LEVELS, *np.percentile(of_subjects, [10, 90], axis=0), color=colour, alpha=0.1, linewidth=0)
    return axes.plot(100 * LEVELS, of_subjects.mean(axis=0), color=colour, linestyle=style, label=name)[0]


def _draw_targets(axes: Axes, found: Mapping[str, Sequence[tuple[str, Change]]]) -> list[Artist]:
    """Draw the forecast change of every target against its true change; return what the legend names."""
    points: list[Artist] = []
    largest = 0.0
    for (name, changes), colour, marker in zip(found.items(), cycle(COLOURS), cycle(MARKERS)):
        x, y = (np.array([100 * getattr(one, of) for _, one in changes]) for of in ("change", "forecast_change"))
        label = f"{name}: {_numbers(changes)}"
        points.append(axes.scatter(x, y, s=24, color=colour, marker=marker, alpha=0.7, linewidths=0, label=label))
        largest = max(largest, 1.08 * x.max(), 1.08 * y.max())
    axes.plot([0, largest], [0, largest], color="0.5", linewidth=1, zorder=0)
    axes.annotate("as much as truly changed", (largest, largest), xytext=(-70, -12), textcoords="offset points",
                  fontsize=8, color="0.4", ha="right")  # fmt: skip
    axes.set(xlim=(0, largest), ylim=(-0.02 * largest, largest))
    axes.set_xlabel("true change of a target, root mean square, % of its range")
    axes.set_ylabel("forecast change, root mean square, % of its range")
    axes.grid(alpha=0.3)
    return points


def _numbers(changes: Sequence[tuple[str, Change]]) -> str:
    """Return share and agreement, means over subjects, in words."""
    subjects = [subject for subject, _ in changes]
    share, agreement = (
        summary(subjects, [getattr(one, number) for _, one in changes])["mean"] for number in ("share", "agreement")
    )
    # neither is defined where nothing changed, agreement also where nothing is forecast
    percent = None if share is None else 100 * share
    parts = (("share", percent, "{:.0f} %"), ("agreement", agreement, "{:.2f}"))
    return ", ".join(f"{name} {'not defined' if mean is None else form.format(mean)}" for name, mean, form in parts)
