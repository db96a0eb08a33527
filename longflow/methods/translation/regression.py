"""Regression: the baseline of MFM that goes from one phase to the other in one step (section 3, figure 1)."""

from torch import Tensor

from longflow.methods.batches import PhaseBatch
from longflow.methods.translation._translation import TranslationMethod


class Regression(TranslationMethod):
    """The other phase from the one that is given, by the mean absolute error (MFM section 3).

    MFM trains one such network for contrast to native alone. Two things are different here, so that a comparison with
    the flow says something about the method and about nothing else:

    - One network serves both directions: the time tells it which phase its source is, 0 or 1, where the flow starts.
    - The network's output is added to the source. It starts at zero, so that untrained it returns its input.
    """

    summary = "regression of the other phase, mean absolute error"

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """|g(x_source) - x_target|, averaged over all voxels."""
        return (self._translated(batch) - batch.target).abs().mean()

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """The source with the network's output added."""
        return {"translation": self._translated(batch)}

    def _translated(self, batch: PhaseBatch) -> Tensor:
        return batch.source + self.network(batch.source, batch.source_phase.float())


METHOD = Regression
