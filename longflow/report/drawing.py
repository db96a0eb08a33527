"""Figures: how they are saved, and the course of a training."""

import base64
import csv
import io
from collections.abc import Collection, Mapping
from itertools import chain, cycle
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # before pyplot: figures are files, also on machines without a display

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from longflow.errors import DataError
from longflow.files import atomic_write
from longflow.training.progress import AS_NAMED, OTHER_COLUMNS, PROGRESS_COLUMNS, ProgressColumns

# a matplotlibrc in the current folder can be from somebody else, and start LaTeX
matplotlib.rcdefaults()
# the ids in an SVG: the same figure is the same file
matplotlib.rcParams["svg.hashsalt"] = "longflow"

#: of predictions and of the baselines, told apart in grey and by colour-blind readers
PREDICTION_COLOUR, BASELINE_COLOUR, SECOND_BASELINE_COLOUR = "#1f77b4", "#d62728", "#7f7f7f"
#: of the parts of a number; the number itself has the colour of predictions
PART_COLOURS = ("#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")

_BASELINE_STYLES = ((BASELINE_COLOUR, "--"), (SECOND_BASELINE_COLOUR, ":"))


def progress_figure(progress_csv: Path, path: Path, shown: ProgressColumns = AS_NAMED) -> None:
    """Write the course of a training: loss and its terms, validation, time per epoch and waiting.

    :param progress_csv: columns epoch, loss, epoch_seconds, data_wait_share (0 to 1); columns ``loss_*`` are drawn with
        the loss, every other column that training does not write for all methods as a result of validation. Empty cells
        are not drawn.
    :param shown: how the columns of the validation are drawn.
    :raises DataError: the file is missing, empty or lacks a column.
    """
    columns = _read_progress(progress_csv)
    epoch = columns["epoch"]
    figure, (losses, validation, times) = plt.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    _draw_losses(losses, epoch, columns)
    _draw_validation(validation, epoch, columns, shown)
    _draw_times(times, epoch, columns)
    for axis in (losses, validation, times):
        axis.grid(alpha=0.3)
    if len(epoch) == 1:
        times.set_xlim(epoch[0] - 0.5, epoch[0] + 0.5)
    save(figure, path)


