"""What the augmentations of several tasks share: the shape of patches, isolated randomness."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from nnunetv2.configuration import ANISO_THRESHOLD

from longflow.plans import ConfigurationPlan


def is_thin(plan: ConfigurationPlan) -> bool:
    """Tell whether a 3D patch has few slices for its width, so that rotation out of the plane would leave it.

    :param plan: with the patch size.
    :returns: True for a thin patch; False in 2D.
    """
    patch = plan.patch_size
    return len(patch) == 3 and max(patch) / patch[0] > ANISO_THRESHOLD


@contextmanager
def randomness_of(generator: np.random.Generator) -> Iterator[None]:
    """Seed the global generators of torch (CPU) and NumPy from a generator within the block; restore them after it.

    :param generator: source of both seeds.
    """
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        np.random.seed(int(generator.integers(2**31)))
        try:
            yield
        finally:
            np.random.set_state(state)
