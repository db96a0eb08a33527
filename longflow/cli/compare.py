"""``longflow_compare``: train methods, or variants of one, alike and evaluate them on the same targets."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from longflow.cli import command, flags, jobs
from longflow.cli.progress import duration, progress_bar
from longflow.compare.tables import show_comparison
from longflow.compare.variants import STUDIES
from longflow.files import exclusive_lock
from longflow.reading import read_json

if TYPE_CHECKING:
    from longflow.cluster.settings import ClusterSettings
    from longflow.commands import Command
    from longflow.compare.comparison import Comparison
    from longflow.compare.perform import Outcome, Standing
    from longflow.compare.request import ComparisonRequest

EXAMPLE = """
longflow_compare -d 102 -m cronos cronos_discrete tfm convlstm lci --max_time 2h --seeds 0 1 2
longflow_compare -d 102 -m cronos tfm lci --max_time 2h -f 0 1 2 3 4
longflow_compare -d 102 -m cronos tfm lci --max_time 2h -i raw/Dataset102_Cine/imagesTs
longflow_compare -d 102 --study masking --max_time 2h
longflow_compare -d 102 --study nfe --evaluations 1 2 5 10
longflow_compare -d 102 -m cronos tfm lci --max_time 2h --seeds 0 1 2 --cluster slurm    # one job for each training
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_compare",
        "Compare forecasting methods, or repeat a study of the papers on your data. All methods are trained with one "
        "budget and evaluated on the same targets and context scans. Models of longflow_run and longflow_train with "
        "exactly this budget, seed and plan are reused; all others are trained in results/DatasetX/comparisons. After "
        "an interruption, the same command continues.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    _add_subject(result)
    _add_training(result)
    _add_targets(result)
    result.add_argument("--name", help="folder to write (default: methods or study, budget, ...)")
    flags.add_device(result)
    flags.add_workers(result)
    jobs.add_cluster(result)
    return result


def _add_subject(result: command.Parser) -> None:
    """Add the flags that say what is compared."""
    result.add_argument(
        "-m",
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="methods to compare; with --study, the methods to vary (default: those of the paper)",
    )
    studies = "; ".join(f"{name}: {study.title} ({study.source})" for name, study in STUDIES.items())
    result.add_argument("--study", choices=tuple(STUDIES), help=f"vary one setting. {studies}")
    result.add_argument(
        "--evaluations",
        type=flags.positive(int),
        nargs="+",
        default=[],
        help="numbers of function evaluations for --study nfe (default: 1 5 10 100 200)",
    )


def _add_training(result: command.Parser) -> None:
    """Add the flags of every training."""
    budget = result.add_mutually_exclusive_group()
    budget.add_argument("--max_time", type=flags.duration, help="time of every training (90s, 20m, 2h)")
    budget.add_argument("--iterations", type=flags.positive(int), help="steps of every training")
    budget.add_argument("--epochs", type=flags.positive(int), help="epochs of every training (default: the plan's)")
    result.add_argument("-f", "--folds", type=flags.count, nargs="+", default=[0], help="default: 0")
    result.add_argument("--seeds", type=flags.count, nargs="+", default=[0], help="of the trainings (default: 0)")
    result.add_argument("-c", "--configuration", help="default: 3d_fullres, or the only one that is planned")
    flags.add_plans(result)


def _add_targets(result: command.Parser) -> None:
    """Add the flags of the targets."""
    result.add_argument(
        "-i", "--input", type=Path, help="folder with requested scans, in place of the folds' validation targets"
    )
    flags.add_references(
        result,
        "for -i: folders with the acquired scans, searched before the dataset's targetsTs, imagesTs and imagesTr",
    )


def request_of(options: argparse.Namespace, device: str) -> "ComparisonRequest":
    """Turn parsed flags into a request. :param device: of trainings and predictions."""
    from longflow.compare.comparison import Budget
    from longflow.compare.request import ComparisonRequest

    budget = Budget(options.max_time, options.iterations, options.epochs)
    return ComparisonRequest(
        dataset=options.dataset,
        methods=tuple(options.methods),
        study=options.study,
        budget=None if budget == Budget() else budget,
        folds=tuple(options.folds),
        seeds=tuple(options.seeds),
        configuration=options.configuration,
        plans=options.plans,
        input=options.input,
        references=tuple(options.reference),
        evaluations=tuple(options.evaluations),
        name=options.name,
        device=device,
        workers=options.workers,
    )


def work(options: argparse.Namespace) -> None:
    """Compare on this machine, or submit, print or cancel the jobs of a comparison."""
    command.set_up_process()
    from longflow.compare.request import paths_of

    if options.cancel:
        jobs.cancel(paths_of(request_of(options, options.device or "cpu")).study)
    elif jobs.is_for_cluster(options):
        settings = jobs.settings_of(options)
        device = options.device or ("cpu" if settings.of("train").gpus == 0 else "cuda")
        on_cluster(request_of(options, device), settings, options.print)
    else:
        on_this_machine(request_of(options, flags.checked_device(options.device)))


