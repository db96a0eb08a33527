"""``longflow_lesions``: follow the lesions of each subject through its visits."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.paths import DatasetPaths, resolve_dataset_name

EXAMPLE = """
longflow_lesions -d 103 -i labels --structure lesions
longflow_lesions -d 103 -i labels --structure lesions --subject p01
longflow_lesions -d 103 -i labels --structure lesions --subject p01 --track -22.5 14 38   # the lesion at this place
longflow_lesions -d 103 -i raw/Dataset103_MyStudy/labelsTr --structure lesions -o lesions.csv
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_lesions",
        "Follow the lesions of a structure through the visits of each subject: new, gone, grown, shrunk, stable, "
        "merged or split, with volumes, in lesions.csv. Scans must be registered. Where the visits have reference "
        "label maps, the changes are compared with the reference's. For research only, not for clinical decisions.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("-i", "--input", required=True, type=Path, help="folder of label maps")
    result.add_argument("--structure", required=True, metavar="NAME", help="its connected pieces are the lesions")
    result.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: INPUT/lesions.csv")
    flags.add_references(
        result,
        "folders with reference label maps or with the acquired scans, searched before those of the dataset",
    )
    result.add_argument("--subject", help="show this subject alone; the file has all")
    result.add_argument(
        "--track",
        type=flags.number(float),
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="show the lesion at this place, mm as NIfTI viewers show them (RAS: x right, y front, z head)",
    )
    result.add_argument(
        "--time", type=flags.number(float), help="of the visit with the place (default: the first with a lesion there)"
    )
    group = result.add_argument_group("what counts as a change")
    group.add_argument(
        "--change",
        type=flags.positive(float),
        default=25.0,
        metavar="PERCENT",
        help="least change of the volume of a lesion that has grown or shrunk (default: %(default)g, the British "
        "Thoracic Society's for lung nodules)",
    )
    group.add_argument(
        "--change_ml", type=flags.positive(float), default=0.1, help="and least change in ml (default: %(default)g)"
    )
    group.add_argument(
        "--smallest_ml",
        type=flags.positive(float),
        default=0.014,
        help="smaller pieces are no lesions (default: %(default)g, a ball of 3 mm)",
    )
    group.add_argument(
        "--gap_mm",
        type=flags.positive(float),
        default=3.0,
        help="largest gap between lesions of two visits that are one without common voxels (default: %(default)g)",
    )
    flags.add_processes(result)
    return result


def work(options: argparse.Namespace) -> None:
    """Follow, write and show."""
    if options.time is not None and options.track is None:
        raise ConfigurationError("--time is the visit of the place that --track names. Add --track X Y Z.")
    references = flags.checked_references(options)
    with command.importing():
        from longflow.data.dataset import read_description
        from longflow.tasks.segment.lesion_changes import ChangeRule
        from longflow.tasks.segment.lesion_series import LesionJob, follow_lesions, history, lesion_at
        from longflow.tasks.segment.lesion_tables import show_calls, show_lesions, show_remarks
    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    rule = ChangeRule(options.change / 100, options.change_ml, options.smallest_ml, options.gap_mm)
    description = read_description(raw / "dataset.json")
    job = LesionJob(
        *(options.input, options.structure, raw, description, rule, references, options.output),
        processes=options.processes,
    )
    place = lesion_at(job, options.subject, options.track, options.time) if options.track else None
    with progress_bar("Following") as progress:
        results, rows = follow_lesions(job, progress)
    if place is not None:
        command.say(f"The place is in lesion {place[1]} of {place[0]}.")
        show_lesions(history(rows, *place), results, command.console, most=None)
    elif options.subject is not None:
        show_lesions(rows_of(options.subject, rows), results, command.console, most=None)
    else:
        show_lesions(rows, results, command.console)
    show_calls(results, command.console)
    show_remarks(results, command.console)
    command.say(f"Written: {options.output or options.input / 'lesions.csv'}")


def rows_of(subject: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Select the rows of a subject.

    :raises DataError: it has none.
    """
    if found := [row for row in rows if row["subject"] == subject]:
        return found
    raise DataError(
        f"There are no lesions of a subject {subject}. Subjects with lesions: "
        f"{first_few(dict.fromkeys(row['subject'] for row in rows))}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_lesions``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
