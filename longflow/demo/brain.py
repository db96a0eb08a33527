"""A phantom of visits with known volumes: ventricles grow, thalami shrink, lesions appear.

Every structure is made of ellipsoids under shears. Shears keep volumes, so the volume at any time is a closed form:

    ventricles    V(t) = V_0 (1 + g t)          two, one on each side
    thalami       V(t) = V_0 (1 - s t)          two
    lesions       V(t) = sum of 4/3 pi r_i(t)^3, with r_i(t) = R_i min(1, (t - onset_i) / RISE) after its onset

Volumes in ml, times in years since the first visit, lengths in mm; axes z from below to above, y from back to front,
x from left to right. Each visit has its own contrast, bias field and noise, as scanners have. Most of the difference
between two visits comes from the scanner.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LABELS = {"background": 0, "ventricles": 1, "thalami": 2, "lesions": 3}
STRUCTURES = ("ventricles", "thalami", "lesions")

FIELD_OF_VIEW = (132.0, 180.0, 150.0)
BRAIN_SHAPE = (44, 60, 50)

FULL_SCALE = 1000.0
#: years that a lesion takes to reach its size
RISE = 1.5
#: half axes (z, y, x) of the brain, in mm
BRAIN = (52.0, 75.0, 62.0)


@dataclass(frozen=True)
class Lesion:
    """A sphere in the white matter.

    :param centre: (z, y, x) in mm.
    :param radius: in mm.
    :param onset: in years.
    """

    centre: tuple[float, float, float]
    radius: float
    onset: float


@dataclass(frozen=True)
class Patient:
    """The anatomy of a subject, the same at all visits.

    :param seed: of contrast, bias fields and noise.
    :param ventricles: ml at the first visit.
    :param growth: of the ventricles, share of that volume per year.
    :param thalami: ml at the first visit.
    :param loss: of the thalami, share of that volume per year.
    :param bend: shears of the anatomy.
    :param size: of the head, 1 on average.
    """

    seed: int
    ventricles: float
    growth: float
    thalami: float
    loss: float
    lesions: tuple[Lesion, ...]
    bend: tuple[float, ...]
    size: float


def draw_patient(seed: int) -> Patient:
    """Draw a patient."""
    generator = np.random.default_rng([seed, 0])
    size = float(generator.uniform(0.92, 1.08))
    patient = Patient(
        seed=seed,
        ventricles=float(generator.uniform(18, 32)),
        growth=float(generator.uniform(0.03, 0.15)),
        thalami=float(generator.uniform(13, 18)),
        loss=float(generator.uniform(0.03, 0.09)),
        lesions=(),
        bend=tuple(generator.uniform(-1, 1, 6)),
        size=size,
    )
    return Patient(**{**vars(patient), "lesions": _draw_lesions(generator, size)})


def true_volumes(patient: Patient, time: float) -> dict[str, float]:
    """Return the volume of each structure in ml, in closed form. :param time: in years."""
    radii = [lesion_radius(lesion, time) for lesion in patient.lesions]
    return {
        "ventricles": patient.ventricles * (1 + patient.growth * time),
        "thalami": patient.thalami * (1 - patient.loss * time),
        "lesions": sum(4 / 3 * np.pi * radius**3 for radius in radii) / 1000,
    }


def lesion_radius(lesion: Lesion, time: float) -> float:
    """Return the radius in mm; 0 before the onset. :param time: in years."""
    return lesion.radius * float(np.clip((time - lesion.onset) / RISE, 0, 1))


def brain_scan(
    patient: Patient, time: float, shape: tuple[int, int, int] = BRAIN_SHAPE
) -> tuple[np.ndarray, np.ndarray]:
    """Scan a patient at a time.

    :param time: in years.
    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :returns: image int16 and label uint8, both (z, y, x). The same arguments give the same arrays.
    """
    grid = _grid(shape)
    points = _anatomy(patient, grid)
    distances = _structures(patient, time, points)
    label = np.zeros(shape, np.uint8)
    for value, name in enumerate(STRUCTURES, start=1):
        label[distances[name] < 0] = value
    generator = np.random.default_rng([patient.seed, 1, int(np.float64(time).view(np.uint64))])
    image = _tissue(patient, points, distances, grid, generator)
    image *= _bias(grid, generator)
    real, imaginary = generator.standard_normal((2, *shape), dtype=np.float32) * np.float32(0.035)
    image = np.hypot(image + real, imaginary)
    return np.rint(image * FULL_SCALE * generator.uniform(0.7, 1.4)).astype(np.int16), label


class _Grid(NamedTuple):
    """Voxel centres in mm, broadcasting to (z, y, x), and the edge of a voxel over which borders are smeared."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    edge: float


