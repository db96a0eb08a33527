"""``longflow_predict``: make the predictions that a folder requests, with a trained model of any task."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.cli.report import write_report
from longflow.task import RequestFlag, all_tasks, get_task

if TYPE_CHECKING:
    from longflow.data.dataset import DatasetDescription

#: folder below the output in which the scans of a DICOM export are kept as NIfTI
SCANS = "scans"

EXAMPLE = """
longflow_predict -i in -o out                      # rows of in/scans.csv without an image are forecast
longflow_predict -i in -o out -t 365 730           # these times, for every subject
longflow_predict -i in -o out -d 101 -m tfm -f 0   # with a certain model
longflow_predict -i in -o out --hide_context last:2   # as if the last two scans before each target were missing
longflow_predict -i in -o out -t 365 --samples 20    # several futures: their mean and standard deviation, and each
longflow_predict -i in -o out -t 365 --structures 103  # volumes over time with intervals: out/volumes.csv
longflow_predict -i in -o out -d 103               # a model that segments: label maps of every scan, and volumes.csv
longflow_predict -i in -o out -d 104 --to native   # a model that translates: arterial scans (scans.csv) to native ones
longflow_predict -i in -o out --refuse_unfit       # nothing from scans that are not of the training's kind
longflow_predict -i EXPORT -o out -d 103 --dicom   # DICOM in, DICOM out: results for the PACS are in out/dicom
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_predict",
        "Make the predictions that a folder requests, with a trained model. The model decides the task. "
        "Finished predictions are kept when the command is run again. "
        "For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument(
        "-i", "--input", type=Path, required=True, help="folder with images and scans.csv; with --dicom, of DICOM files"
    )
    result.add_argument("-o", "--output", type=Path, required=True, help="folder for the predictions")
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name (default: the one with a trained model)")
    flags.add_model(result, "average")
    flags.add_prediction_settings(result)
    result.add_argument("--overwrite", action="store_true", help="make finished predictions again")
    result.add_argument(
        "--refuse_unfit",
        action="store_true",
        help="predict nothing from scans that are unlike the training data (unfit); the exit code is then 1",
    )
    result.add_argument(
        "--report", action="store_true", help="write a report of the predictions, too: OUTPUT/report/index.html"
    )
    flags.add_segmenter(
        result,
        further=", applied to forecasts and to the scans that are given: their volumes, with the intervals of "
        "longflow_calibrate, are written to OUTPUT/volumes.csv",
    )
    group = result.add_argument_group("DICOM")
    group.add_argument(
        "--dicom",
        action="store_true",
        help="read the scans from DICOM files, and write the predictions as DICOM, too: OUTPUT/dicom",
    )
    flags.add_dicom_settings(group)
    taken: set[str] = set()
    for task in all_tasks():
        group = result.add_argument_group(f"models that {task.words.verb}", task.words.help.get("predict"))
        for flag in task.request_flags:
            if flag.name not in taken:  # tasks may share a flag
                group.add_argument(*flag.flags, dest=flag.name, **flag.arguments)
                taken.add(flag.name)
    return result


def request_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the tasks' flags that were given, by name."""
    declared: list[RequestFlag] = [flag for task in all_tasks() for flag in task.request_flags]
    values = {flag.name: getattr(options, flag.name) for flag in declared}
    defaults = {flag.name: flag.arguments.get("default") for flag in declared}
    return {name: value for name, value in values.items() if value != defaults[name]}


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    with command.importing():
        from longflow.distributed import Processes, leave_group
        from longflow.inference.models import PredictionSettings
        from longflow.inference.predictor import load_predictor, predict_folder
        from longflow.inference.selection import select

        folds = None if options.folds is None else tuple(options.folds)
        selection = select(options.dataset, options.configuration, options.method, folds)
        device = flags.checked_device(options.device)
        processes = Processes.start(device)
        settings = PredictionSettings(str(processes.device), options.solver, options.steps, options.mirror)
        predictor = load_predictor(selection, settings)
        volumes = None
        if options.segmenter is not None:
            task = get_task(predictor.task)
            volumes = task.volumes_of_predictions(predictor, select(options.segmenter), settings.device)
    for member in selection.members if processes.first else []:
        trained = f", folds {', '.join(map(str, member.folds))}" if member.folds else ""
        command.say(
            f"Model: {selection.dataset.name} / {member.model.folder.name}{trained} ({selection.origin})",
        )
    words, source = predictor.words, options.input
    if options.dicom:
        source = options.output / SCANS
        files = processes.from_first(lambda: read_dicom(options.input, source, predictor.models.description))
    with progress_bar(words.doing) as progress:
        requests = predict_folder(
            predictor,
            source,
            options.output,
            request_options(options),
            options.overwrite,
            progress,
            processes,
            options.refuse_unfit,
        )
    processes.end()
    leave_group()
    if processes.first:
        are = f"{words.one} is" if len(requests) == 1 else f"{words.several} are"
        command.say(f"{len(requests)} {are} in {options.output}")
        if volumes is not None:
            with progress_bar("Segmenting") as progress:
                names = volumes.write(requests, options.output, progress)
            command.say(f"Written: {', '.join(names)} in {options.output}")
        if options.dicom:
            write_dicom(options, files)
        if options.report:
            write_report(options.output, [source])


def read_dicom(export: Path, folder: Path, description: "DatasetDescription") -> dict[str, str]:
    """Write the scans of a DICOM export into a folder, as input.

    :param description: of the model.
    :returns: the DICOM files by SOPInstanceUID.
    """
    from longflow.dicom.libraries import require_dicom

    require_dicom()
    from longflow.dicom.files import read_export
    from longflow.dicom.input import write_input
    from longflow.dicom.sources import files_by_uid

    with progress_bar("Reading headers") as progress:
        found = read_export(export, progress=progress)
    with progress_bar("Reading scans") as progress:
        write_input(found, folder, description, progress)
    return {uid: str(path) for uid, path in files_by_uid(found).items()}


def write_dicom(options: argparse.Namespace, files: dict[str, str]) -> None:
    """Write the predictions in the output folder as DICOM. :param files: of the export, by SOPInstanceUID."""
    from longflow.dicom.export import Settings, export_folder
    from longflow.dicom.sources import read_sources, write_sources

    write_sources(options.output, read_sources(options.output / SCANS))
    paths, folder = {uid: Path(path) for uid, path in files.items()}, options.output / "dicom"
    with progress_bar("Writing DICOM") as progress:
        written = export_folder(options.output, folder, paths, settings=Settings.of_flags(options), progress=progress)
    command.say(f"{written} in {folder}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_predict``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
