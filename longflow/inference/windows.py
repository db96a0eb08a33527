"""A whole volume from overlapping tiles with Gaussian weights, for any task."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice, product

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor

from longflow.errors import ModelError, OutOfMemoryError
from longflow.methods.batches import Batch, PhaseBatch
from longflow.methods.method import Method
from longflow.networks.precision import autocast, channels_last, computes_bf16
from longflow.nnunet import gaussian_weight, tile_starts

logger = logging.getLogger(__name__)

#: slices that a 2D network takes at once where changes are predicted
SLICES_PER_PASS = 8

#: name of the sums of weights
WEIGHT = "weight"

#: patches (tiles, ..., *tile) to volumes by name, (tiles, channels, *tile) each
PredictPatches = Callable[[Tensor], dict[str, Tensor]]

#: (tiles, scans, channels, *tile) and, for methods that begin with it, noise (tiles, channels, *tile) to a batch
MakeBatch = Callable[[Tensor, Tensor | None], Batch | PhaseBatch]


@dataclass(frozen=True)
class WindowSettings:
    """How a volume is predicted from tiles.

    :param device: the device that the methods are on.
    :param step: distance between tiles as a share of their size; 1: tiles do not overlap.
    :param mirror: average over all mirrored inputs (8 times the work in 3D), along the axes that the plans mirror.
    :param seed: seed of the noise that some methods begin with: a number, or several.
    :param noise: begin with noise where a method also can without (``Method.stochastic``).
    :param reductions: those of the method that are wanted; empty: all.
    """

    device: torch.device | str = "cpu"
    step: float = 0.5
    mirror: bool = False
    seed: int | tuple[int, ...] = 0
    noise: bool = False
    reductions: tuple[str, ...] = ()


def predict_changed(
    methods: Sequence[Method], scans: np.ndarray, make_batch: MakeBatch, settings: WindowSettings
) -> dict[str, np.ndarray]:
    """Predict volumes as the last scan plus a change, with the mean of several folds of one method.

    Tiles are weighted with nnU-Net's Gaussian. The sums are those of the change, so that a prediction without a change
    is bit-identical to the last scan. A method that begins with noise gets one field for the whole volume, cut by the
    same windows: a volume in 3D; in 2D the same for all slices, which would not fit each other otherwise (MFM section
    3.1). Besides the scans, the memory needed is a volume in float32 for each reduction, the sums of as many slices as
    a tile has, and what one pass takes in the network. A method that needs the whole volume gets it as one tile.

    :param methods: the same method with the weights of different folds, in evaluation mode on ``settings.device``.
    :param scans: (scans, channels, z, y, x), float32, in the normal form.
    :param make_batch: makes the batch of a pass.
    :param settings: how the volume is cut and averaged.
    :returns: one volume (channels, z, y, x), float32, for each wanted reduction.
    :raises ModelError: a prediction is not a finite number.
    """
    configuration, count, whole = methods[0].configuration, len(scans), methods[0].whole_volume
    if computes_bf16(settings.device):  # the layout of training; in float32 it is no faster
        for method in methods:
            method.to(memory_format=channels_last(len(configuration.patch_size)))
    tile = scans.shape[-3:] if whole else configuration.tile
    padded, inside = pad_to_tile(scans, tile, "edge")
    flat = len(configuration.patch_size) == 2 and not whole
    stack = padded
    if methods[0].noise or settings.noise:  # as one more scan, so that both are cut at once
        stack = np.concatenate([padded, noise_field(padded.shape[1:], flat, settings.seed)[None]])

    def batch_of(patches: Tensor) -> Batch | PhaseBatch:
        return make_batch(patches[:, :count], patches[:, count] if patches.shape[1] > count else None)

    def predict_changes(patches: Tensor) -> dict[str, Tensor]:
        stacked = patches.squeeze(-3) if flat else patches
        changes = _mean_change(methods, stacked, stacked[:, count - 1], batch_of, settings)
        return {name: change.unsqueeze(-3) if flat else change for name, change in changes.items()}

    weight = torch.ones(tile) if whole else gaussian_weight(tuple(tile), torch.float32)
    changes = weighted_slices(stack, weight, settings.step, predict_changes, SLICES_PER_PASS if flat else 1)
    last = padded[(-1, slice(None), *inside)]
    predicted = {name: np.empty(last.shape, np.float32) for name in settings.reductions or methods[0].reductions}
    for place, means in enumerate(islice(changes, inside[0].start, inside[0].stop)):
        for name, volume in predicted.items():
            volume[:, place] = last[:, place] + means[name].numpy()[(slice(None), *inside[1:])]
    return predicted


@torch.inference_mode()
def _mean_change(
    methods: Sequence[Method],
    stack: Tensor,
    before: Tensor,
    batch_of: Callable[[Tensor], Batch | PhaseBatch],
    settings: WindowSettings,
) -> dict[str, Tensor]:
    """Average what folds and mirrorings predict, minus ``before``: (tiles, channels, *patch) by name."""
    flips = mirrorings(range(3 - stack.ndim, 0) if settings.mirror else ())
    total: dict[str, Tensor] = {}
    for flip in flips:
        batch = batch_of(stack.flip(flip)).to(settings.device)
        for method in methods:
            with autocast(settings.device):
                predictions = method.predict(batch)
            for name in settings.reductions or method.reductions:
                change = predictions[name].float().flip(flip).cpu() - before
                check_finite(change, method)
                total[name] = total[name] + change if name in total else change
    return {name: value / (len(flips) * len(methods)) for name, value in total.items()}


def check_finite(prediction: Tensor, method: Method) -> None:
    """Refuse a prediction that is not a number everywhere: written as whole numbers, it would look like an image.

    :param prediction: any shape.
    :param method: that made it.
    :raises ModelError: the weights are named.
    """
    if not torch.isfinite(prediction).all():
        weights = f" of {method.file}" if method.file else ""
        raise ModelError(
            f"The network's outputs{weights} are not finite numbers, or larger than their precision holds. Either its "
            "training has diverged, or the image has intensities far from those of the training images."
        )


def pad_to_tile(volume: np.ndarray, tile: Sequence[int], mode: str) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Pad a volume to at least the size of a tile.

    :param volume: (..., z, y, x).
    :param tile: (z, y, x).
    :param mode: of ``numpy.pad``.
    :returns: the padded volume, and the place (z, y, x) of the given one in it.
    """
    shape = tuple(max(size, edge) for size, edge in zip(volume.shape[-3:], tile, strict=True))
    padded, inside = pad_nd_image(np.ascontiguousarray(volume), shape, mode, return_slicer=True)
    return padded, inside[-3:]


