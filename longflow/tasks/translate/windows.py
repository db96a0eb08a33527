"""A translation of a whole volume from overlapping patches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from longflow.inference.windows import WindowSettings, predict_changed
from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Method


def predict_translation(
    methods: Sequence[Method], image: np.ndarray, source_phase: int, settings: WindowSettings
) -> np.ndarray:
    """Translate a scan into the other phase with the mean of several folds of one method.

    See ``inference.windows.predict_changed``: a translation without a change is bit-identical to the scan.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``settings.device``.
    :param image: (channels, z, y, x), prepared, in the normal form.
    :param source_phase: 0 or 1, the position of the scan's phase in ``plans.phases``.
    :param settings: how the volume is cut and averaged.
    :returns: (channels, z, y, x), float32, in the normal form of ``image``.
    """

    def make_batch(scans: Tensor, noise: Tensor | None) -> PhaseBatch:
        return PhaseBatch(scans[:, 0], torch.full((len(scans),), float(source_phase)), noise=noise)

    scans = np.asarray(image, dtype=np.float32)[None]
    return predict_changed(methods, scans, make_batch, settings)[methods[0].reductions[0]]
