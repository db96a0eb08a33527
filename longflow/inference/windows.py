"""A whole volume from overlapping patches with Gaussian weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import combinations, product

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor

from longflow.errors import ModelError
from longflow.methods.batches import Batch, PhaseBatch, ScanBatch
from longflow.methods.method import Method
from longflow.networks.precision import autocast
from longflow.nnunet import gaussian_weight, tile_starts

#: slices that a 2D network takes at once in a forecast or a translation
SLICES_PER_PASS = 8

#: nnU-Net's factor on the Gaussian of labels, which keeps half precision away from its smallest numbers
LOGITS_WEIGHT = 10

#: patches (tiles, ..., *tile) to volumes by name, (tiles, channels, *tile) each
PredictPatches = Callable[[Tensor], dict[str, Tensor]]


def predict_volume(
    methods: Sequence[Method],
    context: np.ndarray,
    context_times: Sequence[float],
    target_time: float,
    device: torch.device | str,
    tile_step_size: float = 0.5,
    mirror: bool = False,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Forecast a volume with the mean of several folds of one method.

    The ODE is integrated for each patch; patches overlap by ``1 - tile_step_size`` and are weighted with nnU-Net's
    Gaussian. What is summed is the change since the last context scan, so that a forecast without one is that scan to
    the bit. A method that begins with noise gets it as :func:`predict_translation` gives it. Sums are kept in float32
    on the CPU, so that beside the context the memory needed is two volumes for each reduction plus what one patch takes
    in the network.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``device``.
    :param context: (scans, channels, z, y, x), in order of time, in the normal form.
    :param context_times: time of each scan in the plan's time unit. :param target_time: the wanted time, likewise.
    :param mirror: average over all mirrored inputs (8 times the work in 3D). :param seed: of the noise.
    :returns: one volume (channels, z, y, x), float32, for each of the method's reductions.
    """
    method = methods[0]
    tile = method.configuration.tile
    padded, inside = _padded(context, tile, "edge")
    times, horizon = relative_times(context_times, target_time, method.plans.temporal.time_scale)
    stack = padded
    if method.noise:  # as one more scan, so that both are cut at once
        stack = np.concatenate([padded, _noise(padded.shape[1:], len(method.configuration.patch_size), seed)[None]])

    def predict_changes(patches: Tensor) -> dict[str, Tensor]:
        return _changes_of_forecasts(methods, patches, times, horizon, device, mirror)

    changes = _weighted_changes(method, stack, tile_step_size, predict_changes)
    last = torch.from_numpy(padded[-1])
    return {name: (last + changes[name]).numpy()[(slice(None), *inside)] for name in method.reductions}


