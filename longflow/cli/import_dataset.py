"""``longflow_import``: write a raw dataset from files in another layout."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError
from longflow.importers.registry import IMPORTERS, Importer, all_importers
from longflow.importers.scans import Destination, HeldOut, ImportedDataset, Proposal
from longflow.importers.summary import summary_of
from longflow.paths import DATASET_NAME, DatasetPaths, known_datasets, raw_root


def parser() -> command.Parser:
    importers = all_importers()
    example = "\n".join(importer.example.strip() for importer in importers)
    result = command.Parser("longflow_import", "Write a raw dataset from files in another layout.", example)
    result.add_argument("layout", choices=IMPORTERS.names(), help="layout of the source")
    result.add_argument("source", type=Path, help="folder to import from; it is only read")
    result.add_argument("-d", "--dataset", required=True, help="id of the new dataset, as 102, or Dataset102_Name")
    names = _by_layout({one.name: one.dataset_name for one in importers if one.dataset_name})
    result.add_argument("-n", "--name", help=f"name of the new dataset ({names})")
    special = {one.name: one.split_help for one in importers if one.split_help}
    result.add_argument(
        "--test",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="subjects excluded from training: their scans go to imagesTs, targets of forecasts to targetsTs "
        f"({_by_layout(special)})",
    )
    result.add_argument(
        "--test_targets",
        type=flags.number(int),
        metavar="N",
        help=f"number of last scans of a test subject that are targets (default: 1; not for {', '.join(special)})",
    )
    fixed = _by_layout({one.name: _fixed_task(one) for one in importers if not one.chooses_task})
    tasks = dict.fromkeys(task for one in importers if one.chooses_task for task in one.tasks())
    result.add_argument("--task", choices=list(tasks), help=f"default: {next(iter(tasks))} ({fixed})")
    flags.add_processes(result)
    result.add_argument("--overwrite", action="store_true", help="replace a dataset of this name")
    _add_flags_of_layouts(result, importers)
    return result


def _fixed_task(importer: Importer) -> str:
    served = importer.tasks()
    return f"always {served[0]}" if len(served) == 1 else "that of the source"


def _by_layout(words: dict[str, str]) -> str:
    return "; ".join(f"{layout}: {text}" for layout, text in words.items())


def _add_flags_of_layouts(result: command.Parser, importers: Sequence[Importer]) -> None:
    """Add the flags that only some layouts take, each once, in a group for the layouts that take it.

    A flag that several layouts take is parsed as the first of them declares it.
    """
    arguments: dict[str, dict] = {}
    helps: dict[str, dict[str, str]] = {}
    for importer in importers:
        for one in importer.flags:
            declared = dict(one.metadata)
            helps.setdefault(one.name, {})[importer.name] = declared.pop("help")
            arguments.setdefault(one.name, declared)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, of_layouts in helps.items():
        title = ", ".join(of_layouts)
        if title not in groups:
            groups[title] = result.add_argument_group(title)
        same = len(set(of_layouts.values())) == 1
        groups[title].add_argument(
            f"--{name}", help=next(iter(of_layouts.values())) if same else _by_layout(of_layouts), **arguments[name]
        )


def work(options: argparse.Namespace) -> None:
    importer = IMPORTERS.get(options.layout)
    raw = DatasetPaths(new_dataset_name(options.dataset, options.name or importer.dataset_name)).raw
    given = _given_flags(options, importer)
    task = importer.checked_task(given.pop("task", None))
    held_out = HeldOut(options.test, given.pop("test_targets", 1))
    if importer.propose and not given.get("accept"):
        with progress_bar("Reading headers") as progress:
            to = Destination(raw, task, options.overwrite, options.processes, progress)
            proposal = importer.propose(options.source, importer.options(**given), to)
        _show_proposal(proposal, options)
        return
    with progress_bar("Importing") as progress:
        to = Destination(raw, task, options.overwrite, options.processes, progress)
        found = importer.find(options.source, to, held_out, **given)
        from longflow.importers.writing import write_dataset  # SimpleITK: the help does not wait for it

        written = write_dataset(found, to)
    _show_dataset(found)
    command.say(f"{'Imported to' if written else 'Imported before, nothing to do:'} {raw}")
    command.say(f"Next: longflow_verify -d {raw.name[7:10]}")


def _show_proposal(proposal: Proposal, options: argparse.Namespace) -> None:
    """Print what a first step found, and the command of the second."""
    _show_dataset(proposal.dataset)
    command.say("No image was written. Look at:")
    for path in proposal.files:
        command.say(f"  {path}")
    if proposal.questions:
        command.say(f"{proposal.questions} rows of the table have use = ask: write yes or no there.")
    command_line = [options.layout, str(options.source), "-d", options.dataset]
    for flag in ("name", "task", "review"):
        value = getattr(options, flag)
        command_line += [f"--{flag}", str(value)] if value else []
    command_line += [*(["--test", *options.test] if options.test else []), "--accept"]
    command.say(f"Next: longflow_import {shlex.join(command_line)}")


def _show_dataset(dataset: ImportedDataset) -> None:
    """Print the table at the end of every import."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in summary_of(dataset):
        table.add_row(Text(name, style="bold"), Text(command.printable(text)))
    command.console.print(table)


def _given_flags(options: argparse.Namespace, importer: Importer) -> dict:
    """Return the values of the flags that not every layout takes and that the user gave.

    :raises ConfigurationError: the layout does not take one of them.
    """
    if options.task and importer.task_reason:
        importer.checked_task(options.task)
    known = importer.flag_names
    every = {name for one in all_importers() for name in one.flag_names}
    given = {name: value for name in sorted(every) if (value := getattr(options, name)) is not None}
    if strange := [name for name in given if name not in known]:
        fitting = ", ".join(f"--{name}" for name in known)
        raise ConfigurationError(f"--{strange[0]} means nothing for the layout {importer.name}. It takes: {fitting}.")
    return given


def new_dataset_name(dataset: str, name: str | None) -> str:
    """Make the full name of a new dataset.

    :param dataset: an id, or the full name.
    :param name: for an id.
    :returns: full name, as Dataset102_Sunnybrook.
    :raises ConfigurationError: the name is invalid, or a dataset of another name has the id.
    """
    full = f"Dataset{int(dataset):03d}_{name or ''}" if dataset.isdecimal() else dataset
    if not DATASET_NAME.fullmatch(full):
        raise ConfigurationError(
            f"'{full}' cannot name a dataset. Expected -d with three digits and -n with letters, digits, - and _, "
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
