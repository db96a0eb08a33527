"""The figure of an evaluated folder: which targets to show, and their volumes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.data.images import read_scan
from longflow.report.drawing import Panel, forecast_figure
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import Pair, find_pairs, forecasts_of_folder, read_like

MOST_ROWS = 4


def draw_forecasts(
    predictions: Path, references: Sequence[Path], description: DatasetDescription, path: Path, most: int = MOST_ROWS
) -> None:
    """Draw targets of an evaluated folder, at most ``most``, one of each subject where there are enough subjects.

    They are spread evenly over the subjects in order of name, and over each subject's targets: a choice that does not
    look at the results.
    """
    pairs, _ = find_pairs(forecasts_of_folder(predictions, description), references, description)
    forecast_figure([panel_of(pair) for pair in pick_evenly(pairs, most)], path, description.time_unit)


def pick_evenly(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most ``most`` pairs: of evenly spaced subjects the target with the longest horizon, then further targets."""
    by_subject: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.forecast.subject, -pair.forecast.horizon)):
        by_subject.setdefault(pair.forecast.subject, []).append(pair)
    if len(by_subject) >= most:
        subjects = list(by_subject.values())
        return [subjects[index][0] for index in _evenly(len(subjects), most)]
    everything = [pair for of_subject in by_subject.values() for pair in of_subject]
    return [everything[index] for index in _evenly(len(everything), min(most, len(everything)))]


def _evenly(count: int, wanted: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def panel_of(pair: Pair) -> Panel:
    """The volumes of a pair, first channel; NRMSE over all channels."""
    target = read_scan(pair.target)
    forecast = read_like(pair.forecast.images, target, pair.target[0])
    last_context = read_like(pair.context[-1], target, pair.target[0])
    return Panel(
        title=pair.forecast.subject,
        last_context=last_context.array[0],
        target=target.array[0],
        forecast=forecast.array[0],
        spacing=target.geometry.array_spacing,
        last_time=pair.forecast.target_time - pair.forecast.horizon,
        target_time=pair.forecast.target_time,
        nrmse=nrmse(forecast.array, target.array),
        lci_nrmse=nrmse(last_context.array, target.array),
    )
