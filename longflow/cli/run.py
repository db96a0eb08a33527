"""``longflow_run``: the whole study by one command, on this machine or on a cluster."""

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from longflow.cli import command, flags
from longflow.cli.plan import add_planning_flags
from longflow.cli.progress import duration
from longflow.errors import ConfigurationError, InUseError
from longflow.files import exclusive_lock, write_json
from longflow.paths import DatasetPaths, resolve_dataset_name

if TYPE_CHECKING:
    from longflow.cluster.request import StudyData, StudyRequest
    from longflow.cluster.scripts import Job
    from longflow.cluster.settings import ClusterSettings
    from longflow.cluster.steps import Step
    from longflow.commands import Command

EXAMPLE = """
longflow_run -d 101                                               # all folds of the usual method, on this machine
longflow_run -d 101 -m cronos tfm -c 3d_fullres --max_time 2h     # two methods; longflow_find_best chooses
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
        "evaluate. What is done already is kept, whoever did it; the same command continues after an interruption.",
        EXAMPLE,
    )
    result.add_argument("-d", "--dataset", help="101 or Dataset101_Name")
    result.add_argument("-m", "--methods", nargs="+", default=[], metavar="METHOD", help="default: the task's")
    result.add_argument(
        "-c", "--configurations", nargs="+", default=[], metavar="NAME", help="default: the task's usual one"
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
    result.add_argument("--seed", type=flags.number(int), default=0, help="default: 0")
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
    group = result.add_argument_group("cluster")
    group.add_argument("--cluster", choices=("slurm",), help="submit jobs, and return (default: run on this machine)")
    group.add_argument(
        "--settings", type=Path, metavar="FILE", help="of the cluster (default: cluster.json in the folder of results)"
    )
    group.add_argument("--write_cluster", type=Path, metavar="FILE", help="write default settings with explanations")
    group.add_argument("--gpus", type=flags.positive(int), metavar="N", help="GPUs of a training on each node")
    group.add_argument("--nodes", type=flags.positive(int), metavar="N", help="nodes of a training")
    group.add_argument("--print", action="store_true", help="write the batch scripts and submit nothing")
    group.add_argument("--cancel", action="store_true", help="cancel the waiting and running jobs of the study")


def work(options: argparse.Namespace) -> None:
    """Run, submit, print or cancel a study."""
    if options.write_cluster:
        from longflow.cluster.settings import write_defaults

        write_defaults(options.write_cluster)
        say(f"Written: {options.write_cluster}. Every key is explained in it; null means that longflow decides.")
    if options.dataset is None:
        if options.write_cluster:
            return
        raise ConfigurationError("Which dataset? Give its number, as -d 101.")
    paths = DatasetPaths(resolve_dataset_name(options.dataset))
    if options.cancel:
        cancel(paths)
        return
    if (options.gpus or options.nodes) and not options.cluster:
        raise ConfigurationError("--gpus and --nodes are for --cluster slurm. On this machine, all GPUs are used.")
    from longflow.cluster.request import read_study_data, resolve_request

    data = read_study_data(paths)
    request = resolve_request(request_of(options, paths), data)
    # whoever comes second is told so before anything is decided
    with exclusive_lock(paths.study.lock, f"The study of {paths.name} is run or submitted"):
        if options.cluster or options.print:
            on_cluster(request, data, settings_of(options), options.print)
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
        seed=options.seed,
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


def settings_of(options: argparse.Namespace) -> "ClusterSettings":
    """Read the settings of the cluster; flags override those of the trainings."""
    from longflow.cluster.settings import StepSettings, read_settings

    settings = read_settings(options.settings)
    flagged = {name: value for name in ("gpus", "nodes") if (value := getattr(options, name)) is not None}
    train = settings.steps.get("train", StepSettings()).model_copy(update=flagged)
    return settings.model_copy(update={"steps": {**settings.steps, "train": train}})


def on_this_machine(request: "StudyRequest", data: "StudyData") -> None:
    """Run the study here.

    :raises SystemExit: a step failed.
    """
    from longflow.cluster.local import gpus_of_this_machine, run_here
    from longflow.cluster.study import study_of
    from longflow.cluster.submit import make_private

    study = study_of(request, data)
    _check_no_jobs(request.paths)
    if not study.unfinished:
        nothing_to_do(request)
        return
    make_private(study.files)
    write_json(request.model_dump(mode="json"), study.files.request)
    # on SIGTERM, the running commands save their work first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    gpus = gpus_of_this_machine(request.device)
    if len(gpus) > 1:
        say(f"{len(gpus)} GPUs: as many trainings at a time. Their output is in {study.files.logs}")
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
    say(f"\nDone: {len(report.done)} steps. Results: {request.paths.results}")


def _check_no_jobs(paths: DatasetPaths) -> None:
    """Refuse to run here what Slurm runs.

    :raises InUseError: jobs of the study wait or run.
    """
    from longflow.cluster.records import read_jobs

    if not read_jobs(paths.study.jobs) or shutil.which("squeue") is None:
        return
    from longflow.cluster.status import slurm_state
    from longflow.cluster.submit import known_jobs

    queue, _, _ = slurm_state(known_jobs(paths.study))
    if queue:
        raise InUseError(
            f"{len(queue)} steps of this study wait or run in Slurm. See: longflow_status -d {paths.id}. To run it on "
            f"this machine, cancel them first: longflow_run -d {paths.id} --cancel"
        )


def on_cluster(request: "StudyRequest", data: "StudyData", settings: "ClusterSettings", prints: bool) -> None:
    """Submit the study to Slurm, or write its scripts."""
    from longflow.cluster.slurm import check_slurm
    from longflow.cluster.study import study_of
    from longflow.cluster.submit import for_cluster, make_private, print_scripts, submit_missing

    request = for_cluster(request, settings)
    study = study_of(request, data, data.parts)
    if not study.unfinished:
        nothing_to_do(request)
        return
    if not prints:
        check_slurm()
    make_private(study.files)
    write_json(request.model_dump(mode="json"), study.files.request)
    if prints:
        for path in print_scripts(study, settings):
            say(str(path))
        say("Read and change them, then submit them in order: bash submit.sh in that folder.")
        return
    jobs, under_way = submit_missing(study, settings)
    show_submitted(jobs, under_way)
    number = request.paths.id
    say(f"You can log out. See: longflow_status -d {number}. Cancel: longflow_run -d {number} --cancel")


def show_submitted(jobs: Sequence["Job"], under_way: int) -> None:
    """Print what each job asks for, and why."""
    for job in jobs:
        asked, count = job.resources, len(job.steps)
        gpus = f", GPUs on each node: {asked.gpus}" if asked.gpus else ""
        say(
            f"{asked.kind}: {_counted(count, 'step')}; each {_counted(asked.cores, 'core')}, {asked.memory:g} GB"
            f"{gpus}, at most {duration(asked.seconds)} ({asked.why})"
        )
    if under_way:
        say(f"Under way already: {_counted(under_way, 'step')}")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def nothing_to_do(request: "StudyRequest") -> None:
    """Say that the study is finished."""
    say(f"{request.dataset}: nothing to do, every step is done. Results: {request.paths.results}")


def cancel(paths: DatasetPaths) -> None:
    """Cancel the jobs of a study."""
    from longflow.cluster.slurm import check_slurm
    from longflow.cluster.submit import cancel_all

    check_slurm()
    count = cancel_all(paths.study)
    say(f"{_counted(count, 'step')} cancelled. What is done is kept; longflow_run continues.")


def show_command(step: "Step", typed: "Command", number: int, of: int) -> None:
    """Print a command before it starts."""
    say_marked = command.console.print
    if typed == step.commands[0]:
        say_marked(f"\n[bold]{number} of {of}: {escape(step.name)}[/]", highlight=False)
    say_marked(f"[dim]$ {escape(typed.typed)}[/]", highlight=False)


def say(text: str) -> None:
    command.console.print(text, markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``longflow_run``."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
