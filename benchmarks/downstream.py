"""What translated scans are worth: segmentations trained on real native, on translated, and on contrast scans.

The check of MFM's section 4.5. Labels were drawn on contrast scans, and native scans are to be segmented. Three
networks are trained alike, on the same subjects (fold 0), and tested on real native scans of subjects whom nothing has
seen:

- on real native scans with labels of their own: what one would like to have;
- on the contrast scans, translated to native ones, with the labels that were drawn on the contrast scans;
- on the contrast scans as they are: what one has without a translation.

No scan is translated by a network that was trained on its subject: the training subjects are divided in two, and each
half is translated by the network of the other (`longflow_translate_dataset`). Dice is nnU-Net's, by
`compute_metrics_on_folder`. The paper reports 0.966 for the aorta by training on real native scans and 0.926 on
translated ones, of 20 patients each.

    python benchmarks/downstream.py --subjects 12 --max_time 2m --segment_in 2d --iterations 300
    python benchmarks/downstream.py raw/Dataset104_Abdomen --preset M --max_time 12h --iterations 25000 --device cuda

Without a dataset, the phantom of longflow_demo is used. A dataset is any of the task translate whose pairs have labels.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Scan, training_series, write_description, write_scans
from longflow.data.phases import in_pairs, phases_of_dataset
from longflow.demo.abdomen_cohort import write_abdomen_cohort
from longflow.demo.segmentation import LEARNING_RATE
from longflow.files import write_json
from longflow.paths import DatasetPaths

PHANTOM, PHANTOM_SUBJECTS = "Dataset990_Phantom", 16
TRANSLATE, CONTRAST, NATIVE = "Dataset991_Translate", "Dataset992_Contrast", "Dataset993_Native"
TRANSLATED = "Dataset994_Translated"
#: what the segmentations are trained on: {0} is the phase to be segmented, {1} that of the labels
TRAINED_ON = {NATIVE: "real {0}", TRANSLATED: "{1} translated to {0}", CONTRAST: "{1} as it is"}

#: Adam: within hundreds of steps nnU-Net's SGD finds no small structures (documentation/explanation/evidence.md)
ADAM = ("--set", "adam=on", *LEARNING_RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="raw dataset of the task translate (default: the phantom)")
    parser.add_argument("--to", metavar="PHASE", help="the phase to be segmented (default: the dataset's first)")
    parser.add_argument("--subjects", type=int, help="use the first so many (default: all; of the phantom 16)")
    parser.add_argument("--test", type=float, default=0.25, help="share of them, the last, to test on (default: 0.25)")
    parser.add_argument("--max_time", default="10m", help="to train each of the two translations (default: 10m)")
    parser.add_argument("--iterations", type=int, default=1000, help="of each segmentation (default: 1000)")
    parser.add_argument("--preset", default="tiny", help="of all plans: tiny, S, M or L (default: tiny)")
    parser.add_argument("--method", default="mfm", help="that translates (default: mfm)")
    parser.add_argument("--translate_in", default="2d", metavar="CONFIGURATION", help="default: 2d")
    parser.add_argument("--segment_in", default="3d_fullres", metavar="CONFIGURATION", help="default: 3d_fullres")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--work", type=Path, help="folder to work in and keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        options.work = (options.work or Path(temporary)).resolve()
        os.environ["LONGFLOW_HOME"] = str(options.work)
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """One step after the other; what an earlier run in the same folder has finished is kept."""
    description, phases, halves = write_datasets(options)
    longflow(options, "plan_and_preprocess", "-d", TRANSLATE, "--preset", options.preset)
    write_json([{"train": halves[1 - one], "val": halves[one]} for one in (0, 1)], DatasetPaths(TRANSLATE).splits)
    trained = ("-m", options.method, "--max_time", options.max_time, "--seed", options.seed)
    longflow(options, "train", TRANSLATE, options.translate_in, "all", *trained, "--device", options.device)
    longflow(
        options, "translate_dataset", "-d", TRANSLATE, "--to", phases[0], "-o", TRANSLATED, "--device", options.device
    )
    found = {}
    for dataset in TRAINED_ON:
        longflow(options, "plan_and_preprocess", "-d", dataset, "--preset", options.preset)
        trained = ("-m", "unet", *ADAM, "--iterations", options.iterations, "--seed", options.seed)
        longflow(options, "train", dataset, options.segment_in, 0, *trained, "--device", options.device)
        predicted = options.work / "test" / dataset
        folders = ("-i", options.work / "test" / "imagesTs", "-o", predicted)
        longflow(options, "predict", "-d", dataset, *folders, "--device", options.device)
        found[dataset] = dice(options.work / "test" / "labelsTs", predicted, description)
    print_table(found, phases)


def write_datasets(options: argparse.Namespace) -> tuple[DatasetDescription, list[str], list[list[str]]]:
    """The pairs of the training subjects to translate, their scans in each phase to segment, and the test scans.

    :returns: the description, the phase to be segmented and the other one, and the halves of the training subjects.
    """
    raw = options.data
    if raw is None:
        raw = DatasetPaths(PHANTOM).raw
        write_abdomen_cohort(raw, options.subjects or PHANTOM_SUBJECTS, 0, options.seed)
    description, all_series = training_series(raw)
    all_series = [series.with_images() for series in all_series]
    phases = phases_of_dataset(description, all_series)
    requested = options.to or phases[0]
    if requested not in phases:
        sys.exit(f"--to is {requested}; the phases of {raw} are {' and '.join(phases)}.")
    phases = [requested, next(phase for phase in phases if phase != requested)]
    pairs = [in_pairs(series, phases) for series in all_series]
    labelled = [one for one in pairs if one.scans and all(scan.label for scan in one.scans)][: options.subjects]
    test = max(1, round(options.test * len(labelled)))
    training, tested = labelled[:-test], labelled[-test:]
    if len(training) < 4:
        sys.exit(f"{raw} has {len(labelled)} subjects whose pairs have labels; at least 6 are needed.")
    scans = [scan for one in training for scan in one.scans]
    to_segment = description.model_copy(update={"task": "segment", "phases": []})
    copy(scans, DatasetPaths(TRANSLATE).raw, description)
    for dataset, phase in ((NATIVE, phases[0]), (CONTRAST, phases[1])):
        copy([scan for scan in scans if scan.phase == phase], DatasetPaths(dataset).raw, to_segment)
    held_out = [scan for one in tested for scan in one.scans if scan.phase == phases[0]]
    copy(held_out, options.work / "test", to_segment, "Ts")
    names = [one.subject for one in training]
    return description, phases, [names[::2], names[1::2]]


def copy(scans: Sequence[Scan], folder: Path, description: DatasetDescription, part: str = "Tr") -> None:
    """A raw dataset of some scans and their labels."""
    for name in (f"images{part}", f"labels{part}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for scan in scans:
        for path in scan.images:
            copy_once(path, folder / f"images{part}" / path.name)
        copy_once(scan.label, folder / f"labels{part}" / scan.label.name)
    write_scans(list(scans), folder / f"images{part}" / "scans.csv" if part == "Ts" else folder / "scans.csv")
    write_description(description, folder / "dataset.json", numTraining=len(scans))


def copy_once(source: Path, target: Path) -> None:
    """A file that is there already stays, or all that was prepared from it would be prepared again."""
    if not target.is_file():
        shutil.copyfile(source, target)


def longflow(options: argparse.Namespace, command: str, *arguments: object) -> None:
    """A command of longflow in a process of its own; it says what it does in a log in the working folder."""
    begun, texts = time.monotonic(), [str(argument) for argument in arguments]
    print(f"longflow_{command} {' '.join(texts)}", flush=True)
    log = options.work / "log.txt"
    with log.open("a") as file:
        done = subprocess.run([sys.executable, "-m", f"longflow.cli.{command}", *texts], stdout=file, stderr=file)
    if done.returncode:
        sys.exit("\n".join(log.read_text().splitlines()[-25:]))
    print(f"    {time.monotonic() - begun:.0f} s", flush=True)


def dice(reference: Path, predicted: Path, description: DatasetDescription) -> dict[str, float]:
    """Mean Dice over the test scans of each structure, by nnU-Net's own code."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description.labels.items()
        if name not in ("background", "ignore")
    }
    ending = description.file_ending
    metrics = compute_metrics_on_folder(
        str(reference), str(predicted), None, SimpleITKIO(), ending, list(values.values()), num_processes=1
    )
    return {name: float(metrics["mean"][value]["Dice"]) for name, value in values.items()}


def print_table(found: dict[str, dict[str, float]], phases: Sequence[str]) -> None:
    structures = list(found[NATIVE])
    print(f"\nDice on real {phases[0]} scans of subjects whom nothing was trained on")
    print(f"{'trained on':36s} {'mean':>8s} " + " ".join(f"{name[:10]:>10s}" for name in structures))
    for dataset, words in TRAINED_ON.items():
        numbers = [found[dataset][name] for name in structures]
        cells = " ".join(f"{number:10.4f}" for number in numbers)
        print(f"{words.format(*phases):36s} {sum(numbers) / len(numbers):8.4f} {cells}")


if __name__ == "__main__":
    main()
