import numpy as np
import pytest
from scipy.stats import norm

from longflow.evaluation.crps import crps


def test_one_number_has_its_absolute_error():
    assert crps([3.0], 5.0) == crps([3.0, 3.0], 5.0) == 2


def test_against_the_definition():
    """The integral of (F(x) - 1[x >= y])^2, of a step function."""
    sample, observed = [0.0, 1.0, 4.0], 2.0
    # between 0 and 1: (1/3)^2; 1 and 2: (2/3)^2; 2 and 4: (2/3 - 1)^2
    assert crps(sample, observed) == pytest.approx(1 / 9 + 4 / 9 + 2 / 9)


def test_of_a_normal_distribution_is_the_closed_form():
    """Gneiting & Raftery 2007, eq. 5, with quantiles as the sample."""
    mean, deviation, observed = 30.0, 3.0, 34.0
    sample = norm.ppf((np.arange(20_000) + 0.5) / 20_000, mean, deviation)
    z = (observed - mean) / deviation
    expected = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert crps(sample, observed) == pytest.approx(expected, rel=1e-3)


def test_the_honest_distribution_has_the_lowest_score():
    generator = np.random.default_rng(0)
    quantiles = norm.ppf((np.arange(200) + 0.5) / 200)
    observed = generator.normal(size=2000)
    means = [np.mean([crps(spread * quantiles, one) for one in observed]) for spread in (0.3, 1.0, 3.0)]
    assert means[1] < means[0] and means[1] < means[2]
