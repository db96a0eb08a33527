"""``longflow_compare``: methods, or variants of one, trained alike and measured on the same targets."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longflow.cli import command, flags
from longflow.cli.progress import progress_bar
from longflow.compare.tables import show_comparison
from longflow.errors import ConfigurationError, NotFoundError
from longflow.paths import PLANS_NAME, DatasetPaths, resolve_dataset_name

if TYPE_CHECKING:
    from longflow.commands import Command
    from longflow.compare.comparison import Comparison
    from longflow.compare.perform import Standing
    from longflow.plans import Plans

EXAMPLE = """
longflow_compare -d 102 -m cronos cronos_discrete tfm convlstm lci --max_time 2h --seeds 0 1 2
longflow_compare -d 102 -m cronos tfm lci --max_time 2h -f 0 1 2 3 4
longflow_compare -d 102 -m cronos tfm lci --max_time 2h -i raw/Dataset102_Cine/imagesTs
longflow_compare -d 102 --study masking --max_time 2h
longflow_compare -d 102 --study nfe --evaluations 1 2 5 10
"""

USUAL_CONFIGURATION = "3d_fullres"
STUDY_NAMES = ("masking", "nfe", "noise", "reduction", "filling", "context", "time")


def parser() -> command.Parser:
    result = command.Parser(
        "longflow_compare",
        "Compare forecasting methods, or rerun a study of the papers on your data: what is missing is trained, all "
        "with one budget, and everything is measured on the same targets and context scans. Models of the standard "
        "results that were trained with exactly this budget, seed and plan are used as they are; all others are "
        "trained in results/DatasetX/comparisons. Stopped, the same command goes on where it was.",
        EXAMPLE,
    )
    flags.add_dataset(result)
    result.add_argument(
        "-m",
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="to compare; with --study, those that it is done with (default: those of the paper)",
    )
    result.add_argument(
        "--study",
        choices=STUDY_NAMES,
        help="vary one thing: context scans hidden from the trained model (CRONOS figure 7), function evaluations "
        "(table 6), noise in training (table 7), last or mean (table 4), filling of the grid (table 4), a single "
        "context scan (TFM: LCI + FM), explicit time (table 9)",
    )
    budget = result.add_mutually_exclusive_group()
    budget.add_argument("--max_time", type=flags.duration, help="of every training (90s, 20m, 2h)")
    budget.add_argument("--iterations", type=flags.positive(int), help="steps of every training")
    budget.add_argument("--epochs", type=flags.positive(int), help="of every training (default: the plan's)")
    result.add_argument("-f", "--folds", type=flags.count, nargs="+", default=[0], help="default: 0")
    result.add_argument("--seeds", type=flags.count, nargs="+", default=[0], help="of the trainings (default: 0)")
    result.add_argument("-c", "--configuration", help="default: 3d_fullres, or the only one that is planned")
    flags.add_plans(result)
    result.add_argument(
        "-i", "--input", type=Path, help="folder with wanted scans to predict, instead of the folds' validation targets"
    )
    result.add_argument(
        "-r",
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        help="of -i: folders with the acquired scans, searched before the dataset's targetsTs, imagesTs and imagesTr",
    )
    result.add_argument(
        "--evaluations",
        type=flags.positive(int),
        nargs="+",
        help="of --study nfe: numbers of function evaluations (default: 1 5 10 100 200)",
    )
    result.add_argument("--name", help="of the folder that is written (default: methods or study, budget, ...)")
    flags.add_device(result)
    result.add_argument(
        "-np", "--workers", type=flags.count, metavar="N", help="processes that prepare batches, of every training"
    )
    return result


def work(options: argparse.Namespace) -> None:
    command.set_up_process()
    from longflow.compare.perform import perform
    from longflow.compare.results import draw_results, write_results
    from longflow.compare.variants import STUDIES
    from longflow.data.dataset import read_description

    # told to end, it lets the command that is under way save its work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    comparison = set_up(options)
    _announce(comparison)
    description = read_description(comparison.dataset.raw / "dataset.json")
    outcomes, lines = [], []
    try:
        for outcome in perform(comparison, description, before=_show_standing, show=_show_command, bar=progress_bar):
            outcomes.append(outcome)
    finally:
        if outcomes:  # where it is stopped, the table of what there is
            lines = write_results(comparison, outcomes)
    figures = draw_results(comparison, outcomes, lines, STUDIES.get(options.study))
    failures = [outcome for outcome in outcomes if outcome.failure]
    show_comparison(lines, comparison, command.console, best_first=options.study is None)
    written = [path.name for path in (comparison.paths.table_csv, comparison.paths.table_json)]
    written += [comparison.paths.targets_csv.name, *figures]
    command.console.print(f"Written: {', '.join(written)} in {comparison.paths.folder}", highlight=False)
    for outcome in failures:
        command.error_console.print(f"[bold red]Failed:[/] {outcome.run.label}: ", end="")
        command.error_console.print(outcome.failure, markup=False, highlight=False)
    if failures:
        command.error_console.print("Run the same command again to try these once more; the others are kept.")
        raise SystemExit(command.EXIT_USER)


def set_up(options: argparse.Namespace) -> "Comparison":
    """What the flags ask for, checked before anything is trained.

    :raises LongflowError: something that is asked for does not exist or cannot be done.
    """
    from longflow.compare.comparison import Budget, Comparison
    from longflow.compare.targets import targets_of_fold, targets_of_folder
    from longflow.compare.variants import EVALUATIONS, Asked, study_named, variants_of_methods, variants_of_study
    from longflow.data.dataset import is_name, read_description
    from longflow.plans import read_plans
    from longflow.tasks.forecast.pairs import dataset_folders

    if not options.methods and not options.study:
        raise ConfigurationError("Say what is to be compared: methods with -m, or a study with --study.")
    if options.evaluations and options.study != "nfe":
        raise ConfigurationError("--evaluations is for --study nfe.")
    if options.reference and not options.input:
        raise ConfigurationError("-r says where the truth of the folder of -i lies. Give -i, or leave -r away.")
    if missing := [str(folder) for folder in options.reference if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")
    dataset = DatasetPaths(resolve_dataset_name(options.dataset))
    plans = read_plans(dataset.plans(options.plans))
    if plans.task != "forecast":
        raise ConfigurationError(f"{dataset.name} is planned for the task '{plans.task}'; only forecasts are compared.")
    configuration = _configuration(options.configuration, plans)
    device = flags.checked_device(options.device)
    budget = Budget(options.max_time, options.iterations, options.epochs)
    if budget == Budget():
        budget = Budget(epochs=plans.training.epochs)
    name = options.name or _usual_name(options, budget.name, configuration)
    if not is_name(name):
        raise ConfigurationError(f"--name {name}: '{name}' cannot be the name of a folder.")
    paths = dataset.comparison(name)

    folds = tuple(dict.fromkeys(options.folds))
    study = study_named(options.study) if options.study else None
    if options.input:
        description = read_description(dataset.raw / "dataset.json")
        references = [*options.reference, *dataset_folders(dataset.raw)]
        one = targets_of_folder(options.input, references, description, plans.temporal.sequence_length)
        targets = dict.fromkeys(folds, one)
    else:
        hides = study is not None and study.hides
        targets = {
            fold: targets_of_fold(dataset, plans, configuration, fold, paths.targets(fold), equal_context=hides)
            for fold in folds
        }
    if study:
        context_scans = min(one.context_scans for one in targets.values())
        if study.hides and context_scans < 2:
            raise ConfigurationError(
                "A target has one context scan, so that there is none to hide. Leave such targets out."
            )
        asked = Asked(context_scans, tuple(options.evaluations or EVALUATIONS))
        variants = variants_of_study(options.study, options.methods, asked)
    else:
        variants = variants_of_methods(options.methods)
    seeds = tuple(dict.fromkeys(options.seeds))
    return Comparison(
        *(dataset, paths, plans, configuration, tuple(variants), budget, folds, seeds, targets, device),
        workers=options.workers,
    )


def _usual_name(options: argparse.Namespace, budget: str, configuration: str) -> str:
    """Of the folder of a comparison: another one for what cannot stand in one table."""
    parts = [options.study or "methods", budget]
    parts += [options.plans] if options.plans != PLANS_NAME else []
    parts += [configuration] if configuration != USUAL_CONFIGURATION else []
    parts += [options.input.resolve().name] if options.input else []
    return "_".join(parts)


def _configuration(asked: str | None, plans: "Plans") -> str:
    """The configuration that is asked for, or the usual one."""
    known = list(plans.configurations)
    chosen = asked or (USUAL_CONFIGURATION if USUAL_CONFIGURATION in known or len(known) > 1 else known[0])
    plans.configuration(chosen)
    return chosen


def _announce(comparison: "Comparison") -> None:
    """What will be done, and which models are used as they are."""
    from longflow.compare.comparison import reused

    runs = comparison.runs
    folds, seeds = (", ".join(map(str, numbers)) for numbers in (comparison.folds, comparison.seeds))
    say = command.console.print
    say(
        f"[bold]{comparison.dataset.name}[/] {comparison.configuration}: {len(comparison.variants)} variants, "
        f"fold {folds}, seed {seeds}; every training has {comparison.budget.said}.",
        highlight=False,
    )
    say(f"Tables, figures, forecasts: {comparison.paths.folder}", highlight=False)
    if found := reused(comparison, runs):
        say(f"Used as they are, of {comparison.dataset.results}: {'; '.join(run.label for run in found)}", markup=False)
    if any(comparison.training(run) for run in runs):
        own = comparison.dataset.trained_to_compare(comparison.budget.name, "", 0).parent
        say(f"What is missing is trained in {own}", highlight=False)


def _show_standing(standing: "Standing") -> None:
    if standing.left is None:
        left = "how long all will take is not known yet"
    else:
        left = f"{'at least' if standing.at_least else 'about'} {duration(standing.left)} left"
    command.console.print(
        f"\n[bold]{standing.number} of {standing.of}: {standing.run.label}[/] ({left})", highlight=False
    )


def duration(seconds: float) -> str:
    """For people.

    >>> duration(40), duration(600), duration(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show_command(typed: "Command") -> None:
    command.console.print(f"[dim]$ {typed.typed}[/]", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_compare``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
