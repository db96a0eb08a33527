"""The batch scripts of a study: plain text that can be read, changed and submitted by hand."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.cluster.resources import Resources
from longflow.cluster.steps import Step, folders_of
from longflow.commands import Command
from longflow.paths import StudyPaths
from longflow.version import __version__

#: exit codes of a command that Slurm's warning ended: it has saved its state, or had nothing to save yet
STOPPED, TERMINATED = 130, 143

#: run one command. Slurm's warning (USR2, to this shell alone) reaches it as SIGTERM: a training then saves its state
#: and ends, and the job goes back into the queue. Nothing of an earlier start is used: folders and scratch are found
#: again each time
RUN = """\
warned=
trap 'warned=yes; kill -TERM "$work" 2>/dev/null' USR2
trap 'kill -TERM "$work" 2>/dev/null' TERM

run() {{
  echo "$(date '+%F %T') $(hostname) start ${{SLURM_RESTART_COUNT:-0}}: $*"
  "$@" & work=$!
  wait "$work"
  while kill -0 "$work" 2>/dev/null; do wait "$work"; done
  wait "$work"; local code=$?
  if [ $code -eq 0 ]; then return; fi
  if [ -n "$warned" ] && {{ [ $code -eq {stopped} ] || [ $code -eq {terminated} ]; }}; then
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
      echo "The time of this job is over; the state is saved. The job goes back into the queue and continues."
      scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    else
      echo "Not finished after {restarts} restarts: the same command of longflow submits it again."
    fi
  fi
  exit $code
}}
"""

#: start a command on every rank; they find each other by Slurm's variables. srun does not take the cores from the job
RANKS = 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"\n'


@dataclass(frozen=True)
class Job:
    """A job array: steps that are submitted together.

    :param name: unique in the study; names its script, its logs, and the job in Slurm's lists.
    :param steps: of the array, in the order of its indices.
    :param depends_on: names of the jobs that must be done before, and are submitted with it.
    :param waits_for: numbers of jobs in the queue that must be done before.
    """

    name: str
    steps: tuple[Step, ...]
    resources: Resources
    depends_on: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()


def script_of(job: Job, files: StudyPaths) -> str:
    """Write the batch script of a job.

    :param files: of the study.
    """
    resources = job.resources
    parts = [
        "#!/bin/bash",
        *(f"#SBATCH {line}" for line in _header(job, files)),
        "",
        f"# longflow {__version__}, {resources.kind}. {resources.why}",
        "umask 077",
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"',
        *(resources.settings.setup or ()),
        "",
        RUN.format(stopped=STOPPED, terminated=TERMINATED, restarts=resources.restarts),
        *([RANKS] if resources.processes > 1 else []),
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for index, step in enumerate(job.steps):
        folders = folders_of(step)
        exports = (f"  export {name}={shlex.quote(value)}" for name, value in folders.items())
        lines = (f"  {_line(command, job, folders)}" for command in step.commands)
        parts += [f"{index})  # {step.name}", *exports, *lines, "  ;;"]
    return "\n".join([*parts, "esac"]) + "\n"


def _header(job: Job, files: StudyPaths) -> list[str]:
    """Return the options of sbatch."""
    resources, settings = job.resources, job.resources.settings
    parallel = f"%{settings.parallel}" if settings.parallel else ""
    words = {name: getattr(settings, name) for name in ("partition", "account", "qos", "constraint")}
    return [
        f"--job-name={job.name}",
        f"--array=0-{len(job.steps) - 1}{parallel}",
        f"--output={_escaped(files.logs)}/{job.name}_%a.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR2@{resources.lead}",
        "--kill-on-invalid-dep=yes",
        f"--chdir={_escaped(files.folder)}",
        *(f"--{name}={word}" for name, word in words.items() if word),
        f"--nodes={resources.nodes}",
        f"--ntasks-per-node={resources.processes // resources.nodes}",
        f"--cpus-per-task={resources.cores}",
        f"--mem={math.ceil(resources.memory * 1000)}M",
        f"--time={math.ceil(resources.seconds / 60)}",
        *([f"--gres=gpu:{resources.gpus}"] if resources.gpus else []),
    ]


def _escaped(path: Path) -> str:
    """Write a path into a line of sbatch, where % begins a pattern."""
    text = str(path.resolve()).replace("%", "%%")
    return shlex.quote(text)


def _line(command: Command, job: Job, folders: dict[str, str]) -> str:
    """Write the line of a command."""
    resources = job.resources
    words = ["run"]
    if resources.processes > 1:
        words += ["srun", "--kill-on-bad-exit=1"]
    words += [*_python(resources, folders), "-m", f"longflow.cli.{command.name}"]
    words += [shlex.quote(argument) for argument in command.arguments]
    if command.name in ("verify", "extract_fingerprint", "preprocess", "find_best", "evaluate"):
        words += [] if "-np" in command.arguments else ["-np", str(resources.cores)]
    elif command.name == "train" and "-np" not in command.arguments:
        # the process itself has a core; without a GPU it has all of them
        words += ["-np", str(min(8, resources.cores - 1) if resources.gpus else 0)]
    if command.name == "train" and (scratch := resources.settings.scratch):
        words += ["--scratch", shlex.quote(scratch)]  # longflow_train expands it on the node
    return " ".join(words)


def _python(resources: Resources, folders: dict[str, str]) -> list[str]:
    """Return the words that start Python: in the container, as set up, or the Python that runs now."""
    if resources.settings.container:
        binds = [word for value in folders.values() for word in ("--bind", shlex.quote(value))]
        gpu = ["--nv"] if resources.gpus else []
        return ["apptainer", "exec", *gpu, *binds, shlex.quote(resources.settings.container), "python"]
    return ["python"] if resources.settings.setup else [shlex.quote(sys.executable)]


def submit_script(jobs: Sequence[tuple[Job, Path]]) -> str:
    """Write the script that submits printed scripts by hand, with their dependencies.

    :param jobs: each with its script, which is in the folder of this one; a job stands after those that it depends on.
    """
    numbers = {job.name: f"job{index}" for index, (job, _) in enumerate(jobs)}
    lines = ["#!/bin/bash", "set -e", 'cd "$(dirname "$0")"']
    for job, script in jobs:
        before = ":".join([*(f"${numbers[name]}" for name in job.depends_on), *job.waits_for])
        dependency = f"--dependency=afterok:{before} " if before else ""
        lines.append(f"{numbers[job.name]}=$(sbatch --parsable {dependency}{script.name})")
        lines.append(f'echo "${numbers[job.name]} {job.name}"')
    return "\n".join(lines) + "\n"
