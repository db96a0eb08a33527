"""``longflow_import``: write a raw dataset from files in another layout."""

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import get_args

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError
from longflow.paths import DATASET_NAME, DatasetPaths, known_datasets, raw_root
from longflow.plans import TimeUnit

EXAMPLE = """
longflow_import acdc ACDC/database -d 101
longflow_import nifti4d cine -d 102 -n Sunnybrook --images "{subject}_cine.nii.gz"
longflow_import nifti4d cine -d 102 -n Sunnybrook --times "{subject}.json" --key trigger_times --time_unit ms
longflow_import phases scans -d 104 -n Abdomen --images "{subject}_{phase}.nii.gz" --channel CT
longflow_import isles24 ISLES24 -d 105 --every 2
longflow_import lumiere LUMIERE -d 106 --space registered
longflow_import bids OASIS3 -d 107 -n OASIS3 --modality T1w
"""

#: what datasets are called where the user does not say
NAMES = {"acdc": "ACDC", "isles24": "ISLES24", "lumiere": "LUMIERE"}
#: what of the flags below each layout takes, beside those of all; one that is not given is as the importer has it
FLAGS = {
    "acdc": ("time", "task"),
    "nifti4d": ("images", "labels", "label_names", "channel", "times", "key", "time_unit", "task", "test_targets"),
    "phases": ("images", "labels", "label_names", "channel", "time_unit", "phases"),
    "isles24": ("space", "every", "test_targets"),
    "lumiere": ("modality", "space", "task", "test_targets"),
    "bids": ("modality", "times", "time_unit", "labels", "label_names", "task", "test_targets"),
}


def parser() -> command.Parser:
    result = command.Parser("longflow_import", "Write a raw dataset from files in another layout.", EXAMPLE)
    result.add_argument("layout", choices=list(FLAGS), help="how the source is laid out")
    result.add_argument("source", type=Path, help="folder to import from; it is only read")
    result.add_argument("-d", "--dataset", required=True, help="id of the new dataset, as 102, or Dataset102_Name")
    result.add_argument("-n", "--name", help="name of the new dataset (acdc: ACDC; isles24: ISLES24; lumiere: LUMIERE)")
    result.add_argument(
        "--test",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="subjects kept out of training: scans to imagesTs, targets of forecasts to targetsTs (acdc: systole)",
    )
    result.add_argument(
        "--test_targets",
        type=int,
        metavar="N",
        help="last scans of a test subject that are its targets (default: 1; acdc: systole)",
    )
    result.add_argument(
        "--task",
        choices=["forecast", "segment"],
        help="default: forecast (phases: translate, always; isles24: forecast, always)",
    )
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="replace a dataset of this name")

    acdc = result.add_argument_group("acdc")
    acdc.add_argument(
        "--time",
        choices=["cycles", "frames"],
        help="frame / NbFrame (default), or the frame's number",
    )

    both = result.add_argument_group("nifti4d, phases and bids")
    both.add_argument(
        "--images",
        metavar="PATTERN",
        help="names of the images (default: {subject}.nii.gz, 4D; phases: {subject}_{phase}.nii.gz, and {time} where "
        "subjects have several)",
    )
    both.add_argument(
        "--labels",
        metavar="PATTERN",
        help="names of the label masks (4D: only frames with a label are written; phases: without {phase} one mask is "
        "used for both; bids: with {subject} and {session})",
    )
    both.add_argument("--label_names", nargs="+", metavar="NAME", help="names of the labels 1, 2, ...")
    both.add_argument("--channel", help="what the images are, as T1 or CT (CT keeps its HU)")
    both.add_argument(
        "--time_unit", choices=get_args(TimeUnit), help="unit of the times (header: its own unit; phases: days)"
    )

    phases = result.add_argument_group("phases")
    phases.add_argument(
        "--phases",
        nargs=2,
        metavar="PHASE",
        help="the two phases, that without contrast first (default: the two that the files' names hold)",
    )

    nifti = result.add_argument_group("nifti4d and bids")
    nifti.add_argument(
        "--times",
        metavar="WHERE",
        help="nifti4d: header (default), frames, TABLE.csv (subject,frame,time; frames from 0) or a pattern "
        "{subject}.json; bids: a column of the tables of sessions, or labels for the numbers in sessions' names "
        "(default: what is there)",
    )
    nifti.add_argument("--key", help="name of the list of times in the json")

    released = result.add_argument_group("isles24, lumiere and bids")
    released.add_argument(
        "--space",
        choices=["native", "registered"],
        help="isles24, lumiere: scans on their own grid (default), or on the one that the dataset brings them to",
    )
    released.add_argument(
        "--modality",
        help="lumiere: CT1 (default: T1 with contrast), T1, T2 or FLAIR; bids: how names of images end (default: T1w)",
    )
    released.add_argument("--every", type=int, metavar="N", help="isles24: keep every N-th volume (default: 1; TFM: 2)")
    return result


def work(options: argparse.Namespace) -> None:
    layout = options.layout
    raw = DatasetPaths(new_dataset_name(options.dataset, options.name or NAMES.get(layout))).raw
    if layout == "phases" and options.task:
        raise ConfigurationError(
            f"--task {options.task}: scans in two phases at one time are there to be translated. Leave --task out."
        )
    every = {name for names in FLAGS.values() for name in names}
    given = {name: value for name in sorted(every) if (value := getattr(options, name)) is not None}
    if strange := [name for name in given if name not in FLAGS[layout]]:
        fitting = ", ".join(f"--{name}" for name in FLAGS[layout])
        raise ConfigurationError(f"--{strange[0]} means nothing for the layout {layout}. It takes: {fitting}.")
    importer = getattr(import_module(f"longflow.importers.{layout}"), f"import_{layout}")
    with progress_bar("Importing") as progress:
        written = importer(
            options.source,
            raw,
            test=options.test,
            processes=options.processes,
            overwrite=options.overwrite,
            progress=progress,
            **given,
        )
    command.console.print(f"{'Imported to' if written else 'Imported before, nothing to do:'} {raw}", highlight=False)
    command.console.print(f"Next: longflow_verify -d {raw.name[7:10]}", highlight=False)


def new_dataset_name(dataset: str, name: str | None) -> str:
    """The full name of a dataset to be made, from an id and a name or from the full name.

    :raises ConfigurationError: it is not a name, or the id is taken by a dataset of another name.
    """
    full = f"Dataset{int(dataset):03d}_{name or ''}" if dataset.isdigit() else dataset
    if not re.match(DATASET_NAME, full):
        raise ConfigurationError(
            f"'{full}' is no name for a dataset. Expected -d with three digits and -n with letters, digits, - and _, "
            "as in -d 102 -n Sunnybrook."
        )
    taken = [known for known in known_datasets() if known[:10] == full[:10] and known != full]
    if taken:
        raise ConfigurationError(
            f"The id {full[7:10]} is used by {taken[0]} in {raw_root().resolve()}. Choose another."
        )
    return full


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_import``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
