"""Draw the explanatory diagrams of the documentation: ``python documentation/figures/draw.py [NAME ...]``.

Nothing here is measured. Every curve is an example with a fixed seed. Figures of measurements come from the commands
that the pages name.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import stats

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, GREY, LIGHT = "#2b6cb0", "#dd6b20", "#2f855a", "#718096", "#edf2f7"
FIGURES: dict[str, Callable[[], None]] = {}


def figure(draw: Callable[[], None]) -> Callable[[], None]:
    """Register a function that draws the figure of its name."""
    FIGURES[draw.__name__] = draw
    return draw


def canvas(width: float, height: float) -> Axes:
    """Return axes without frame, in units of about a centimetre.

    :param width: cm. :param height: cm.
    """
    axes = plt.figure(figsize=(width / 2.3, height / 2.3)).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def box(axes: Axes, place: tuple[float, float], size: tuple[float, float], text: str, colour: str = BLUE) -> None:
    """Draw a rounded box with text in its middle.

    :param place: x, y of the centre. :param size: width, height.
    """
    (x, y), (width, height) = place, size
    axes.add_patch(
        matplotlib.patches.FancyBboxPatch(
            (x - width / 2, y - height / 2),
            *(width, height),
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor=LIGHT,
            edgecolor=colour,
            linewidth=1.6,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=10)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = GREY) -> None:
    """Draw an arrow with text above its middle."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6})
    axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.2, text, ha="center", fontsize=9, color=colour)


def chain(axes: Axes, y: float, texts: Sequence[str], xs: Sequence[float], size: tuple[float, float]) -> None:
    """Draw boxes from left to right with arrows between them."""
    for index, (x, text) in enumerate(zip(xs, texts, strict=True)):
        box(axes, (x, y), size, text)
        if index:
            arrow(axes, (xs[index - 1] + size[0] / 2, y), (x - size[0] / 2, y))


def plot(width: float, height: float, x: str, y: str) -> Axes:
    """Return axes with labels and without the upper and right line.

    :param width: inches. :param height: inches.
    """
    axes = plt.figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel=x, ylabel=y)
    return axes


@figure
def timeline() -> None:
    axes = canvas(17, 4.6)
    arrow(axes, (0.6, 2.2), (16.6, 2.2))
    axes.text(16.4, 1.6, "time", ha="right", fontsize=10, color=GREY)
    for x, text in ((2, "t = 0"), (4.4, "t = 94"), (8.6, "t = 203\nlast context scan")):
        axes.plot(x, 2.2, "s", color=BLUE, markersize=20)
        axes.text(x, 1.5, text, ha="center", va="top", fontsize=10)
    axes.plot(14, 2.2, "s", color=ORANGE, markersize=20)
    axes.text(14, 1.5, "t = 365\ntarget", ha="center", va="top", fontsize=10)
    axes.annotate("", (9, 2.9), (1.6, 2.9), arrowprops={"arrowstyle": "<->", "color": BLUE})
    axes.text(5.3, 3.15, "context: the scans that are given", ha="center", color=BLUE)
    axes.annotate("", (14, 2.9), (9.2, 2.9), arrowprops={"arrowstyle": "<->", "color": ORANGE})
    axes.text(11.6, 3.15, "horizon: 365 - 203 = 162 days", ha="center", color=ORANGE)


@figure
def folds() -> None:
    axes = canvas(16, 6.4)
    for group in range(5):
        axes.text(4.6 + 2 * group, 5.9, f"group {group}", ha="center", fontsize=10, color=GREY)
    for fold in range(5):
        y = 5.1 - fold
        axes.text(0.3, y, f"fold {fold}", va="center", fontsize=11)
        for group in range(5):
            tested = group == fold
            box(axes, (4.6 + 2 * group, y), (1.8, 0.7), "test" if tested else "learn", ORANGE if tested else BLUE)
    axes.text(7.9, 0.15, "Each group holds one fifth of the patients, with all their scans.", ha="center", fontsize=10)


