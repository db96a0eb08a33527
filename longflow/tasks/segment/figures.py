"""Figures of evaluated segmentations: volumes over time, and agreement with the reference on their changes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from longflow.errors import DataError
from longflow.evaluation.summary import Row
from longflow.report.drawing import plt, save
from longflow.tasks.segment.evaluation import Rows

#: names of the files
VOLUMES, CHANGES = "volumes.png", "volume_changes.png"

#: subjects and structures of the figure of volumes, panels of the figure of changes
MOST_SUBJECTS, MOST_STRUCTURES, MOST_PANELS = 8, 5, 9

#: told apart in grey and by colour-blind readers: reference black with open circles, prediction orange and dashed
REFERENCE = {"color": "black", "marker": "o", "markerfacecolor": "white", "linewidth": 1.6, "markersize": 6}
PREDICTION = {"color": "#d55e00", "marker": "s", "linewidth": 1.6, "markersize": 4, "linestyle": "--"}
_SMALL = 8


def volume_figure(scans: Sequence[Row], subjects: Sequence[Row], path: Path, time_unit: str) -> None:
    """Draw volume over time, a row of panels for each subject, a column for each structure; worst subjects first.

    A subject's error is its mean over structures of ``volume_error``. Where there are more subjects or structures than
    fit, the worst ones are shown and the figure says so.

    :param scans: subject, time, structure, volume_ml, true_volume_ml of each scan and structure.
    :param subjects: subject, structure, scans, volume_error, slope and true_slope of each subject and structure.
    :raises DataError: no subject has several scans.
    """
    series = [row for row in subjects if row["scans"] > 1]
    if not series:
        raise DataError("No subject has more than one scan, so there is no volume over time to draw.")
    shown_subjects = worst_first(series, "subject")
    shown_structures = worst_first(series, "structure")[:MOST_STRUCTURES]
    in_order = [name for name in dict.fromkeys(row["structure"] for row in series) if name in shown_structures]
    rows = shown_subjects[:MOST_SUBJECTS]
    figure, axes = plt.subplots(
        len(rows), len(in_order), figsize=(1.0 + 3.2 * len(in_order), 1.1 + 2.0 * len(rows)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, subject in zip(axes, rows, strict=True):
        for axis, structure in zip(line, in_order, strict=True):
            own = [row for row in scans if (row["subject"], row["structure"]) == (subject, structure)]
            (summary,) = (row for row in series if (row["subject"], row["structure"]) == (subject, structure))
            _draw_volumes(axis, own, summary, time_unit)
        line[0].set_ylabel(f"{subject}\n{_error(series, subject)}ml", fontsize=9, parse_math=False)
    for axis, structure in zip(axes[0], in_order, strict=True):
        axis.set_title(f"{structure}\n{axis.get_title()}", fontsize=9, parse_math=False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9, frameon=False)
    figure.supxlabel(f"time [{time_unit}]", fontsize=9)
    selection = _selection(len(rows), len(shown_subjects))
    if len(in_order) < len(dict.fromkeys(row["structure"] for row in series)):
        selection += "; structures: the worst"
    figure.suptitle(selection, fontsize=9, x=0.99, ha="right")
    save(figure, path)


def worst_first(rows: Sequence[Row], name: str) -> list[str]:
    """List subjects or structures by their mean volume error, the largest first; undefined ones last.

    :param name: "subject" or "structure".
    """
    errors: dict[str, list[float]] = {row[name]: [] for row in rows}
    for row in rows:
        if row["volume_error"] is not None:
            errors[row[name]].append(row["volume_error"])
    return sorted(errors, key=lambda one: (-np.mean(errors[one]) if errors[one] else math.inf, one))


def _error(rows: Sequence[Row], subject: str) -> str:
    """The error by which a subject is ordered, as text."""
    errors = [row["volume_error"] for row in rows if row["subject"] == subject and row["volume_error"] is not None]
    return f"error {np.mean(errors):.1%}\n" if errors else ""


def _selection(shown: int, known: int) -> str:
    who = f"the {shown} of {known} subjects with the largest error of volume" if shown < known else "all subjects"
    return f"{who}, worst first"


def _draw_volumes(axis, scans: Sequence[Row], summary: Row, time_unit: str) -> None:
    times = [row["time"] for row in scans]
    predicted, reference = ([row[name] for row in scans] for name in ("volume_ml", "true_volume_ml"))
    axis.plot(times, reference, label="reference", zorder=3, **REFERENCE)
    axis.plot(times, predicted, label="prediction", zorder=4, **PREDICTION)
    axis.set_title(_slopes(summary, time_unit), fontsize=_SMALL)
    # from zero, so that a change looks as large as it is, unless that would flatten it beyond recognition
    highest, lowest = max(*predicted, *reference), min(*predicted, *reference)
    if highest == 0:
        axis.set_ylim(-0.05, 1)
        axis.text(0.5, 0.5, "in no scan", ha="center", va="center", transform=axis.transAxes, fontsize=_SMALL)
    elif lowest < 0.5 * highest:
        axis.set_ylim(-0.05 * highest, 1.1 * highest)
    else:
        margin = max(0.15 * (highest - lowest), 0.05 * highest)
        axis.set_ylim(lowest - margin, highest + margin)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=_SMALL)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(4))


def _slopes(summary: Row, time_unit: str) -> str:
    if summary["slope"] is None:
        return ""
    unit = time_unit[:-1] if len(time_unit) > 2 else time_unit  # months to month, but not ms to m
    return f"slope {summary['slope']:+.3g}, reference {summary['true_slope']:+.3g} ml/{unit}"


def change_figure(pairs: Sequence[Row], by_structure: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw Bland-Altman panels of the changes of volume between consecutive scans, one for each structure.

    Prediction minus reference over the mean of both, with bias and 95 % limits of agreement.

    :param pairs: structure, change and true_change (ml) of each pair of consecutive scans.
    :param by_structure: for each structure bias and limits (ml), as
        :func:`longflow.tasks.segment.trajectories.bland_altman` returns them.
    :raises DataError: there are no pairs.
    """
    if not pairs:
        raise DataError("No subject has more than one scan, so there is no change of volume to draw.")
    names = [name for name, numbers in by_structure.items() if numbers["bias"] is not None]
    shown = names[:MOST_PANELS]
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(0.6 + 4.2 * columns, 0.9 + 3.2 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    for axis, name in zip(axes.flat, shown, strict=False):
        _draw_changes(axis, [row for row in pairs if row["structure"] == name], by_structure[name])
        axis.set_title(name, fontsize=10, parse_math=False)
    figure.supxlabel("change between consecutive scans, mean of prediction and reference [ml]", fontsize=9)
    figure.supylabel("prediction − reference [ml]", fontsize=9)
    if len(shown) < len(names):
        figure.suptitle(f"{len(shown)} of {len(names)} structures; all in metrics.json", fontsize=9)
    save(figure, path)


def _draw_changes(axis, pairs: Sequence[Row], numbers: Mapping[str, Any]) -> None:
    predicted, reference = (np.array([row[name] for row in pairs], dtype=float) for name in ("change", "true_change"))
    axis.scatter(
        (predicted + reference) / 2, predicted - reference, s=16, color="black", alpha=0.6, linewidths=0, zorder=3
    )
    axis.axhline(0, color="#7f7f7f", linewidth=0.8)
    lines = [(numbers["bias"], "bias", "-")]
    if numbers["limits"]:
        lines += [(value, f"{sign}1.96 SD", "--") for value, sign in zip(numbers["limits"], "−+", strict=True)]
    for value, text, style in lines:
        axis.axhline(value, color=PREDICTION["color"], linestyle=style, linewidth=1.4)
        axis.annotate(
            f"{text}\n{value:+.3g}", (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", ha="left", va="center", fontsize=_SMALL, color=PREDICTION["color"],
        )  # fmt: skip
    # room for everything, and as much above 0 as below, so that a bias is visible
    reach = max([abs(value) for value, *_ in lines] + np.abs(predicted - reference).tolist()) or 1.0
    axis.set_ylim(-1.25 * reach, 1.25 * reach)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=_SMALL)
    axis.xaxis.set_major_locator(MaxNLocator(5))


def draw_segmentations(results: Mapping[str, Any], rows: Rows, folder: Path) -> list[str]:
    """Draw both figures of an evaluated folder; none where no subject has two scans.

    :param results: content of metrics.json.
    :param folder: to write into.
    :returns: names of the files.
    """
    if not rows.pairs:
        return []
    volume_figure(rows.scans, rows.subjects, folder / VOLUMES, results["time_unit"])
    agreement = {name: one["trajectories"]["bland_altman"] for name, one in results["by_structure"].items()}
    change_figure(rows.pairs, agreement, folder / CHANGES)
    return [VOLUMES, CHANGES]
