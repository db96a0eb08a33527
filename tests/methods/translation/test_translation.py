import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError, NotFoundError
from longflow.methods.translation._translation import LOSSES, source_phases
from tests.methods.translation.helpers import phase_batch, translator

METHODS = ["mfm", "regression", "ddpm"]
PHASE = {"to_first": 1, "to_second": 0}


def sample(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("name", "expected"), [("l2", (1 + 0.0004) / 2), ("l1", 0.51), ("huber", 0.4895)])
def test_losses_in_closed_form(name, expected):
    """Errors of 1 and -0.02 in the normal form. Huber: 1 - 0.05 / 2, and 0.02^2 / (2 * 0.05)."""
    assert LOSSES[name](sample([1.0, -0.02])).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_mfm_and_regression_learn_by_the_loss_that_is_set(loss):
    """A network of zeros: mfm errs by the velocity, regression by the difference, which is as large."""
    batch = phase_batch((0, 1))
    error = (batch.source - batch.target).numpy()
    expected = {
        "l2": np.square(error).mean(),
        "l1": np.abs(error).mean(),
        "huber": np.where(np.abs(error) < 0.05, error**2 / 0.1, np.abs(error) - 0.025).mean(),
    }[loss]
    for name in ("mfm", "regression"):
        method = translator(name, lambda image, time: 0 * image, loss=loss)
        assert method.training_step(batch).item() == pytest.approx(expected, rel=1e-5), name


def test_the_losses_that_are_the_papers_are_the_defaults():
    assert [translator(name).options["loss"] for name in ("mfm", "regression")] == ["l2", "l1"]


@pytest.mark.parametrize(("loss", "found"), [("l2", 2.0), ("l1", 0.0)])
def test_what_the_source_does_not_tell_is_answered_by_the_mean_or_the_median(loss, found):
    """Targets 0, 0 and 6 of one source, each as often: the mean is 2, the median 0. One step there, one step back."""
    method = translator("mfm", lambda image, time: method.shift + 0 * image, loss=loss)
    method.shift = torch.nn.Parameter(torch.tensor(1.0))
    batch = phase_batch((0, 0, 0))
    batch.source = torch.zeros_like(batch.source)
    batch.target = torch.tensor([0.0, 0.0, 6.0]).view(3, 1, 1, 1, 1).expand_as(batch.source)
    optimizer = torch.optim.SGD([method.shift], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        method.training_step(batch).backward()
        optimizer.step()
    there = method.predict(phase_batch((0,)))["translation"] - phase_batch((0,)).source
    assert there.detach().mean().item() == pytest.approx(found, abs=0.05)
    back = method.predict(phase_batch((1,)))["translation"] - phase_batch((1,)).source
    torch.testing.assert_close(back, -there, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_both_directions_are_the_default(name):
    assert source_phases(translator(name)) == (0, 1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("direction", PHASE)
def test_one_direction_is_learnt_whichever_way_pairs_are_drawn(name, direction):
    """The loss of pairs drawn both ways is that of the same pairs drawn the right way."""
    phase = PHASE[direction]
    method = translator(name, lambda image, time: image[:, :1] * time + 0.3, direction=direction)
    mixed, right = phase_batch((0, 1, 1 - phase)), phase_batch((phase,) * 3)
    for sample, drawn in enumerate((0, 1, 1 - phase)):
        if drawn != phase:
            right.source[sample], right.target[sample] = mixed.target[sample], mixed.source[sample]
    losses = []
    for batch in (mixed, right):
        torch.manual_seed(0)
        losses.append(method.training_step(batch).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("direction", "known"), [("to_first", "native"), ("to_second", "arterial")])
def test_the_other_direction_is_refused(name, direction, known):
    method, phase = translator(name, direction=direction).eval(), PHASE[direction]
    assert method.predict(phase_batch((phase, phase)))["translation"].shape == (2, 1, 4, 8, 8)
    with pytest.raises(ConfigurationError, match=f"direction={direction}: it translates to '{known}' alone"):
        method.predict(phase_batch((1 - phase,)))


@pytest.mark.parametrize("name", METHODS)
def test_a_direction_that_is_none_is_refused(name):
    with pytest.raises(NotFoundError, match="Did you mean 'to_first'"):
        translator(name, direction="to_frist")


@pytest.mark.parametrize("name", ["mfm", "regression"])
def test_a_loss_that_is_none_is_refused(name):
    with pytest.raises(NotFoundError, match="l1"):
        translator(name, loss="l3")
