"""What ``longflow_run`` and ``longflow_compare`` have in common on a cluster: flags, submit, print, cancel."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longflow.cli import command, flags
from longflow.cli.progress import duration
from longflow.errors import ConfigurationError, InUseError
from longflow.files import write_json
from longflow.paths import StudyPaths

if TYPE_CHECKING:
    from pydantic import BaseModel

    from longflow.cluster.scripts import Job
    from longflow.cluster.settings import ClusterSettings
    from longflow.cluster.study import Study


def add_cluster(result: command.Parser) -> argparse._ArgumentGroup:
    """Add the flags of a cluster. :returns: their group."""
    group = result.add_argument_group("cluster")
    group.add_argument("--cluster", choices=("slurm",), help="submit jobs, and return (default: run on this machine)")
    group.add_argument(
        "--settings", type=Path, metavar="FILE", help="of the cluster (default: cluster.json in the folder of results)"
    )
    group.add_argument("--gpus", type=flags.positive(int), metavar="N", help="GPUs of a training on each node")
    group.add_argument("--nodes", type=flags.positive(int), metavar="N", help="nodes of a training")
    group.add_argument("--print", action="store_true", help="write the batch scripts and submit nothing")
    group.add_argument("--cancel", action="store_true", help="cancel the waiting and running jobs")
    return group


def is_for_cluster(options: argparse.Namespace) -> bool:
    """Return whether steps become jobs.

    :raises ConfigurationError: a flag of the trainings on a cluster is given without ``--cluster``.
    """
    if (options.gpus or options.nodes) and not options.cluster:
        raise ConfigurationError("--gpus and --nodes are for --cluster slurm. On this machine, all GPUs are used.")
    return bool(options.cluster or options.print)


def settings_of(options: argparse.Namespace) -> "ClusterSettings":
    """Read the settings of the cluster; flags override those of the trainings."""
    from longflow.cluster.settings import StepSettings, read_settings

    settings = read_settings(options.settings)
    flagged = {name: value for name in ("gpus", "nodes") if (value := getattr(options, name)) is not None}
    train = settings.steps.get("train", StepSettings()).model_copy(update=flagged)
    return settings.model_copy(update={"steps": {**settings.steps, "train": train}})


def submit(study: "Study", request: "BaseModel", settings: "ClusterSettings", prints: bool, to_cancel: str) -> None:
    """Submit what a study lacks to Slurm, or write its scripts. Call it while the lock of the study is held.

    :param request: that ``longflow_status`` reads.
    :param prints: write the scripts alone.
    :param to_cancel: the command that cancels the jobs.
    """
    from longflow.cluster.slurm import check_slurm
    from longflow.cluster.submit import make_private, print_scripts, submit_missing

    if not prints:
        check_slurm()
    make_private(study.files)
    write_json(request.model_dump(mode="json"), study.files.request)
    if prints:
        for path in print_scripts(study, settings):
            command.say(str(path))
        command.say("Read and change them, then submit them in order: bash submit.sh in that folder.")
        return
    jobs, under_way = submit_missing(study, settings)
    show_submitted(jobs, under_way)
    command.say(f"You can log out. See: longflow_status -d {study.dataset.id}. Cancel: {to_cancel}")


def show_submitted(jobs: Sequence["Job"], under_way: int) -> None:
    """Print what each job asks for, and why."""
    for job in jobs:
        asked, count = job.resources, len(job.steps)
        gpus = f", GPUs on each node: {asked.gpus}" if asked.gpus else ""
        command.say(
            f"{asked.kind}: {_counted(count, 'step')}; each {_counted(asked.cores, 'core')}, {asked.memory:g} GB"
            f"{gpus}, at most {duration(asked.seconds)} ({asked.why})"
        )
    if under_way:
        command.say(f"Under way already: {_counted(under_way, 'step')}")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def cancel(files: StudyPaths) -> None:
    """Cancel the jobs of a study."""
    from longflow.cluster.slurm import check_slurm
    from longflow.cluster.submit import cancel_all

    check_slurm()
    count = cancel_all(files)
    command.say(f"{_counted(count, 'step')} cancelled. What is done is kept; the command without --cancel continues.")


def check_no_jobs(files: StudyPaths, number: str, to_cancel: str) -> None:
    """Refuse to run here what Slurm runs; a job itself may.

    :param files: of the study.
    :param number: of the dataset.
    :param to_cancel: the command that cancels the jobs.
    :raises InUseError: jobs of the study wait or run.
    """
    from longflow.cluster.records import read_jobs

    if "SLURM_JOB_ID" in os.environ or not read_jobs(files.jobs) or shutil.which("squeue") is None:
        return
    from longflow.cluster.status import slurm_state
    from longflow.cluster.submit import known_jobs

    queue, _, _ = slurm_state(known_jobs(files))
    if queue:
        raise InUseError(
            f"{len(queue)} steps of this study wait or run in Slurm. See: longflow_status -d {number}. To run it on "
            f"this machine, cancel them first: {to_cancel}"
        )
