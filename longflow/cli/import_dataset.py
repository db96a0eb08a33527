"""``longflow_import``: write a raw dataset from files in another layout."""

import argparse
import re
from collections.abc import Sequence
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
"""


def parser() -> command.Parser:
    result = command.Parser("longflow_import", "Write a raw dataset from files in another layout.", EXAMPLE)
    result.add_argument("layout", choices=["acdc", "nifti4d", "phases"], help="how the source is laid out")
    result.add_argument("source", type=Path, help="folder to import from; it is only read")
    result.add_argument("-d", "--dataset", required=True, help="id of the new dataset, as 102, or Dataset102_Name")
    result.add_argument("-n", "--name", help="name of the new dataset (acdc: ACDC)")
    result.add_argument(
        "--test",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="subjects kept out of training: scans to imagesTs, targets of forecasts to targetsTs (acdc: systole)",
    )
    result.add_argument("--task", choices=["forecast", "segment"], help="default: forecast (phases: translate, always)")
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="replace a dataset of this name")

    acdc = result.add_argument_group("acdc")
    acdc.add_argument(
        "--time",
        choices=["cycles", "frames"],
        default="cycles",
        help="frame / NbFrame (default), or the frame's number",
    )

    both = result.add_argument_group("nifti4d and phases")
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
        "used for both)",
    )
    both.add_argument("--label_names", nargs="+", default=[], metavar="NAME", help="names of the labels 1, 2, ...")
    both.add_argument("--channel", default="image", help="what the images are, as T1 or CT (CT keeps its HU)")
    both.add_argument(
        "--time_unit", choices=get_args(TimeUnit), help="unit of the times (header: its own unit; phases: days)"
    )

    phases = result.add_argument_group("phases")
    phases.add_argument(
        "--phases",
        nargs=2,
        default=[],
        metavar="PHASE",
        help="the two phases, that without contrast first (default: the two that the files' names hold)",
    )

    nifti = result.add_argument_group("nifti4d")
    nifti.add_argument(
        "--times",
        default="header",
        metavar="WHERE",
        help="header (default), frames, TABLE.csv (subject,frame,time; frames from 0) or a pattern {subject}.json",
    )
    nifti.add_argument("--key", help="name of the list of times in the json")
    nifti.add_argument(
        "--test_targets", type=int, default=1, metavar="N", help="last frames of a test subject that are its targets"
    )
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.data.importers.acdc import import_acdc
    from longflow.data.importers.nifti4d import import_nifti4d
    from longflow.data.importers.phases import import_phases

    raw = DatasetPaths(new_dataset_name(options.dataset, options.name or {"acdc": "ACDC"}.get(options.layout))).raw
    if options.layout == "phases" and options.task:
        raise ConfigurationError(
            f"--task {options.task}: scans in two phases at one time are there to be translated. Leave --task out."
        )
    common = {"test": options.test, "processes": options.processes, "overwrite": options.overwrite}
    of_files = {"labels": options.labels, "channel": options.channel, "label_names": options.label_names}
    if options.images:
        of_files["images"] = options.images
    with progress_bar("Importing") as progress:
        if options.layout == "acdc":
            task = options.task or "forecast"
            written = import_acdc(options.source, raw, time=options.time, task=task, progress=progress, **common)
        elif options.layout == "nifti4d":
            written = import_nifti4d(
                options.source,
                raw,
                times=options.times,
                key=options.key,
                time_unit=options.time_unit,
                test_targets=options.test_targets,
                task=options.task or "forecast",
                progress=progress,
                **of_files,
                **common,
            )
        else:
            written = import_phases(
                options.source,
                raw,
                phases=options.phases,
                time_unit=options.time_unit or "days",
                progress=progress,
                **of_files,
                **common,
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