def voxel_spacing(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return (z, y, x) in mm: the field of view is always the same."""
    return tuple(extent / count for extent, count in zip(FIELD_OF_VIEW, shape, strict=True))


def _grid(shape: tuple[int, int, int]) -> _Grid:
    spacing = voxel_spacing(shape)
    axes = [(np.arange(count) - (count - 1) / 2) * size for count, size in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return _Grid(z, y, x, float(np.mean(spacing)))


def _anatomy(patient: Patient, grid: _Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coordinates in the anatomy: each axis is shifted by a function of the others, which keeps volumes."""
    a, b, c, d, e, f = patient.bend
    z = grid.z + 3.0 * a * np.sin(grid.y / 30 + b)
    y = grid.y + 3.0 * c * np.sin(z / 25 + d)
    x = grid.x + 2.5 * e * np.sin(y / 35 + f)
    return z, y, x


def _structures(
    patient: Patient, time: float, points: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Estimate the signed distances in mm to the border of each structure; negative inside."""
    z, y, x = points
    volumes = true_volumes(patient, time)
    side = np.abs(x)
    # the bodies of the ventricles arch over the middle: a shear of z along y
    ventricles = _ellipsoid(
        (z - 10 + (y / 22) ** 2 * 3, y + 2, side - 13 - 0.12 * y), volumes["ventricles"] / 2, (1, 3, 0.9)
    )
    thalami = _ellipsoid((z + 16, y + 4, side - 16 + 0.2 * y), volumes["thalami"] / 2, (0.9, 1.4, 0.9))
    lesions = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), np.inf)
    for lesion in patient.lesions:
        if (radius := lesion_radius(lesion, time)) > 0:
            distance = np.sqrt(sum((axis - centre) ** 2 for axis, centre in zip(points, lesion.centre, strict=True)))
            lesions = np.minimum(lesions, distance - radius)
    return {"ventricles": ventricles, "thalami": thalami, "lesions": lesions}


def _ellipsoid(points: tuple[np.ndarray, ...], millilitres: float, proportions: tuple[float, ...]) -> np.ndarray:
    """Estimate the signed distance in mm to an ellipsoid of a volume around the origin."""
    scale = (1000 * millilitres / (4 / 3 * np.pi * np.prod(proportions))) ** (1 / 3)
    axes = [scale * proportion for proportion in proportions]
    radius = np.sqrt(sum((point / axis) ** 2 for point, axis in zip(points, axes, strict=True)))
    return (radius - 1) * min(axes)


def _tissue(
    patient: Patient,
    points: tuple[np.ndarray, ...],
    distances: dict[str, np.ndarray],
    grid: _Grid,
    generator: np.random.Generator,
) -> np.ndarray:
    """Paint the intensities of FLAIR: dark fluid, grey matter brighter than white, bright lesions; differs by visit."""
    z, y, x = points
    half = [patient.size * axis for axis in BRAIN]
    depth = (1 - np.sqrt(sum((point / axis) ** 2 for point, axis in zip(points, half, strict=True)))) * min(half)
    folds = np.sin(z / 4.2 + 1.3 * np.sin(y / 9)) * np.sin(y / 4.6) * np.sin(x / 4.4 + np.sin(z / 11))
    fluid, grey, white, lesion, bone, scalp = (
        value * factor
        for value, factor in zip((0.12, 0.55, 0.42, 0.85, 0.06, 0.5), generator.uniform(0.88, 1.12, 6), strict=True)
    )
    image = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.float32)
    for value, border in (
        (scalp, depth + 14),
        (bone, depth + 9),
        (fluid, depth + 3),
        (grey, depth - 1.5 + 2.5 * folds),
        (white, depth - 8 + 5 * folds),
        (grey, -distances["thalami"]),
        (lesion, -distances["lesions"]),
        (fluid, -distances["ventricles"]),
    ):
        share = np.clip(border / grid.edge + 0.5, 0, 1)
        image += share * (value - image)
    texture = np.sin(z / 6 + patient.bend[0]) * np.sin(y / 7) * np.sin(x / 5 + patient.bend[1])
    return image * (1 + 0.05 * texture)


def _bias(grid: _Grid, generator: np.random.Generator) -> np.ndarray:
    """Draw a smooth field of the coil, of up to 15 % along each axis."""
    slopes = generator.uniform(-0.15, 0.15, 3)
    return 1 + sum(
        slope * axis / (extent / 2) for slope, axis, extent in zip(slopes, grid[:3], FIELD_OF_VIEW, strict=True)
    )


def _draw_lesions(generator: np.random.Generator, size: float) -> tuple[Lesion, ...]:
    """Draw three to seven spheres above the ventricles that never touch; the first two exist from the start."""
    lesions: list[Lesion] = []
    for number in range(int(generator.integers(3, 8))):
        for _ in range(200):
            side = 1 if generator.random() < 0.5 else -1
            centre = generator.uniform((26, -32, 9), (34, 32, 25)) * (size, size, side * size)
            radius = float(generator.uniform(4.5, 7.5))
            apart = [np.linalg.norm(centre - other.centre) - radius - other.radius for other in lesions]
            if min(apart, default=9.0) > 3.0:
                onset = -RISE if number < 2 else float(generator.uniform(-1.0, 3.0))
                lesions.append(Lesion(tuple(float(value) for value in centre), radius, onset))
                break
    return tuple(lesions)
