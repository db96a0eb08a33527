import pytest

from longflow.training.loader import training_loader
from tests.tasks.forecast.test_samples import equal, samples_of


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(dataset):
    """Two workers, spawned as in training, against none; and every second batch, as one of two processes sees them."""
    samples = samples_of(dataset)
    alone = [samples[number] for number in range(3, 8)]
    helped = training_loader(samples, 3, 1, workers=2, pin=False)
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=False))
    every_second = training_loader(samples, 3, 2, workers=0, pin=False)
    assert all(equal(a, b) for a, b in zip(alone[::2], every_second, strict=False))
