"""``longflow_run``: the whole study by one command, on this machine or on a cluster."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from longflow.cli import command, flags, jobs
from longflow.cli.plan import add_planning_flags
from longflow.errors import ConfigurationError
from longflow.files import exclusive_lock, write_json
from longflow.paths import DatasetPaths, resolve_dataset_name

if TYPE_CHECKING:
    from longflow.cluster.request import StudyData, StudyRequest
    from longflow.cluster.settings import ClusterSettings
    from longflow.cluster.steps import Step
    from longflow.commands import Command

EXAMPLE = """
longflow_run -d 101                                               # all folds of the usual method, on this machine
longflow_run -d 101 -m cronos tfm -c 3d_fullres --max_time 2h     # two methods; longflow_find_best chooses
longflow_run -d 101 -m cronos tfm --max_time 2h --seeds 0 1 2     # every fold three times
longflow_run -d 104 --networks timeresnet segresnet               # translation with two networks
longflow_run --write_cluster cluster.json                         # the settings of a cluster, with explanations
longflow_run -d 101 -m cronos tfm --cluster slurm                 # submit everything to Slurm, and return
longflow_run -d 101 -m cronos tfm --cluster slurm --print         # write the batch scripts, submit nothing
longflow_run -d 101 -m cronos --gpus 4 --nodes 2 --cluster slurm  # each fold on 8 GPUs
longflow_run -d 101 -m cronos --cluster slurm --measure           # measure trainings, so that their jobs ask for it
longflow_run -d 101 --cancel                                      # cancel its jobs; what is done stays
longflow_status -d 101 --watch
"""


def parser() -> command.Parser:
    """Build the parser."""
    result = command.Parser(
        "longflow_run",
        "Run a whole study: verify, plan, preprocess, train all folds, find the best model, predict imagesTs, "
        "evaluate, report. What is done already is kept, whoever did it; the same command continues after an "
        "interruption.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name")
    result.add_argument("-m", "--methods", nargs="+", default=[], metavar="METHOD", help="default: the task's")
    result.add_argument(
        "-c", "--configurations", nargs="+", default=[], metavar="NAME", help="default: the task's usual one"
    )
    result.add_argument(
        "--networks",
        nargs="+",
        default=[],
        metavar="NETWORK",
        help="train every method with each of them; an unknown name lists those of a method (default: the method's)",
    )
    result.add_argument("-f", "--folds", type=flags.count, nargs="+", default=[], help="default: all")
    add_planning_flags(result)
    _add_training(result)
    _add_cluster(result)
    return result


def _add_training(result: command.Parser) -> None:
    """Add the flags of every training."""
    budget = result.add_mutually_exclusive_group()
    budget.add_argument("--max_time", type=flags.duration, help="time of every training (90s, 20m, 2h)")
    budget.add_argument("--iterations", type=flags.positive(int), help="steps of every training")
    budget.add_argument("--epochs", type=flags.positive(int), help="epochs of every training (default: the plan's)")
    result.add_argument(
        "--seeds",
        type=flags.count,
        nargs="+",
        default=[0],
        help="of the trainings (default: 0). The models of the first one predict; the others are trained in folders of "
        "results of their own, results/DatasetX/seeds, for longflow_compare",
    )
    result.add_argument(
        "--pretrained",
        metavar="METHOD",
        help="train this method first; the others begin with its weights, fold by fold",
    )
    result.add_argument(
        "--measure",
        action="store_true",
        help="prepare the data, measure some steps of each method, and train nothing; the next longflow_run proposes "
        "time and memory of its jobs from it",
    )
    flags.add_device(result)
    flags.add_processes(result)


def _add_cluster(result: command.Parser) -> None:
    """Add the flags of a cluster."""
    group = jobs.add_cluster(result)
    group.add_argument("--write_cluster", type=Path, metavar="FILE", help="write default settings with explanations")


def work(options: argparse.Namespace) -> None:
    """Run, submit, print or cancel a study."""
    if options.write_cluster:
        from longflow.cluster.settings import write_defaults

        write_defaults(options.write_cluster)
        command.say(f"Written: {options.write_cluster}. It explains every key; null means that longflow decides.")
    if options.dataset is None:
        if options.write_cluster:
            return
        raise ConfigurationError("Which dataset? Give its number, as -d 101.")
    paths = DatasetPaths(resolve_dataset_name(options.dataset))
    if options.cancel:
        jobs.cancel(paths.study)
        return
    for_cluster = jobs.is_for_cluster(options)
    from longflow.cluster.request import read_study_data, resolve_request

    data = read_study_data(paths)
    request = resolve_request(request_of(options, paths), data, options.networks)
    # whoever comes second is told so before anything is decided
    with exclusive_lock(paths.study.lock, f"The study of {paths.name} is run or submitted"):
        if for_cluster:
            on_cluster(request, data, jobs.settings_of(options), options.print)
        else:
            on_this_machine(request, data)


def request_of(options: argparse.Namespace, paths: DatasetPaths) -> "StudyRequest":
    """Turn parsed flags into a request."""
    from longflow.cluster.request import StudyRequest

    return StudyRequest(
        dataset=paths.name,
        methods=tuple(dict.fromkeys(options.methods)),
        configurations=tuple(dict.fromkeys(options.configurations)),
        folds=tuple(dict.fromkeys(options.folds)),
        plans=options.plans,
        planning=_given(options, "preset", "gpu_memory", "encoder"),
        training=_given(options, "iterations", "epochs")
        + (("--max_time", f"{options.max_time:g}s") if options.max_time else ()),
        seeds=tuple(dict.fromkeys(options.seeds)),
        max_time=options.max_time,
        pretrained=options.pretrained,
        device=options.device,
        processes=options.processes,
        measures=int(options.measure),
    )


def _given(options: argparse.Namespace, *names: str) -> tuple[str, ...]:
    """Return the flags that were given, as typed."""
    values = {name: getattr(options, name) for name in names}
    return tuple(word for name, value in values.items() if value is not None for word in (f"--{name}", str(value)))


def on_this_machine(request: "StudyRequest", data: "StudyData") -> None:
    """Run the study here.

    :raises SystemExit: a step failed.
    """
    from longflow.cluster.local import gpus_of_this_machine, run_here
    from longflow.cluster.study import study_of
    from longflow.cluster.submit import make_private

    study = study_of(request, data)
    jobs.check_no_jobs(study.files, request.paths.id, to_cancel(request.paths))
    if not study.unfinished:
        nothing_to_do(request)
        return
    make_private(study.files)
    write_json(request.model_dump(mode="json"), study.files.request)
    # on SIGTERM, the running commands save their work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    gpus = gpus_of_this_machine(request.device)
    if len(gpus) > 1:
        command.say(f"{len(gpus)} GPUs: as many trainings at a time. Their output is in {study.files.logs}")
    report = run_here(study, gpus, show_command)
    for name, reason in report.failed.items():
        command.show_error(f"{name}: {reason}", "Failed:")
    if report.failed:
        skipped = f" Not started, because they need it: {', '.join(step.name for step in report.skipped)}."
        command.error_console.print(
            "Correct the cause, then run the same command again: what is done is kept."
            + (skipped if report.skipped else ""),
            markup=False,
        )
        raise SystemExit(command.EXIT_USER)
    command.say(f"\nDone: {len(report.done)} steps. Results: {request.paths.results}{reported(request)}")


def on_cluster(request: "StudyRequest", data: "StudyData", settings: "ClusterSettings", prints: bool) -> None:
    """Submit the study to Slurm, or write its scripts."""
    from longflow.cluster.study import study_of
    from longflow.cluster.submit import for_cluster

    request = for_cluster(request, settings)
    study = study_of(request, data, data.parts)
    if study.unfinished:
        jobs.submit(study, request, settings, prints, to_cancel(request.paths))
    else:
        nothing_to_do(request)


def to_cancel(paths: DatasetPaths) -> str:
    """Return the command that cancels the jobs of a study."""
    return f"longflow_run -d {paths.id} --cancel"


def nothing_to_do(request: "StudyRequest") -> None:
    """Say that the study is finished."""
    command.say(
        f"{request.dataset}: nothing to do, every step is done. Results: {request.paths.results}{reported(request)}"
    )


def reported(request: "StudyRequest") -> str:
    """Return a line with the report of the study; empty where there is none."""
    page = request.paths.report / "index.html"
    return f"\nReport: {page}" if page.is_file() else ""


def show_command(step: "Step", typed: "Command", number: int, of: int) -> None:
    """Print a command before it starts."""
    say_marked = command.console.print
    if typed == step.commands[0]:
        say_marked(f"\n[bold]{number} of {of}: {escape(step.name)}[/]", highlight=False)
    say_marked(f"[dim]$ {escape(typed.typed)}[/]", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_run``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
