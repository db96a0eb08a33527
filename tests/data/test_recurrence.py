import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ExpSineSquared

from longflow.data.recurrence import (
    Kernel,
    infer_recurrence,
    kriging_weights,
    log_evidence,
    period_probabilities,
    scan_similarity,
)

KERNEL = Kernel(1.2, 0.02)
PERIODS = np.geomspace(4.0, 16.0, 49)
EVEN = np.full(49, 1 / 49)


def beating(times, period, shape=(2, 4, 8, 8)):
    """Scans whose voxels are two harmonics of the period, with phases of their own."""
    draw = np.random.default_rng(0)
    turns = 2 * np.pi * np.reshape(times, (-1, 1, 1, 1, 1)) / period
    return np.sin(turns + draw.uniform(0, 7, shape)) + 0.4 * np.sin(2 * turns + draw.uniform(0, 7, shape))


@pytest.mark.parametrize("portion", [7, 250_000])
def test_similarity_is_the_mean_correlation_of_the_channels(monkeypatch, portion):
    monkeypatch.setattr("longflow.data.recurrence.VOXELS_AT_A_TIME", portion)
    scans = np.random.default_rng(1).normal(1e4, 3, (4, 2, 3, 5, 6)).astype(np.float32)
    expected = np.mean([np.corrcoef(scans[:, channel].reshape(4, -1)) for channel in (0, 1)], axis=0)
    np.testing.assert_allclose(scan_similarity(scans), expected, atol=1e-6)
    changed = [scan * gain + offset for scan, gain, offset in zip(scans, (1, 2, 3, 0.5), (0, -5, 9, 2), strict=True)]
    np.testing.assert_allclose(scan_similarity(changed), expected, atol=1e-4)


def test_a_constant_scan_is_like_no_other():
    scans = np.stack([np.ones((1, 2, 2, 2)), np.random.default_rng(0).random((1, 2, 2, 2))])
    np.testing.assert_allclose(scan_similarity(scans), [[0, 0], [0, 1]], atol=1e-12)


def test_weights_are_those_of_a_gaussian_process_with_unknown_mean():
    """A prior variance of the mean that is large against the process gives ordinary kriging."""
    times, target, period, far = np.array([0.0, 1.0, 3.5, 6.0]), 7.2, 5.0, 1e6
    process = GaussianProcessRegressor(ExpSineSquared(KERNEL.length, period) + far, alpha=KERNEL.noise, optimizer=None)
    expected = [float(process.fit(times[:, None], row).predict([[target]])[0]) for row in np.eye(4)]
    (weights,) = kriging_weights(times, target, np.array([period]), KERNEL)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert weights.sum() == pytest.approx(1)


def test_the_evidence_is_the_likelihood_of_the_contrasts():
    """With the best scale, the log likelihood of voxels that are independent is the evidence for each of them."""
    times, voxels = np.array([0.0, 1.0, 2.5, 4.0]), 50
    values = np.random.default_rng(2).normal(size=(4, voxels))
    similarity = values @ values.T / voxels
    contrasts = np.array([[1, -1, 0, 0], [1, 1, -2, 0], [1, 1, 1, -3]]) / np.sqrt([[2], [6], [12]])
    expected = []
    for period in (3.0, 5.0, 7.0):
        turns = np.pi * (times[:, None] - times) / period
        covariance = np.exp(-2 * np.sin(turns) ** 2 / KERNEL.length**2) + KERNEL.noise * np.eye(4)
        seen = contrasts @ covariance @ contrasts.T
        scale = np.trace(np.linalg.solve(seen, contrasts @ similarity @ contrasts.T)) / 3
        likelihood = multivariate_normal(cov=scale * seen).logpdf((contrasts @ values).T)
        expected.append(likelihood.mean())
    found = log_evidence(times, similarity, np.array([3.0, 5.0, 7.0]), KERNEL)
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], atol=1e-9)


@pytest.mark.parametrize("period", [6.0, 9.5, 12.0])
def test_the_period_is_found_without_being_told(period):
    times = np.array([0.0, 1.1, 2.9, 4.2, 5.8, 7.0, 9.1, 11.3, 13.0])
    found = infer_recurrence(times, 14.5, scan_similarity(beating(times, period)), PERIODS, EVEN, KERNEL)
    assert found.period == pytest.approx(period, rel=0.02)
    forecast = np.tensordot(found.weights, beating(times, period), 1)
    reference, last = beating([14.5], period)[0], beating(times, period)[-1]
    assert np.std(forecast - reference) < 0.35 * np.std(last - reference)


def test_a_known_period_is_the_only_one():
    times = [0.0, 1.0, 2.0, 3.0]
    similarity = scan_similarity(beating(times, 5.0))
    found = infer_recurrence(times, 5.0, similarity, np.array([5.0]), np.ones(1), Kernel(0.5, 1e-6))
    assert found.period == 5.0
    np.testing.assert_allclose(found.weights, [1, 0, 0, 0], atol=1e-3)  # the scan one period back


def test_few_scans_say_nothing_of_the_period():
    probabilities = np.linspace(1, 2, 49) / np.linspace(1, 2, 49).sum()
    for times in ([0.0], [0.0, 1.0]):
        similarity = scan_similarity(beating(times, 5.0))
        np.testing.assert_allclose(
            period_probabilities(times, similarity, PERIODS, probabilities, KERNEL), probabilities
        )
    assert infer_recurrence([0.0], 1.0, np.ones((1, 1)), PERIODS, EVEN, KERNEL).weights == pytest.approx([1.0])


def test_scans_that_are_all_alike_are_averaged():
    found = infer_recurrence([0.0, 1.0, 2.0], 3.0, np.ones((3, 3)), PERIODS, EVEN, KERNEL)
    assert np.isfinite(found.weights).all() and found.weights.sum() == pytest.approx(1)
