"""Augment a pair of contrast phases: one geometric draw for both scans, in the axial plane (MFM B.4).

Intensities are never changed: the method learns how contrast changes them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from longflow.methods.batches import PhaseBatch

#: probability of mirroring along each axis, of turning by a multiple of 90 degrees, of rotation with shift and shear
MIRROR_PROBABILITY, TURN_PROBABILITY, AFFINE_PROBABILITY = 0.5, 0.5, 0.7
#: most turns of 90 degrees
TURNS = 3
#: largest rotation and shear; MFM's 102.4 of 512 pixels, as a share of the patch
ROTATION, SHEAR, SHIFT = math.radians(45), math.radians(10), 102.4 / 512


@dataclass(frozen=True)
class Affine:
    """A rotation, shears and shifts about the centre of a plane.

    :param rotation: radians.
    :param shear: radians, of x along y and of y along x.
    :param shift: along x and y, as a share of the plane.
    """

    rotation: float = 0.0
    shear: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def matrix(self) -> np.ndarray:
        """2 x 2: a position in the result, (x, y) in mm from the centre, to that in the input, without the shift."""
        cosine, sine = math.cos(self.rotation), math.sin(self.rotation)
        along_y, along_x = (math.tan(angle) for angle in self.shear)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        return rotation @ np.array([[1, 0], [along_x, 1]]) @ np.array([[1, along_y], [0, 1]])


@dataclass(frozen=True)
class Draw:
    """The changes of a plane, in this order.

    :param mirrored: axes, -1 for x and -2 for y.
    :param turns: of 90 degrees, as in ``np.rot90``.
    :param affine: None where nothing is resampled.
    """

    mirrored: tuple[int, ...] = ()
    turns: int = 0
    affine: Affine | None = None


def draw_geometry(generator: np.random.Generator, may_turn: bool) -> Draw:
    """Draw the geometry as MFM does (B.4).

    :param generator: source of randomness.
    :param may_turn: whether the plane may be turned by 90 degrees (:func:`may_be_turned`).
    :returns: the draw.
    """
    mirrored = tuple(axis for axis in (-1, -2) if generator.random() < MIRROR_PROBABILITY)
    turned, turns = generator.random() < TURN_PROBABILITY, int(generator.integers(1, TURNS + 1))
    affine = None
    if generator.random() < AFFINE_PROBABILITY:
        affine = Affine(
            rotation=generator.uniform(-ROTATION, ROTATION),
            shear=tuple(generator.uniform(-SHEAR, SHEAR, 2)),
            shift=tuple(generator.uniform(-SHIFT, SHIFT, 2)),
        )
    return Draw(mirrored, turns if turned and may_turn else 0, affine)


def may_be_turned(plane: Sequence[int], spacing: Sequence[float]) -> bool:
    """Tell whether a plane keeps its shape and its voxels' size when it is turned by 90 degrees.

    :param plane: pixels along y and x.
    :param spacing: mm along y and x.
    :returns: True for a square plane of square pixels.
    """
    return plane[0] == plane[1] and math.isclose(*spacing, rel_tol=1e-3)


def augment_phases(stack: Tensor, spacing: Sequence[float], generator: np.random.Generator) -> Tensor:
    """Augment the scans of one patch, and all slices, by one draw.

    :param stack: (scans, channels, [z,] y, x).
    :param spacing: mm along y and x.
    :param generator: source of randomness.
    :returns: a tensor of that shape.
    """
    draw = draw_geometry(generator, may_be_turned(stack.shape[-2:], spacing))
    return with_geometry(stack, draw, spacing)


def augment_batch(batch: PhaseBatch) -> PhaseBatch:
    """Augment the samples of a batch by their draws, on its device, as :func:`augment_phases` does.

    :param batch: with draws: the geometry and the spacing of each sample.
    :returns: the batch, without them.
    """
    stacks = torch.stack([batch.source, batch.target], dim=1)
    done = torch.stack([with_geometry(stack, *draw) for stack, draw in zip(stacks, batch.draws, strict=True)])
    return replace(batch, source=done[:, 0], target=done[:, 1], draws=None)


def with_geometry(stack: Tensor, draw: Draw, spacing: Sequence[float]) -> Tensor:
    """Apply a draw. Mirroring and turning move voxels; the rest is one bilinear resampling.

    Outside the patch its border is repeated, as beyond the image's end in training and prediction. No single number
    means air in every normal form, and a constant would give a patch inside the body an edge that no body has.

    :param stack: (..., y, x), float32.
    :param draw: to apply.
    :param spacing: mm along y and x.
    :returns: a tensor of that shape.
    """
    stack = torch.rot90(stack.flip(draw.mirrored), draw.turns, (-2, -1))
    if draw.affine is None:
        return stack.contiguous()
    # a rotation is defined in mm, whatever the spacing; grid_sample counts from -1 to 1 along each axis
    half = np.array([stack.shape[-1] * spacing[1], stack.shape[-2] * spacing[0]]) / 2
    shift = 2 * np.asarray(draw.affine.shift)
    theta = np.column_stack([draw.affine.matrix / half[:, None] * half, shift])
    planes = stack.reshape(1, -1, *stack.shape[-2:])
    theta = torch.from_numpy(theta).float().to(stack.device, non_blocking=True)
    grid = affine_grid(theta[None], list(planes.shape), align_corners=False)
    return grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False).view(stack.shape)
