"""Regression: the baseline of MFM that predicts the other phase in one step (section 3, figure 1)."""

from typing import ClassVar

from torch import Tensor

from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Options
from longflow.methods.translation._translation import LOSSES, TranslationMethod, check_source


class Regression(TranslationMethod):
    """Predict the other phase from the source, by default by the mean absolute error (MFM section 3).

    MFM trains one such network for contrast to native alone. Two things differ here, so that a comparison with the flow
    is one of methods alone:

    - One network serves both directions: its time is the phase of the source, 0 or 1, where the flow starts. With
      ``direction`` it serves one, as in the paper.
    - The network's output is added to the source. It starts at zero, so an untrained method returns its input.
    """

    summary = "regression of the other phase, mean absolute error"
    options: ClassVar[Options] = {**TranslationMethod.options, "loss": "l1"}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**TranslationMethod.choices, "loss": tuple(LOSSES)}

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """Compute |g(x_source) - x_target|, or another loss, averaged over all voxels."""
        batch = self.directed(batch)
        return LOSSES[self.options["loss"]](self._translated(batch) - batch.target)

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """Add the network's output to the source.

        :raises ConfigurationError: the sources are in a phase that it does not translate from.
        """
        check_source(self, int(batch.source_phase[0] > 0.5))
        return {"translation": self._translated(batch)}

    def _translated(self, batch: PhaseBatch) -> Tensor:
        return batch.source + self.network(batch.source, batch.source_phase.float())


METHOD = Regression
