from dataclasses import replace

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods import Batch
from longflow.methods.forecasting.cronos_motion import stack_of
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch
from tests.networks.helpers import awake


def motion(dimensions=3, **options):
    torch.manual_seed(0)
    configuration = "3d_fullres" if dimensions == 3 else "2d"
    return build_method("cronos_motion", minimal_plans(dimensions=dimensions), configuration, options=options)


def at_times(times, target, period=None, scans=None):
    """Scans of 4 x 8 x 8 voxels at the given times, of which the last is 0."""
    context = torch.randn(1, len(times), 1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return Batch(
        context=context if scans is None else scans,
        context_times=torch.tensor([times]),
        context_mask=torch.ones(1, len(times), dtype=torch.bool),
        target_time=torch.tensor([target]),
        period=None if period is None else torch.tensor([period]),
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_untrained_forecast_is_the_last_scan(dimensions):
    batch = random_batch(shape=(4, 8, 8)[-dimensions:])
    forecast = motion(dimensions).predict(batch)["forecast"]
    torch.testing.assert_close(forecast, batch.context[:, -1], atol=1e-5, rtol=0)


def test_with_a_period_an_untrained_forecast_interpolates_between_the_scans_around_the_target():
    # shifted by the period of 5, the first scan is at 1 and the second at 2.5: the target at 0.6 lies between 0 and 1
    batch = at_times([-4.0, -2.5, -1.0, 0.0], 0.6, period=5.0)
    forecast = motion().predict(batch)["forecast"][0, 0].detach().numpy()
    scans = batch.context[0, :, 0].numpy()
    expected = np.apply_along_axis(lambda values: np.interp(0.6, [0, 1], values), 0, scans[[3, 0]])
    np.testing.assert_allclose(forecast, expected, atol=1e-5)


def test_scans_are_ordered_by_how_near_they_are_modulo_the_period():
    stack = stack_of(at_times([-4.0, -2.5, -1.0, 0.0], 0.6, period=5.0))
    # from the target: 1 after it, 0 before it; then -1 (1.6 before) and -2.5 (1.9 after, one period on)
    np.testing.assert_allclose(stack.offsets[0], [1.9, -1.6, 0.4, -0.6], atol=1e-6)
    np.testing.assert_allclose(stack.weights[0], [0, 0, 0.6, 0.4], atol=1e-6)


@pytest.mark.parametrize("expected", [True, False])
def test_with_an_inferred_period_an_untrained_forecast_is_the_expected_scan(expected):
    weights = torch.tensor([[0.4, -0.1, 0.2, 0.5]])
    batch = replace(at_times([-4.0, -2.5, -1.0, 0.0], 0.6, period=5.0), recurrence=weights)
    forecast = motion(recurrence=expected).predict(batch)["forecast"]
    summed = torch.einsum("bs,bs...->b...", weights, batch.context)
    assert torch.allclose(forecast, summed, atol=1e-5) == expected


@pytest.mark.parametrize(("times", "target", "period"), [([0.0], 0.7, 2.0), ([-1.0, 0.0], 2.0, 2.0)])
def test_a_single_scan_and_a_target_a_whole_period_on_need_no_interpolation(times, target, period):
    batch = at_times(times, target, period)
    forecast = motion().predict(batch)["forecast"]
    torch.testing.assert_close(forecast, batch.context[:, -1], atol=1e-5, rtol=0)


def test_a_subject_whose_period_is_not_known_starts_at_its_last_scan():
    known, unknown = at_times([-3.0, 0.0], 1.0, 4.0), at_times([-3.0, 0.0], 1.0, float("nan"))
    method = motion()
    assert not torch.allclose(method.predict(known)["forecast"], known.context[:, -1], atol=1e-2)
    torch.testing.assert_close(method.predict(unknown)["forecast"], unknown.context[:, -1], atol=1e-5, rtol=0)


def test_masked_scans_change_nothing():
    method = awake(motion())
    batch = random_batch(scans=2)
    padded = replace(
        batch,
        context=torch.cat([torch.full_like(batch.context[:, :1], 7), batch.context], dim=1),
        context_times=torch.cat([torch.full((2, 1), -9.0), batch.context_times], dim=1),
        context_mask=torch.tensor([[False, True, True]] * 2),
    )
    torch.testing.assert_close(
        method.predict(padded)["forecast"], method.predict(batch)["forecast"], atol=1e-5, rtol=1e-5
    )


class Translating(torch.nn.Module):
    """Stands for a network that has learnt a velocity, in voxels per unit of d / (1 + |d|), for the last scan."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity = torch.tensor(velocity) / 4

    def forward(self, stack, code):
        batch, scans, channels, *spatial = stack.shape
        moving = self.velocity.view(1, 1, -1, *[1] * len(spatial)).expand(batch, 1, -1, *spatial)
        return moving, stack.new_zeros(batch, scans, 1, *spatial), stack.new_zeros(batch, channels, *spatial)


def blob(centre, size=32, width=2.0):
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return torch.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * width**2))[None, None]


def test_a_translating_blob_is_transported_exactly_where_a_flow_of_intensities_blurs():
    start, end = blob((16, 10)), blob((16, 16))
    batch = Batch(
        context=start[:, None],
        context_times=torch.zeros(1, 1),
        context_mask=torch.ones(1, 1, dtype=torch.bool),
        target_time=torch.ones(1),
        target=end,
    )
    method = motion(2)
    # d = -1, so the reach is -1/2: the content moves by +6 along x, the image is read 6 voxels before
    method.network = Translating([0.0, 12.0])
    forecast = method.predict(batch)["forecast"]
    torch.testing.assert_close(forecast, end, atol=1e-4, rtol=0)

    def edges(image):
        return sum(part.abs().mean() for part in torch.gradient(image[0, 0]))

    assert edges(forecast) / edges(end) == pytest.approx(1, abs=0.01)
    half_way = 0.5 * (start + end)  # where a flow of intensities is at tau = 1/2
    method.network = Translating([0.0, 6.0])
    torch.testing.assert_close(method.predict(batch)["forecast"], blob((16, 13)), atol=1e-4, rtol=0)
    assert (half_way - blob((16, 13))).abs().max() > 0.3


def test_the_motion_of_a_blob_is_learnt():
    """A blob moves by 3 voxels in unit time, from random places: half the error of LCI and sharp, in 60 steps."""
    method = motion(2)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    generator = np.random.default_rng(0)

    def batch(size):
        starts = generator.uniform(10, 20, (size, 2))
        start = torch.cat([blob(centre) for centre in starts])
        end = torch.cat([blob(end) for end in starts + np.array([0, 3])])
        mask = torch.ones(size, 1, dtype=torch.bool)
        return Batch(start[:, None], torch.zeros(size, 1), mask, torch.ones(size), end)

    for _ in range(60):
        loss = method.training_step(batch(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tested = batch(8)
    with torch.no_grad():
        forecast = method.predict(tested)["forecast"]
    error, of_lci = ((image - tested.target).square().mean() for image in (forecast, tested.context[:, -1]))
    assert error < 0.25 * of_lci
    assert set(method.terms) == {"forecast", "transport", "smoothness"}


def test_the_share_of_voxels_that_fold():
    method = motion(2)

    class Folding(Translating):
        def forward(self, stack, code):
            velocity, change, residual = super().forward(stack, code)
            towards_the_middle = torch.arange(32.0).sub(16).mul(-8).view(1, 1, 1, 1, 32)
            return velocity * towards_the_middle, change, residual

    method.network = Folding([0.0, -12.0])
    batch = Batch(blob((16, 10))[:, None], torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.ones(1))
    assert method.folded == 0
    method.predict(batch)
    worst = method.folded
    assert 0.01 < worst < 1
    method.network = Translating([0.0, -12.0])
    method.predict(batch)
    assert method.folded == worst  # the largest, until it is set to 0


@pytest.mark.parametrize("options", [{"moving": 0}, {"smoothness": -1.0}, {"transport": -0.1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match="options of cronos_motion"):
        motion(**options)


def test_a_loss_weighted_by_change_counts_change_more():
    """An untrained forecast is the last scan, which moves nowhere: both terms are the weighted error of LCI."""
    batch = replace(random_batch(scans=1), context=torch.zeros(2, 1, 1, 4, 8, 8))
    change = batch.target.abs().flatten(1)
    weights = (1 + 3 * change / change.mean(1, keepdim=True)) / 4
    expected = (weights * batch.target.flatten(1).square()).mean()
    found = motion(change_weight=3.0, transport=0.5).training_step(batch)
    torch.testing.assert_close(found, 1.5 * expected)