def learning_curves(
    folds: Mapping[int, Path],
    shown: ProgressColumns = AS_NAMED,
    best_baseline: tuple[str, float] | None = None,
    of_folds: Collection[int] = (),
) -> plt.Figure | None:
    """Draw the validation of every fold of a model.

    :param folds: progress.csv of each fold.
    :param shown: how the columns of the validation are drawn.
    :param best_baseline: name and value of the best result without training on the cross-validation.
    :param of_folds: that this value is the mean of; it is a line in these.
    :returns: the figure; None where no fold has finished an epoch.
    """
    read = {fold: _read_progress(path) for fold, path in sorted(folds.items()) if path.is_file()}
    if not read:
        return None
    across = min(len(read), 3)
    figure, axes = plt.subplots(
        -(-len(read) // across),
        across,
        figsize=(4.5 * across, 3.4 * -(-len(read) // across)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(read) :]:
        axis.set_axis_off()
    for axis, (fold, columns) in zip(axes.flat, read.items(), strict=False):
        _draw_validation(axis, columns["epoch"], columns, shown)
        if best_baseline and fold in of_folds:
            name, value = best_baseline
            mean = f", mean of folds {', '.join(map(str, of_folds))}" if len(of_folds) > 1 else ""
            label = f"best baseline, {name}{mean}: {value:.4f}"
            axis.axhline(value, color="black", linestyle="-.", linewidth=1, label=label)
        if axis.has_data():
            axis.legend(fontsize=7)
        axis.set_title(f"fold {fold}", fontsize=10, loc="left")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    return figure


def _draw_losses(axes, epoch: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """The loss in full colour, its terms thin."""
    marker = _marker(epoch)
    axes.plot(epoch, columns["loss"], color=PREDICTION_COLOUR, marker=marker, markersize=3, label="loss")
    terms = [name for name in columns if name.startswith("loss_")]
    for name, colour in zip(terms, cycle(PART_COLOURS)):
        label = name.removeprefix("loss_").replace("_", " ")
        axes.plot(epoch, columns[name], linewidth=1, marker=marker, markersize=2, color=colour, label=label)
    axes.set_ylabel("training loss")
    if terms:
        axes.legend(fontsize=8, title="terms before their weights", title_fontsize=8)
    elif np.nanmin(columns["loss"], initial=np.inf) > 0:
        axes.set_yscale("log")


def _draw_validation(axes, epoch: np.ndarray, columns: dict[str, np.ndarray], shown: ProgressColumns) -> None:
    """The first column in full colour, with its best value as the title; parts of it thin; baselines as lines."""
    known_elsewhere = (*PROGRESS_COLUMNS, *OTHER_COLUMNS, *shown.baselines)
    names = [name for name in columns if not name.startswith(("loss_", *shown.hidden)) and name not in known_elsewhere]
    for name, colour in zip(names, chain([PREDICTION_COLOUR], cycle(PART_COLOURS)), strict=False):
        first = name == names[0]
        known = np.isfinite(columns[name])
        style = {"color": colour, "marker": "o", "markersize": 3 if first else 2, "linewidth": 1.5 if first else 1}
        axes.plot(epoch[known], columns[name][known], label=name.replace("_", " "), **style)
        if first and known.any():
            best = (np.nanargmax if shown.higher_is_better else np.nanargmin)(columns[name])
            word = "highest" if shown.higher_is_better else "lowest"
            axes.set_title(f"{word}: {columns[name][best]:.4f} in epoch {epoch[best]:g}", fontsize=9, loc="right")
    for (name, label), (colour, style) in zip(shown.baselines.items(), cycle(_BASELINE_STYLES)):
        known = columns[name][np.isfinite(columns[name])] if name in columns else []
        if len(known):
            axes.axhline(known[-1], color=colour, linestyle=style, label=f"{label}: {known[-1]:.4f}")
    if axes.has_data():
        axes.legend(fontsize=8)
    axes.set_ylabel(f"validation: {shown.measure or names[0].replace('_', ' ')}" if names else "validation")


def _draw_times(axes, epoch: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Seconds per epoch, and the share of them that was spent waiting."""
    axes.plot(epoch, columns["epoch_seconds"], color=PREDICTION_COLOUR, marker=_marker(epoch), markersize=3)
    axes.set_ylabel("seconds per epoch", color=PREDICTION_COLOUR)
    axes.set_ylim(0, 1.1 * max(np.nanmax(columns["epoch_seconds"], initial=0), 1e-3))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    waiting = axes.twinx()
    waiting.plot(epoch, 100 * columns["data_wait_share"], color=BASELINE_COLOUR, linestyle="--")
    waiting.set_ylabel("% of it spent waiting for data", color=BASELINE_COLOUR)
    waiting.set_ylim(0, 100)


def _marker(epoch: np.ndarray) -> str | None:
    return "o" if len(epoch) < 30 else None


def _read_progress(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path} does not exist. Training writes it after its first epoch.")
    with open(path, newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    if not records:
        raise DataError(f"{path} has no line below its header: no epoch has ended yet.")
    if missing := [name for name in PROGRESS_COLUMNS if name not in records[0]]:
        raise DataError(f"{path} has no column {', '.join(missing)}. Found: {', '.join(records[0])}.")
    try:
        return {name: np.array([float(one[name] or "nan") for one in records]) for name in records[0]}
    except ValueError as error:
        raise DataError(f"{path} holds something that is not a number: {error}.") from error


def save(figure, path: Path) -> None:
    """Write a figure whole or not at all, and close it."""
    try:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)


def as_svg(figure) -> str:
    """Return a figure as base64 of an SVG, for a page, and close it."""
    file = io.StringIO()
    try:
        figure.savefig(file, format="svg", metadata={"Date": None})
    finally:
        plt.close(figure)
    return base64.b64encode(file.getvalue().encode()).decode("ascii")
