import math

import pytest
import torch

from longflow.errors import DataError
from longflow.methods.weights import read_checkpoint
from longflow.training import loop as trainer
from longflow.training import losses
from longflow.training.losses import FiniteCheck, queue_copy
from tests.training.helpers import job_of
from tests.training.test_loop import train


@pytest.fixture
def late(monkeypatch):
    """The CPU in the role of a GPU: a loss is read when the next one is given, or something is to be written."""
    monkeypatch.setattr(losses, "computes_later", lambda device: True)


def broken_after(monkeypatch, iteration):
    """Let the loss, and so all weights, become NaN at an iteration."""
    original = trainer.train_step

    def breaks(run, batch):
        whole = run.step
        if run.state.iteration == iteration:
            run.step = lambda batch: whole(batch) * math.nan
        try:
            return original(run, batch)
        finally:
            run.step = whole

    monkeypatch.setattr(trainer, "train_step", breaks)


def test_on_a_cpu_a_loss_is_checked_at_once():
    check = FiniteCheck()
    check.add(torch.tensor(1.5), 0)
    with pytest.raises(DataError, match="The loss became nan at iteration 7"):
        check.add(torch.tensor(math.nan), 7)
    check.read()  # it is reported once


def test_on_a_gpu_a_loss_is_read_when_the_next_one_is_queued(late):
    check = FiniteCheck()
    check.add(torch.tensor(math.inf), 3)
    with pytest.raises(DataError, match="The loss became inf at iteration 3"):
        check.add(torch.tensor(1.0), 4)
    check = FiniteCheck()
    check.add(torch.tensor(-math.inf), 5)
    with pytest.raises(DataError, match="The loss became -inf at iteration 5"):
        check.read()


@pytest.mark.parametrize("iteration", [1, 2, 4])
def test_weights_after_a_late_check_are_neither_kept_nor_written(dataset, monkeypatch, late, iteration):
    """In the last iteration of an epoch, within one, and in the last of all; a checkpoint is due after each."""
    broken_after(monkeypatch, iteration)
    with pytest.raises(DataError, match=f"The loss became nan at iteration {iteration}. Look for extreme"):
        train(dataset, checkpoint_every=0.0)
    paths = job_of(dataset).paths
    latest = read_checkpoint(paths.latest)
    assert latest.header["state"]["iteration"] == iteration
    assert all(math.isfinite(value) for value in latest.header["state"]["loss_sums"].values())
    written = [latest] + ([read_checkpoint(paths.best)] if iteration >= 2 else [])
    assert paths.best.is_file() == (iteration >= 2) and not paths.final.exists()
    assert all(torch.isfinite(tensor).all() for one in written for tensor in one.tensors.values())


def test_without_a_checkpoint_due_the_next_iteration_notices(dataset, monkeypatch, late):
    broken_after(monkeypatch, 2)
    seen = []
    with pytest.raises(DataError, match="The loss became nan at iteration 2"):
        train(dataset, on_progress=lambda share, state: seen.append(state.iteration))
    assert seen == [1, 2, 3]  # the third step was queued; the fourth one finds out


def test_losses_are_fetched_once_in_an_epoch(dataset, monkeypatch):
    """And when a checkpoint is written: between them they are sums of float64 where they were computed."""
    kinds = []

    def note(share, state):
        kinds.append((state.iteration, {type(value) for value in state.loss_sums.values()}))
        assert all(value.dtype == torch.float64 for value in state.loss_sums.values())

    settled = []
    original = trainer.Run.settle
    monkeypatch.setattr(trainer.Run, "settle", lambda run: (settled.append(run.state.iteration), original(run)))
    train(dataset, on_progress=note)
    assert kinds == [(iteration, {torch.Tensor}) for iteration in range(1, 6)]
    assert list(dict.fromkeys(settled)) == [2, 4, 5]  # two epochs and the end; a second time there is nothing to fetch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_queued_copy_does_not_wait_for_what_is_queued_after_it():
    value = torch.tensor(2.5, device="cuda")
    arrived = queue_copy(value)
    value.fill_(0)
    done = torch.cuda.Event()
    torch.cuda._sleep(10**9)
    done.record()
    assert arrived() == 2.5 and not done.query()