@figure
def cohort() -> None:
    axes = plot(7, 2.7, "time since the first scan, days", "")
    visits = {"p01": (0, 203, 391), "p02": (0, 88, 170, 365), "p03": (0, 540), "p04": (0, 95, 290)}
    for row, times in enumerate(visits.values()):
        axes.plot(times, [row] * len(times), "-", color=LIGHT, linewidth=3, zorder=0)
        axes.plot(
            times, [row] * len(times), "s", color=BLUE, markersize=10, label="scan with an image" if not row else None
        )
    axes.plot(600, 3, "s", markerfacecolor="none", color=ORANGE, markersize=10, label="row without an image: request")
    axes.set_yticks(range(4), visits)
    axes.set_ylim(3.6, -0.6)
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))


@figure
def folders() -> None:
    axes = canvas(17, 7.2)
    lines = [
        (0, "Dataset101_MyStudy/", ""),
        (1, "dataset.json", "channels, file ending, unit of time"),
        (1, "scans.csv", "which scan is of which patient, and when"),
        (1, "imagesTr/", "scans to learn from"),
        (2, "p01_a_0000.nii.gz", "case p01_a, channel 0"),
        (1, "labelsTr/", "label images (optional)"),
        (2, "p01_a.nii.gz", "label of case p01_a"),
        (1, "imagesTs/", "scans that are never learned from (optional)"),
        (2, "scans.csv", "their own table"),
        (1, "targetsTs/", "references of the requested forecasts (optional)"),
    ]
    for row, (level, name, meaning) in enumerate(lines):
        y = 6.7 - 0.68 * row
        axes.text(0.4 + 1.1 * level, y, name, family="monospace", fontsize=10.5, color=BLUE if level < 2 else "black")
        axes.text(7.6, y, meaning, fontsize=10, color=GREY)


@figure
def commands() -> None:
    axes = canvas(18, 5.6)
    names = ["plan_and_\npreprocess", "train", "find_best", "predict", "evaluate"]
    xs = [2, 5.6, 9.0, 12.4, 15.8]
    chain(axes, 3.2, names, xs, (2.7, 1.3))
    for x, text in zip(
        xs,
        ["plans, prepared\nscans", "trained folds", "best.json", "predictions,\nscans.csv", "metrics.csv,\nfigures"],
        strict=True,
    ):
        axes.text(x, 2.3, text, ha="center", va="top", fontsize=9, color=GREY)
    for x, text in ((1.5, "import"), (4.3, "verify"), (7.1, "register")):
        box(axes, (x, 5), (2.3, 0.8), text, GREEN)
    for start, end in (((2.65, 5), (3.15, 5)), ((5.45, 5), (5.95, 5)), ((6.4, 4.6), (3, 3.85))):
        arrow(axes, start, end)
    axes.text(8.6, 5, "optional, before planning", va="center", fontsize=10, color=GREEN)
    axes.text(9, 0.4, "Every name starts with longflow_, for example longflow_train.", ha="center", fontsize=10)


@figure
def study() -> None:
    axes = canvas(18, 6.3)
    xs = [1.6, 4.5, 8.2, 11.9, 14.3, 16.7]
    for x, text in zip(xs[:1] + xs[3:], ["prepare", "find_best", "predict", "evaluate"], strict=True):
        box(axes, (x, 3), (2 if x < 2 else 1.9, 1), text)
    for part in range(3):
        box(axes, (xs[1], 4.4 - 1.4 * part), (2.4, 0.9), f"preprocess {part + 1}", GREEN)
    for row, text in enumerate(["cronos fold 0", "cronos fold 1", "...", "tfm fold 4"]):
        box(axes, (xs[2], 4.95 - 1.3 * row), (3, 0.9), f"train {text}" if text != "..." else text, ORANGE)
    for start, end in ((2.6, 3.3), (5.7, 6.7), (9.7, 10.95), (12.85, 13.35), (15.25, 15.75)):
        arrow(axes, (start, 3), (end, 3))
    axes.text(4.5, 5.5, "subjects in parts", ha="center", fontsize=9, color=GREEN)
    axes.text(8.2, 5.75, "one job for each fold", ha="center", fontsize=9, color=ORANGE)
    axes.text(
        9, 0.15, "A step starts when those to its left are done. Steps in one column run at the same time.", ha="center"
    )


