from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.inference.windows import WindowSettings
from longflow.methods.forecasting import motion
from longflow.methods.registry import build_method
from longflow.registration.motion import Carried
from longflow.tasks.forecast.windows import Times, predict_forecast
from tests.methods.helpers import minimal_plans, random_batch


def disc(x, shape=(2, 40, 40)):
    """A bright disc, 12 voxels wide, at column ``x``."""
    rows, columns = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    plane = 1 / (1 + np.exp(np.hypot(rows - 20, columns - x) - 6))
    return np.broadcast_to(plane, shape).astype(np.float32)


def column_of(volume):
    return (volume * np.arange(volume.shape[-1])).sum() / volume.sum()


def batch_of(*scans, times, target):
    context = torch.from_numpy(np.stack(scans))[None, :, None]
    mask = torch.ones(1, len(scans), dtype=torch.bool)
    return replace(random_batch(), context=context, context_times=torch.tensor([times]), context_mask=mask,
                   target_time=torch.tensor([target]), target=None)  # fmt: skip


def method(**options):
    return build_method("motion", minimal_plans(), "3d_fullres", options)


@pytest.mark.parametrize(("step", "target", "expected"), [(1.0, 2.0, 22.0), (0.5, 2.0, 20.0), (1.0, 1.0, 20.0)])
def test_the_motion_goes_on_by_step_and_horizon_over_interval(step, target, expected):
    """4 voxels in an interval of 2: at the target, step * horizon / 2 * 4 further."""
    batch = batch_of(disc(14), disc(18), times=[-2.0, 0.0], target=target)
    assert column_of(method(step=step).predict(batch)["forecast"].numpy()) == pytest.approx(expected, abs=0.3)


def test_identical_scans_and_a_single_scan_are_lci_bit_for_bit():
    scan = np.random.default_rng(0).normal(size=(2, 40, 40)).astype(np.float32)
    for scans, times in (([scan, scan], [-1.0, 0.0]), ([scan], [0.0])):
        found = method().predict(batch_of(*scans, times=times, target=1.0))["forecast"]
        assert torch.equal(found[0, 0], torch.from_numpy(scan))


def test_the_worst_fold_of_several_predictions_is_kept(monkeypatch):
    shares = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(motion, "carried_on", lambda last, *_: Carried(last, next(shares)))
    found = method()
    for expected in (0.1, 0.3, 0.3):
        found.predict(batch_of(disc(14), disc(18), times=[-1.0, 0.0], target=1.0))
        assert found.folded == expected


def test_a_single_scan_is_said_once(caplog):
    motion._say_one_scan.cache_clear()
    for _ in range(2):
        method().predict(batch_of(disc(14), times=[0.0], target=1.0))
    assert caplog.text.count("a subject with one scan shows no motion") == 1


def test_a_scan_that_was_not_observed_gives_no_motion():
    batch = batch_of(disc(14), disc(18), times=[0.0, 0.0], target=1.0)
    batch.context_mask[0, 0] = False
    assert torch.equal(method().predict(batch)["forecast"], batch.context[:, -1])


def test_it_gets_the_whole_volume_and_not_tiles():
    """The patch of the plans is 4 x 8 x 8: a disc of 12 voxels that moves 4 fits into none."""
    context = np.stack([disc(14), disc(18)])[:, None]
    found = predict_forecast([method(step=1.0)], context, Times([0.0, 10.0], 20.0), WindowSettings())["forecast"]
    assert column_of(found[0]) == pytest.approx(22, abs=0.3)


def test_there_is_nothing_to_train():
    with pytest.raises(ConfigurationError, match="nothing to train"):
        method().training_step(random_batch())
