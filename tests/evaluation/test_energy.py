from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from longflow.evaluation.crps import crps
from longflow.evaluation.energy import energy_score, gaussian_energy_score, spread_of, spread_skill


def test_in_one_dimension_it_is_the_crps():
    """Of a normal distribution, the closed form (Gneiting & Raftery 2007, eq. 5); pairs of different samples."""
    mean, deviation, observed, number = 30.0, 3.0, 34.0, 500
    sample = norm.ppf((np.arange(number) + 0.5) / number, mean, deviation)
    z = (observed - mean) / deviation
    expected = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    found = energy_score(sample[:, None], np.array([observed]))
    assert found == pytest.approx(expected, rel=5e-3)
    half_spread = np.abs(sample - observed).mean() - crps(sample, observed)
    assert found == pytest.approx(np.abs(sample - observed).mean() - half_spread * number / (number - 1))


def test_against_the_definition():
    """Each distance by itself; those of a sample to itself do not count."""
    generator = np.random.default_rng(0)
    samples, observed = generator.normal(size=(7, 12)), generator.normal(size=12)
    errors = [np.sqrt(np.mean((one - observed) ** 2)) for one in samples]
    apart = [np.sqrt(np.mean((one - other) ** 2)) for one, other in combinations(samples, 2)]
    assert energy_score(samples, observed) == pytest.approx(np.mean(errors) - np.mean(apart) / 2)


def test_voxels_in_portions(monkeypatch):
    generator = np.random.default_rng(1)
    samples, observed = generator.normal(size=(4, 50)).astype(np.float32), generator.normal(size=50)
    whole = energy_score(samples, observed)
    monkeypatch.setattr("longflow.evaluation.energy._VOXELS", 7)
    assert energy_score(samples, observed) == pytest.approx(whole)


def test_samples_that_are_alike_have_their_rmse():
    assert energy_score(np.full((3, 100), 5.0), np.full(100, 3.0)) == pytest.approx(2)
    assert gaussian_energy_score(2.0, 0.0) == 2


def test_independent_normal_errors_at_many_voxels():
    generator = np.random.default_rng(2)
    observed = np.zeros(40_000)
    samples = 0.3 * generator.choice([-1, 1], 40_000) + 0.5 * generator.normal(size=(10, 40_000))
    assert energy_score(samples, observed) == pytest.approx(gaussian_energy_score(0.3, 0.5), rel=0.01)


def test_a_calibrated_ensemble_has_the_ratio_1():
    """Truth and samples from one distribution; with few samples the mean has an error of its own."""
    generator, spreads, errors = np.random.default_rng(3), [], []
    for _ in range(200):
        law = generator.normal(size=500)
        samples, truth = law + 2 * generator.normal(size=(4, 500)), law + 2 * generator.normal(size=500)
        spreads.append(spread_of(samples))
        errors.append(float(np.sqrt(np.mean((samples.mean(0) - truth) ** 2))))
    subjects = [str(number) for number in range(200)]
    assert spread_skill(subjects, spreads, errors) == pytest.approx(1, abs=0.02)
    assert spread_skill(subjects, [spread / 2 for spread in spreads], errors) == pytest.approx(0.5, abs=0.01)


def test_each_subject_counts_once_and_without_error_there_is_no_ratio():
    assert spread_skill(["a", "a", "b"], [1.0, 1.0, 3.0], [1.0, 1.0, 2.0]) == pytest.approx(np.sqrt(5 / 2.5))
    assert spread_skill(["a"], [1.0], [0.0]) is None