@figure
def new_patients() -> None:
    axes = canvas(17, 5.4)
    box(axes, (2.2, 3), (3.6, 1.4), "new patients\nin imagesTs")
    box(axes, (7.6, 3), (4.4, 1.4), "longflow_verify:\none grid per patient?", ORANGE)
    box(axes, (14.3, 4.4), (4.4, 1.2), "longflow_predict", GREEN)
    box(axes, (14.3, 1.2), (4.4, 1.4), "longflow_register,\nthen longflow_predict", GREEN)
    arrow(axes, (4, 3), (5.4, 3))
    arrow(axes, (9.8, 3.3), (12.1, 4.4), "yes")
    arrow(axes, (9.8, 2.7), (12.1, 1.3), "no")


def grid_lines(axes: Axes, centre: tuple[float, float], angle: float, colour: str) -> None:
    """Draw a voxel grid with an organ, turned by an angle.

    :param angle: degrees.
    """
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for offset in np.linspace(-1.4, 1.4, 8):
        for ends in (((-1.4, offset), (1.4, offset)), ((offset, -1.4), (offset, 1.4))):
            points = np.array(ends) @ rotation.T + centre
            axes.plot(*points.T, color=colour, linewidth=0.7)
    organ = matplotlib.patches.Ellipse(centre, 1.9, 1.2, angle=angle + 20, color=colour, alpha=0.45)
    axes.add_patch(organ)


@figure
def mid_space() -> None:
    axes = canvas(17, 5.6)
    grid_lines(axes, (2.4, 3), -14, BLUE)
    grid_lines(axes, (14.4, 3), 14, ORANGE)
    grid_lines(axes, (8.35, 3), 0, BLUE)
    grid_lines(axes, (8.45, 3.05), 0, ORANGE)
    arrow(axes, (4.3, 3), (6.8, 3), "turn by 14°", BLUE)
    arrow(axes, (12.5, 3), (10, 3), "turn by -14°", ORANGE)
    for x, text in ((2.4, "scan 1"), (8.4, "mid-space: both scans on one grid"), (14.4, "scan 2")):
        axes.text(x, 0.5, text, ha="center", fontsize=10)


@figure
def windows() -> None:
    axes = canvas(16, 5.2)
    axes.add_patch(matplotlib.patches.Rectangle((0.2, 0.2), 15.6, 4.7, fill=False, edgecolor=GREY))
    axes.text(0.6, 4.4, "Windows 10 or 11", fontsize=11, color=GREY)
    axes.add_patch(matplotlib.patches.Rectangle((6, 0.6), 9.4, 3.6, facecolor=LIGHT, edgecolor=BLUE))
    axes.text(6.4, 3.7, "WSL2: Ubuntu", fontsize=11, color=BLUE)
    box(axes, (2.9, 2), (4.2, 1.4), "Explorer:\n\\\\wsl$\\Ubuntu\\home", GREY)
    box(axes, (8.6, 2), (3.9, 1.4), "~/longflow_data\nyour scans")
    box(axes, (13.4, 2), (3.2, 1.4), "Python, longflow")
    arrow(axes, (5, 2), (6.65, 2))
    arrow(axes, (11.8, 2), (10.55, 2))


@figure
def phases() -> None:
    axes = canvas(16, 4.8)
    box(axes, (2.2, 2.4), (3.2, 1.5), "native scan\nt = 0")
    box(axes, (13.8, 2.4), (3.2, 1.5), "arterial scan\nt = 1", ORANGE)
    box(axes, (8, 2.4), (2.8, 1), "one network", GREEN)
    arrow(axes, (3.8, 3), (12.2, 3), "", ORANGE)
    arrow(axes, (12.2, 1.8), (3.8, 1.8), "", BLUE)
    axes.text(8, 3.4, "integrate from 0 to 1: contrast from native", ha="center", color=ORANGE)
    axes.text(8, 1.1, "integrate from 1 to 0: native from contrast", ha="center", color=BLUE)


@figure
def over_smoothing() -> None:
    axes = plot(7, 3, "time, years", "volume, ml")
    time = np.arange(5)
    truth = np.array([18, 19.4, 20.3, 22.1, 23.2])
    axes.plot(time, truth, "o-", color="black", label="reference")
    axes.plot(time, 20 + 0.35 * (truth - 20), "s--", color=ORANGE, label="over-smoothed: changes too little")
    axes.plot(time, truth + np.array([1.2, -1.6, 1.5, -1.3, 1.1]), "^:", color=BLUE, label="less consistent: jumps")
    axes.legend(frameon=False)


