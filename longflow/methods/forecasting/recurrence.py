"""The expected scan of a subject that repeats after a period of its own: the best weighted sum of its scans."""

from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.methods.batches import Batch, expected_scan
from longflow.methods.method import Method


class Recurrence(Method):
    """Scans repeat, after a period that is known or inferred from them (:mod:`longflow.data.recurrence`).

    The period needs no table: similar scans, far apart in time, show it. The forecast is the weighted sum of the
    context scans that is expected at the target time. With one scan it is that scan (LCI).
    """

    task = "forecast"
    summary = "the expected scan where scans repeat; the period is inferred"
    trains = False

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Sum the scans of each sample with their weights.

        :raises ConfigurationError: the plans do not take the scans to repeat.
        """
        if batch.recurrence is None:
            raise ConfigurationError(
                "The method 'recurrence' needs scans that repeat, as those of a heart do. The plans say that they do "
                "not: a forecast of training scans that assumes it was not better than the last context image. The "
                "reason is in the plans, under 'temporal'."
            )
        return {"forecast": expected_scan(batch.context, batch.recurrence)}


METHOD = Recurrence
