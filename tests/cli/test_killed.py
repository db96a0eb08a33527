"""kill -9 and SIGTERM at a random moment, then the same again: the result is that of an uninterrupted command.

Preprocessing is killed in tests/preprocessing/test_run.py. benchmarks/kill.py kills more commands, and fills disks; a
short form of it is here.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from longflow.inference.predictor import predict_folder
from longflow.methods.weights import read_checkpoint
from longflow.plans import read_plans
from longflow.tasks.forecast.predictor import Forecaster
from longflow.training.loop import train_fold
from tests.conftest import OWN_VARIABLES
from tests.training.helpers import finished_model, job_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix"),
]

ITERATIONS = 16
#: seconds that a command may take on a machine that does other work
PATIENCE = 300
TIMES = [50.0 + step for step in range(4)]

TRAIN = f"""
from dataclasses import replace

import torch
from longflow.paths import DatasetPaths
from longflow.job import FoldJob, FoldSettings
from longflow.training.loop import train_fold

torch.set_num_threads(1)
job = FoldJob.resolve(DatasetPaths("Dataset001_Test"), "longflowPlans", "3d_fullres", "cronos")
train_fold(replace(job, settings=FoldSettings(iterations={ITERATIONS}, checkpoint_every=0.0)))
"""
PREDICT = f"""
import sys
from pathlib import Path
import torch
from longflow.tasks.forecast.predictor import Forecaster
from longflow.inference.predictor import predict_folder

