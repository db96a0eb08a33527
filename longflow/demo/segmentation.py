"""The demo of segmentation: patients with a few visits; the labels of two patients are used."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from longflow.commands import Command
from longflow.demo.brain import STRUCTURES
from longflow.demo.brain_cohort import DATASET_NAME, write_brain_cohort
from longflow.demo.run import CONFIGURATION, Results
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.tasks.segment.trajectories import slope

TITLE = "heads with growing ventricles, shrinking thalami and lesions; labels of two patients are used"
#: seconds of training of each of the two methods
MAX_TIME = 80.0
#: share of them for pretraining
PRETRAINING = 1 / 5
#: both methods are optimised by Adam, at a learning rate for few steps
LEARNING_RATE = ("--lr", "3e-3")
#: at full weight, consistency keeps networks of few steps from learning small structures
CONSISTENCY = "consistency=0.3"
LABELLED = 2
#: GB; the patches are small, so that a CPU trains on many in a minute
GPU_MEMORY = "0.1"
METHODS = ("unet", "unet_consistent")


def raw_folder(home: Path) -> Path:
    """Return the folder of the cohort."""
    return home / "raw" / DATASET_NAME


def label_folder(home: Path, method: str) -> Path:
    """Return the folder of a method's labels of the held-out patients, their metrics and figures."""
    return home / "segmentations" / method


def write_data(home: Path) -> None:
    """Write the cohort, or keep a finished one."""
    write_brain_cohort(raw_folder(home))


def demo_commands(home: Path, max_time: float) -> list[Command]:
    """List the commands of the demo, in order: labels alone, then pretraining and consistency, in the same time.

    :param max_time: seconds of training, for each of the two.
    """
    dataset = DatasetPaths(DATASET_NAME).id
    fold = (dataset, CONFIGURATION, "0")
    few = (*LEARNING_RATE, "--labelled_subjects", str(LABELLED))
    before, after = (f"{share * max_time:g}s" for share in (PRETRAINING, 1 - PRETRAINING))
    consistent = ("-m", "unet_consistent", "--pretrained", "spatiotemporal", "--set", CONSISTENCY)
    commands = [
        Command("plan_and_preprocess", ("-d", dataset, "--preset", "tiny", "--gpu_memory", GPU_MEMORY)),
        Command("train", (*fold, "-m", "unet", "--set", "adam=on", *few, "--max_time", f"{max_time:g}s")),
        Command("train", (*fold, "-m", "spatiotemporal", "--set", "width=256", "--max_time", before)),
        Command("train", (*fold, *consistent, *few, "--max_time", after)),
    ]
    for method in METHODS:
        out = str(label_folder(home, method))
        images = str(raw_folder(home) / "imagesTs")
        commands += [
            Command("predict", ("-d", dataset, "-m", method, "-i", images, "-o", out)),
            Command("evaluate", ("-d", dataset, "-i", out)),
            Command("report", ("-d", dataset, "-i", out)),
        ]
    return commands


def results(home: Path) -> Results:
    """Compare both methods with each other and with the reference labels."""
    rows = []
    for name, method in (("labels alone", "unet"), ("pretrained, consistent", "unet_consistent")):
        metrics = read_json(label_folder(home, method) / "metrics.json")
        errors = slope_errors(raw_folder(home), label_folder(home, method))
        rows.append(
            (
                name,
                f"{metrics['overall']['dice']['mean']:.3f}",
                *(_shown(consistency(metrics, number)) for number in ("stcs", "aspc")),
                *(f"{errors[structure]:.0%}" for structure in STRUCTURES),
            )
        )
    reference = (_shown(consistency(metrics, number)) for number in ("true_stcs", "true_aspc"))
    rows.append(("the reference labels", "1.000", *reference, *[""] * len(STRUCTURES)))
    return Results(
        "Held-out patients: overlap, consistency between visits, error of the slope of volume over time",
        ("segmented by", "Dice", "STCS", "ASPC, %", *STRUCTURES),
        rows,
        [
            *(f"figure      {figure}" for figure in sorted((home / "segmentations").rglob("*.png"))),
            f"labels      {home / 'segmentations'}",
            f"raw data    {raw_folder(home)}",
        ],
    )


def consistency(metrics: dict, number: str) -> float | None:
    """Return the mean over structures of STCS or ASPC.

    :param metrics: content of metrics.json.
    :param number: its key, of predictions or of the reference.
    :returns: None where the number of a structure is not defined: the network found it in no pair of scans.
    """
    means = [metrics["by_structure"][name]["consistency"][number]["mean"] for name in STRUCTURES]
    return None if None in means else float(np.mean(means))


def _shown(number: float | None) -> str:
    return "not defined" if number is None else f"{number:.3f}"


def slope_errors(raw: Path, predicted: Path) -> dict[str, float]:
    """Return the mean |slope - true slope| over patients, as a share of the mean |true slope|, by structure.

    The true slopes come from the closed form at the same visits, not from the label maps.
    """
    series = defaultdict(list)
    true = {(row["case"], row["structure"]): float(row["volume_ml"]) for row in _rows(raw / "true_volumes.csv")}
    for row in _rows(predicted / "volumes.csv"):
        key = row["subject"], row["structure"]
        series[key].append((float(row["time"]), float(row["volume_ml"]), true[row["case"], row["structure"]]))
    found = {}
    for structure in STRUCTURES:
        slopes = []
        for (_, name), points in series.items():
            if name == structure:
                times, volumes, exact = zip(*points, strict=True)
                slopes.append((slope(times, volumes), slope(times, exact)))
        slopes = np.array(slopes)
        found[structure] = float(np.abs(slopes[:, 0] - slopes[:, 1]).mean() / np.abs(slopes[:, 1]).mean())
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
