"""A dataset that is ready for training, made once and copied for each test."""

import logging
import shutil

import pytest
import torch

from longflow.paths import DatasetPaths
from tests.training.helpers import make_dataset


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFLOW_HOME", str(home))
        make_dataset()
    return home


@pytest.fixture
def dataset(template, tmp_path, monkeypatch) -> DatasetPaths:
    """Six subjects of four scans, 5 x 10 x 12 voxels; plans of tests.methods.helpers; preprocessed."""
    shutil.copytree(template, tmp_path / "home")
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    return DatasetPaths("Dataset001_Test")


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """Commands that ran before keep longflow's messages to themselves; caplog listens further up."""
    monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny tensors on two threads wait more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
