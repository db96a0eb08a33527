import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longflow.methods.weights import read_checkpoint
from longflow.reading import read_json
from longflow.training.distributed import Processes
from longflow.training.logbook import read_progress
from tests.conftest import OWN_VARIABLES
from tests.tasks.segment.cohort import segment_plans
from tests.tasks.segment.test_validation import make_labelled
from tests.tasks.translate.cohort import make_pairs, phase_plans


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


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_two_processes_pretrain_and_segment(tmp_path, monkeypatch, dimensions):
    """With batch normalisation, Dice over the batches of both (2D); what is written is written once."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset, _ = make_labelled(plans=segment_plans(dimensions=dimensions))
    configuration = "3d_fullres" if dimensions == 3 else "2d"
    flags = {
        "spatiotemporal": ("--set", "width=16"),
        "unet_consistent": ("--pretrained", "spatiotemporal", "--labelled_subjects", "1"),
    }
    common = ("--iterations", "3", "--device", "cpu")
    for method, further in flags.items():
        command = ("-m", "longflow.cli.train", dataset.name, configuration, "0", "-m", method, *common, *further)
        result = torchrun(tmp_path, *command)
        assert result.returncode == 0, result.stderr
        paths = dataset.model(method, "longflowPlans", configuration).fold(0)
        assert read_checkpoint(paths.final).header["iteration"] in (2, 3)
    assert result.stderr.count("Pretrained weights of") == 1
    assert read_json(paths.labelled_subjects) == ["s0"] and read_json(paths.pretrained)["loaded"]
    assert "loss_consistency" in read_progress(paths.progress_csv)[-1].found


@pytest.mark.slow
def test_two_processes_translate(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset, _ = make_pairs(phase_plans(2))
    command = ("-m", "longflow.cli.train", dataset.name, "2d", "0", "--iterations", "4", "--device", "cpu")
    result = torchrun(tmp_path, *command)
    assert result.returncode == 0, result.stderr
    paths = dataset.model("mfm", "longflowPlans", "2d").fold(0)
    assert read_checkpoint(paths.final).header["iteration"] in (2, 4)
    assert [entry.iteration for entry in read_progress(paths.progress_csv)] == [2, 4]
    assert len(list(paths.validation("translation").glob("*.nii.gz"))) == 2


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