def weighted_slices(
    volume: np.ndarray, weight: Tensor, step: float, predict: PredictPatches, per_pass: int = 1
) -> Iterator[dict[str, Tensor]]:
    """Average what is predicted for overlapping tiles of a volume.

    A slice is finished once the tiles begin after it. Sums are kept of the slices between alone, as many as a tile has.

    :param volume: (..., z, y, x), nowhere smaller than a tile.
    :param weight: of each voxel of a tile, (z, y, x) or (y, x), on the CPU; sums are kept in its type.
    :param step: distance between tiles as a share of their size.
    :param predict: predicts the tiles of a pass.
    :param per_pass: tiles that are predicted at once; fewer where the memory is too small for them.
    :returns: (channels, y, x) for each name, of each slice along z.
    :raises OutOfMemoryError: the memory is too small for one tile.
    """
    predict = within_memory(predict)
    shape, tile = volume.shape[-3:], (1, *weight.shape)[-3:]
    sums: dict[int, dict[str, Tensor]] = {}
    for starts in _chunks(_tile_starts(shape, tile, step), per_pass):
        for finished in range(min(sums, default=0), starts[0][0]):
            yield _mean_of(sums.pop(finished))
        windows = [tuple(slice(a, a + size) for a, size in zip(start, tile, strict=True)) for start in starts]
        predicted = predict(torch.from_numpy(np.stack([volume[(..., *window)] for window in windows])))
        for position, window in enumerate(windows):
            tiles = {name: values[position] * weight for name, values in predicted.items()}
            _add_tile(sums, {**tiles, WEIGHT: weight.view(1, *tile)}, window, shape)
    for finished in sorted(sums):
        yield _mean_of(sums.pop(finished))


