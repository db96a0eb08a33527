"""``longflow_export_bids``: write predictions as BIDS derivatives."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from longflow.cli import command
from longflow.cli.progress import progress_bar

EXAMPLE = """
longflow_export_bids -i out -o bids/derivatives/longflow
bids-validator-deno bids/derivatives/longflow             # pip install bids-validator-deno
"""


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_export_bids",
        "Write predictions as BIDS derivatives with a session for each time: label maps, forecasts, translations, and "
        "a table of volumes. For research only, not for clinical decisions.",
        EXAMPLE,
    )
    result.add_argument("-i", "--input", type=Path, required=True, help="folder that longflow_predict wrote")
    result.add_argument("-o", "--output", type=Path, required=True, help="folder of the BIDS derivatives")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.exporters.bids import export_bids

    with progress_bar("Writing BIDS") as progress:
        written = export_bids(options.input, options.output, progress)
    images = "1 image is" if written == 1 else f"{written} images are"
    command.say(f"{images} in {options.output}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_export_bids``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
