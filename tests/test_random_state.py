import numpy as np
import pytest
import torch

from longflow.random_state import isolated_randomness


def draws(seed):
    with isolated_randomness(seed):
        return np.random.random(), torch.rand(1).item()


def test_draws_follow_the_seed_alone():
    np.random.seed(1)
    torch.manual_seed(1)
    first, of_number = draws(np.random.default_rng(5)), draws(5)
    np.random.seed(2)
    torch.manual_seed(2)
    assert draws(np.random.default_rng(5)) == first != draws(np.random.default_rng(6))
    assert draws(5) == of_number != draws(6)


def test_a_generator_gives_the_seed_of_torch_first():
    generator = np.random.default_rng(3)
    of_torch, of_numpy = (int(seed) for seed in generator.integers(2**31, size=2))
    with isolated_randomness(np.random.default_rng(3)):
        found = np.random.random(), torch.rand(1)
    assert found[0] == np.random.RandomState(of_numpy).random_sample()
    assert torch.equal(found[1], torch.rand(1, generator=torch.Generator().manual_seed(of_torch)))


def test_the_global_generators_are_left_as_they_were_after_an_error_too():
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    draws(0)
    with pytest.raises(RuntimeError), isolated_randomness(0):
        np.random.random()
        raise RuntimeError
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())