@figure
def grid() -> None:
    axes = canvas(17, 6.6)
    arrow(axes, (0.4, 4.6), (16.8, 4.6))
    for x in (1.6, 3.9, 4.6, 10):
        axes.plot(x, 4.6, "s", color=BLUE, markersize=14)
    axes.plot(15.8, 4.6, "s", color=ORANGE, markersize=14)
    axes.text(15.8, 5.2, "target", ha="center", fontsize=10, color=ORANGE)
    axes.text(1, 5.8, "real times of the scans", fontsize=10)
    for slot, text in enumerate(["scan 1", "scan 3", "scan 3\nrepeated", "scan 4", "scan 4\nrepeated"]):
        x = 1.5 + 2.86 * slot
        box(axes, (x, 2.4), (2.3, 1.1), text, GREY if "repeated" in text else BLUE)
        axes.text(x, 1.5, f"slot {slot + 1}", ha="center", fontsize=9, color=GREY)
    for start, end in ((1.6, 1.5), (3.9, 4.2), (4.6, 4.5), (10, 10.08)):
        arrow(axes, (start, 4.3), (end, 3))
    axes.text(4.9, 3.5, "two scans in one slot:\nthe later one stays", fontsize=9, color=GREY)
    axes.annotate("", (4.36, 0.9), (1.5, 0.9), arrowprops={"arrowstyle": "<->", "color": GREY})
    axes.text(2.9, 0.3, "Δ", ha="center", fontsize=11)
    axes.text(9.5, 0.3, "K = 5 slots; the last one ends one Δ before the target", ha="center", fontsize=10)


@figure
def flow_path() -> None:
    axes = plot(7, 3, "flow step τ", "intensity of one voxel")
    step = np.linspace(0, 1, 11)
    starts, target = (100, 140, 180), 260
    for number, start in enumerate(starts, start=1):
        axes.plot(step, (1 - step) * start + step * target, color=BLUE, marker=".", linewidth=1)
        axes.text(-0.03, start, f"context scan {number}", color=BLUE, ha="right", va="center", fontsize=9)
    axes.plot(0, starts[-1], "s", color=BLUE)
    axes.plot(1, target, "s", color=ORANGE, markersize=10)
    axes.text(0.97, target + 8, "target", color=ORANGE, ha="right")
    axes.set(xlim=(-0.28, 1.05), xticks=np.linspace(0, 1, 6))
    axes.text(0.6, 120, "ten Euler steps follow the velocity from τ = 0 to 1", color=GREY, ha="center")


@figure
def normal_form() -> None:
    _, panels = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
    generator = np.random.default_rng(0)
    visits = [generator.normal(mean, scale, 4000) for mean, scale in ((400, 60), (700, 120))]
    for values, colour, name in zip(visits, (BLUE, ORANGE), ("visit 1", "visit 2"), strict=True):
        panels[0].hist(values, 40, color=colour, alpha=0.6, label=name)
        panels[1].hist((values - values.mean()) / values.std(), 40, color=colour, alpha=0.6)
    panels[0].set(xlabel="raw intensity", ylabel="voxels")
    panels[1].set(xlabel="(raw - offset) / scale", title="normal form per_scan")
    panels[0].set_title("files")
    panels[0].legend(frameon=False)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)


@figure
def pretraining() -> None:
    axes = canvas(17, 5.4)
    for y, scan, colour in ((4.1, "scan 1", BLUE), (1.3, "scan 2", ORANGE)):
        box(axes, (1.8, y), (2.6, 1.1), scan, colour)
        arrow(axes, (3.1, y), (4.7, y))
        box(axes, (9.6, y), (3.4, 1.1), "features at a place", colour)
        arrow(axes, (7.3, y), (7.9, y))
    box(axes, (6, 2.7), (2.6, 3.9), "the same\nnetwork", GREEN)
    box(axes, (14.4, 2.7), (4, 1.3), "predict the features\nof the other scan", GREEN)
    arrow(axes, (11.3, 4.1), (12.4, 3.4))
    arrow(axes, (11.3, 1.3), (12.4, 2))
    axes.text(9.4, 2.7, "same voxel", ha="center", va="center", fontsize=9, color=GREY)


