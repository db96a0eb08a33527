"""Last context image: the trivial forecast that every other one is compared with (CRONOS C.1, TFM section 3)."""

from torch import Tensor

from longflow.methods.batches import Batch
from longflow.methods.method import Method


class LastContextImage(Method):
    """The forecast is the last context scan: nothing changes."""

    task = "forecast"
    summary = "last context image: nothing changes"
    trains = False

    @property
    def sees_earlier_scans(self) -> bool:
        """A forecast is the last scan."""
        return False

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return the last context scan."""
        return {"forecast": batch.context[:, -1]}


METHOD = LastContextImage
