"""Random numbers of libraries that draw from the global generators of torch and NumPy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_randomness(seed: np.random.Generator | int, devices: Sequence[int] | None = ()) -> Iterator[None]:
    """Seed the global generators of torch and NumPy within the block, and restore them after it.

    :param seed: a number for both; or a generator, from which torch's seed is drawn, then NumPy's.
    :param devices: CUDA devices whose generators are restored too; None: all. Processes that only read data have none.
    """
    seeds = [int(seed.integers(2**31)) for _ in range(2)] if isinstance(seed, np.random.Generator) else [seed, seed]
    state = np.random.get_state()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seeds[0])
        np.random.seed(seeds[1])
        try:
            yield
        finally:
            np.random.set_state(state)