@figure
def shrinkage() -> None:
    axes = plot(7, 3, "shrinkage s:  LCI + s (forecast - LCI)", "squared error")
    shrink = np.linspace(0, 1, 101)
    error = 1.0 - 1.3 * shrink + 0.95 * shrink**2
    best = int(error.argmin())
    axes.plot(shrink, error, color=BLUE)
    for index, text in ((0, "s = 0: LCI"), (best, f"best: s = {shrink[best]:.2f}"), (100, "s = 1: forecast")):
        axes.plot(shrink[index], error[index], "o", color=ORANGE)
        axes.annotate(text, (shrink[index], error[index]), xytext=(0, 10), textcoords="offset points", ha="center")
    axes.set(xlim=(-0.12, 1.12), ylim=(0.45, 1.15))


@figure
def coverage() -> None:
    axes = plot(7, 4, "subjects", "95 % intervals that hold the mean")
    numbers, generator = [3, 5, 8, 12, 20, 50], np.random.default_rng(0)
    for draw, style, values in ((generator.normal, "-", "normal"), (generator.exponential, "--", "skewed")):
        covered: dict[str, list[float]] = {"Student": [], "percentile": [], "BCa": []}
        for number in numbers:
            sample, mean = draw(size=(400, number)), float(values == "skewed")
            intervals = {"Student": stats.ttest_1samp(sample, 0, axis=1).confidence_interval()}
            for method in ("percentile", "BCa"):
                found = stats.bootstrap((sample,), np.mean, axis=1, n_resamples=500, method=method, rng=generator)
                intervals[method] = found.confidence_interval
            for method, (low, high) in intervals.items():
                covered[method].append(np.mean((low <= mean) & (mean <= high)))
        for (method, shares), colour in zip(covered.items(), (BLUE, ORANGE, GREEN), strict=True):
            axes.plot(numbers, shares, f"o{style}", color=colour, label=f"{method}, {values} values")
    axes.axhline(0.95, color="black", linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(numbers, map(str, numbers))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)


@figure
def uncertainty() -> None:
    axes = plot(7, 3, "time, days", "volume, ml")
    observed, requested = np.array([0, 90, 200, 300]), np.array([365, 550, 730])
    volumes, forecasts = 24 + 0.013 * observed + np.array([0.2, -0.3, 0.3, 0.0]), 24 + 0.013 * requested
    half = 0.6 + 0.008 * (requested - observed[-1])
    axes.plot(observed, volumes, "o-", color=BLUE, label="observed: segmented scans")
    axes.errorbar(
        requested, forecasts, half, fmt="s--", color=ORANGE, capsize=5, label="forecast, with its interval of 90 %"
    )
    axes.axvline(observed[-1], color=GREY, linestyle=":")
    axes.legend(frameon=False, fontsize=9)


@figure
def changed_region() -> None:
    _, panels = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
    rows, columns = np.mgrid[-1:1:80j, -1:1:80j]
    radius = np.hypot(rows, columns)
    noise = np.random.default_rng(0).normal(0, 0.015, (2, 80, 80))
    last, target = (
        0.4 * (radius < 0.9) + 0.6 * (radius < size) + part for size, part in zip((0.35, 0.5), noise, strict=True)
    )
    changed = np.abs(target - last) > 0.1 * np.ptp(target)
    for panel, image, title in zip(panels, (last, target, changed), ("LCI", "target", "changed region"), strict=True):
        panel.imshow(image, cmap="gray")
        panel.set_title(title)
        panel.axis("off")


@figure
def blurred_mean() -> None:
    axes = plot(7, 2.8, "position, mm", "intensity")
    x = np.linspace(0, 60, 301)
    futures = [1 / (1 + np.exp(x - edge)) for edge in (22, 38)]
    for values, name, colour in zip(futures, ("possible future 1", "possible future 2"), (BLUE, GREEN), strict=True):
        axes.plot(x, values, color=colour, label=name)
    axes.plot(x, np.mean(futures, axis=0), "--", color=ORANGE, label="their mean: no sharp border")
    axes.legend(frameon=False)


