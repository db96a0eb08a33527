"""``longflow_deidentify``: make an export that can leave the hospital."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar


def parser() -> command.Parser:
    example = "longflow_deidentify EXPORT -o SAFE --key key.csv"
    result = command.Parser("longflow_deidentify", "De-identify DICOM files, with one key for all exports.", example)
    result.add_argument("source", type=Path, help="folder with DICOM files; it is only read")
    result.add_argument("-o", "--output", type=Path, required=True, help="folder for the new files")
    result.add_argument(
        "--key",
        type=Path,
        required=True,
        help="table that says which patient a subject is; it stays in the hospital. An existing one is continued",
    )
    flags.add_processes(result)
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.dicom.deidentify import deidentify_export

    with progress_bar("De-identifying") as progress:
        done = deidentify_export(options.source, options.output, options.key, options.processes, progress)
    lines = [f"{done.written} files of {done.subjects} subjects written to {options.output}"]
    lines += [f"Refused: {number} files, {reason}" for reason, number in done.refused.items()]
    lines += [
        f"What was changed: {done.report}",
        f"Keep {options.key} and the report in the hospital. Faces and text drawn into pixels are not removed: look at "
        "the images before they leave.",
    ]
    for line in lines:
        command.say(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_deidentify``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
