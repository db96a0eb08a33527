"""Batches of pairs, and networks whose answer is known, for tests of methods that translate."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from tests.inference.helpers import plans_to_translate

SHAPE = (4, 8, 8)


class Known(nn.Module):
    """A network that is a function of image and time, and remembers what it was given.

    It has a parameter, so that a loss has a gradient.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        self.seen.append((image, time))
        return self.function(image, time.view(-1, *[1] * (image.ndim - 1))) + self.nothing


def translator(
    name: str, function: Callable[[Tensor, Tensor], Tensor] | None = None, dimensions=3, **options
) -> Method:
    """A fresh method, or one whose network is a known function."""
    method = build_method(name, plans_to_translate(dimensions), "3d_fullres" if dimensions == 3 else "2d", options)
    if function is not None:
        method.network = Known(function)
    return method


def phase_batch(phases: tuple[int, ...], shape: tuple[int, ...] = SHAPE) -> PhaseBatch:
    """Random pairs with noise; the same for every choice of phases."""
    draw = torch.Generator().manual_seed(0)
    source, target, noise = (torch.randn(len(phases), 1, *shape, generator=draw) for _ in range(3))
    return PhaseBatch(source, torch.tensor(phases, dtype=torch.float32), target, noise)
