"""How far a study is: the state of each step, from the results on disk and from Slurm."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.cluster import slurm
from longflow.cluster.records import SubmittedJob, last_job_of
from longflow.cluster.slurm import Queued
from longflow.cluster.steps import Step
from longflow.cluster.study import Study
from longflow.paths import FoldPaths

DONE, RUNNING, WAITING, FAILED, MISSING = "done", "running", "waiting", "failed", "not started"
#: states in the order of the table
ORDER = (FAILED, RUNNING, WAITING, MISSING, DONE)
#: bytes of a log in which its last line is looked for
END_OF_LOG = 4096

#: what Slurm's words mean
MEANINGS = {
    "TIMEOUT": "its time was over before it could save; the same command continues it",
    "OUT_OF_MEMORY": "more memory than the job asked for: raise memory in cluster.json",
    "NODE_FAIL": "the node died; the same command continues it",
    "CANCELLED": "cancelled",
    "PREEMPTED": "a job of higher priority took its node; the same command continues it",
    "COMPLETED": "ended without its result",
    "Priority": "jobs of higher priority are before it",
    "Resources": "all fitting nodes are in use",
    "Dependency": "steps before it are not done",
    "BeginTime": "it starts again in a moment",
    "PartitionTimeLimit": "the partition allows less time: change time or partition in cluster.json",
    "PartitionNodeLimit": "the partition allows fewer nodes: change nodes or partition in cluster.json",
    "BadConstraints": "no node has what is asked for: change constraint, gpus, cpus or memory in cluster.json",
    "JobHeldUser": "held by the user: scontrol release and its number",
    "JobHeldAdmin": "held by the staff of the cluster; ask them",
    "JobArrayTaskLimit": "as many run as parallel in cluster.json allows",
}


@dataclass(frozen=True)
class StepStatus:
    """The state of a step.

    :param state: one of :data:`ORDER`.
    :param job: number of its last job; empty on this machine.
    :param share: of a training that is done, 0 to 1; None: unknown.
    :param left: seconds until a training is done; None: unknown.
    :param restarts: how often the job was put back into the queue.
    :param last_line: of its log.
    :param reason: why it waits or failed.
    """

    step: Step
    state: str
    job: str = ""
    share: float | None = None
    left: float | None = None
    node: str = ""
    restarts: int = 0
    last_line: str = ""
    reason: str = ""


def study_status(
    study: Study,
    jobs: Sequence[SubmittedJob],
    queue: Mapping[str, Queued],
    ended: Mapping[str, str],
) -> list[StepStatus]:
    """Find the state of every step.

    :param jobs: that were submitted; none on this machine.
    :param queue: jobs that wait or run, by number.
    :param ended: states of the others, by number.
    :returns: in the order of the steps.
    """
    todo, last = {step.name for step in study.unfinished}, last_job_of(list(jobs))
    found: dict[str, StepStatus] = {}
    for step in study.steps:
        job, index = last.get(step.name, (None, 0))
        if step.name not in todo:
            found[step.name] = StepStatus(step, DONE, job.element(index) if job else "")
        elif job is None:
            found[step.name] = _on_this_machine(study, step)
        else:
            log = study.files.log(job.name, index)
            found[step.name] = _of_job(study, step, job.element(index), log, queue, ended, found)
    return list(found.values())


def _on_this_machine(study: Study, step: Step) -> StepStatus:
    if step.fold is None or not step.fold.latest.parent.is_dir():
        return StepStatus(step, MISSING)
    state = RUNNING if step.fold.lock.is_file() else MISSING
    share, left = progress_of(study, step.fold)
    return StepStatus(step, state, share=share, left=left, last_line=last_line(step.fold.log))


def _of_job(
    study: Study,
    step: Step,
    number: str,
    log: Path,
    queue: Mapping[str, Queued],
    ended: Mapping[str, str],
    before: Mapping[str, StepStatus],
) -> StepStatus:
    """Find the state of a step that was submitted. :param before: states of the steps that it depends on."""
    job = queue.get(number)
    failed = [name for name in step.depends_on if name in before and before[name].state == FAILED]
    if job is None or slurm.can_never_start(job):
        state = ended.get(number, "")
        reason = MEANINGS.get(state, state.lower().replace("_", " ") or "Slurm does not know the job any more")
        if failed and state in ("", "CANCELLED", "PENDING"):
            reason = f"was not started, because it waits for {failed[0]}, which failed"
        return StepStatus(step, FAILED, number, last_line=last_line(log), reason=reason)
    if slurm.waits(job):
        return StepStatus(step, WAITING, number, restarts=job.restarts, reason=MEANINGS.get(job.reason, job.reason))
    share, left = progress_of(study, step.fold) if step.fold else (None, None)
    return StepStatus(step, RUNNING, number, share, left, job.node, job.restarts, _latest_line(log, step.fold))


def progress_of(study: Study, fold: FoldPaths) -> tuple[float | None, float | None]:
    """Return the share of a training that is done, and the seconds left, from its last epoch; None: unknown."""
    if not fold.progress_csv.is_file():
        return None, None
    with open(fold.progress_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return 0.0, None
    seconds, iteration = float(rows[-1]["seconds"]), int(rows[-1]["iteration"])
    if study.max_time:
        return min(1.0, seconds / study.max_time), max(0.0, study.max_time - seconds)
    total = study.iterations
    if total is None:
        return None, None
    return min(1.0, iteration / total), max(0, total - iteration) * seconds / max(1, iteration)


def _latest_line(log: Path, fold: FoldPaths | None) -> str:
    """Return the last line of the newer of two logs: the job's and the training's."""
    logs = [path for path in (log, fold.log if fold else None) if path and path.is_file()]
    return last_line(max(logs, key=lambda path: path.stat().st_mtime)) if logs else ""


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, without the codes of a terminal; empty where there is none."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - END_OF_LOG))
        text = file.read().decode("utf-8", errors="replace")
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")


def summary_of(found: Sequence[StepStatus]) -> dict[str, int]:
    """Count the steps in each state, in the order of :data:`ORDER`."""
    counts = {state: sum(one.state == state for one in found) for state in ORDER}
    return {state: count for state, count in counts.items() if count}


def estimated_left(found: Sequence[StepStatus]) -> float | None:
    """Return the seconds until the running trainings are done; None: unknown."""
    known = [one.left for one in found if one.state == RUNNING and one.left is not None and math.isfinite(one.left)]
    return max(known, default=None)


def slurm_state(jobs: Sequence[SubmittedJob]) -> tuple[dict[str, Queued], Mapping[str, str], list[str]]:
    """Ask Slurm for the jobs of a study, and cancel those that wait for something that failed.

    :returns: jobs in the queue, states of the others, and the jobs that were cancelled.
    """
    numbers = {job.number: {job.element(index) for index in range(len(job.steps))} for job in jobs if job.number}
    ours = set().union(*numbers.values())
    queue = {number: job for number, job in slurm.queue().items() if number in ours}
    hopeless = [number for number, job in queue.items() if slurm.can_never_start(job)]
    slurm.cancel(hopeless)
    ended = slurm.ended([number for number, elements in numbers.items() if not elements <= queue.keys()])
    return queue, ended, hopeless
