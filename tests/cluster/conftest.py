"""Tests on a real Slurm: it is started once, and stopped at the end; where there is none, they are skipped."""

import pytest

from tests.cluster.slurm import two_nodes


@pytest.fixture(scope="session")
def _slurm():
    if why := two_nodes.why_not():
        pytest.skip(why)
    with two_nodes.running() as variables:
        yield variables


@pytest.fixture
def slurm(_slurm, monkeypatch):
    """A Slurm of two nodes, each with 4 cores and 2 pretend GPUs, for the commands of the test."""
    for name, value in _slurm.items():
        monkeypatch.setenv(name, value)
    with two_nodes.turn():  # tests in other processes (pytest -n) have jobs in the same queue
        yield two_nodes