@figure
def method_contract() -> None:
    axes = canvas(17, 5)
    box(axes, (8.5, 2.5), (4.2, 3.4), "your class\n\ntask, summary\ntraining_step\npredict", GREEN)
    box(axes, (2.2, 3.6), (3.4, 1.1), "training loop")
    box(axes, (2.2, 1.3), (3.4, 1.1), "predictor")
    arrow(axes, (3.9, 3.6), (6.4, 3.6), "batch")
    arrow(axes, (3.9, 1.3), (6.4, 1.3), "batch")
    arrow(axes, (10.6, 3.6), (13.1, 3.6), "loss")
    arrow(axes, (10.6, 1.3), (13.1, 1.3), "volumes")
    box(axes, (14.8, 3.6), (3.4, 1.1), "optimiser")
    box(axes, (14.8, 1.3), (3.4, 1.1), "files, metrics")


@figure
def python_objects() -> None:
    axes = canvas(17, 6.2)
    rows = (
        (5.2, "earlier scans, times,\ntarget time", "Forecaster", "forecast"),
        (3.1, "one scan", "Segmenter", "label map"),
        (1.0, "one scan, its phase", "Translator", "scan in the\nother phase"),
    )
    for y, given, name, made in rows:
        box(axes, (2.8, y), (4.8, 1.3), given, GREY)
        box(axes, (8.6, y), (3.4, 1.3), name, BLUE)
        box(axes, (14.2, y), (4, 1.3), made, ORANGE)
        arrow(axes, (5.2, y), (6.9, y))
        arrow(axes, (10.3, y), (12.2, y), "predict")


@figure
def rooms() -> None:
    axes = canvas(17, 7.4)
    layers = (
        ("task, registry, job, plans, paths, errors", "what every part may use", GREEN),
        ("flow, networks", "mathematics and modules", BLUE),
        ("data, integrity, registration, dicom, importers", "the raw dataset", BLUE),
        ("fingerprint, preprocessing, methods, planning", "from scans to a plan and a method", BLUE),
        ("inference, evaluation, training, report", "engines that know no task", BLUE),
        ("tasks/forecast, tasks/translate, tasks/segment", "what belongs to one task", ORANGE),
        ("compare, demo, cli", "commands", BLUE),
    )
    for row, (names, meaning, colour) in enumerate(layers):
        y = 6.9 - 1.02 * row
        box(axes, (5.4, y), (10.4, 0.8), names, colour)
        axes.text(11, y, meaning, va="center", fontsize=10, color=GREY)


@figure
def to_the_pacs() -> None:
    """Draw which DICOM object each prediction becomes."""
    axes = canvas(17, 7)
    rows = (
        ("label map of a scan", "SEG: a segmentation", "names, codes, colours of the structures"),
        ("volumes over time", "SR: a structured report", "volume and time of each scan"),
        ("", "SC: a picture of the curve", "for everybody: every viewer shows it"),
        ("forecast, translation", "a series of CT or MR", "synthetic: burned into its first slice"),
    )
    axes.text(2.6, 6.5, "folder of longflow_predict", ha="center", fontsize=10, weight="bold")
    axes.text(8.1, 6.5, "longflow_export_dicom", ha="center", fontsize=10, weight="bold")
    for place, (prediction, made, meaning) in enumerate(rows):
        y = 5.5 - 1.5 * place
        if prediction:
            box(axes, (2.6, y), (4.4, 1), prediction)
        arrow(axes, (4.9, y if prediction else y + 1.2), (5.7, y))
        box(axes, (8.1, y), (4.6, 1), made, ORANGE if "series" in made else GREEN)
        axes.text(10.7, y, meaning, va="center", fontsize=9.5, color=GREY)


