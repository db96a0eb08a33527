import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longflow.methods.weights import read_checkpoint
from longflow.training.distributed import Processes
from longflow.training.logbook import read_progress
from tests.conftest import OWN_VARIABLES


def test_a_process_alone_agrees_with_itself(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = Processes.start("cpu")
    assert (alone.index, alone.count, alone.first) == (0, 1, True) and alone.device == torch.device("cpu")
    assert alone.agree(0.25) == 0.25
    alone.end()


def torchrun(home, *arguments, timeout=200):
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    environment |= {"LONGFLOW_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.slow
def test_two_processes_train_one_model(dataset):
    """Each draws its own batches; the first one writes; both leave."""
    home = dataset.raw.parents[1]
    result = torchrun(
        home, "-m", "longflow.cli.train", "Dataset001_Test", "3d_fullres", "0", "--iterations", "4", "--device", "cpu"
    )
    assert result.returncode == 0, result.stderr
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    assert read_checkpoint(paths.final).header["iteration"] in (2, 4)
    assert [entry.iteration for entry in read_progress(paths.progress_csv)] == [2, 4]
    assert not paths.latest.exists()


AGREE_AND_FAIL = """
import torch
from longflow.training.distributed import Processes

processes = Processes.start("cpu")
assert processes.count == 2 and processes.agree(float(processes.index)) == 1.0
if processes.first:
    raise RuntimeError("the first one fails")
processes.agree(0.0)
"""


@pytest.mark.slow
def test_processes_agree_and_a_failure_ends_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(AGREE_AND_FAIL)
    result = torchrun(tmp_path, str(script), timeout=100)
    assert result.returncode != 0 and "the first one fails" in result.stderr
