"""``longflow_register``: bring the scans of each subject into correspondence, into a new raw dataset."""

import argparse
import re
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError, DataError
from longflow.paths import DATASET_NAME, DatasetPaths, known_datasets, raw_root, resolve_dataset_name

EXAMPLE = """
longflow_register -d 103 --model rigid
longflow_register -d 103 --model deformable -o Dataset113_Aligned
longflow_register -d 104 --model deformable    # task translate: contrast scans to the native ones
"""

#: the screen shows at most this many of the subjects that failed; the file holds all
SHOWN = 20


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_register",
        "Bring each subject's scans into correspondence, in a new raw dataset: to the subject's mid-space, or, for the "
        "task translate, to the scans in the first phase.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument(
        "--model",
        required=True,
        choices=["rigid", "affine", "deformable"],
        help="rigid keeps volumes; affine takes out growth of the whole, deformable that of every part",
    )
    result.add_argument(
        "-o",
        "--output",
        metavar="NAME",
        help="id or name of the new dataset (default: Dataset{first free id}_{Name}Registered)",
    )
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="start anew: replace the new dataset if it exists")
    return result


def work(options: argparse.Namespace) -> None:
    from longflow.data.dataset import read_description
    from longflow.registration.dataset import register_dataset

    source = DatasetPaths(resolve_dataset_name(options.dataset))
    target = DatasetPaths(new_name(source, options.model, options.output))
    with progress_bar(f"Registering {source.name}") as progress:
        failures = register_dataset(
            source.raw,
            target.raw,
            options.model,
            processes=options.processes,
            overwrite=options.overwrite,
            progress=progress,
        )
    command.console.print(f"Registered ({options.model}) to {target.raw}", highlight=False)
    translates = read_description(source.raw / "dataset.json").task == "translate"
    if options.model == "deformable":
        command.console.print(
            f"Structures now have the same size in all scans of a {'pair' if translates else 'subject'}: count "
            f"volumes in {source.name}, not here.",
            highlight=False,
        )
    if failures:
        table = Table(title="Not registered, and left out", title_justify="left")
        table.add_column("subject", no_wrap=True)
        table.add_column("cause", overflow="fold")
        for failure in failures[:SHOWN]:
            table.add_row(escape(failure.subject), escape(failure.cause))
        if len(failures) > SHOWN:
            table.add_row("", f"[dim]... and {len(failures) - SHOWN} more[/]")
        command.console.print(table, soft_wrap=False)
        subjects = "subject" if len(failures) == 1 else "subjects"
        raise DataError(
            f"{len(failures)} {subjects} could not be registered; all others are written and can be used. Look at "
            "those scans, mend or remove them, then run the same command again: what is finished is kept."
        )
    command.console.print(f"Next: longflow_plan_and_preprocess -d {target.id}", highlight=False)


def new_name(source: DatasetPaths, model: str, wanted: str | None) -> str:
    """The full name of the new dataset; without a wish, that of an earlier run of the same registration goes on.

    :param wanted: an id, a name, or a full name.
    :raises ConfigurationError: it is no name, or its id is taken.
    """
    from longflow.registration.dataset import is_made_by

    default = f"{source.name[11:]}Registered"
    if wanted is None:
        made = [name for name in known_datasets() if is_made_by(raw_root() / name, source.name, model)]
        return made[0] if made else f"Dataset{first_free_id(int(source.id)):03d}_{default}"
    if wanted.isdigit():
        full = f"Dataset{int(wanted):03d}_{default}"
    else:
        full = wanted if wanted.startswith("Dataset") else f"Dataset{first_free_id(int(source.id)):03d}_{wanted}"
    if not re.match(DATASET_NAME, full):
        raise ConfigurationError(
            f"'{full}' is no name for a dataset. Expected an id as 113, a name of letters, digits, - and _, or both as "
            "Dataset113_Aligned."
        )
    if taken := [known for known in known_datasets() if known[:10] == full[:10] and known != full]:
        raise ConfigurationError(
            f"The id {full[7:10]} is used by {taken[0]} in {raw_root().resolve()}. Choose another."
        )
    return full


def first_free_id(above: int) -> int:
    """The first id that no dataset has, from the next one on.

    :raises ConfigurationError: all 1000 are taken.
    """
    taken = {int(name[7:10]) for name in known_datasets()}
    for candidate in (*range(above + 1, 1000), *range(1, above)):
        if candidate not in taken:
            return candidate
    raise ConfigurationError("All ids are taken. Name the new dataset with -o, or remove a dataset.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_register``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
