"""Figures of a comparison: error against cost, horizon and the setting of a study, and learning curves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from longflow.errors import DataError
from longflow.report.drawing import BASELINE_COLOUR, save

#: ten colours that colour-blind readers can distinguish best (Petroff 2021); lines also differ by their markers
COLOURS = (
    *("#3f90da", "#ffa90e", "#832db6", "#92dadd", "#a96b59"),
    *("#e76300", "#717581", "#94a4a2", "#b9ac70", "#000000"),
)
MARKERS = "osD^vP*X<>"

#: of LCI, and of the best rung where that is another
BASELINE_STYLES = ("--", ":")
#: before the name of the line whose LCI is drawn
OF_LINE = "LCI of: "

#: times that the largest value may exceed the smallest on a linear axis
WIDE = 4.0

#: points² of a bubble for a GB of memory
BUBBLE = 120.0


@dataclass(frozen=True)
class Cost:
    """A variant in the figure of error against cost.

    :param nrmse: mean.
    :param sd: standard deviation over runs; None for one run.
    :param seconds: of training; None: unknown.
    :param seconds_per_prediction: None: unknown.
    :param memory: peak, bytes; None: unknown.
    """

    name: str
    nrmse: float
    sd: float | None
    seconds: float | None
    seconds_per_prediction: float | None
    memory: float | None


@dataclass(frozen=True)
class Line:
    """A line of a figure.

    :param points: (x, y).
    :param intervals: of y at each point, or None.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float] | None] = ()


def cost_figure(costs: Sequence[Cost], baselines: Mapping[str, float], path: Path) -> None:
    """Draw NRMSE against the seconds of training and of a prediction (as CRONOS figure 8, where it is PSNR).

    The area of a bubble is the peak of memory in training; a cross where it is unknown. Variants without training
    appear only in the right half.

    :param baselines: NRMSE of LCI and the best rung by name.
    :raises DataError: there is no variant.
    """
    if not costs:
        raise DataError("There is no variant to show in a figure.")
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True, layout="constrained")
    handles = {}
    halves = zip(axes, ("seconds", "seconds_per_prediction"), ("training", "a prediction"), strict=True)
    for axis, cost, of in halves:
        shown = [(one, getattr(one, cost), colour) for one, colour in zip(costs, cycle(COLOURS))]
        shown = [(one, seconds, colour) for one, seconds, colour in shown if seconds]
        for one, seconds, colour in shown:
            axis.errorbar(seconds, one.nrmse, yerr=one.sd, color=colour, linewidth=1, zorder=2)
            known = one.memory is not None
            size, marker = (BUBBLE * one.memory / 1e9, "o") if known else (40, "x")
            bubble = axis.scatter(seconds, one.nrmse, s=size, color=colour, alpha=0.6, marker=marker, zorder=3)
            handles.setdefault(one.name, bubble)
        for (name, nrmse), style in zip(baselines.items(), BASELINE_STYLES, strict=False):
            handles[name] = axis.axhline(nrmse, color=BASELINE_COLOUR, linestyle=style, linewidth=1, zorder=1)
        axis.set_xlabel(f"seconds of {of}")
        axis.grid(alpha=0.3)
        axis.margins(0.15)
        if _is_wide([seconds for _, seconds, _ in shown]):
            axis.set_xscale("log")
        elif shown:
            axis.set_xlim(0, 1.25 * max(seconds for _, seconds, _ in shown))
    axes[0].set_ylabel("NRMSE")
    if _is_wide([*baselines.values(), *(one.nrmse for one in costs)]):
        axes[0].set_yscale("log")
    legend = outside_legend(figure, handles.values(), handles)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([40])
    figure.supxlabel("Area of a bubble: peak of memory in training. Bars: standard deviation over runs.", fontsize=8)
    save(figure, path)


def line_figure(
    lines: Sequence[Line],
    baselines: Mapping[str, Sequence[tuple[float, float]]],
    axis_name: str,
    path: Path,
    log: bool = False,
) -> None:
    """Draw the NRMSE of every variant against a horizon, a number of steps, ...

    :param baselines: points of LCI and the best rung, by name; with the prefix ``OF_LINE`` LCI has the colour of the
        line that it belongs to.
    :param axis_name: of the horizontal axis.
    :param log: whether the horizontal axis is logarithmic.
    :raises DataError: there is no line.
    """
    if not any(line.points for line in lines):
        raise DataError("There is no line to show in a figure.")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    colours = {}
    for line, colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        colours[line.name] = colour
        x, y = zip(*sorted(line.points), strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=4, label=line.name)
        if line.intervals and all(line.intervals):
            spans = [span for _, span in sorted(zip(line.points, line.intervals, strict=True))]
            axes.fill_between(x, *zip(*spans, strict=True), color=colour, alpha=0.12, linewidth=0)
    for (name, points), dashes in zip(baselines.items(), cycle(BASELINE_STYLES)):
        x, y = zip(*sorted(points), strict=True)
        of_line = name.startswith(OF_LINE)
        colour = colours[name.removeprefix(OF_LINE)] if of_line else BASELINE_COLOUR
        style = BASELINE_STYLES[0] if of_line else dashes
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1, label=name)
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(axis_name)
    axes.set_ylabel("NRMSE")
    if _is_wide([y for points in (*(line.points for line in lines), *baselines.values()) for _, y in points]):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    outside_legend(figure, *axes.get_legend_handles_labels())
    save(figure, path)


def outside_legend(figure: Figure, handles: Iterable[Artist], names: Iterable[str]) -> Legend:
    """Draw a legend outside the axes, where it hides nothing."""
    return figure.legend(list(handles), list(names), loc="outside right upper", fontsize=8, frameon=False)


def _is_wide(values: Sequence[float]) -> bool:
    """Return whether the values spread so far that only a logarithmic axis separates them."""
    return bool(values) and min(values) > 0 and max(values) > WIDE * min(values)


def learning_figure(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], lci: float | None, path: Path
) -> None:
    """Draw the validation NRMSE against the seconds of training, a line for every run, in the colour of its variant.

    :param curves: of each training, for each run, (seconds, NRMSE).
    :param lci: NRMSE of LCI on the same targets.
    :raises DataError: there is no training.
    """
    if not any(run for runs in curves.values() for run in runs):
        raise DataError("There is no training to show in a figure.")
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for (name, runs), colour, marker in zip(curves.items(), cycle(COLOURS), cycle(MARKERS)):
        label = name
        for run in filter(None, runs):
            seconds, nrmse = zip(*run, strict=True)
            axes.plot(seconds, nrmse, color=colour, marker=marker, markersize=3, linewidth=1, label=label)
            label = None
    if lci is not None:
        axes.axhline(lci, color=BASELINE_COLOUR, linestyle="--", linewidth=1, label="LCI")
    axes.set_yscale("log")
    axes.set_xlabel("seconds of training and validating")
    axes.set_ylabel("NRMSE on validation targets, best reduction")
    axes.grid(alpha=0.3, which="both")
    outside_legend(figure, *axes.get_legend_handles_labels())
    save(figure, path)
