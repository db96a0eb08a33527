"""The cost of a run is recorded at its end, over all of its sessions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from longflow.methods.registry import build_method
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.stop import Stopped
from longflow.training.cost import highest, peak_memory
from tests.training.test_loop import stop_at, train

LINUX = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the kernel tells only on Linux")


def test_the_highest_of_what_is_known():
    assert highest(None, 3, 2) == 3 and highest(None, None) is None


@LINUX
def test_the_peak_stays_when_the_memory_is_given_back():
    large = np.ones(64 * 1024**2)  # half a GB, touched
    during = peak_memory(torch.device("cpu"))
    assert during > large.nbytes
    del large
    assert peak_memory(torch.device("cpu")) > 0.99 * during  # the kernel counts in portions


def test_a_gpu_tells_of_its_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 + device.index)
    assert peak_memory(torch.device("cuda:2")) == 9


def test_a_finished_run_tells_what_it_took(dataset):
    paths = train(dataset, iterations=4)
    cost = read_json(paths.run)["cost"]
    method = build_method("cronos", read_plans(dataset.plans()), "3d_fullres")
    assert cost["parameters"] == sum(parameter.numel() for parameter in method.parameters())
    assert cost["iterations"] == 4 and cost["seconds"] > 0
    assert read_json(paths.run)["settings"]["iterations"] == 4


def test_the_peak_of_an_earlier_session_counts(dataset, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("longflow.training.checkpoints.peak_memory", lambda _: 10**15)
        train(dataset, iterations=4, on_progress=stop_at(2))
    assert read_json(train(dataset, iterations=4).run)["cost"]["peak_memory"] == 10**15
