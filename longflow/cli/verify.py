"""``longflow_verify``: show all problems of a raw dataset in one table."""

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields

from rich.markup import escape
from rich.table import Table

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.errors import ConfigurationError, DataError
from longflow.files import write_csv
from longflow.integrity.problems import Problem
from longflow.paths import DatasetPaths, resolve_dataset_name
from longflow.task import get_task

EXAMPLE = """
longflow_verify -d 101
longflow_verify -d 101 --test_protocol random                 # draw and store the targets of imagesTs
longflow_verify -d 101 --test_protocol random --least_gap 4   # without the three scans before each target
"""

#: most problems of one kind that the screen shows; the file has all
SHOWN_OF_A_KIND = 5


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_verify", "Check a raw dataset and show every problem that would stop or distort training.", EXAMPLE
    )
    flags.add_dataset(result)
    flags.add_processes(result)
    _add_protocol(result)
    return result


def _add_protocol(result: command.Parser) -> None:
    """Add the flags of the test protocol."""
    group = result.add_argument_group(
        "final test of forecasts",
        "Draw once which scans of imagesTs are forecast, and from which, and store it in test_protocol.json. "
        "longflow_predict and longflow_compare then use it. Another stored protocol is never replaced.",
    )
    group.add_argument(
        "--test_protocol",
        choices=("random", "all"),
        help="context scans: random (each with probability 1/2, as in CRONOS and TFM), or all before the target",
    )
    group.add_argument(
        "--least_gap",
        type=flags.positive(int),
        metavar="N",
        help="least distance of the last context scan from the target, in scans (default: 1, the scan right before it)",
    )
    group.add_argument(
        "--targets_per_subject", type=flags.positive(int), metavar="N", help="most targets of a subject (default: 1)"
    )
    group.add_argument("--seed", type=flags.count, metavar="N", help="of the draw (default: 12345)")


def work(options: argparse.Namespace) -> None:
    paths = DatasetPaths(resolve_dataset_name(options.dataset))
    names = ("least_gap", "targets_per_subject", "seed")
    settings = {name: value for name in names if (value := getattr(options, name)) is not None}
    if settings and not options.test_protocol:
        raise ConfigurationError(f"--{next(iter(settings))} is a setting of --test_protocol. Give both, or neither.")
    check(paths, options.processes)
    if options.test_protocol:
        from longflow.data.dataset import read_description

        description = read_description(paths.raw / "dataset.json")
        task = get_task(description.task)
        path, content = task.write_test_protocol(paths.raw, description, options.test_protocol, **settings)
        command.say(f"Test protocol: {content} in {path}")
    command.say(f"Next: longflow_plan_and_preprocess -d {paths.id}")


def check(paths: DatasetPaths, processes: int | None) -> None:
    """Show all problems of a raw dataset and write them to a file.

    :param paths: of the dataset.
    :param processes: number of worker processes; None: all available cores.
    :raises DataError: one of the problems is an error.
    """
    from longflow.integrity.dataset import verify_dataset

    with progress_bar(f"Checking {paths.name}") as progress:
        problems = verify_dataset(paths.raw, processes, progress)
    write_problems(problems, paths)
    count = Counter(problem.severity for problem in problems)
    if not problems:
        command.say(f"{paths.name}: no problem found.")
    else:
        show(problems, paths.name)
        command.say(f"All problems: {paths.integrity}")
    if count["error"]:
        raise DataError(
            f"{paths.name} cannot be used as it is: {_counted(count['error'], 'error')}, "
            f"{_counted(count['warning'], 'warning')}. Correct the errors, then run the same command again."
        )


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def write_problems(problems: list[Problem], paths: DatasetPaths) -> None:
    """Write all problems as CSV."""
    write_csv([field.name for field in fields(Problem)], map(asdict, problems), paths.integrity)


def show(problems: list[Problem], title: str) -> None:
    """Print a table of the problems, the first few of each kind, and the remedies below it.

    :param problems: in the order of the table.
    :param title: of the table.
    """
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        # the field of a table's line is "line 7: time"; problems of one kind differ in the number alone
        kinds[problem.severity, problem.field.split(": ")[-1] + problem.advice].append(problem)
    table = Table(title=title, title_justify="left")
    table.add_column("", min_width=7)
    for column, ratio in (("file", 3), ("field", 2), ("found", 3), ("expected", 3)):
        table.add_column(column, overflow="fold", ratio=ratio)
    for (severity, _), same in kinds.items():
        colour = {"error": "red", "warning": "yellow", "note": "cyan"}[severity]
        for problem in same[:SHOWN_OF_A_KIND]:
            cells = (problem.file, problem.field, problem.found, problem.expected)
            table.add_row(f"[{colour}]{severity}[/]", *map(escape, cells))
        if len(same) > SHOWN_OF_A_KIND:
            table.add_row("", f"[dim]... and {len(same) - SHOWN_OF_A_KIND} more like these[/]", "", "", "")
        table.add_section()
    command.console.print(table, soft_wrap=False)
    command.console.print("What to do:", highlight=False)
    for advice, concerned in _advice(problems).items():
        text = f"  {', '.join(sorted(concerned))}: {advice}"
        command.console.print(text, highlight=False, markup=False, soft_wrap=False)


def _advice(problems: list[Problem]) -> dict[str, set[str]]:
    """Collect each advice once, with its fields."""
    result: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        result[problem.advice].add(problem.field.split(": ")[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_verify``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