def predict_translation(
    methods: Sequence[Method],
    image: np.ndarray,
    source_phase: int,
    device: torch.device | str,
    tile_step_size: float = 0.5,
    mirror: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Translate a scan into the other phase with the mean of several folds of one method.

    As in :func:`predict_volume`, the change is what is summed, so that a translation without one is the scan to the
    bit. A method that begins with noise gets one field of it for the whole scan, cut by the same windows: a volume in
    3D, and in 2D the same for all slices, which would not fit each other otherwise (MFM section 3.1). Sums are kept in
    float32 on the CPU; the memory needed is a few volumes plus what one pass takes in the network.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``device``.
    :param image: (channels, z, y, x), prepared, in the normal form.
    :param source_phase: 0 or 1, the position of its phase in ``plans.phases``.
    :param mirror: average over all mirrored inputs (8 times the work in 3D). :param seed: of the noise.
    :returns: (channels, z, y, x), float32, in the normal form of ``image``.
    """
    method = methods[0]
    tile = method.configuration.tile
    padded, inside = _padded(np.asarray(image, dtype=np.float32), tile, "edge")
    stack = padded[None]
    if method.noise:  # beside the image in the first axis, so that both are cut at once
        stack = np.stack([padded, _noise(padded.shape, len(method.configuration.patch_size), seed)])

    def predict_changes(patches: Tensor) -> dict[str, Tensor]:
        return _changes_of_translations(methods, patches, source_phase, device, mirror)

    change = _weighted_changes(method, stack, tile_step_size, predict_changes)[method.reductions[0]]
    return (torch.from_numpy(padded) + change).numpy()[(slice(None), *inside)]


@torch.inference_mode()
def predict_logits(
    methods: Sequence[Method],
    image: np.ndarray,
    device: torch.device | str,
    tile_step_size: float = 0.5,
    mirror: bool = False,
) -> np.ndarray:
    """Logits of a scan with the mean of several folds of one method, to the bit those of nnU-Net's predictor.

    Its tiles one at a time, its padding with zeros, its Gaussian, and like it sums in half precision, one fold after
    the other, so that an exported model gives the same labels there. For the same reason the precision is nnU-Net's:
    float32 on a CPU, also where bf16 would be faster; half precision on CUDA. Sums are kept on the CPU.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``device``.
    :param image: (channels, z, y, x), prepared, in the normal form.
    :param mirror: average over all mirrored inputs (8 times the work in 3D).
    :returns: (outputs, z, y, x), float16.
    :raises ModelError: a logit is not a finite number.
    """
    configuration = methods[0].configuration
    padded, inside = _padded(image, configuration.tile, "constant")
    weight = gaussian_weight(tuple(configuration.patch_size), torch.float16, LOGITS_WEIGHT)
    logits = None
    for method in methods:
        predict = partial(_logits_of_patches, method, device=device, mirror=mirror)
        found = _weighted_mean(padded, configuration.tile, tile_step_size, 1, weight, predict)["logits"]
        logits = found if logits is None else logits.add_(found)
    if len(methods) > 1:
        logits /= len(methods)
    if not torch.isfinite(logits).all():
        raise ModelError(
            "The network's outputs are not finite numbers, or beyond what half precision holds: its training has "
            "diverged, or the image has intensities far from those it was trained on."
        )
    return logits.numpy()[(slice(None), *inside)]


def relative_times(times: Sequence[float], target_time: float, time_scale: float) -> tuple[list[float], float]:
    """Context times and target time as networks see them: since the last context scan, in units of the time scale."""
    return [(time - times[-1]) / time_scale for time in times], (target_time - times[-1]) / time_scale


def _padded(volume: np.ndarray, tile: Sequence[int], mode: str) -> tuple[np.ndarray, tuple[slice, ...]]:
    """A volume (..., z, y, x) that is nowhere smaller than a tile, and where in it the given one lies."""
    shape = tuple(max(size, edge) for size, edge in zip(volume.shape[-3:], tile, strict=True))
    padded, inside = pad_nd_image(np.ascontiguousarray(volume), shape, mode, return_slicer=True)
    return padded, inside[-3:]


def _weighted_mean(
    volume: np.ndarray, tile: tuple[int, ...], step: float, per_pass: int, weight: Tensor, predict: PredictPatches
) -> dict[str, Tensor]:
    """What is predicted for overlapping tiles of a volume (..., z, y, x): (channels, z, y, x) for each name.

    :param per_pass: tiles that are predicted at once. :param weight: of each voxel of a tile, on the CPU; sums are kept
        in its type.
    """
    shape = volume.shape[-3:]
    sums: dict[str, Tensor] = {}
    weights = torch.zeros(shape, dtype=weight.dtype)
    for starts in _chunks(_tile_starts(shape, tile, step), per_pass):
        windows = [tuple(slice(a, a + size) for a, size in zip(start, tile, strict=True)) for start in starts]
        predicted = predict(torch.from_numpy(np.stack([volume[(..., *window)] for window in windows])))
        for name, values in predicted.items():
            if name not in sums:
                sums[name] = torch.zeros((values.shape[1], *shape), dtype=weight.dtype)
            for position, window in enumerate(windows):
                sums[name][(slice(None), *window)] += values[position] * weight
        for window in windows:
            weights[window] += weight
    return {name: total.div_(weights) for name, total in sums.items()}


def _weighted_changes(method: Method, volume: np.ndarray, step: float, predict: PredictPatches) -> dict[str, Tensor]:
    """:func:`_weighted_mean` of changes in float32; slices share a pass."""
    tile = method.configuration.tile
    weight = gaussian_weight(tile, torch.float32)
    per_pass = SLICES_PER_PASS if len(method.configuration.patch_size) == 2 else 1
    return _weighted_mean(volume, tile, step, per_pass, weight, predict)


def _changes_of_forecasts(
    methods: Sequence[Method],
    patches: Tensor,
    times: Sequence[float],
    horizon: float,
    device: torch.device | str,
    mirror: bool,
) -> dict[str, Tensor]:
    """patches: (tiles, scans, channels, *tile): the context and, after it, the noise where there is any."""
    tiles, scans = len(patches), len(times)

    def batch_of(stack: Tensor) -> Batch:
        return Batch(
            context=stack[:, :scans],
            context_times=torch.tensor(times, dtype=torch.float32).expand(tiles, scans),
            context_mask=torch.ones(tiles, scans, dtype=torch.bool),
            target_time=torch.full((tiles,), horizon, dtype=torch.float32),
            noise=stack[:, scans] if stack.shape[1] > scans else None,
        )

    return _mean_change(methods, patches, scans - 1, batch_of, device, mirror)


def _changes_of_translations(
    methods: Sequence[Method], patches: Tensor, source_phase: int, device: torch.device | str, mirror: bool
) -> dict[str, Tensor]:
    """patches: (tiles, 1 or 2, channels, *tile): the image and, where there is any, the noise."""

    def batch_of(stack: Tensor) -> PhaseBatch:
        phase = torch.full((len(stack),), float(source_phase))
        return PhaseBatch(stack[:, 0], phase, noise=stack[:, 1] if stack.shape[1] > 1 else None)

    return _mean_change(methods, patches, 0, batch_of, device, mirror)


@torch.inference_mode()
def _mean_change(
    methods: Sequence[Method],
    patches: Tensor,
    before: int,
    batch_of: Callable[[Tensor], Batch | PhaseBatch],
    device: torch.device | str,
    mirror: bool,
) -> dict[str, Tensor]:
    """What folds and mirrorings predict, less what was there before, on average: (tiles, channels, *tile) by name.

    :param patches: (tiles, scans, channels, *tile); 2D networks get the z axis removed.
    :param before: which of the scans it is. :param batch_of: the batch of such patches.
    """
    flat = len(methods[0].configuration.patch_size) == 2
    stack = patches.squeeze(-3) if flat else patches
    flips = _flips(stack.ndim - 3, mirror)
    total: dict[str, Tensor] = {}
    for flip in flips:
        batch = batch_of(stack.flip(flip)).to(device)
        for method in methods:
            with autocast(device):
                predictions = method.predict(batch)
            for name, prediction in predictions.items():
                change = prediction.float().flip(flip).cpu() - stack[:, before]
                total[name] = total[name] + change if name in total else change
    count = len(flips) * len(methods)
    return {name: (value.unsqueeze(-3) if flat else value) / count for name, value in total.items()}


def _noise(shape: tuple[int, ...], dimensions: int, seed: int) -> np.ndarray:
    """Standard normal noise (channels, z, y, x): a volume for 3D networks, one slice throughout for 2D networks."""
    channels, slices, *plane = shape
    field = (channels, slices if dimensions == 3 else 1, *plane)
    noise = np.random.default_rng(seed).standard_normal(field, dtype=np.float32)
    return np.broadcast_to(noise, shape)


def _logits_of_patches(method: Method, patches: Tensor, device: torch.device | str, mirror: bool) -> dict[str, Tensor]:
    """Mean over mirrorings, (tiles, outputs, *tile), as "logits". patches: (tiles, channels, *tile)."""
    flat = len(method.configuration.patch_size) == 2
    image = (patches.squeeze(-3) if flat else patches).to(device)
    flips = _flips(image.ndim - 2, mirror)
    total: Tensor | None = None
    for flip in flips:
        with _nnunet_autocast(device):
            logits = method.predict(ScanBatch(image=image.flip(flip)))["logits"]
        # what half precision has computed, nnU-Net goes on adding in half precision
        logits = (logits.half() if image.is_cuda else logits).flip(flip)
        total = logits if total is None else total + logits
    mean = (total / len(flips)).cpu()
    return {"logits": mean.unsqueeze(-3) if flat else mean}


def _nnunet_autocast(device: torch.device | str) -> AbstractContextManager:
    """The precision in which nnU-Net predicts: torch's default (half) on CUDA, float32 elsewhere."""
    kind = torch.device(device).type
    return torch.autocast(kind) if kind == "cuda" else nullcontext()


def _flips(axes: int, mirror: bool) -> list[tuple[int, ...]]:
    """Axes, counted from the last (-1), that are mirrored at once: none alone, or every choice of them.

    >>> _flips(2, True)
    [(), (-2,), (-1,), (-2, -1)]
    """
    last = range(-axes, 0)
    return [flip for count in range(axes + 1) for flip in combinations(last, count)] if mirror else [()]


def _tile_starts(shape: tuple[int, ...], tile: tuple[int, ...], step: float) -> Iterator[tuple[int, ...]]:
    # half a step of a tile of one slice would visit slices twice
    return product(*(sorted(set(starts)) for starts in tile_starts(shape, tile, step)))


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk: list = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
