"""Resample volumes as nnU-Net does, a few slices at a time: no volume is in memory in float64.

nnU-Net resamples images with cubic splines, outputs of networks linearly, both with scikit-image. Where slices are
thick, both are resampled within slices, which are then repeated. Splines work along one axis after the other; along an
axis they are a product with a matrix, whose rows are nothing but rounding away from the diagonal.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy.ndimage import zoom

from longflow.nnunet import thick_axis

#: voxels of a result that are made at once, in float64
SLAB = 2**22
#: a share of a voxel that float64 rounds away
NOTHING = 1e-17

#: turns slices (channels, slices, b, c) as they are stored into what is resampled
Convert = Callable[[np.ndarray], np.ndarray]
#: for each new place along an axis: one of the present places, and its weight (None: the only one)
Term = tuple[np.ndarray, np.ndarray | None]


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Cut a volume (a, b, c) along a into parts of about ``SLAB`` voxels."""
    thickness = max(1, SLAB // (shape[1] * shape[2]))
    return (slice(start, min(start + thickness, shape[0])) for start in range(0, shape[0], thickness))


def _unchanged(slices: np.ndarray) -> np.ndarray:
    return slices


def cubic_slabs(
    image: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    target: Sequence[float],
    convert: Convert = _unchanged,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Resample with cubic splines, clipped to the range of the image.

    The result is nnU-Net's but for the last digit of float32 of one voxel in millions.

    :param image: (channels, a, b, c).
    :param shape: new voxels along the last three axes.
    :param spacing: present spacing, mm; decides with ``target`` whether slices are thick.
    :param target: new spacing, mm.
    :param convert: is applied to the image, a few slices at a time.
    :returns: a place along a of the result, and its values (channels, slices, b, c), float32.
    """
    present, thick = image.shape[1:], thick_axis(spacing, target)
    if list(present) == list(shape):
        yield from ((part, convert(image[:, part]).astype(np.float32, copy=False)) for part in slabs(shape))
        return
    matrices = [
        None if axis == thick or size == new else cubic_matrix(size, new)
        for axis, (size, new) in enumerate(zip(present, shape, strict=True))
    ]
    repeated = None if thick is None else nearest(present[thick], shape[thick])
    low, high = _limits(image, thick, convert)
    for part in slabs(shape):
        first = repeated[part] if thick == 0 else np.arange(part.start, part.stop)
        values = _along_first(image, matrices[0], first, convert)
        values = values if matrices[1] is None else np.matmul(matrices[1], values)
        values = values if matrices[2] is None else np.matmul(values, matrices[2].T)
        within = (low[:, first], high[:, first]) if thick == 0 else (low, high)
        values = np.clip(values, *within).astype(np.float32)
        yield part, values.take(repeated, axis=1 + thick) if thick in (1, 2) else values


@lru_cache(maxsize=16)  # scans of a subject, and often of a cohort, have the same shape
def cubic_matrix(size: int, new: int) -> np.ndarray:
    """Return what cubic splines do along an axis: (new, size), float64."""
    units = np.eye(size)
    return np.stack([zoom(unit, new / size, order=3, mode="nearest", grid_mode=True) for unit in units], axis=1)


def nearest(size: int, new: int) -> np.ndarray:
    """Return the present place, along an axis, that is repeated at each new one."""
    return np.clip(np.floor(_places(size, new) + 0.5).astype(int), 0, size - 1)


def _places(size: int, new: int) -> np.ndarray:
    """Return the centres of new voxels along an axis, in present ones."""
    return (np.arange(new) + 0.5) * (size / new) - 0.5


def _along_first(image: np.ndarray, matrix: np.ndarray | None, places: np.ndarray, convert: Convert) -> np.ndarray:
    """Resample along the first axis: (channels, places, b, c), float64."""
    if matrix is None:
        return convert(image[:, places]).astype(np.float64)
    rows = matrix[places]
    used = np.flatnonzero((np.abs(rows) > NOTHING).any(axis=0))
    band = slice(used[0], used[-1] + 1)
    source = convert(image[:, band]).astype(np.float64)
    return np.matmul(rows[:, band], source.reshape(*source.shape[:2], -1)).reshape(len(image), -1, *image.shape[2:])


def _limits(image: np.ndarray, thick: int | None, convert: Convert) -> tuple[np.ndarray, np.ndarray]:
    """Return least and greatest value of each channel, of thick slices those of each slice; they broadcast."""
    axes = tuple(1 + axis for axis in range(3) if axis != thick)
    parts = [convert(image[:, part]) for part in slabs(image.shape[1:])]
    lows = [part.min(axes, keepdims=True) for part in parts]
    highs = [part.max(axes, keepdims=True) for part in parts]
    if thick == 0:
        return np.concatenate(lows, axis=1), np.concatenate(highs, axis=1)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def linear_slices(
    slices: Iterable[np.ndarray],
    present: Sequence[int],
    shape: Sequence[int],
    spacing: Sequence[float],
    target: Sequence[float],
) -> Iterator[np.ndarray]:
    """Resample linearly, slice by slice; bit-identical to nnU-Net, whose sums are made in the same order.

    :param slices: (outputs, b, c) each, along a.
    :param present: voxels along a, b, c.
    :param shape: new voxels.
    :param spacing: present spacing, mm; decides with ``target`` whether slices are thick.
    :param target: new spacing, mm.
    :returns: (outputs, b, c) each, along a, of the type of the given ones.
    """
    if list(present) == list(shape):
        yield from slices
        return
    thick = thick_axis(spacing, target)
    first, *further = (
        _terms(size, new, axis == thick) for axis, (size, new) in enumerate(zip(present, shape, strict=True))
    )
    source, held = enumerate(slices), {}
    for place in range(shape[0]):
        needed = [(int(index[place]), None if weight is None else weight[place]) for index, weight in first]
        while needed[-1][0] not in held:
            number, latest = next(source)
            held[number] = latest.astype(np.float64)
        held = {number: one for number, one in held.items() if number >= needed[0][0]}
        made = np.empty((len(latest), *shape[1:]), latest.dtype)
        for output, values in enumerate(made):
            values[...] = _interpolated([(held[number][output], weight) for number, weight in needed], *further)
        yield made


def _terms(size: int, new: int, thick: bool) -> list[Term]:
    """Return the two neighbours of each new voxel along an axis with their weights; of a thick axis the nearest."""
    if size == new or thick:
        return [(nearest(size, new), None)]
    places = _places(size, new)
    start = np.floor(places).astype(int)
    weight = 1 - (places - start)
    return [(start.clip(0), weight), ((start + 1).clip(max=size - 1), 1 - weight)]


def _interpolated(slices: list[tuple[np.ndarray, float | None]], rows: list[Term], columns: list[Term]) -> np.ndarray:
    """Sum neighbours, weighted along each axis in turn, in scipy's order."""
    total = None
    for one, weight in slices:
        weighted = one if weight is None else one * weight
        for row, row_weight in rows:
            lines = weighted[row] if row_weight is None else weighted[row] * row_weight[:, None]
            for column, column_weight in columns:
                values = lines.take(column, axis=1)
                if column_weight is not None:
                    values *= column_weight
                total = values if total is None else np.add(total, values, out=total)
    return total
