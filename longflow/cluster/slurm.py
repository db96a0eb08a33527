"""Slurm: submit scripts, ask for states, cancel. Only this module runs Slurm's commands, and imports submitit.

submitit reads the states of job arrays from Slurm's accounting. Jobs are not submitted by it: its jobs are pickles that
run its own process, which would end a training at Slurm's warning; a printed script is then not what runs.
"""

import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from longflow.cluster.settings import ClusterSettings
from longflow.cluster.steps import StepKind
from longflow.errors import ConfigurationError, LongflowError, NotFoundError

#: reasons for which a job will never start by itself
NEVER = ("DependencyNeverSatisfied",)
#: columns of squeue -O with their widths
QUEUE = {
    "ArrayJobID": 20,
    "ArrayTaskID": 20,
    "State": 20,
    "Reason": 60,
    "TimeLeft": 20,
    "RestartCnt": 12,
    "NodeList": 80,
}
#: longest array where Slurm does not say it: its default
USUAL_ARRAY = 1001
#: words of sbatch, and the setting that they speak of
REFUSALS = {
    r"account": "account",
    r"partition": "partition",
    r"qos|quality of service": "qos",
    r"time limit": "time",
    r"memory": "memory",
    r"feature|constraint": "constraint",
    r"gres|generic resource": "gpus",
    r"cpu": "cpus",
    r"node count|number of nodes": "nodes",
}


#: words of Slurm's commands where the scheduler cannot be reached: its controller, or munge, which signs each request
NO_ANSWER = re.compile(
    r"unable to contact slurm|unable to establish control|connect failure|connection (refused|failure|timed out)"
    r"|timed out on send/recv|zero bytes were transmitted|munge|authentication (error|credential)"
    r"|dns srv lookup failed|could not establish a configuration source|host name lookup failure",
    re.IGNORECASE,
)


class SlurmError(LongflowError):
    """A command of Slurm failed; the message has its words."""


class SlurmUnreachableError(SlurmError):
    """The scheduler does not answer; the message says what that means and what to do."""


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue.

    :param state: as PENDING, RUNNING.
    :param reason: why it waits, in Slurm's words.
    :param left: time left of its limit, as Slurm writes it.
    :param restarts: how often it was put back into the queue.
    :param node: on which it runs.
    """

    state: str
    reason: str
    left: str
    restarts: int
    node: str


def can_never_start(job: Queued) -> bool:
    """Return whether a job waits for something that failed."""
    return job.reason in NEVER


def waits(job: Queued) -> bool:
    """Return whether a job has not started."""
    return job.state == "PENDING"


def check_slurm() -> None:
    """Check that this machine can submit jobs.

    :raises NotFoundError: Slurm or submitit is missing.
    """
    if missing := [name for name in ("sbatch", "squeue", "sacct", "scancel") if shutil.which(name) is None]:
        raise NotFoundError(
            f"No Slurm on this machine: the command {missing[0]} is missing. Type the command on a login node of the "
            "cluster, remove --cluster to run everything on this machine, or write scripts for another machine with "
            "--print."
        )
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise NotFoundError('The package submitit is missing. Install it: pip install "longflow[cluster]"') from error


def _slurm(*words: str) -> str:
    """Run a command of Slurm and return its output.

    :raises SlurmUnreachableError: the scheduler does not answer.
    :raises SlurmError: it failed otherwise.
    """
    answer = subprocess.run(words, capture_output=True, text=True)
    if not answer.returncode:
        return answer.stdout
    said = f"{words[0]}: {answer.stderr.strip() or f'exit code {answer.returncode}'}"
    if NO_ANSWER.search(said):
        raise SlurmUnreachableError(
            "The scheduler (Slurm) does not answer at present: it is down, is being restarted, or cannot be reached "
            "from this machine. Nothing is lost: running jobs go on, waiting jobs stay in the queue, and what is done "
            "is kept. Type the same command again in a few minutes. If the message stays, show it to the staff of the "
            f"cluster. In Slurm's own words: {said}"
        )
    raise SlurmError(said)


def submit(script: Path, after: Sequence[str]) -> str:
    """Submit a script.

    :param script: a batch script.
    :param after: numbers of the jobs that must end well before.
    :returns: the number of the job.
    :raises SlurmError: Slurm refused it.
    """
    dependency = (f"--dependency=afterok:{':'.join(after)}",) if after else ()
    return _slurm("sbatch", "--parsable", *dependency, str(script)).strip().split(";")[0]


def explained(refusal: SlurmError, kind: StepKind, settings: ClusterSettings) -> ConfigurationError:
    """Say which setting a refusal of sbatch speaks of."""
    words = str(refusal)
    key = next((key for pattern, key in REFUSALS.items() if re.search(pattern, words, re.IGNORECASE)), None)
    if key is None:
        advice = "Look for the setting in cluster.json, or ask the staff of the cluster."
    else:
        value = getattr(settings.of(kind), key)
        now = "not set" if value is None else repr(value)
        advice = f'Change "{key}" ({settings.place_of(kind, key)}) in cluster.json; it is {now}.'
    return ConfigurationError(f"Slurm refused the step {kind}. In its own words: {words}\n{advice}")


def queue() -> dict[str, Queued]:
    """Return the user's jobs that wait or run, by number: ``123_4`` for an element of an array."""
    form = ",".join(f"{name}:{width}" for name, width in QUEUE.items())
    found = {}
    for line in _slurm("squeue", "--noheader", "--array", f"--user={getuser()}", f"--Format={form}").splitlines():
        cells, start = {}, 0
        for name, width in QUEUE.items():
            cells[name] = line[start : start + width].strip()
            start += width
        number = f"{cells['ArrayJobID']}_{cells['ArrayTaskID']}"
        restarts = int(cells["RestartCnt"]) if cells["RestartCnt"].isdecimal() else 0
        reason = "" if cells["Reason"] == "None" else cells["Reason"]
        found[number] = Queued(cells["State"], reason, cells["TimeLeft"], restarts, cells["NodeList"])
    return found


def names_in_queue() -> dict[str, str]:
    """Return the numbers of the user's jobs that wait or run, by name."""
    lines = _slurm("squeue", "--noheader", f"--user={getuser()}", "--Format=ArrayJobID:20,Name:200").splitlines()
    return {line[20:].strip(): line[:20].strip() for line in lines}


def ended(jobs: Collection[str]) -> Mapping[str, str]:
    """Return the states of jobs that are in the queue no more, by number; empty where Slurm keeps no accounts.

    :param jobs: numbers of whole arrays.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    if not jobs:
        return {}
    try:
        text = _slurm("sacct", "-X", "-o", "JobID,State,NodeList", "--parsable2", "-j", ",".join(sorted(jobs)))
    except SlurmError:
        return {}
    return {number: info["State"].split(" ")[0] for number, info in SlurmInfoWatcher().read_info(text).items()}


def longest_array() -> int:
    """Return the largest number of jobs in an array."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(match[1]) if match else USUAL_ARRAY)


def cancel(jobs: Collection[str]) -> None:
    """Cancel jobs. :param jobs: numbers of arrays, or of their elements."""
    if jobs:
        _slurm("scancel", *sorted(jobs))