torch.set_num_threads(1)
predict_folder(Forecaster.load(device="cpu"), Path(sys.argv[1]), Path(sys.argv[2]), {{"times": {TIMES}}})
"""


COMMAND = "from longflow.cli.{} import main; raise SystemExit(main())"


def start(home: Path, code: str, *arguments: object) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    environment |= {"LONGFLOW_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    # a group of its own, which gets the signals of a batch system
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen, ready) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.005)
    if not ready():
        process.kill()
        pytest.fail(process.stderr.read().decode())


def send(process: subprocess.Popen, number: int, ready, at_most: float, to_all: tuple[int, ...] = ()) -> int:
    """Wait until ``ready()``, then up to ``at_most`` seconds more, and send a signal; the exit code.

    :param to_all: sent to all processes of the command instead, one after the other, as Slurm does.
    """
    wait_until(process, ready)
    time.sleep(random.uniform(0, at_most))
    for one in to_all:
        os.killpg(process.pid, one)
        time.sleep(0.05)
    if not to_all:
        process.send_signal(number)
    return process.wait(timeout=PATIENCE)


#: Slurm's warning; then what it sends at a time limit or a preemption
WARNED = (signal.SIGUSR2, signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM)


def test_warnings_to_all_processes_stop_training_with_its_loaders(dataset):
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    arguments = (1, "3d_fullres", 0, "--iterations", 100_000, "--device", "cpu", "-np", 2)
    process = start(dataset.raw.parents[1], COMMAND.format("train"), *arguments)
    assert send(process, 0, paths.progress_csv.is_file, at_most=0.5, to_all=WARNED) == 130
    messages = process.stderr.read().decode()
    assert "Run the same command again to continue" in messages and "Stopping after this step (SIGUSR" in messages
    assert "killed by signal" not in messages and "Traceback" not in messages
    assert read_checkpoint(paths.latest).header["state"]["iteration"] > 0


def test_a_warning_to_the_workers_alone_changes_nothing(dataset):
    """Batches go on; the command ends as if nothing had come."""
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    arguments = (1, "3d_fullres", 0, "--iterations", 10, "--device", "cpu", "-np", 2)
    process = start(dataset.raw.parents[1], COMMAND.format("train"), *arguments)
    wait_until(process, paths.progress_csv.is_file)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # the server and two loaders
    for child in children:
        for number in (*WARNED, signal.SIGINT):
            child.send_signal(number)
    assert process.wait(timeout=PATIENCE) == 0, process.stderr.read().decode()
    assert paths.final.is_file()


@pytest.mark.parametrize("number", WARNED[:2])
def test_a_warning_stops_preprocessing_and_its_workers_at_once(phantom_home, number):
    name = "Dataset900_Phantom"
    for command in ("extract_fingerprint", "plan"):
        assert start(phantom_home, COMMAND.format(command), "-d", 900).wait(timeout=PATIENCE) == 0
    folder = phantom_home / "preprocessed" / name
    process = start(phantom_home, COMMAND.format("preprocess"), "-d", 900, "-np", 2)

    def finished():
        return {path: path.stat().st_mtime_ns for path in folder.glob("*/phantom*.json")}

    assert send(process, 0, finished, at_most=0.0, to_all=(number, signal.SIGCONT)) == 130
    kept, messages = finished(), process.stderr.read().decode()
    assert "Run the same command again to continue" in messages and "Traceback" not in messages
    assert start(phantom_home, COMMAND.format("preprocess"), "-d", 900, "-np", 1).wait(timeout=PATIENCE) == 0
    assert kept.items() <= finished().items() and len(finished()) > len(kept)


def test_a_warning_stops_prediction_between_two_subjects(dataset, tmp_path):
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    folder, out = dataset.raw / "imagesTr", tmp_path / "out"
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    times = [50.0 + step for step in range(40)]
    arguments = ("-i", folder, "-o", out, "-t", *times, "--device", "cpu")
    process = start(dataset.raw.parents[1], COMMAND.format("predict"), *arguments)
    assert send(process, 0, lambda: any(out.glob("*_t*.json")), at_most=0.2, to_all=WARNED) == 130
    finished = len(list(out.glob("*_t*.json")))
    assert 0 < finished < 6 * len(times) and not list(out.glob(".unfinished-*"))


def train(dataset, **settings):
    return train_fold(job_of(dataset, **settings))


def test_killed_training_goes_on_to_the_same_weights(dataset, tmp_path):
    home, whole = dataset.raw.parents[1], tmp_path / "whole"
    paths = train(dataset, iterations=ITERATIONS)
    paths.folder.rename(whole)
    process = start(home, TRAIN)
    assert send(process, signal.SIGKILL, paths.latest.is_file, at_most=0.7) == -signal.SIGKILL
    assert not paths.final.exists()
    seen = []
    train_fold(job_of(dataset, iterations=ITERATIONS), on_progress=lambda _, state: seen.append(state.iteration))
    assert len(seen) < ITERATIONS  # it went on, and did not begin again
    one, other = read_checkpoint(whole / "checkpoint_final.safetensors"), read_checkpoint(paths.final)
    assert one.header == other.header
    assert all(tensor.equal(other.tensors[name]) for name, tensor in one.tensors.items())
    assert not list(paths.folder.rglob(".unfinished-*"))


def test_a_command_that_is_told_to_end_saves_and_goes_on(dataset):
    code = "from longflow.cli.train import main; raise SystemExit(main())"
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    process = start(dataset.raw.parents[1], code, 1, "3d_fullres", 0, "--iterations", 100_000, "--device", "cpu")
    assert send(process, signal.SIGTERM, paths.progress_csv.is_file, at_most=0.5) == 130
    assert "Run the same command again to continue" in process.stderr.read().decode()
    iteration = read_checkpoint(paths.latest).header["state"]["iteration"]
    assert iteration > 0
    train(dataset, iterations=iteration + 2)
    assert paths.final.is_file() and not paths.latest.exists()


def test_killed_prediction_goes_on_to_the_same_forecasts(dataset, tmp_path):
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    folder = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_folder(Forecaster.load(device="cpu"), folder, whole, {"times": TIMES})
    process = start(dataset.raw.parents[1], PREDICT, folder, out)
    assert send(process, signal.SIGKILL, lambda: any(out.glob("*.json")), at_most=0.3) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_t*.json")}
    assert 0 < len(before) < 6 * len(TIMES)
    predict_folder(Forecaster.load(device="cpu"), folder, out, {"times": TIMES})
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in out.iterdir())
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in files)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk of its own")
def test_a_short_campaign_of_kills_full_disks_and_read_only_disks(tmp_path):
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [
            sys.executable,
            "benchmarks/kill.py",
            *["--kills", "4", "--disturbances", "1", "--steps", "import", "preprocess"],
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0 and "All results equal" in result.stdout, result.stdout + result.stderr
    assert "| import | killed | 2 |" in result.stdout and "| preprocess | killed | 2 |" in result.stdout
