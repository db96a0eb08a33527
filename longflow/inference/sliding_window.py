"""A whole volume from overlapping patches with Gaussian weights."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

from longflow.methods.method import Batch, Method
from longflow.networks.precision import autocast

#: slices that a 2D network takes at once
SLICES_PER_PASS = 8


def predict_volume(
    methods: Sequence[Method],
    context: np.ndarray,
    context_times: Sequence[float],
    target_time: float,
    device: torch.device | str,
    tile_step_size: float = 0.5,
    mirror: bool = False,
) -> dict[str, np.ndarray]:
    """Forecast a volume with the mean of several folds of one method.

    The ODE is integrated for each patch; patches overlap by ``1 - tile_step_size`` and are weighted with nnU-Net's
    Gaussian. What is summed is the change since the last context scan, so that a forecast without one is that scan to
    the bit. Sums are kept in float32 on the CPU, so that beside the context the memory needed is two volumes for each
    reduction plus what one patch takes in the network.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``device``.
    :param context: (scans, channels, z, y, x), in order of time, in the normal form.
    :param context_times: time of each scan in the plan's time unit. :param target_time: the wanted time, likewise.
    :param mirror: average over all mirrored inputs (8 times the work in 3D).
    :returns: one volume (channels, z, y, x), float32, for each of the method's reductions.
    """
    method = methods[0]
    tile = method.configuration.tile
    shape = tuple(max(size, edge) for size, edge in zip(context.shape[2:], tile, strict=True))
    padded, inside = pad_nd_image(np.ascontiguousarray(context), shape, "edge", return_slicer=True)
    times, horizon = relative_times(context_times, target_time, method.plans.temporal.time_scale)

    weight = compute_gaussian(tile, dtype=torch.float32, device=torch.device("cpu"))
    sums = {name: torch.zeros((context.shape[1], *shape)) for name in method.reductions}
    weights = torch.zeros(shape)
    per_pass = SLICES_PER_PASS if len(method.configuration.patch_size) == 2 else 1
    for starts in _chunks(_tile_starts(shape, tile, tile_step_size), per_pass):
        windows = [tuple(slice(a, a + size) for a, size in zip(start, tile, strict=True)) for start in starts]
        patches = torch.from_numpy(np.stack([padded[(..., *window)] for window in windows]))
        forecasts = _predict_patches(methods, patches, times, horizon, device, mirror)
        for position, window in enumerate(windows):
            weights[window] += weight
            for name, total in sums.items():
                total[(slice(None), *window)] += (forecasts[name][position] - patches[position, -1]) * weight
    last = torch.from_numpy(padded[-1])
    return {name: (last + total / weights).numpy()[(slice(None), *inside[2:])] for name, total in sums.items()}


def relative_times(times: Sequence[float], target_time: float, time_scale: float) -> tuple[list[float], float]:
    """Context times and target time as networks see them: since the last context scan, in units of the time scale."""
    return [(time - times[-1]) / time_scale for time in times], (target_time - times[-1]) / time_scale


@torch.inference_mode()
def _predict_patches(
    methods: Sequence[Method],
    patches: Tensor,
    times: Sequence[float],
    horizon: float,
    device: torch.device | str,
    mirror: bool,
) -> dict[str, Tensor]:
    """Mean over folds and mirrorings. patches: (tiles, scans, channels, *tile); 2D networks get the z axis removed."""
    flat = len(methods[0].configuration.patch_size) == 2
    stack = patches.squeeze(3) if flat else patches
    axes = range(3, stack.ndim)
    flips = [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)] if mirror else [()]
    tiles, scans = stack.shape[:2]
    total: dict[str, Tensor] = {}
    for flip in flips:
        batch = Batch(
            context=stack.flip(flip),
            context_times=torch.tensor(times, dtype=torch.float32).expand(tiles, scans),
            context_mask=torch.ones(tiles, scans, dtype=torch.bool),
            target_time=torch.full((tiles,), horizon, dtype=torch.float32),
        ).to(device)
        for method in methods:
            with autocast(device):
                forecasts = method.predict(batch)
            for name, forecast in forecasts.items():
                # a forecast has no scan axis: its spatial axes lie one further to the front
                restored = forecast.float().flip([axis - 1 for axis in flip]).cpu()
                total[name] = total[name] + restored if name in total else restored
    count = len(flips) * len(methods)
    return {name: (value.unsqueeze(2) if flat else value) / count for name, value in total.items()}


def _tile_starts(shape: tuple[int, ...], tile: tuple[int, ...], step: float) -> Iterator[tuple[int, ...]]:
    # half a step of a tile of one slice would visit slices twice
    return product(*(sorted(set(starts)) for starts in compute_steps_for_sliding_window(shape, tile, step)))


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk: list = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