@figure
def contact_sheet() -> None:
    """Draw what the page of ``longflow_import dicom`` looks like, with a drawn abdomen."""
    axes = canvas(17, 7.2)
    axes.text(0.4, 6.75, "Dataset101_Liver: series of the export", fontsize=12, weight="bold")
    axes.text(0.4, 6.2, "P001", fontsize=11, weight="bold")
    series = (
        ("YES", GREEN, 0.9, "Liver venous 3.0  CT\n2020-01-10, day 0\nvenous, 84 slices"),
        ("YES", GREEN, 0.9, "Liver venous 3.0  CT\n2020-08-20, day 223\nvenous, 86 slices"),
        ("ASK", ORANGE, 0.55, "Liver native  CT\nthe header names\na contrast agent"),
        ("NO", GREY, 0.2, "Topogram  CT\na localiser\n1 slice"),
        ("NO", GREY, 0.0, "Dose report  CT\na secondary capture\n1 file"),
    )
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    for place, (use, colour, vessels, caption) in enumerate(series):
        left = 0.4 + 3.3 * place
        axes.add_patch(
            matplotlib.patches.Rectangle((left, 0.3), 3, 5.5, facecolor="none", edgecolor=colour, linewidth=2.4)
        )
        body = np.where((x / 0.9) ** 2 + (y / 0.65) ** 2 < 1, 0.35, 0.0)
        body[((x + 0.35) / 0.4) ** 2 + ((y + 0.05) / 0.35) ** 2 < 1] = 0.6
        body[(x - 0.02) ** 2 + (y - 0.15) ** 2 < 0.01] = 0.4 + 0.6 * vessels
        body[(x + 0.4) ** 2 + (y + 0.05) ** 2 < 0.006] = 0.3
        if vessels:  # a secondary capture has no picture
            extent = (left + 0.3, left + 2.7, 3.1, 5.5)
            axes.imshow(body, extent=extent, cmap="gray", vmin=0, vmax=1, aspect="auto", zorder=2)
        axes.text(left + 0.15, 2.55, use, fontsize=10, weight="bold", color=colour)
        axes.text(left + 0.15, 0.6, caption, fontsize=7.5, va="bottom")
    axes.set(xlim=(0, 17), ylim=(0, 7.2))


