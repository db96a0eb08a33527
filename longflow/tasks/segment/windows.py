"""Logits of a whole volume from overlapping patches, as nnU-Net computes them."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from longflow.inference.windows import WindowSettings, check_finite, mirrorings, pad_to_tile, weighted_slices
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Method
from longflow.nnunet import gaussian_weight
from longflow.tasks.segment.other_scans import OtherScans

#: nnU-Net's factor on the Gaussian of labels, which keeps half precision away from its smallest numbers
LOGITS_WEIGHT = 10


def predict_logits(
    methods: Sequence[Method], image: np.ndarray, settings: WindowSettings, others: OtherScans | None = None
) -> np.ndarray:
    """Predict the logits of a scan as :func:`logits_of_slices`, in one array.

    :returns: (outputs, z, y, x), float16.
    """
    return np.stack(list(logits_of_slices(methods, image, settings, others)), axis=1)


@torch.inference_mode()
def logits_of_slices(
    methods: Sequence[Method], image: np.ndarray, settings: WindowSettings, others: OtherScans | None = None
) -> Generator[np.ndarray, None, None]:
    """Predict the logits of a scan with the mean of several folds, as nnU-Net's predictor does.

    Everything but the network is bit-identical. On a CPU the network's small maps are convolved by oneDNN, which torch
    avoids: logits then differ by 2e-6 of the largest one, before they are rounded to half precision.

    Tiles are predicted one at a time, padded with zeros, and weighted with nnU-Net's Gaussian. Sums are kept in half
    precision on the CPU, for each fold by itself. An exported model thus gives the same labels in nnU-Net. For the
    same reason the precision is nnU-Net's: float32 on a CPU, also where bf16 would be faster; half precision on CUDA.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``settings.device``.
    :param image: (channels, z, y, x), prepared, in the normal form.
    :param settings: how the volume is cut and averaged; the seed has no meaning.
    :param others: of the subject, for methods that look at them.
    :returns: (outputs, y, x), float16, of each slice along z, as soon as it is known.
    :raises ModelError: a logit is not a finite number.
    """
    configuration = methods[0].configuration
    volume = image if others is None else np.concatenate([image[None], others.images])
    padded, inside = pad_to_tile(volume, configuration.tile, "constant")
    weight = gaussian_weight(tuple(configuration.patch_size), torch.float16, LOGITS_WEIGHT)
    predict = [partial(_logits_of_patches, method, settings=settings, others=others) for method in methods]
    of_folds = zip(*(weighted_slices(padded, weight, settings.step, one) for one in predict), strict=True)
    for folds in islice(of_folds, inside[0].start, inside[0].stop):
        logits = None
        for method, of_fold in zip(methods, folds, strict=True):
            logits = of_fold["logits"] if logits is None else logits.add_(of_fold["logits"])
            check_finite(logits, method)
        if len(methods) > 1:
            logits /= len(methods)
        yield logits.numpy()[(slice(None), *inside[1:])]


def _logits_of_patches(
    method: Method, patches: Tensor, settings: WindowSettings, others: OtherScans | None
) -> dict[str, Tensor]:
    """Average over mirrorings: (tiles, outputs, *tile), as "logits".

    :param patches: (tiles, channels, *tile), or (tiles, 1 + other scans, channels, *tile).
    """
    flat = len(method.configuration.patch_size) == 2
    patches = (patches.squeeze(-3) if flat else patches).to(settings.device)
    image = patches if others is None else patches[:, 0]
    axes = [axis - image.ndim + 2 for axis in method.configuration.mirrored]
    flips = mirrorings(axes if settings.mirror else ())
    total: Tensor | None = None
    for flip in flips:
        with _nnunet_autocast(settings.device):
            logits = method.predict(_batch(patches.flip(flip), others))["logits"]
        # nnU-Net adds in half precision what half precision has computed
        logits = (logits.half() if image.is_cuda else logits).flip(flip)
        total = logits if total is None else total + logits
    mean = (total / len(flips)).cpu()
    return {"logits": mean.unsqueeze(-3) if flat else mean}


def _batch(patches: Tensor, others: OtherScans | None) -> ScanBatch:
    if others is None:
        return ScanBatch(image=patches)
    times, aligned = (
        torch.from_numpy(one).to(patches.device).repeat(len(patches), 1) for one in (others.times, others.aligned)
    )
    return ScanBatch(
        image=patches[:, 0],
        others=patches[:, 1:],
        other_times=times,
        other_mask=torch.ones_like(aligned),
        other_aligned=aligned,
    )


def _nnunet_autocast(device: torch.device | str) -> AbstractContextManager:
    """Return the precision in which nnU-Net predicts: torch's default (half) on CUDA, float32 elsewhere."""
    kind = torch.device(device).type
    return torch.autocast(kind) if kind == "cuda" else nullcontext()
