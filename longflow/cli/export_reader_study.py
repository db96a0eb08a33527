"""``longflow_export_reader_study``: write blinded images of translations and acquired scans."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command, flags
from longflow.paths import DatasetPaths, resolve_dataset_name

EXAMPLE = """
longflow_export_reader_study -d 104 -i native -o study                            # pairs: which one is synthetic?
longflow_export_reader_study -d 104 -i native -o study --design single --items 20   # one image: real or synthetic?
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_export_reader_study",
        "Write translations and the acquired scans of the same phase in random order under neutral names, with a sheet "
        "for the readers (OUTPUT/for_readers), and the key (OUTPUT/key.csv). For research only.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument("-i", "--input", type=Path, required=True, help="folder that longflow_predict wrote")
    result.add_argument("-o", "--output", type=Path, required=True, help="new folder")
    flags.add_references(
        result,
        "folders with acquired scans, searched first",
    )
    result.add_argument(
        "--design",
        choices=("pairs", "single"),
        default="pairs",
        help="pairs of both images, or single images, half of them synthetic (default: %(default)s)",
    )
    result.add_argument("--items", type=flags.positive(int), help="most pairs or images (default: all translations)")
    result.add_argument("--seed", type=flags.count, default=0, help="of the random order (default: %(default)s)")
    return result


def work(options: argparse.Namespace) -> None:
    """Write the study."""
    references = flags.checked_references(options)
    with command.importing():
        from longflow.data.dataset import read_description
        from longflow.tasks.translate.reader_study import ReaderStudy, export_reader_study
    raw = DatasetPaths(resolve_dataset_name(options.dataset)).raw
    study = ReaderStudy(
        options.input,
        options.output,
        raw,
        read_description(raw / "dataset.json"),
        references,
        options.design,
        options.items,
        options.seed,
    )
    number = export_reader_study(study)
    command.say(
        f"{number} items are in {options.output / 'for_readers'}, with sheet.csv to fill in. Give readers this folder "
        f"alone: the key is {options.output / 'key.csv'}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_export_reader_study``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