@figure
def one_folder() -> None:
    axes = canvas(17, 4.4)
    axes.text(4, 3.9, "0.1: a fourth task edits about 40 files", ha="center", fontsize=11)
    axes.text(13, 3.9, "0.2: a fourth task is one folder", ha="center", fontsize=11)
    for index in range(40):
        x, y = 1.1 + 0.65 * (index % 10), 0.6 + 0.8 * (index // 10)
        axes.add_patch(matplotlib.patches.Rectangle((x, y), 0.42, 0.55, facecolor=LIGHT, edgecolor=ORANGE))
    box(axes, (13, 1.9), (5.4, 1.6), "tasks/count/", GREEN)
    axes.plot((8.6, 8.6), (0.3, 4.1), color=GREY, linewidth=1)


@figure
def plan_from_file() -> None:
    axes = canvas(17, 5)
    box(axes, (3.2, 3.7), (5.6, 1.6), "plans/acdc.json\npatch, batch, network, training")
    box(axes, (3.2, 1.3), (5.6, 1.6), "your dataset\nspacing, times, intensities", GREEN)
    box(axes, (9.8, 2.5), (3, 1.2), "longflow_plan", GREY)
    box(axes, (14.6, 2.5), (4.2, 1.6), "plans of\nyour dataset", ORANGE)
    arrow(axes, (6, 3.7), (8.3, 2.8))
    arrow(axes, (6, 1.3), (8.3, 2.2))
    arrow(axes, (11.3, 2.5), (12.5, 2.5))


@figure
def foreign_model() -> None:
    axes = canvas(16, 5)
    xs, size = (1.8, 5.8, 9.8, 14), (3.2, 1.7)
    texts = (
        "a model\nfrom outside",
        "size, form,\nnames, paths",
        "plain values\nand numbers",
        "the network of\nthe plans",
    )
    chain(axes, 3.6, texts, xs, size)
    box(axes, (5.8, 1), (3.2, 1.3), "exit code 1,\none message", ORANGE)
    arrow(axes, (5.8, 2.75), (5.8, 1.65))
    axes.text(6, 2.15, "does not fit", fontsize=9, color=GREY)
    box(axes, (9.8, 1), (3.2, 1.3), "code in the file:\nnever run", ORANGE)
    arrow(axes, (7.4, 3.1), (8.6, 1.65))


@figure
def budget() -> None:
    axes = plot(7, 2.2, "seconds, for longflow_demo on two cores", "")
    left = 0
    for name, seconds, colour in (
        ("make the scans", 10, GREY),
        ("train", 200, BLUE),
        ("everything else, at most", 150, ORANGE),
    ):
        axes.barh(0, seconds, left=left, color=colour, height=0.5)
        axes.text(max(left + seconds / 2, 42), 0.38, f"{name}: {seconds} s", ha="center", fontsize=9)
        left += seconds
    axes.set(yticks=[], ylim=(-0.4, 0.6))


@figure
def side_by_side() -> None:
    axes = canvas(19, 4.4)
    steps = (
        (3.3, 2.6, "start", "import\n(no torch)", GREY),
        (6.3, 2.6, "show progress", "check scans,\nfingerprint", BLUE),
        (10.6, 5.6, "import torch, choose patch,\nmemory of all methods", "", GREEN),
        (15.8, 3.4, "show progress", "crop, resample,\nnormalise", BLUE),
    )
    axes.text(0.2, 3.2, "the command", va="center", fontsize=10)
    axes.text(0.2, 1.2, "its workers", va="center", fontsize=10)
    for x, width, above, below, colour in steps:
        for y, text in ((3.2, above), (1.2, below)):
            if text:
                box(axes, (x + 0.6, y), (width, 1.3), text, colour)
    arrow(axes, (2.4, 0.2), (17.6, 0.2))
    axes.text(17.8, 0.2, "time", va="center", fontsize=9, color=GREY)


@figure
def several_gpus() -> None:
    axes = canvas(18, 6.6)
    rows = (("own batches", "batch", BLUE), ("validation", "scans", ORANGE))
    for node in range(2):
        box(axes, (6.1 + 7.4 * node, 3.5), (7.1, 4.6), "", GREY)
        axes.text(6.1 + 7.4 * node, 6.0, f"node {node}", ha="center", fontsize=10, color=GREY)
    for row, (name, kind, colour) in enumerate(rows):
        y = 4.7 - 2.4 * row
        axes.text(0.1, y, name, va="center", fontsize=10)
        for process in range(4):
            numbers = ", ".join(str(process + 4 * turn) for turn in range(3))
            text = f"process {process}, GPU {process % 2}\n{kind} {numbers}, ..."
            box(axes, (4.4 + 3.45 * process + 0.5 * (process // 2), y), (3.1, 1.4), text, colour)
    axes.annotate("", (16.4, 3.5), (3.2, 3.5), arrowprops={"arrowstyle": "<|-|>", "color": GREEN, "linewidth": 1.6})
    axes.text(6.1, 3.6, "gradients: the mean of all", ha="center", fontsize=9, color=GREEN)
    axes.text(9.8, 0.4, "The results of a validation are gathered; the first process writes.", ha="center", fontsize=10)


@figure
def container() -> None:
    axes = canvas(17, 4.6)
    box(
        axes,
        (3.2, 2.3),
        (5.4, 3.4),
        "the image, read-only:\nPython, torch, longflow\nin fixed versions\n\nuser 1000, no network",
        GREY,
    )
    for y, place, text in (
        (3.7, "/data", "raw, preprocessed, results"),
        (2.3, "/tmp", "caches and temporary files"),
        (0.9, "/scratch", "copies of the prepared subjects"),
    ):
        box(axes, (13.2, y), (6.6, 1.0), text, ORANGE)
        arrow(axes, (6.0, y), (9.8, y), place)


@figure
def kubernetes() -> None:
    axes = canvas(17, 4.6)
    box(axes, (2.4, 2.3), (4.0, 1.4), "indexed Job\n5 completions")
    for fold in range(5):
        y = 4.1 - 0.9 * fold
        arrow(axes, (4.5, 2.3), (6.6, y))
        box(axes, (8.8, y), (4.2, 0.72), f"index {fold}: fold {fold}, one GPU", ORANGE)
        arrow(axes, (11.0, y), (13.2, 2.3))
    box(axes, (14.9, 2.3), (3.2, 1.4), "volume\nlongflow-data", GREEN)


def main(names: Sequence[str]) -> None:
    """Draw the figures of the given names, or all."""
    for name in names or FIGURES:
        FIGURES[name]()
        plt.savefig(HERE / f"{name}.png", dpi=110)
        plt.close("all")


if __name__ == "__main__":
    main(sys.argv[1:])
