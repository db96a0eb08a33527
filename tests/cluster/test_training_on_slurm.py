"""Real trainings on a real Slurm: on two nodes, and longer than the time limit of their job."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from longflow.cli.run import main as run
from longflow.cli.status import status_of
from longflow.cluster import resources
from longflow.cluster import slurm as commands
from longflow.data.images import read_array
from longflow.files import write_json
from longflow.methods.batches import Batch
from longflow.methods.weights import read_checkpoint
from longflow.paths import cluster_settings
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.training import loop
from longflow.training import run as run_of_training
from longflow.training.logbook import read_progress
from longflow.training.loop import train_fold
from tests.cluster.helpers import empty_queue, start_now, wait_until
from tests.training.helpers import job_of

ROOT = Path(__file__).parents[2]
STEPS = 6

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]


@pytest.fixture
def study(dataset, monkeypatch):
    """A dataset that is planned and preprocessed, with test scans: two subjects whose last scan is to be forecast."""
    write_json({}, dataset.fingerprint)
    images, test = dataset.raw / "imagesTr", dataset.raw / "imagesTs"
    header, *rows = (dataset.raw / "scans.csv").read_text().splitlines()
    chosen = [row for row in rows if row.split(",")[0][:2] in ("s0", "s1")]
    for case in (row.split(",")[0] for row in chosen):
        if not case.endswith("_3"):
            target = test / f"{case}_0000.nii.gz"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(images / target.name, target)
    (test / "scans.csv").write_text("\n".join([header, *chosen]) + "\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_json({"cpus": 1}, cluster_settings())
    yield dataset
    empty_queue()


def submit(*flags):
    assert run(["-d", "1", "-m", "cronos", "-f", "0", "--device", "cpu", "--cluster", "slurm", *flags]) == 0


def finish_study(dataset, *flags):
    """Submit a study of one fold, and wait until all is done."""
    submit(*flags)
    wait_until(lambda: not commands.queue())
    logs = {log.name: log.read_text()[-2000:] for log in dataset.study.logs.glob("*.log")}
    assert {one.state for one in status_of(dataset)} == {"done"}, logs


@dataclass
class BothBatches:
    """The batches that two processes draw for the same step.

    :param number: of the first one.
    """

    number: int
    batches: tuple[Batch, Batch]

    def to(self, device):
        return BothBatches(self.number, tuple(batch.to(device) for batch in self.batches))


class PairedSamples(torch.utils.data.Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __getitem__(self, number):
        return BothBatches(2 * number, (self.samples[2 * number], self.samples[2 * number + 1]))


def train_with_both_batches(job, monkeypatch):
    """Train in one process that learns in each step from the batches of two: the mean of both losses."""
    samples_of = loop.samples_of

    def paired(kind):
        return lambda *arguments: PairedSamples(samples_of(kind)(*arguments))

    def step_of(method, processes, compiles):
        def step(both):
            losses = []
            for index, batch in enumerate(both.batches):
                torch.manual_seed(job.settings.seed * 1_000_003 + both.number + index)
                losses.append(method(batch))
            return sum(losses) / 2

        return step

    monkeypatch.setattr(loop, "samples_of", paired)
    monkeypatch.setattr(run_of_training, "step_of", step_of)
    return train_fold(job)


def forecast(dataset, output, *before):
    """Forecast the test scans by the trained network, whatever ``longflow_find_best`` chose."""
    command = (
        "-d",
        "1",
        "-i",
        dataset.raw / "imagesTs",
        "-o",
        output,
        "-m",
        "cronos",
        "-c",
        "3d_fullres",
        "-f",
        "0",
        "--device",
        "cpu",
    )
    words = [*before, sys.executable, "-m", "longflow.cli.predict", *map(str, command)]
    answer = subprocess.run(words, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_two_nodes_equal_one_process_with_both_batches(study, tmp_path, monkeypatch, capsys):
    """Weights, validations and forecasts. What they will cost is measured by both before."""
    two = ("--iterations", str(STEPS), "--nodes", "2", "--gpus", "1")
    finish_study(study, *two, "--measure")
    model = study.model("cronos", "longflowPlans", "3d_fullres")
    assert read_json(model.measured(2))["processes"] == 2 and not model.finished_folds()
    capsys.readouterr()
    finish_study(study, *two)
    said = capsys.readouterr().out
    assert "h expected from measured steps" in said and "GB of a process measured" in said
    fold = model.fold(0)
    record = read_json(fold.run)
    assert (record["processes"], record["global_batch_size"]) == (2, 4)
    log = next(study.study.logs.glob("*train*_0.log")).read_text()
    assert "2 processes with 2 samples each: 4 samples a step" in log

    nodes = ("srun", "--nodes=2", "--ntasks=2", "--mem=1000", "--kill-on-bad-exit=1")
    shared, alone = forecast(study, tmp_path / "shared", *nodes), forecast(study, tmp_path / "alone")
    assert shared == alone and sum(name.endswith(".nii.gz") for name in shared) == 2

    monkeypatch.setenv("longflow_results", str(tmp_path / "results_of_one"))
    one = train_with_both_batches(job_of(study, iterations=STEPS), monkeypatch)
    assert one.folder != fold.folder and read_json(one.run)["processes"] == 1
    expected, found = (read_checkpoint(paths.final).part("weights") for paths in (one, fold))
    assert all(torch.allclose(found[name], tensor, rtol=1e-5, atol=1e-7) for name, tensor in expected.items())
    # the last layer of a flow begins at zero
    assert expected["network.velocity.weight"].abs().max() > 1e-3
    for before, after in zip(read_progress(one.progress_csv), read_progress(fold.progress_csv), strict=True):
        assert after.found["nrmse"] == pytest.approx(before.found["nrmse"], rel=1e-5)
        assert after.loss == pytest.approx(before.loss, rel=1e-5)
    images = [sorted(paths.validations.rglob("*.nii.gz")) for paths in (one, fold)]
    assert len(images[0]) == len(images[1]) > 2
    for first, second in zip(*images, strict=True):
        assert np.allclose(read_array(first)[0], read_array(second)[0], rtol=1e-5, atol=1e-3)


def test_a_training_longer_than_its_time_limit_is_warned_by_slurm_and_ends_as_an_undisturbed_one(
    study, monkeypatch, tmp_path
):
    """The limit is two minutes, the warning comes 30 to 90 seconds before its end; steps take a second until then."""
    monkeypatch.setattr(resources, "LAST_STEP", 20)
    monkeypatch.setattr(resources, "UNKNOWN_CHECKPOINT", 1e6)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {sys.executable} -m tests.cluster.slow_python "$@"\n')
    python.chmod(0o755)
    train = {"gpus": 0, "time": "2m", "setup": [f'export PATH="{python.parent}:$PATH"']}
    write_json({**read_json(cluster_settings()), "steps": {"train": train}}, cluster_settings())
    plans = read_plans(study.plans())
    plans.training.iterations_per_epoch = 75
    write_plans(plans, study.plans())
    submit("--iterations", "150")
    number = wait_until(
        lambda: next((number for number, job in commands.queue().items() if job.state == "RUNNING"), "")
    )
    begun = time.monotonic()
    start_now(number)
    assert time.monotonic() - begun < 120
    wait_until(lambda: not commands.queue())
    ended = {one.step.name: (one.state, one.reason, one.last_line) for one in status_of(study)}
    assert {state for state, *_ in ended.values()} == {"done"}, ended
    log = next(study.study.logs.glob("*train*_0.log")).read_text()
    assert "The time of this job is over; the state is saved." in log and "start 1:" in log

    fold = study.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    monkeypatch.setenv("longflow_results", str(tmp_path / "undisturbed"))
    undisturbed = train_fold(job_of(study, iterations=150))
    assert undisturbed.folder != fold.folder and undisturbed.final.read_bytes() == fold.final.read_bytes()
