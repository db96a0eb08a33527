"""``longflow_register``: align the scans of each subject in a new raw dataset."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.paths import DATASET_NAME, DatasetPaths, known_datasets, raw_root, resolve_dataset_name
from longflow.task import get_task

EXAMPLE = """
longflow_register -d 103 --model rigid
longflow_register -d 103 --model deformable -o Dataset113_Aligned
longflow_register -d 104 --model deformable    # with contrast phases: contrast scans to the native scans
"""

#: most subjects with an error that the screen shows
SHOWN = 20


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_register",
        "Align the scans of each subject in a new raw dataset: to the subject's mid-space, or, for a task that uses "
        "contrast phases, to the scans in the first phase.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument(
        "--model",
        required=True,
        choices=["rigid", "affine", "deformable"],
        help="rigid keeps volumes; affine removes growth of the whole, deformable growth of every part",
    )
    result.add_argument(
        "-o",
        "--output",
        metavar="NAME",
        help="id or name of the new dataset (default: Dataset{first free id}_{Name}Registered)",
    )
    flags.add_processes(result)
    result.add_argument(
        "--overwrite", action="store_true", help="start from scratch: replace the new dataset if it exists"
    )
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
    command.say(f"Registered ({options.model}) to {target.raw}")
    show_agreement(target.raw)
    if options.model == "deformable":
        task = get_task(read_description(source.raw / "dataset.json").task)
        command.console.print(
            f"Structures now have the same size in all scans of a {'pair' if task.uses_phases else 'subject'}. "
            f"Measure volumes in {source.name}, not in the new dataset.",
            highlight=False,
        )
    if failures:
        table = Table(title="Not registered, and excluded", title_justify="left")
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
            "those scans and correct or remove them. Then run the same command again: finished subjects are kept."
        )
    command.say(f"Next: longflow_plan_and_preprocess -d {target.id}")


def show_agreement(folder: Path) -> None:
    """Show how the phases of each pair agree before and after registration, those that stand out first.

    :param folder: of the new dataset; without pairs nothing is shown.
    """
    from longflow.registration.agreement import agreement_of_dataset

    rows = sorted(agreement_of_dataset(folder), key=lambda row: not row["stands_out"])
    if not rows:
        return
    table = Table(title="Agreement of the phases in the body", title_justify="left")
    for name in ("subject", "pair", "MAE before", "after", "mutual information\nbefore", "after", "stands out"):
        table.add_column(name, overflow="fold")
    for row in rows[:SHOWN]:
        numbers = (row[name] for name in ("mae_before", "mae_after", "mi_before", "mi_after"))
        cells = ("–" if number is None else f"{number:.4g}" for number in numbers)
        table.add_row(escape(row["subject"]), escape(row["pair"]), *cells, row["stands_out"])
    command.console.print(table, soft_wrap=False)
    if len(rows) > SHOWN:
        command.say(f"... and {len(rows) - SHOWN} more in {folder / 'registration.csv'}")
    if standing_out := list(dict.fromkeys(row["subject"] for row in rows if row["stands_out"])):
        command.say(f"Look at {first_few(standing_out)}: a pair stands out. If it is not aligned, remove it.")


def new_name(source: DatasetPaths, model: str, requested: str | None) -> str:
    """Choose the full name of the new dataset.

    :param source: the dataset to register.
    :param model: of the transforms.
    :param requested: an id, a name or a full name; None: the dataset of an earlier run of the same registration, else
        a new one.
    :returns: full name, as Dataset113_Aligned.
    :raises ConfigurationError: the name is invalid, or its id is taken.
    """
    from longflow.registration.dataset import is_made_by

    default = f"{source.name[11:]}Registered"
    if requested is None:
        made = [name for name in known_datasets() if is_made_by(raw_root() / name, source.name, model)]
        return made[0] if made else f"Dataset{first_free_id(int(source.id)):03d}_{default}"
    if requested.isdecimal():
        full = f"Dataset{int(requested):03d}_{default}"
    else:
        full = (
            requested if requested.startswith("Dataset") else f"Dataset{first_free_id(int(source.id)):03d}_{requested}"
        )
    if not DATASET_NAME.fullmatch(full):
        raise ConfigurationError(
            f"'{full}' cannot name a dataset. Expected an id as 113, a name of letters, digits, - and _, or both as "
            "Dataset113_Aligned."
        )
    if taken := [known for known in known_datasets() if known[:10] == full[:10] and known != full]:
        raise ConfigurationError(
            f"The id {full[7:10]} is used by {taken[0]} in {raw_root().resolve()}. Choose another."
        )
    return full


def first_free_id(above: int) -> int:
    """Find the first free id, from the next one on.

    :param above: an id.
    :returns: an id that no dataset has.
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
