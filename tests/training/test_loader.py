import pytest

from longflow.errors import NotFoundError
from longflow.methods import Method
from longflow.methods.registry import known_methods, method_class
from longflow.training.loader import SAMPLERS, sampler_of, training_loader
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


def test_samples_that_nobody_draws_are_named():
    class Strange(Method):
        samples = "forcast"

    with pytest.raises(NotFoundError, match=r"no kind of samples 'forcast'\. Did you mean 'forecast'"):
        sampler_of(Strange.__new__(Strange))


def test_what_every_method_asks_for_exists():
    asked = {method_class(name).samples for name in known_methods()}
    assert asked <= set(SAMPLERS)
    for name in known_methods():
        assert callable(sampler_of(method_class(name)).__getitem__)
