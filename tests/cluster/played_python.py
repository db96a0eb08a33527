"""A Python that plays the commands of longflow: the jobs of tests on a real Slurm are a second long, and need no torch.

It is called as ``python -m longflow.cli.NAME ...`` by a batch script. A file with the name of the step, in the folder
PLAYED, says what happens at each start, a word a line: ``fail``, ``die`` (kill -9), ``wait`` (for a signal, as a
training that saves its state and ends with 130), ``work`` (for some seconds). Without a word, the step leaves its
result.
"""

import os
import signal
import sys
import time
from pathlib import Path

from longflow.cluster.request import read_request, read_study_data
from longflow.cluster.steps import Step, study_steps
from longflow.paths import DatasetPaths
from tests.cluster.helpers import finish


def step_of(name: str, arguments: list[str]) -> tuple[Step, bool]:
    """Find the step of a command, and whether the command is its last one."""
    dataset = DatasetPaths(arguments[0] if name == "train" else arguments[arguments.index("-d") + 1])
    request, data = read_request(dataset), read_study_data(dataset)
    for step in study_steps(request, data, data.parts):
        for command in step.commands:
            if command.name == name and list(command.arguments) == arguments[: len(command.arguments)]:
                finish_step = command == step.commands[-1]
                return step, finish_step
    raise SystemExit(f"no step has the command {name} {arguments}")


def next_word(step: Step) -> str:
    """Take the next word of a step's file."""
    file = Path(os.environ["PLAYED"]) / step.name
    words = file.read_text().split() if file.is_file() else []
    file.with_name(f"{step.name}.started").open("a").write(f"{os.environ.get('SLURM_RESTART_COUNT', '0')}\n")
    if words:
        file.write_text("\n".join(words[1:]))
    return words[0] if words else ""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    os.environ.pop("longflow_results")  # a further seed has its own; the request is in those below LONGFLOW_HOME
    name, arguments = sys.argv[2].rsplit(".", 1)[1], sys.argv[3:]
    step, is_last = step_of(name, arguments)
    if not is_last:
        return
    word = next_word(step)
    print(f"playing {step.name}: {word or 'done'}", flush=True)
    if word == "fail":
        sys.exit(1)
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "wait":
        time.sleep(300)
    if word == "work":
        time.sleep(4)
    dataset = read_request(DatasetPaths(arguments[0] if name == "train" else arguments[arguments.index("-d") + 1]))
    finish(step, dataset, read_study_data(dataset.paths), seconds=1.0, iterations=1)


if __name__ == "__main__":
    main()
