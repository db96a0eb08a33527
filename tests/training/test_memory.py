import logging

import pytest
import torch

from longflow.methods.registry import method_class
from longflow.planning.memory import GB, training_memory
from longflow.plans import read_plans, write_plans
from longflow.training import memory as module
from longflow.training.memory import warn_of_memory
from tests.training.helpers import job_of

CPU = torch.device("cpu")


@pytest.fixture
def planned(dataset):
    """Set the budget and the estimates of the plans, in GB."""

    def plan(budget, **estimates):
        plans = read_plans(dataset.plans())
        plans.configurations["3d_fullres"].memory_estimate = estimates
        write_plans(plans.model_copy(update={"gpu_memory": budget}), dataset.plans())

    return plan


def said(caplog, job):
    caplog.clear()
    with caplog.at_level(logging.INFO):
        warn_of_memory(job, CPU)
    return [record.message for record in caplog.records]


def test_a_method_that_planning_does_not_know_is_estimated(dataset, planned, caplog):
    needed = training_memory("cronos_motion", read_plans(dataset.plans()), "3d_fullres") / GB
    planned(0.99 * needed, cronos=0.001)
    (message,) = said(caplog, job_of(dataset, "cronos_motion"))
    assert message.startswith(
        f"A training step of cronos_motion takes {needed:.2f} GB, but patch and batch were planned"
    )
    assert str(dataset.plans()) in message and "--gpu_memory" in message
    planned(1.01 * needed, cronos=0.001)
    assert said(caplog, job_of(dataset, "cronos_motion")) == []


def test_the_estimate_of_planning_counts_where_there_is_one(dataset, planned, caplog, monkeypatch):
    monkeypatch.setattr(module, "training_memory", lambda *_, **__: pytest.fail("estimated again"))
    planned(1, cronos=0.5)
    assert said(caplog, job_of(dataset)) == []
    planned(1, cronos=1.5)
    assert "takes 1.50 GB" in said(caplog, job_of(dataset))[0]
    planned(1)  # plans without estimates
    assert said(caplog, job_of(dataset, "cronos_motion")) == []


def test_options_change_the_estimate(dataset, planned, caplog):
    plans = read_plans(dataset.plans())
    usual, wide = (
        training_memory("cronos", plans, "3d_fullres", options=options) for options in ({}, {"features": 64})
    )
    assert wide > 2 * usual
    planned(1.5 * usual / GB, cronos=usual / GB)
    assert said(caplog, job_of(dataset)) == []
    assert "cronos takes" in said(caplog, job_of(dataset, options={"features": 64}))[0]


def test_a_step_that_reads_voxels_is_not_estimated(dataset, planned, caplog, monkeypatch):
    def reads(self, batch):
        return batch.target.mean() if batch.target.mean().item() > 0 else batch.target.sum()

    monkeypatch.setattr(method_class("cronos_motion"), "training_step", reads)
    planned(1, cronos=0.5)
    (message,) = said(caplog, job_of(dataset, "cronos_motion"))
    assert "of cronos_motion cannot be estimated" in message
