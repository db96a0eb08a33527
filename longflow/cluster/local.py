"""Run the steps of a study on this machine: one training for each GPU at a time."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from longflow.cluster.resources import ON_GPU
from longflow.cluster.scripts import STOPPED
from longflow.cluster.steps import Step, folders_of
from longflow.cluster.study import Study
from longflow.commands import Command, ended_together, start_command, why_ended

#: seconds between two looks at the commands that run
PAUSE = 0.05


@dataclass
class _Work:
    """A step that runs.

    :param gpu: value of CUDA_VISIBLE_DEVICES; None: as this process has it.
    :param commands: that follow.
    """

    step: Step
    gpu: str | None
    commands: list[Command]
    process: subprocess.Popen


@dataclass(frozen=True)
class Report:
    """What a run of a study did.

    :param done: steps that were run.
    :param failed: reason by step.
    :param skipped: steps that depend on a failed one.
    """

    done: list[Step] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[Step] = field(default_factory=list)


def gpus_of_this_machine(device: str | None) -> list[str]:
    """List the GPUs that trainings may use, as values of CUDA_VISIBLE_DEVICES; torch is not imported for it.

    :param device: of the trainings; one that is named is used for all of them, one after the other.
    """
    if device is not None and device != "cuda":
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("GPU ")] if answer.returncode == 0 else []
    return [str(number) for number in range(len(lines))]


def run_here(
    study: Study,
    gpus: Sequence[str] = (),
    show: Callable[[Step, Command, int, int], None] = lambda *_: None,
) -> Report:
    """Run the unfinished steps. A failure stops the steps that depend on it, and no others.

    With several GPUs, trainings run at the same time, and their output goes to the logs of the study.

    :param gpus: as :func:`gpus_of_this_machine` lists them.
    :param show: called with each command before it starts: its step, the number of that step and of all.
    :raises KeyboardInterrupt: the user stopped a command.
    """
    todo = study.unfinished
    numbers = {step.name: number for number, step in enumerate(todo, start=1)}
    waiting, report, running = list(todo), Report(), list[_Work]()
    processes: list[subprocess.Popen] = []
    free: list[str | None] = list(gpus) if len(gpus) > 1 else [None]

    def start(step: Step, gpu: str | None, commands: Sequence[Command]) -> None:
        command, *rest = commands
        show(step, command, numbers[step.name], len(todo))
        environment = folders_of(step) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        with ExitStack() as files:
            log = None
            if gpu is not None:
                study.files.logs.mkdir(parents=True, exist_ok=True)
                log = files.enter_context(open(study.files.log("here", numbers[step.name]), "a", encoding="utf-8"))
            process = start_command(command, environment, log)
        processes.append(process)
        running.append(_Work(step, gpu, rest, process))

    with ended_together(processes):
        while waiting or running:
            unmet = {step.name for step in waiting} | {work.step.name for work in running}
            for step in list(waiting):
                before = set(step.depends_on)
                if before & (set(report.failed) | {one.name for one in report.skipped}):
                    waiting.remove(step)
                    report.skipped.append(step)
                elif not before & unmet and _may_start(step, running, free):
                    waiting.remove(step)
                    start(step, free.pop(0), step.commands)
            time.sleep(PAUSE)
            for work in [one for one in running if one.process.poll() is not None]:
                running.remove(work)
                processes.remove(work.process)
                code = work.process.returncode
                if code == STOPPED:
                    # Ctrl-C would have reached this process: only that command was told to end, the others are not
                    for other in running:
                        other.process.terminate()
                    raise KeyboardInterrupt
                if code == 0 and work.commands:
                    start(work.step, work.gpu, work.commands)
                    continue
                free.append(work.gpu)
                if code:
                    report.failed[work.step.name] = why_ended(code)
                else:
                    report.done.append(work.step)
    return report


def _may_start(step: Step, running: Sequence[_Work], free: Sequence[str | None]) -> bool:
    """Return whether a step has a place: a GPU that is free, or the whole machine for steps of the processor."""
    if not free:
        return False
    return not running or (step.kind in ON_GPU and all(work.step.kind in ON_GPU for work in running))
