"""The figure of evaluated forecasts: last context image, best rung, reference, forecast and their errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.evaluation.references import read_like
from longflow.registration.motion import STEP
from longflow.report.drawing import plt, save
from longflow.spread import evenly_spaced
from longflow.tasks.forecast.ladder import LCI, MOTION, RUNG_NAMES, read_given, rungs
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction

MOST_ROWS = 4


@dataclass(frozen=True)
class ForecastPanel:
    """A row of the figure: one target. Volumes are (z, y, x), one channel, in input units.

    :param spacing: mm, (z, y, x).
    :param last_time: time units.
    :param target_time: time units.
    :param nrmse: of the forecast over the whole volume; None where not defined.
    :param lci_nrmse: likewise, of LCI.
    :param rung: the forecast of the best rung, where that is not LCI.
    :param rung_name: its name.
    :param rung_nrmse: its NRMSE.
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
    rung: np.ndarray | None = None
    rung_name: str = ""
    rung_nrmse: float | None = None

    @property
    def forecasts(self) -> list[tuple[str, np.ndarray, float | None]]:
        """Name, volume and NRMSE of what is compared with the target."""
        own = [("forecast", self.forecast, self.nrmse)]
        return own if self.rung is None else [(self.rung_name, self.rung, self.rung_nrmse), *own]


def draw_forecasts(
    pairs: Sequence[ForecastPrediction],
    path: Path,
    time_unit: str,
    ladder: tuple[str, float] = (LCI, STEP),
    most: int = MOST_ROWS,
) -> None:
    """Draw at most ``most`` targets of an evaluated folder, one of each subject where there are enough subjects.

    The choice does not look at the results: targets are spread evenly over the subjects in order of name, and over each
    subject's targets.

    :param ladder: the best rung, and the step of ``motion``.
    """
    forecast_figure([forecast_panel(pair, *ladder) for pair in pick_targets(pairs, most)], path, time_unit)


def pick_targets(pairs: Sequence[ForecastPrediction], most: int) -> list[ForecastPrediction]:
    """Pick at most ``most`` pairs: of evenly spaced subjects the one with the longest horizon, then further ones."""
    by_subject: dict[str, list[ForecastPrediction]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.subject, -pair.horizon)):
        by_subject.setdefault(pair.subject, []).append(pair)
    if len(by_subject) >= most:
        subjects = list(by_subject.values())
        return [subjects[index][0] for index in evenly_spaced(len(subjects), most)]
    everything = [pair for of_subject in by_subject.values() for pair in of_subject]
    return [everything[index] for index in evenly_spaced(len(everything), most)]


def forecast_panel(pair: ForecastPrediction, best: str = LCI, step: float = STEP) -> ForecastPanel:
    """Read the volumes of a pair, first channel; NRMSE is over all channels.

    :param best: name of the best rung.
    :param step: of ``motion``.
    """
    target = read_scan(pair.reference)
    forecast = read_like(pair.images, target, pair.reference[0], OWN_GRID)
    last_context = read_like(pair.context_images[-1], target, pair.reference[0], OWN_GRID)
    rung = None
    if best != LCI:
        steps = {MOTION: step} if best == MOTION else {}
        rung = next(one.forecast for one in rungs(read_given(pair, target), steps) if one.name == best)
    return ForecastPanel(
        title=pair.subject,
        last_context=last_context.array[0],
        target=target.array[0],
        forecast=forecast.array[0],
        spacing=target.geometry.array_spacing,
        last_time=pair.target_time - pair.horizon,
        target_time=pair.target_time,
        nrmse=nrmse(forecast.array, target.array),
        lci_nrmse=nrmse(last_context.array, target.array),
        rung=None if rung is None else rung[0],
        rung_name=RUNG_NAMES[best],
        rung_nrmse=None if rung is None else nrmse(rung, target.array),
    )


def forecast_figure(panels: Sequence[ForecastPanel], path: Path, time_unit: str) -> None:
    """Write a figure with a row for each target: last context, target, best rung, forecast, and their absolute errors.

    Each row shows the slice that changes most, across the axis of the largest spacing. Its images share one grey scale
    (0.5th to 99.5th percentile of the target), its errors one colour scale (0 to the 99.5th percentile of
    |target − last context| in that slice), which the colour bar states.

    :raises DataError: there is nothing to show.
    """
    if not panels:
        raise DataError("There is no forecast to show in a figure.")
    names = [name for name, *_ in panels[0].forecasts]
    columns = ("last context", "target", *names, *(f"|target − {name}|" for name in ("last context", *names)))
    row_heights = [2.2 * min(max(_height_to_width(panel), 0.4), 1.6) for panel in panels]
    figure, axes = plt.subplots(
        len(panels), len(columns), figsize=(2.5 * len(columns), sum(row_heights) + 0.55 * len(panels) + 0.5),
        squeeze=False, layout="constrained", gridspec_kw={"height_ratios": row_heights},
    )  # fmt: skip
    for row, panel in zip(axes, panels, strict=True):
        _draw_panel(figure, row, panel, time_unit)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(f"{name}\n{axis.get_title()}", fontsize=10)
    figure.supxlabel(
        "Slice of largest change. Images of a row share one grey scale, errors of a row one colour scale, in input "
        "units.\nNRMSE: over the whole volume, RMSE / range of the target.",
        fontsize=8,
    )
    save(figure, path)


def _draw_panel(figure, row, panel: ForecastPanel, time_unit: str) -> None:
    (last, target, *forecasts), label, aspect = _slices(panel)
    low, high = np.percentile(panel.target, [0.5, 99.5])
    largest = max(np.percentile(np.abs(target - last), 99.5), np.finfo(np.float32).tiny)
    images, compared = (last, target, *forecasts), (last, *forecasts)
    for axis, image in zip(row, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect, interpolation="nearest")
    for axis, image in zip(row[len(images) :], compared, strict=True):
        shown = axis.imshow(
            np.abs(target - image), cmap="magma", vmin=0, vmax=largest, aspect=aspect, interpolation="nearest"
        )
    errors = row[len(images) :].tolist()
    figure.colorbar(shown, ax=errors, fraction=0.05, pad=0.02, extend="max").ax.tick_params(labelsize=7)
    ahead = f"{panel.target_time - panel.last_time:.4g} {time_unit} ahead"
    captions = (
        f"t = {panel.last_time:.4g} {time_unit}",
        f"t = {panel.target_time:.4g} {time_unit}",
        *(ahead for _ in forecasts),
        *(f"NRMSE {_number(value)}" for value in (panel.lci_nrmse, *(value for *_, value in panel.forecasts))),
    )
    for axis, caption in zip(row, captions, strict=True):
        axis.set_title(caption, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    row[0].set_ylabel(f"{panel.title}\n{label}", fontsize=9)


def _slices(panel: ForecastPanel) -> tuple[list[np.ndarray], str, float]:
    """The slices of last context, target and forecasts; which slice it is; height of a pixel over its width."""
    across = int(np.argmax(panel.spacing))
    change = np.abs(panel.target - panel.last_context)
    index = int(change.sum(axis=tuple(axis for axis in range(3) if axis != across)).argmax())
    height, width = (spacing for axis, spacing in enumerate(panel.spacing) if axis != across)
    volumes = (panel.last_context, panel.target, *(volume for _, volume, _ in panel.forecasts))
    slices = [volume.take(index, axis=across) for volume in volumes]
    return slices, f"{'zyx'[across]} = {index}", height / width


def _height_to_width(panel: ForecastPanel) -> float:
    slices, _, aspect = _slices(panel)
    return slices[0].shape[0] * aspect / slices[0].shape[1]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