def on_cluster(request: "ComparisonRequest", settings: "ClusterSettings", prints: bool) -> None:
    """Submit the trainings, and this command itself as the last job; or write their scripts.

    A finished comparison is shown.
    """
    from longflow.cluster.comparison import study_of_comparison, study_record
    from longflow.cluster.slurm import check_slurm
    from longflow.compare.perform import is_measured
    from longflow.compare.request import resolve

    if not prints:
        check_slurm()
    comparison = resolve(request)
    _announce(comparison)
    measured = all(is_measured(comparison, run) for run in comparison.runs)
    with exclusive_lock(comparison.paths.study.lock, f"The comparison {comparison.paths.folder.name} is submitted"):
        # a job that is started twice would train from scratch twice: it has no --overwrite
        if deleted := comparison.delete_outdated():
            command.say(f"Deleted, because they are of other plans or another device: {'; '.join(deleted)}")
        record = study_record(comparison, request)
        study = study_of_comparison(record, measured)
        if study.unfinished:
            jobs.submit(study, record, settings, prints, "the same command with --cancel")
            return
    show_comparison(read_json(comparison.paths.table_json)["table"], comparison, command.console, not request.study)
    command.say(f"Nothing to do: every step is done. Tables and figures: {comparison.paths.folder}")


def on_this_machine(request: "ComparisonRequest") -> None:
    """Compare, write the results and print them."""
    from longflow.compare.perform import perform
    from longflow.compare.request import lock_of_comparison, paths_of, resolve
    from longflow.compare.results import draw_results, write_results
    from longflow.data.dataset import read_description

    # on SIGTERM, the running command saves its work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    jobs.check_no_jobs(paths_of(request).study, request.dataset, "the same command with --cancel")
    comparison = resolve(request)
    _announce(comparison)
    description = read_description(comparison.dataset.raw / "dataset.json")
    outcomes, lines = [], []
    with lock_of_comparison(comparison.paths):
        try:
            for outcome in perform(comparison, description, _show_standing, show=_show_command, bar=progress_bar):
                outcomes.append(outcome)
        finally:
            if outcomes:  # after an interruption, a table of the finished runs
                lines = write_results(comparison, outcomes)
        figures = draw_results(comparison, outcomes, lines, STUDIES.get(request.study or ""))
    show_comparison(lines, comparison, command.console, best_first=request.study is None)
    written = [path.name for path in (comparison.paths.table_csv, comparison.paths.table_json)]
    written += [comparison.paths.targets_csv.name, *figures]
    command.say(f"Written: {', '.join(written)} in {comparison.paths.folder}")
    _show_failures(outcomes)


def _announce(comparison: "Comparison") -> None:
    """Print the plan of the comparison, and the models that are reused."""
    from longflow.compare.comparison import reused

    runs = comparison.runs
    folds, seeds = (", ".join(map(str, numbers)) for numbers in (comparison.folds, comparison.seeds))
    command.console.print(
        f"[bold]{comparison.dataset.name}[/] {comparison.configuration}: {len(comparison.variants)} variants, "
        f"fold {folds}, seed {seeds}; every training has {comparison.budget.text}.",
        highlight=False,
    )
    command.say(f"Tables, figures, forecasts: {comparison.paths.folder}")
    if found := reused(comparison, runs):
        command.say(f"Reused from {comparison.dataset.results}: {'; '.join(run.label for run in found)}")
    if any(comparison.training(run) for run in runs):
        own = comparison.dataset.trained_to_compare(comparison.budget.name, "", 0).parent
        command.say(f"Missing models are trained in {own}")


def _show_standing(standing: "Standing") -> None:
    if standing.left is None:
        left = "time left: not known yet"
    else:
        left = f"{'at least' if standing.at_least else 'about'} {duration(standing.left)} left"
    command.console.print(
        f"\n[bold]{standing.number} of {standing.of}: {escape(standing.run.label)}[/] ({left})", highlight=False
    )


def _show_command(typed: "Command") -> None:
    command.console.print(f"[dim]$ {escape(typed.typed)}[/]", highlight=False)


def _show_failures(outcomes: Sequence["Outcome"]) -> None:
    """Print the runs that failed. :raises SystemExit: there are any."""
    failures = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failures:
        command.error_console.print(f"[bold red]Failed:[/] {escape(outcome.run.label)}: ", end="")
        command.error_console.print(outcome.failure, markup=False, highlight=False)
    if failures:
        command.error_console.print("Run the same command again to repeat these runs; the others are kept.")
        raise SystemExit(command.EXIT_USER)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_compare``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