def _add_tile(
    sums: dict[int, dict[str, Tensor]], tile: dict[str, Tensor], window: tuple[slice, ...], shape: tuple[int, ...]
) -> None:
    """Add what is predicted for a tile, and its weight, to the sums of its slices."""
    z, *plane = window
    for depth, place in enumerate(range(z.start, z.stop)):
        of_slice = sums.setdefault(place, {})
        for name, values in tile.items():
            if name not in of_slice:
                of_slice[name] = torch.zeros((len(values), *shape[1:]), dtype=tile[WEIGHT].dtype)
            of_slice[name][(slice(None), *plane)] += values[:, depth]


def _mean_of(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    weight = sums.pop(WEIGHT)
    return {name: total.div_(weight) for name, total in sums.items()}


def within_memory(predict: PredictPatches) -> PredictPatches:
    """Return a function that predicts patches with half as many per pass, down to one, where the memory is too small.

    Later passes of the function have no more patches than the memory had room for.

    :param predict: predicts the patches of a pass, all at once.
    :raises OutOfMemoryError: when it is called, and the memory is too small for one patch.
    """
    most: int | None = None

    def predict_within_memory(patches: Tensor) -> dict[str, Tensor]:
        nonlocal most
        while True:
            count = min(most or len(patches), len(patches))
            try:
                parts = [predict(part) for part in patches.split(count)]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if count == 1:
                    raise _too_small(patches.shape[-3:], error) from None
            else:
                whole = len(parts) == 1
                return parts[0] if whole else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            # after the error is gone, and the tensors in its traceback with it
            most = count // 2
            _say_fewer_at_once(most)

    return predict_within_memory


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python or torch says that memory is short; on CUDA, MPS and the CPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("out of memory", "enough memory"))


def _too_small(size: Sequence[int], error: BaseException) -> OutOfMemoryError:
    patch = " x ".join(map(str, size))
    return OutOfMemoryError(
        f"The memory is too small to predict one patch of {patch} voxels. Close other programs that use it, or predict "
        f"on another device (--device cpu). The system said: {str(error).strip().split(chr(10))[0][:200]}"
    )


@cache
def _say_fewer_at_once(count: int) -> None:
    """Log once in a process, and not for each volume."""
    logger.warning("The memory is too small for more: %d patches of a scan are predicted at once.", count)


def noise_field(shape: tuple[int, ...], flat: bool, seed: int | tuple[int, ...]) -> np.ndarray:
    """Draw standard normal noise.

    :param shape: (channels, z, y, x).
    :param flat: repeat one slice along z, for 2D networks.
    :returns: float32, of the given shape.
    """
    channels, slices, *plane = shape
    noise = np.random.default_rng(seed).standard_normal((channels, 1 if flat else slices, *plane), dtype=np.float32)
    return np.broadcast_to(noise, shape)


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """List the sets of axes to flip: every choice of the given ones, none first.

    >>> mirrorings([-2, -1])
    [(), (-2,), (-1,), (-2, -1)]
    """
    return [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]


def _tile_starts(shape: tuple[int, ...], tile: tuple[int, ...], step: float) -> Iterator[tuple[int, ...]]:
    # half a step of a tile of one slice would visit slices twice
    return product(*(sorted(set(starts)) for starts in tile_starts(shape, tile, step)))


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    while chunk := list(islice(items, size)):
        yield chunk
