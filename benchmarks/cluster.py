"""Run a study on a real Slurm and disturb it: results must be bit-identical with those of the same study run here.

    python -m benchmarks.cluster same [--folds 5] [--methods cronos tfm] [--iterations 8]
    python -m benchmarks.cluster disturbed [--disturbances 50] [--seed 0] ...
    python -m benchmarks.cluster thousand          # time to submit 1,000 jobs, and of longflow_status
    python -m benchmarks.cluster overhead          # of longflow_run on this machine over typing the commands

For root, on Debian, with the packages of ``tests/cluster/slurm/two_nodes.py``, which is started and stopped here. The
cohort is a tiny phantom, nodes are pretended.

A disturbance is drawn from: scancel, kill -9 of the command, kill -9 of a worker or rank below it, scontrol requeue,
Slurm's warning (USR2), drain and resume of the node, restart of slurmctld. A full disk is not among
them (benchmarks/kill.py has it). After each one, the same ``longflow_run`` is typed again where something failed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "200"

import psutil

from longflow.cluster import slurm as commands
from longflow.demo.cohort import DATASET_NAME, write_cohort
from longflow.files import file_digest, write_json
from tests.cluster.slurm import two_nodes

NUMBER = DATASET_NAME[7:10]
#: a fold is compared by these; times stand in the others
COMPARED = ("checkpoint_final.safetensors", "best.json", "scans.csv", "metrics.csv")
SETTINGS = {"cpus": 1, "memory": 2.0, "time": "30m", "steps": {"train": {"gpus": 1}, "predict": {"gpus": 1}}}
#: seconds until all is done; and until the last jobs have ended, which may find nothing to do
PATIENCE, PATIENCE_AFTER = 3600, 60


def home_with_phantom(folder: Path) -> Path:
    """Write the phantom and the settings of the cluster below a folder. :returns: LONGFLOW_HOME."""
    write_cohort(folder / "raw" / DATASET_NAME, subjects=8, test_subjects=2, shape=(8, 32, 32), scans=(4, 4))
    write_json(SETTINGS, folder / "results" / "cluster.json")
    return folder


def type_command(home: Path, module: str, *words: object) -> subprocess.CompletedProcess:
    """Run a command as a user types it."""
    code = f"from longflow.cli.{module} import main; raise SystemExit(main())"
    environment = {**os.environ, "LONGFLOW_HOME": str(home), "PYTHONSAFEPATH": "1"}
    call = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(call, env=environment, capture_output=True, text=True)


def study(options: argparse.Namespace) -> list[object]:
    folds = range(options.folds)
    return ["-d", NUMBER, "-m", *options.methods, "-f", *folds, "--preset", "tiny", "--iterations", options.iterations]


def run_study(home: Path, options: argparse.Namespace, *further: object) -> None:
    answer = type_command(home, "run", *study(options), "-np", 1, *further)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def states(home: Path) -> Counter:
    """Count the states of the steps, in this process."""
    from longflow.cli.status import status_of
    from longflow.paths import DatasetPaths

    os.environ["LONGFLOW_HOME"] = str(home)
    return Counter(one.state for one in status_of(DatasetPaths(DATASET_NAME)))


def wait_for_the_end(home: Path, options: argparse.Namespace) -> int:
    """Wait until all is done; type the command again where something failed. :returns: how often it was typed."""
    typed, end = 0, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        start_requeued_jobs()
        found = states(home)
        if set(found) == {"done"}:
            return typed
        if not found["running"] and not found["waiting"]:
            run_study(home, options, "--cluster", "slurm")
            typed += 1
        time.sleep(1)
    raise SystemExit(f"not done after {PATIENCE} s: {states(home)}")


def start_requeued_jobs() -> None:
    """Let jobs that went back into the queue start soon: by itself Slurm waits for two minutes."""
    requeued = [
        number for number, job in commands.queue().items() if job.state == "PENDING" and job.reason == "BeginTime"
    ]
    if requeued:
        time.sleep(2)  # a node refuses the credential of a job that ended in the same second
        for number in requeued:
            subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], capture_output=True)


def results_of(home: Path) -> dict[str, str]:
    """Return the digests of everything that has to be equal, by path."""
    folder = home / "results" / DATASET_NAME
    files = [path for path in sorted(folder.rglob("*")) if path.name in COMPARED or path.name.endswith(".nii.gz")]
    return {str(path.relative_to(folder)): digest(path) for path in files}


def digest(path: Path) -> str:
    """Hash a file; paths of this machine and measured seconds in JSON are not compared."""
    if path.suffix == ".json":
        content = path.read_text().replace(str(path.parents[2]), "HOME")
        return json.dumps(json.loads(content, object_hook=without_seconds), sort_keys=True)
    return file_digest(path)


def without_seconds(content: dict) -> dict:
    """Leave out how long a solver took, which best.json holds."""
    return {key: value for key, value in content.items() if key != "seconds"}


def compare(home: Path, other: Path) -> None:
    first, second = results_of(home), results_of(other)
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    assert len(first) > 10, first
    print(f"{len(first)} files compared: {len(different)} differ {different[:5]}")
    if different:
        raise SystemExit(1)


def same(work: Path, options: argparse.Namespace) -> None:
    """Run the study here and on Slurm, and compare."""
    here, there = home_with_phantom(work / "here"), home_with_phantom(work / "there")
    begun = time.monotonic()
    run_study(here, options)
    print(f"on this machine: {time.monotonic() - begun:.0f} s")
    begun = time.monotonic()
    run_study(there, options, "--cluster", "slurm")
    print(f"submitted within {time.monotonic() - begun:.1f} s")
    typed = wait_for_the_end(there, options)
    print(f"on Slurm: {time.monotonic() - begun:.0f} s, typed again: {typed}")
    compare(here, there)


def disturbed(work: Path, options: argparse.Namespace) -> None:
    """Run the study here, and on Slurm with disturbances, and compare."""
    here, there = home_with_phantom(work / "here"), home_with_phantom(work / "there")
    run_study(here, options)
    chance, done = random.Random(options.seed), Counter()
    run_study(there, options, "--cluster", "slurm")
    typed, begun = 0, time.monotonic()
    while sum(done.values()) < options.disturbances:
        time.sleep(chance.uniform(0.5, 5))
        start_requeued_jobs()
        name = chance.choice(list(DISTURBANCES))
        if DISTURBANCES[name](chance):
            done[name] += 1
        found = states(there)
        if not found["running"] and not found["waiting"]:
            if set(found) == {"done"}:
                forget_a_fold(there, chance)
            run_study(there, options, "--cluster", "slurm")
            typed += 1
    typed += wait_for_the_end(there, options)
    print(f"{dict(done)}; {time.monotonic() - begun:.0f} s; typed again: {typed}")
    left, end = commands.queue(), time.monotonic() + PATIENCE_AFTER
    while left and time.monotonic() < end:
        start_requeued_jobs()
        time.sleep(1)
        left = commands.queue()
    print(f"in the queue {PATIENCE_AFTER} s after the end: {left or 'nothing'}")
    compare(here, there)


def forget_a_fold(home: Path, chance: random.Random) -> None:
    """Delete a finished fold where the study was done before all disturbances: it is trained again."""
    folds = sorted((home / "results" / DATASET_NAME).glob("*__*__*/fold_*"))
    shutil.rmtree(chance.choice(folds))


def running_jobs() -> list[str]:
    return [number for number, job in commands.queue().items() if job.state == "RUNNING"]


def processes_of_jobs() -> list[psutil.Process]:
    """List the commands of longflow that run in jobs."""
    found = []
    for process in psutil.process_iter():
        try:
            if "SLURM_JOB_ID" in process.environ() and "longflow.cli" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _job(*words: str) -> Callable[[random.Random], bool]:
    def disturb(chance: random.Random) -> bool:
        jobs = running_jobs()
        return bool(jobs) and subprocess.run([*words, chance.choice(jobs)], capture_output=True).returncode == 0

    return disturb


def kill_command(chance: random.Random) -> bool:
    processes = processes_of_jobs()
    if processes:
        chance.choice(processes).send_signal(signal.SIGKILL)
    return bool(processes)


def kill_worker(chance: random.Random) -> bool:
    """Kill a process below a command."""
    children = [child for process in processes_of_jobs() for child in process.children(recursive=True)]
    if children:
        chance.choice(children).send_signal(signal.SIGKILL)
    return bool(children)


def always(disturb: Callable[[], None]) -> Callable[[random.Random], bool]:
    """Make a disturbance of the cluster, which meets whatever runs."""

    def done(chance: random.Random) -> bool:
        disturb()
        return True

    return done


DISTURBANCES: dict[str, Callable[[random.Random], bool]] = {
    "scancel": _job("scancel"),
    "warning": _job("scancel", "--batch", "--signal=USR2"),
    "requeue": _job("scontrol", "requeue"),
    "kill -9 of the command": kill_command,
    "kill -9 of a worker": kill_worker,
    "drain and resume": always(two_nodes.drain_and_resume),
    "slurmctld restarted": always(two_nodes.restart_controller),
}


def thousand(work: Path, options: argparse.Namespace) -> None:
    """Submit 1,000 trainings to a partition that is down; measure submission, status, and cancelling."""
    home = home_with_phantom(work / "home")
    names = [f"fold {number}" for number in range(1000)]
    subprocess.run(["scontrol", "update", "PartitionName=debug", "State=DOWN"], check=True)
    for module, words in (
        ("run", ["-d", NUMBER, "-f", *range(len(names)), "--preset", "tiny", "--cluster", "slurm"]),
        ("status", ["-d", NUMBER]),
        ("run", ["-d", NUMBER, "-f", *range(len(names)), "--preset", "tiny", "--cluster", "slurm"]),
        ("run", ["-d", NUMBER, "--cancel"]),
        ("status", ["-d", NUMBER]),
    ):
        begun = time.monotonic()
        answer = type_command(home, module, *words)
        assert answer.returncode == 0, answer.stderr
        last = answer.stdout.strip().splitlines()[-1]
        print(f"longflow_{module} {' '.join(map(str, words[-1:]))}: {time.monotonic() - begun:.1f} s. {last[:110]}")


def overhead(work: Path, options: argparse.Namespace) -> None:
    """Compare longflow_run with the same commands typed one after the other."""
    from longflow.cluster.request import read_request, read_study_data
    from longflow.cluster.steps import study_steps
    from longflow.paths import DatasetPaths

    seconds = {}
    one, other = home_with_phantom(work / "run"), home_with_phantom(work / "typed")
    begun = time.monotonic()
    run_study(one, options)
    seconds["longflow_run"] = time.monotonic() - begun
    os.environ["LONGFLOW_HOME"] = str(one)
    paths = DatasetPaths(DATASET_NAME)
    request, data = read_request(paths), read_study_data(paths)
    os.environ["LONGFLOW_HOME"] = str(other)
    begun = time.monotonic()
    for step in study_steps(request, data):
        for command in step.commands:
            answer = type_command(other, command.name, *command.arguments)
            assert answer.returncode == 0, answer.stderr
    seconds["typed"] = time.monotonic() - begun
    share = seconds["longflow_run"] / seconds["typed"] - 1
    print(f"{seconds['longflow_run']:.1f} s and, typed, {seconds['typed']:.1f} s: {share:+.1%}")
    compare(one, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("same", "disturbed", "thousand", "overhead"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["cronos", "tfm"])
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--disturbances", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="longflow-cluster-"))
    try:
        if options.what == "overhead":
            overhead(work, options)
            return
        with two_nodes.running() as variables:
            os.environ.update(variables)
            globals()[options.what](work, options)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
