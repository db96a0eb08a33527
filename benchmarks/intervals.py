"""Do the intervals of volumes hold? The demo of forecasting, calibrated, on 68 subjects that it never saw.

The folds of the demo's cohort are trained (24 subjects), and a small network is taught to segment hearts of another
cohort. `longflow_calibrate` makes intervals of 90 % from the out-of-fold forecasts. Then the demo's eight held-out
subjects and sixty more are forecast twice each (a near and a far target). Printed of each structure:

- coverage: the share of targets whose volume is in the interval, with its exact 95 % interval;
- width, and width relative to the unconditional interval: that of a new subject of whom there is no scan at all. It is
  the conformal interval of the same level around the mean volume of the targets of the calibration;
- the seconds of a calibration whose forecasts and label maps exist, for 100 subjects (in proportion).

    python benchmarks/intervals.py --folder /tmp/intervals             # trains five folds, 500 steps each
    python benchmarks/intervals.py --folder longflow_demo_forecast     # keeps folds that are trained there

What an earlier run in the same folder has finished is kept.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from longflow.data.dataset import read_description, write_description
from longflow.demo.cohort import DATASET_NAME, write_cohort
from longflow.demo.run import CONFIGURATION
from longflow.demo.segmentation import LEARNING_RATE
from longflow.evaluation.conformal import conformal_factor
from longflow.paths import DatasetPaths
from longflow.reading import read_json

SEGMENTER, SEGMENTER_SUBJECTS, SEGMENTER_SEED = "Dataset901_Hearts", 12, 7
HELD_OUT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="to work in and keep")
    parser.add_argument("--further", type=int, default=60, help="held-out subjects next to the demo's 8 (default: 60)")
    parser.add_argument("--folds", default="all", help="of the forecasts (default: all)")
    parser.add_argument("--iterations", type=int, default=500, help="of each fold (default: 500)")
    parser.add_argument("--segment", type=int, default=300, help="iterations of the segmentation (default: 300)")
    parser.add_argument("--level", type=float, default=0.9, help="default: 0.9")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    os.environ["LONGFLOW_HOME"] = str(options.folder)
    train(options)
    models = ("-d", DATASET_NAME, "--structures", SEGMENTER)
    calibrate = ("calibrate", *models, "--level", options.level, "--device", options.device)
    longflow(options, *calibrate)
    seconds = longflow(options, *calibrate)
    new, out = held_out_subjects(options), options.folder / "held_out_forecasts"
    longflow(options, "predict", *models, "-i", new / "imagesTs", "-o", out, "--device", options.device)
    references = ("-r", new / "targetsTs", new / "labelsTs", new / "imagesTs")
    longflow(options, "evaluate", "-d", DATASET_NAME, "-i", out, *references)
    report(options, out, seconds)


def train(options: argparse.Namespace) -> None:
    """Train the forecasts on the demo's cohort, and a segmentation on another one."""
    write_cohort(DatasetPaths(DATASET_NAME).raw)
    raw = DatasetPaths(SEGMENTER).raw
    write_cohort(raw, SEGMENTER_SUBJECTS, 1, SEGMENTER_SEED)
    description = read_description(raw / "dataset.json")
    if description.task != "segment":
        kept = {name: read_json(raw / "dataset.json")[name] for name in ("numTraining", "phantom")}
        write_description(description.model_copy(update={"task": "segment"}), raw / "dataset.json", **kept)
    for dataset in (SEGMENTER, DATASET_NAME):
        if not DatasetPaths(dataset).plans("longflowPlans").is_file():
            longflow(options, "plan_and_preprocess", "-d", dataset, "--preset", "tiny")
    device = ("--device", options.device)
    adam = ("-m", "unet", "--set", "adam=on", *LEARNING_RATE, "--iterations", options.segment)
    longflow(options, "train", SEGMENTER, CONFIGURATION, 0, *adam, *device)
    longflow(options, "train", DATASET_NAME, CONFIGURATION, options.folds, "--iterations", options.iterations, *device)
    if not DatasetPaths(DATASET_NAME).best.is_file():
        longflow(options, "find_best", "-d", DATASET_NAME)


def held_out_subjects(options: argparse.Namespace) -> Path:
    """The demo's held-out subjects, and further ones of the same seeds; none was seen in training or calibration."""
    training = read_json(DatasetPaths(DATASET_NAME).raw / "dataset.json")["phantom"]["subjects"]
    folder = options.folder / "held_out"
    write_cohort(folder, training, HELD_OUT + options.further)
    return folder


def longflow(options: argparse.Namespace, command: str, *arguments: object) -> float:
    """A command of longflow in a process of its own, with a log in the folder. :returns: seconds."""
    begun, texts = time.monotonic(), [str(argument) for argument in arguments]
    print(f"longflow_{command} {' '.join(texts)}", flush=True)
    log = options.folder / "log.txt"
    with log.open("a") as file:
        done = subprocess.run([sys.executable, "-m", f"longflow.cli.{command}", *texts], stdout=file, stderr=file)
    if done.returncode:
        sys.exit("\n".join(log.read_text().splitlines()[-25:]))
    seconds = time.monotonic() - begun
    print(f"    {seconds:.0f} s", flush=True)
    return seconds


def unconditional_width(rows: list[dict[str, str]], level: float) -> float:
    """The width of the interval of a new subject without a scan: mean volume -+ the conformal quantile of distances.

    :param rows: of a structure in calibration.csv.
    """
    volumes: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        volumes[row["subject"]].append(float(row["reference_ml"]))
    middle = sum(sum(own) / len(own) for own in volumes.values()) / len(volumes)
    scores = {subject: max(abs(volume - middle) for volume in own) for subject, own in volumes.items()}
    return 2 * conformal_factor(scores, level)


def report(options: argparse.Namespace, out: Path, seconds: float) -> None:
    """Print coverage, widths and the seconds of a calibration."""
    metrics = read_json(out / "metrics.json")
    intervals = metrics["structures"]["intervals"]
    calibration = DatasetPaths(DATASET_NAME).calibration(SEGMENTER)
    subjects = read_json(calibration / "calibration.json")["subjects"]
    with open(calibration / "calibration.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    nrmse = {name: metrics["overall"][name]["nrmse"]["mean"] for name in ("forecast", "lci")}
    print(
        f"\n{metrics['overall']['subjects']} held-out subjects; level {options.level:.0%} of {subjects} subjects; "
        f"NRMSE {nrmse['forecast']:.4f}, LCI {nrmse['lci']:.4f}"
    )
    print(
        f"{'structure':18s} {'covered':>8s} {'95 % interval':>16s} {'width ml':>9s} {'of unconditional':>17s} "
        f"{'CRPS ml':>8s} {'LCI ml':>7s}"
    )
    for name, one in intervals["by_structure"].items():
        coverage, width = one["coverage"], one["width_ml"]["mean"]
        low, high = coverage["interval"]
        relative = width / unconditional_width([row for row in rows if row["structure"] == name], options.level)
        print(
            f"{name:18s} {coverage['share']:8.3f} {low:8.3f}{high:8.3f} {width:9.2f} {relative:17.2f} "
            f"{one['crps_ml']['mean']:8.2f} {one['lci_error_ml']['mean']:7.2f}"
        )
    print(
        f"calibration with finished forecasts and label maps: {seconds:.0f} s for {subjects} subjects, "
        f"{seconds / subjects * 100:.0f} s for 100 in proportion"
    )


if __name__ == "__main__":
    main()
