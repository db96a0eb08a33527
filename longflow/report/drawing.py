"""Figures: forecasts beside what happened, and the course of a training."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # before pyplot: figures are files, also on machines without a display

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from longflow.errors import DataError
from longflow.files import atomic_write

COLUMNS = ("last context", "target", "forecast", "|target − last context|", "|target − forecast|")

#: colours of the lines for the forecast, LCI and the context mean, told apart in grey and by colour-blind readers
FORECAST_COLOUR, LCI_COLOUR, CONTEXT_MEAN_COLOUR = "#1f77b4", "#d62728", "#7f7f7f"
#: of the parts of a number, which is drawn in the first colour itself
PART_COLOURS = ("#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")


@dataclass(frozen=True)
class Panel:
    """A row of the forecast figure: one target. Volumes are (z, y, x), one channel, in input units.

    :param spacing: mm, (z, y, x).
    :param last_time, target_time: time units.
    :param nrmse, lci_nrmse: of the forecast and of LCI over the whole volume; None where not defined.
    """

    title: str
    last_context: np.ndarray
    target: np.ndarray
    forecast: np.ndarray
    spacing: tuple[float, float, float]
    last_time: float
    target_time: float
    nrmse: float | None = None
    lci_nrmse: float | None = None


def forecast_figure(panels: Sequence[Panel], path: Path, time_unit: str) -> None:
    """Write a figure with a row for each target: last context, target, forecast and both absolute errors.

    Each row shows the slice that changes most, across the axis of the largest spacing. Its three images share one grey
    scale (0.5th to 99.5th percentile of the target), its two errors one colour scale (0 to the 99.5th percentile of
    |target − last context| in that slice), which the colour bar states.

    :raises DataError: there is nothing to show.
    """
    if not panels:
        raise DataError("There is no forecast to show in a figure.")
    row_heights = [2.2 * min(max(_height_to_width(panel), 0.4), 1.6) for panel in panels]
    figure, axes = plt.subplots(
        len(panels), 5, figsize=(12.5, sum(row_heights) + 0.55 * len(panels) + 0.5),
        squeeze=False, layout="constrained", gridspec_kw={"height_ratios": row_heights},
    )  # fmt: skip
    for row, panel in zip(axes, panels, strict=True):
        _draw_panel(figure, row, panel, time_unit)
    for axis, name in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(f"{name}\n{axis.get_title()}", fontsize=10)
    figure.supxlabel(
        "Slice of largest change. Images of a row share one grey scale, errors of a row one colour scale, in input "
        "units.\nNRMSE: over the whole volume, RMSE / range of the target.",
        fontsize=8,
    )
    save(figure, path)


def _draw_panel(figure, row, panel: Panel, time_unit: str) -> None:
    (last, target, forecast), label, aspect = _slices(panel)
    low, high = np.percentile(panel.target, [0.5, 99.5])
    largest = max(np.percentile(np.abs(target - last), 99.5), np.finfo(np.float32).tiny)
    for axis, image in zip(row, (last, target, forecast), strict=False):
        axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="nearest")
    for axis, image in zip(row[3:], (last, forecast), strict=True):
        shown = axis.imshow(
            np.abs(target - image), cmap="magma", vmin=0, vmax=largest, aspect=aspect, interpolation="nearest"
        )
    figure.colorbar(shown, ax=row[3:].tolist(), fraction=0.05, pad=0.02, extend="max").ax.tick_params(labelsize=7)
    horizon = panel.target_time - panel.last_time
    captions = (
        f"t = {panel.last_time:.4g} {time_unit}",
        f"t = {panel.target_time:.4g} {time_unit}",
        f"{horizon:.4g} {time_unit} ahead",
        f"NRMSE {_number(panel.lci_nrmse)}",
        f"NRMSE {_number(panel.nrmse)}",
    )
    for axis, caption in zip(row, captions, strict=True):
        axis.set_title(caption, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    row[0].set_ylabel(f"{panel.title}\n{label}", fontsize=9)


def _slices(panel: Panel) -> tuple[list[np.ndarray], str, float]:
    """The slices of last context, target and forecast; which slice it is; height of a pixel over its width."""
    across = int(np.argmax(panel.spacing))
    change = np.abs(panel.target - panel.last_context)
    index = int(change.sum(axis=tuple(axis for axis in range(3) if axis != across)).argmax())
    height, width = (spacing for axis, spacing in enumerate(panel.spacing) if axis != across)
    slices = [volume.take(index, axis=across) for volume in (panel.last_context, panel.target, panel.forecast)]
    return slices, f"{'zyx'[across]} = {index}", height / width


def _height_to_width(panel: Panel) -> float:
    slices, _, aspect = _slices(panel)
    return slices[0].shape[0] * aspect / slices[0].shape[1]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def progress_figure(progress_csv: Path, path: Path) -> None:
    """Write the course of a training: loss and its terms, what validation found, time per epoch and waiting.

    :param progress_csv: columns epoch, loss, epoch_seconds, data_wait_share (0 to 1); columns ``loss_*`` are drawn
        beside the loss, the NRMSE of the baselines as lines, every other one that training does not write for all
        methods as a result of validation, but for ``mae_to_*`` and ``input_mae_to_*``. Empty cells are not drawn.
    :raises DataError: the file is missing, empty or lacks a column.
    """
    columns = _read_progress(progress_csv)
    epoch = columns["epoch"]
    marker = "o" if len(epoch) < 30 else None
    figure, (losses, found, times) = plt.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")

    losses.plot(epoch, columns["loss"], color=FORECAST_COLOUR, marker=marker, markersize=3, label="loss")
    terms = [name for name in columns if name.startswith("loss_")]
    for name, colour in zip(terms, cycle(PART_COLOURS)):
        label = name.removeprefix("loss_").replace("_", " ")
        losses.plot(epoch, columns[name], linewidth=1, marker=marker, markersize=2, color=colour, label=label)
    losses.set_ylabel("training loss")
    if terms:
        losses.legend(fontsize=8, title="terms before their weights", title_fontsize=8)
    elif np.nanmin(columns["loss"], initial=np.inf) > 0:
        losses.set_yscale("log")

    _draw_validation(found, epoch, columns)
    times.plot(epoch, columns["epoch_seconds"], color=FORECAST_COLOUR, marker=marker, markersize=3)
    times.set_ylabel("seconds per epoch", color=FORECAST_COLOUR)
    times.set_ylim(0, 1.1 * max(np.nanmax(columns["epoch_seconds"], initial=0), 1e-3))
    times.set_xlabel("epoch")
    waiting = times.twinx()
    waiting.plot(epoch, 100 * columns["data_wait_share"], color=LCI_COLOUR, linestyle="--")
    waiting.set_ylabel("% of it spent waiting for data", color=LCI_COLOUR)
    waiting.set_ylim(0, 100)
    for axis in (losses, found, times):
        axis.grid(alpha=0.3)
    times.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(epoch) == 1:
        times.set_xlim(epoch[0] - 0.5, epoch[0] + 0.5)
    save(figure, path)


#: baselines, which do not change: their names on the figure, colours and lines
BASELINES = {
    "lci_nrmse": ("last context image (LCI)", LCI_COLOUR, "--"),
    "context_mean_nrmse": ("context mean", CONTEXT_MEAN_COLOUR, ":"),
}
#: what the first column of validation is, in full
_MEASURES = {"dice": "Dice", "nrmse": "NRMSE", "validation_loss": "loss", "ratio": "MAE, share of the input's"}
#: errors in the units of the files, which the ratios to the input's say on the scale of the figure
_IN_UNITS = ("mae_to_", "input_mae_to_")
PROGRESS_COLUMNS = ("epoch", "loss", "epoch_seconds", "data_wait_share")
OTHER_COLUMNS = ("iteration", "seconds", "learning_rate")


def _draw_validation(axes, epoch: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """The first column in full colour, with its best value as the title; parts of it thin; baselines as lines."""
    names = [
        name
        for name in columns
        if not name.startswith(("loss_", *_IN_UNITS)) and name not in (*PROGRESS_COLUMNS, *OTHER_COLUMNS, *BASELINES)
    ]
    for name, colour in zip(names, chain([FORECAST_COLOUR], cycle(PART_COLOURS)), strict=False):
        first = name == names[0]
        known = np.isfinite(columns[name])
        style = {"color": colour, "marker": "o", "markersize": 3 if first else 2, "linewidth": 1.5 if first else 1}
        axes.plot(epoch[known], columns[name][known], label=name.replace("_", " "), **style)
        if first and known.any():
            higher = name.startswith("dice")
            best = (np.nanargmax if higher else np.nanargmin)(columns[name])
            title = f"{'highest' if higher else 'lowest'}: {columns[name][best]:.4f} in epoch {epoch[best]:g}"
            axes.set_title(title, fontsize=9, loc="right")
    for name, (label, colour, style) in BASELINES.items():
        known = columns[name][np.isfinite(columns[name])] if name in columns else []
        if len(known):
            axes.axhline(known[-1], color=colour, linestyle=style, label=f"{label}: {known[-1]:.4f}")
    if axes.has_data():
        axes.legend(fontsize=8)
    axes.set_ylabel(f"validation: {_MEASURES.get(names[0], names[0].replace('_', ' '))}" if names else "validation")


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
