"""The method ``brightness``: a voxel counts if it is brighter than a learnt threshold."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longflow.methods.batches import OnDevice
from longflow.methods.method import Method, Recipe


@dataclass
class CountBatch(OnDevice):
    """Whole scans and their counts.

    :param image: (batch, channels, *spatial).
    :param count: (batch,), or None where it is to be predicted.
    """

    image: Tensor
    count: Tensor | None = None


class Brightness(Method):
    """Sum a soft threshold of the brightness over the scan."""

    task = "count"
    summary = "counts voxels brighter than a learnt threshold"

    def __init__(self, plans, configuration, options=None):
        super().__init__(plans, configuration, options)
        self.threshold = nn.Parameter(torch.zeros(1))

    @property
    def recipe(self) -> Recipe:
        return Recipe(optimizer="adam", learning_rate=0.2, keep="best")

    def counts(self, image: Tensor) -> Tensor:
        """Return the counts of scans. :param image: (batch, channels, *spatial). :returns: (batch,)."""
        return torch.sigmoid(5 * (image[:, 0] - self.threshold)).flatten(1).sum(1)

    def training_step(self, batch: CountBatch) -> Tensor:
        return ((self.counts(batch.image) - batch.count) / batch.image[0].numel()).square().mean() * 100

    def predict(self, batch: CountBatch) -> dict[str, Tensor]:
        return {"count": self.counts(batch.image)}


METHOD = Brightness
