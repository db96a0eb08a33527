"""The learned velocity of a flow, drawn over the scans of a subject (CRONOS figure 5).

A flow transports intensities: its velocity says by how much each voxel becomes brighter or darker per unit of tau, and
points nowhere. Learned is the velocity target - scan (eq. 5), so both are drawn in one scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from longflow.compare.comparison import Comparison, Run
from longflow.compare.perform import pairs_of
from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.inference.models import PredictionSettings, load_models
from longflow.inference.selection import Member, Selection
from longflow.inference.windows import pad_to_tile
from longflow.methods.forecasting._flow import FlowMethod
from longflow.networks.precision import autocast
from longflow.preprocessing.prepared import RawSeries
from longflow.preprocessing.series import prepare_volumes
from longflow.report.drawing import save
from longflow.spread import evenly_spaced
from longflow.tasks.forecast.context import DEFAULT_RULE, choose_contexts
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.shrinkage import given_of_pair
from longflow.tasks.forecast.windows import batch_of_patches, expected_recurrence

#: scans, and flow steps, that are shown at most
MOST_SHOWN = 5
#: of a change: brighter red, darker blue, white where nothing changes; over a scan, both clear on black and white
COLOURS, SIGNS = "RdBu_r", ((1.0, 0.1, 0.05), (0.05, 0.35, 1.0))
#: of a velocity over a scan, where it is largest
OPACITY = 0.85
#: of the figure
ROWS = ("scan", "target − scan", "velocity at τ = 0\nover the scan", "path of the latest scan\nwith its velocity")


@dataclass(frozen=True)
class Flow:
    """The path of a forecast in one patch, first channel, in the normal form.

    :param subject: the subject's name.
    :param target: the scan that is forecast, (z, y, x).
    :param stacks: of each evaluation, the places of the stack, (evaluations, places, z, y, x).
    :param velocities: likewise, v_theta(X_tau).
    :param taus: (evaluations,).
    :param end: X_1, (places, z, y, x).
    :param before: (places,), time from each place to the target, time units.
    :param spacing: mm, (z, y, x).
    """

    subject: str
    target: NDArray
    stacks: NDArray
    velocities: NDArray
    taus: list[float]
    end: NDArray
    before: list[float]
    spacing: Sequence[float]


def draw_velocities(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    """Draw the velocity of every variant that is trained, in its first run; write ``velocity_VARIANT.png``.

    The choice of the target does not look at the results: it is the one with most context scans, and of these the one
    with the longest horizon.

    :param runs: finished ones.
    :returns: names of the files.
    """
    first = {run.variant.name: run for run in reversed(runs) if run.variant.trains}
    description = read_description(comparison.dataset.raw / "dataset.json")
    drawn = []
    for run in (run for run in runs if first.get(run.variant.name) == run):
        pairs, _ = pairs_of(comparison, run, description)
        pair = max(pairs, key=lambda pair: (len(pair.context), pair.horizon, pair.case))
        path = comparison.paths.figure(f"velocity_{run.variant.folder}")
        velocity_figure(flow_of_target(comparison, run, pair), path, description.time_unit)
        drawn.append(path.name)
    return drawn


@torch.inference_mode()
def flow_of_target(comparison: Comparison, run: Run, pair: ForecastPrediction) -> Flow:
    """Follow the forecast of a target in the patch around the centre of its change.

    :param run: of a trained flow.
    :param pair: with its reference and context scans.
    """
    planned, variant = comparison.plans.inference, run.variant
    # all planned steps, also where training found that fewer give the same forecasts
    settings = PredictionSettings(comparison.device, variant.solver or planned.solver, variant.steps or planned.steps)
    selection = Selection(comparison.dataset, (Member(comparison.model(run), (run.fold,)),))
    models = load_models(selection, "forecast", settings)
    method, plans = cast(FlowMethod, models.members[0].methods[0]), models.plans
    given = given_of_pair(pair)
    taken = choose_contexts(DEFAULT_RULE, given.times, method.most_scans)[0]
    times = replace(given.times, context=[given.times.context[position] for position in taken])
    files = [*(given.images[position] for position in taken), pair.reference]
    raw = RawSeries(
        pair.subject,
        [file[0].name for file in files],
        [*times.context, times.target],
        [read_scan(file) for file in files],
        sources=[str(file[0]) for file in files],
        period=times.period,
    )
    prepared = prepare_volumes(raw, plans, comparison.configuration)
    tile = method.configuration.tile
    whole = np.asarray(prepared.images[...], dtype=np.float32)
    expected = expected_recurrence(method, whole[:-1], times)
    images, _ = pad_to_tile(whole, tile, "edge")
    z, y, x = patch_of_change(images[-1] - images[-2], tile)
    *context, target = images[..., z, y, x]
    flat = len(method.configuration.patch_size) == 2
    scans = torch.from_numpy(np.stack(context))[None].to(models.device)
    batch = batch_of_patches(scans.squeeze(-3) if flat else scans, times, plans, expected).to(models.device)
    with autocast(models.device):
        path = method.path(batch, keep=True)

    def volumes(stack: torch.Tensor) -> NDArray:
        """The observed places, first channel, (places, z, y, x)."""
        places = stack[0, path.mask[0], 0].float().cpu().numpy()
        return places[:, None] if flat else places

    before = (batch.target_time - path.times[0, path.mask[0]]) * plans.temporal.time_scale
    return Flow(
        subject=pair.subject,
        target=target[0],
        stacks=np.stack([volumes(one.stack) for one in path.evaluations]),
        velocities=np.stack([volumes(one.velocity) for one in path.evaluations]),
        taus=[one.tau for one in path.evaluations],
        end=volumes(path.end),
        before=before.tolist(),
        spacing=prepared.properties.spacing,
    )


def patch_of_change(change: np.ndarray, tile: Sequence[int]) -> tuple[slice, ...]:
    """Find the patch around the centre of the squared change; of a flat tile, the slice that changes most.

    :param change: (channels, z, y, x), nowhere smaller than the tile.
    :param tile: (z, y, x).
    """
    power = np.square(change).sum(axis=0, dtype=np.float64)
    window = []
    for axis, edge in enumerate(tile):
        along = power.sum(axis=tuple(other for other in range(3) if other != axis))
        centre = along.argmax() if edge == 1 or not along.any() else np.average(np.arange(len(along)), weights=along)
        start = int(np.clip(round(centre - (edge - 1) / 2), 0, len(along) - edge))
        window.append(slice(start, start + edge))
    return tuple(window)


def velocity_figure(flow: Flow, path: Path, time_unit: str) -> None:
    """Draw scans, their true difference to the target, the velocity over them, and the path of the latest one.

    Shown is the slice that changes most, across the axis of the largest spacing. Over each velocity stands its cosine
    with the true difference, in the patch: 1 for a velocity that leads to the target.

    :param flow: of one target.
    :param path: to write.
    :param time_unit: of the dataset.
    """
    across = int(np.argmax(flow.spacing))
    others = tuple(axis for axis in range(3) if axis != across)
    index = int(np.square(flow.target - flow.stacks[0, -1]).sum(axis=others).argmax())
    target, stacks, velocities, end = (
        np.take(volumes, index, across - 3) for volumes in (flow.target, flow.stacks, flow.velocities, flow.end)
    )
    scans = list(range(len(flow.before)))[-MOST_SHOWN:]
    steps = evenly_spaced(len(flow.taus), MOST_SHOWN)
    height, width = (flow.spacing[axis] for axis in others)
    grey = {"cmap": "gray", "aspect": height / width, "interpolation": "nearest"}
    grey |= dict(zip(("vmin", "vmax"), np.percentile(flow.target, [0.5, 99.5]), strict=True))
    largest = max(float(np.percentile(np.abs(target - stacks[0, scans]), 99.5)), 1e-6)
    colours = {**grey, "cmap": COLOURS, "vmin": -largest, "vmax": largest}

    figure, axes = _panels(max(len(scans), len(steps)) + 1, target.shape[0] * height / (target.shape[1] * width))
    for axis, scan in zip(axes.T[-1 - len(scans) : -1], scans, strict=True):
        axis[0].imshow(stacks[0, scan], **grey)
        # where scans repeat, cronos expects one at the target time, as a further scan
        title = f"{flow.before[scan]:.4g} {time_unit} before" if flow.before[scan] > 0 else "expected scan"
        axis[0].set_title(title, fontsize=9)
        shown = axis[1].imshow(target - stacks[0, scan], **colours)
        _overlay(axis[2], stacks[0, scan], velocities[0, scan], grey, colours)
        axis[2].set_title(f"cosine {_cosine(flow.velocities[0, scan], flow.target - flow.stacks[0, scan])}", fontsize=9)
    for axis, step in zip(axes[3, -1 - len(steps) : -1], steps, strict=True):
        _overlay(axis, stacks[step, -1], velocities[step, -1], grey, colours)
        axis.set_title(f"τ = {flow.taus[step]:.2g}", fontsize=9)
    for axis, image, title in ((axes[0, -1], target, "target"), (axes[3, -1], end[-1], "τ = 1: forecast")):
        axis.imshow(image, **grey)
        axis.set_title(title, fontsize=9)
    for row, name in zip(axes, ROWS, strict=True):
        next(axis for axis in row if axis.has_data()).set_ylabel(name, fontsize=9)
    bar = figure.colorbar(shown, cax=axes[1, -1].inset_axes([0.1, 0.0, 0.1, 1.0]), extend="both")
    bar.set_label("darker     brighter", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(f"{flow.subject}, slice {'zyx'[across]} = {index}", fontsize=10)
    figure.supxlabel(
        "Velocity: by how much a voxel becomes brighter (red) or darker (blue) until the target, in units of the "
        "normal form; clear where\nit is as large as target − scan. Cosine of both, over the patch: 1 where the "
        "velocity leads to the target, 0 where it has nothing to do with it.",
        fontsize=8,
    )
    save(figure, path)


def _panels(columns: int, height_to_width: float) -> tuple[Figure, NDArray]:
    """Make the empty panels, a row for each name of ``ROWS``."""
    size = 2.15 * min(max(height_to_width, 0.4), 1.6) + 0.25
    figure, axes = plt.subplots(
        len(ROWS), columns, figsize=(2.3 * columns, len(ROWS) * size + 0.8), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    return figure, axes


def _overlay(axis: Axes, image: NDArray, velocity: NDArray, grey: dict[str, Any], colours: dict[str, Any]) -> None:
    """Draw a velocity over an image: brighter red, darker blue; the slower, the more transparent."""
    axis.imshow(image, **grey)
    shade = np.where((velocity > 0)[..., None], *SIGNS)
    opacity = OPACITY * np.clip(np.abs(velocity) / colours["vmax"], 0, 1)
    axis.imshow(np.dstack([shade, opacity]), **{name: grey[name] for name in ("aspect", "interpolation")})


def _cosine(one: NDArray, other: NDArray) -> str:
    """Compute the cosine of two volumes, in words where one of them is zero."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return f"{float(np.vdot(one, other)) / length:.2f}" if length else "not defined"
