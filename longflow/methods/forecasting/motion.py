"""The last scan carried on by its last motion: the trivial forecast that moves edges instead of repainting them."""

import logging
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from longflow.methods.batches import Batch
from longflow.methods.method import Method, Options
from longflow.registration.motion import STEP, carried_on, motion_between

logger = logging.getLogger(__name__)


class Motion(Method):
    """The motion from the second last scan to the last goes on: last(exp(step * h / d * w)(x)).

    w is the stationary velocity between both scans (:func:`longflow.registration.motion.motion_between`), estimated on
    their first channel, h the horizon and d the interval between them. Motion seldom goes on unchanged, since hearts
    and lungs turn: ``step`` is the share of it that does. A single scan has no motion: its forecast is that scan (LCI).
    """

    task = "forecast"
    summary = "the last scan, carried on by its last motion"
    trains = False
    whole_volume = True
    options: ClassVar[Options] = {"step": STEP}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Warp the last scan of each sample; a scan before that was not observed gives no motion."""
        forecast = batch.context[:, -1].clone()
        several = batch.context.shape[1] > 1
        for sample in range(len(forecast)):
            if several and batch.context_mask[sample, -2]:
                forecast[sample] = self._carried_on(batch, sample)
            else:
                _say_one_scan()
        return {"forecast": forecast}

    def _carried_on(self, batch: Batch, sample: int) -> Tensor:
        before, last = batch.context[sample, -2:].float().cpu().numpy()
        earlier, present = batch.context_times[sample, -2:].tolist()
        velocity = motion_between(before[0], last[0], self.configuration.spacing)
        horizon = float(batch.target_time[sample]) - present
        warped = carried_on(last, velocity, float(self.options["step"]) * horizon / (present - earlier))
        self.folded = max(self.folded, warped.folded)
        return torch.from_numpy(warped.scan).to(batch.context)


@cache
def _say_one_scan() -> None:
    """Log once in a process, and not for each subject."""
    logger.warning("motion: a subject with one scan shows no motion. Its forecast is that scan, unchanged (LCI).")


METHOD = Motion
