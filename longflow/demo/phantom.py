"""A phantom with a known law: a beating heart in a body, seen by short-axis MR.

The left ventricle is a half ellipsoid of blood in an incompressible wall. Its cavity follows ``law.lv_volume``; the
wall keeps its volume and therefore thickens, shortens and twists. The right ventricle, thin-walled and with another
texture, follows with a delay. Textures are functions of material coordinates, so they move with the tissue. A scan is a
function of (subject, time). Lengths are in mm, times in ms. Array axes: z from base to apex, y from front to back, x
from right to left of the body. The equations are in ``documentation/tutorials/first_forecast.md``.
"""

from typing import NamedTuple

import numpy as np

from longflow.demo.law import Subject, lv_contraction, rv_contraction
from longflow.demo.painting import cover, ellipse_depth, mean_with_noise, mix, texture, with_noise

FIELD_OF_VIEW = (96.0, 140.8, 140.8)
DEMO_SHAPE = (12, 64, 64)

#: an intensity of 1 in the file's arbitrary units
FULL_SCALE = 1000.0
NOISE = 0.012

LABELS = {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}

#: intensities as balanced steady-state MR has them: bright blood and fat, grey muscle, dark lungs
FAT, MUSCLE, LUNG, MEDIASTINUM, LIVER, BONE, FLUID = 0.72, 0.27, 0.07, 0.42, 0.36, 0.33, 0.80
LV_BLOOD, RV_BLOOD, ATRIAL_BLOOD, MYOCARDIUM, RV_WALL = 0.92, 0.78, 0.80, 0.25, 0.30


def voxel_spacing(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return (z, y, x) in mm: the field of view is always the same."""
    return tuple(extent / count for extent, count in zip(FIELD_OF_VIEW, shape, strict=True))


def phantom_scan(
    subject: Subject, time: float, shape: tuple[int, int, int] = DEMO_SHAPE, noise: float = NOISE
) -> tuple[np.ndarray, np.ndarray]:
    """Scan a subject at a time.

    :param time: in ms.
    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :param noise: standard deviation of the real and imaginary part, relative to the full scale; 0: no noise.
    :returns: image int16 and label uint8, both (z, y, x). The same arguments give the same arrays.
    """
    grid = _grid(shape)
    heart = _lv_frame(subject, time, grid)
    image = _body(subject, grid, heart)
    image, in_rv = _paint_right_heart(image, subject, time, grid, heart)
    image = _paint_left_heart(image, subject, grid, heart)
    image *= _coil_sensitivity(subject, grid)
    if noise:
        generator = np.random.default_rng([subject.seed, 2, int(np.float64(time).view(np.uint64))])
        image = with_noise(image, noise, generator)
    return np.rint(image * FULL_SCALE).astype(np.int16), _label(heart, in_rv)


def expected_scan(
    subject: Subject, time: float, shape: tuple[int, int, int] = DEMO_SHAPE, noise: float = NOISE
) -> np.ndarray:
    """Return the mean of all scans that the noise could give (Rician mean): no forecast can have a lower error.

    :returns: float32 (z, y, x).
    """
    noiseless = phantom_scan(subject, time, shape, noise=0)[0].astype(np.float64)
    return mean_with_noise(noiseless, noise * FULL_SCALE).astype(np.float32)


class _Grid(NamedTuple):
    """Voxel centres that broadcast to (z, y, x), and the spacing over which edges are smeared (partial volume)."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    thickness: float
    pixel: float


def _grid(shape: tuple[int, int, int]) -> _Grid:
    spacing = voxel_spacing(shape)
    z, y, x = (
        ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)
        for count, step in zip(shape, spacing, strict=True)
    )
    return _Grid(z[:, None, None], y[None, :, None], x[None, None, :], spacing[0], spacing[2])


class _Frame(NamedTuple):
    """The left ventricle at a time, for every voxel; space in small, material coordinates in capital letters.

    Inside the wall r² = s² R_i² + (R² - R_i²) / λ, z = λ Z, θ = Θ + τ(Z): the determinant of this map is 1.
    """

    v: np.ndarray  # from the axis, mm along y
    u: np.ndarray  # from the axis, mm along x
    r: np.ndarray
    inner: np.ndarray  # r of endo- and epicardium at this voxel's Z
    outer: np.ndarray
    R_inner: np.ndarray
    R_outer: np.ndarray
    Z: np.ndarray  # from the base towards the apex
    scale: float  # s, of the cavity's radius
    length: float  # λ, of the ventricle's length
    contraction: float


def _lv_frame(subject: Subject, time: float, grid: _Grid) -> _Frame:
    c = lv_contraction(subject, time)
    length = 1 - subject.shortening * c
    scale = np.sqrt((1 - subject.ejection_fraction * c) / length)
    whole = subject.length + subject.wall
    # the apex stays where it is, the base descends
    Z = whole - (subject.apex[0] - grid.z) / length
    v = grid.y - subject.apex[1] - subject.tilt[0] * (grid.z - subject.apex[0])
    u = grid.x - subject.apex[2] - subject.tilt[1] * (grid.z - subject.apex[0])
    R_inner = subject.radius * _ellipse_profile(Z / subject.length)
    R_outer = (subject.radius + subject.wall) * _ellipse_profile(Z / whole)
    inner = scale * R_inner
    outer = np.sqrt(inner**2 + (R_outer**2 - R_inner**2) / length)
    return _Frame(v, u, np.hypot(v, u), inner, outer, R_inner, R_outer, Z, scale, length, c)


def _ellipse_profile(position: np.ndarray) -> np.ndarray:
    """Return the radius of a half ellipsoid of height 1; above its base it goes on as a cylinder."""
    return np.sqrt(np.clip(1 - np.clip(position, 0, 1) ** 2, 0, 1))


def _body(subject: Subject, grid: _Grid, heart: _Frame) -> np.ndarray:
    """Paint torso, chest wall, lungs, mediastinum, liver, spine and aorta; drawn towards the heart in systole."""
    pull = _pull(heart)
    z = grid.z
    y = grid.y + pull * heart.v
    x = grid.x + pull * heart.u
    seed, edge = subject.seed, grid.pixel
    fine = texture(seed, 0, (z, y, x), (7, 22))
    coarse = texture(seed, 1, (z, y, x), (25, 70), modes=6)
    half_y, half_x = subject.torso

    image = cover(ellipse_depth(y, x, half_y, half_x), edge) * (FAT + 0.05 * fine)
    wall = ellipse_depth(y + 1, x, half_y - 7 + 1.5 * coarse, half_x - 6 + 1.5 * coarse)
    image = mix(image, cover(wall, edge), MUSCLE + 0.04 * fine)
    chest = ellipse_depth(y + 1, x, half_y - 14, half_x - 13 + coarse)
    vessels = np.clip(fine - 1.1, 0, None) * 0.35
    image = mix(image, cover(chest, edge), LUNG + 0.015 * coarse + vessels)

    mediastinum = ellipse_depth(y + 4, x - 1, half_y - 12, 15 + 2 * coarse)
    image = mix(image, cover(mediastinum, edge), MEDIASTINUM + 0.07 * fine)
    dome = z - subject.liver - 0.30 * x - 0.008 * (x**2 + y**2)
    image = mix(
        image, cover(dome, grid.thickness) * cover(chest - 1, edge), LIVER + 0.05 * fine + 0.05 * np.abs(coarse)
    )

    spine_y = half_y - 21
    vertebra = ellipse_depth(y - spine_y, x, 9, 11)
    image = mix(image, cover(vertebra + 2, edge), 0.12)
    image = mix(image, cover(vertebra, edge), BONE + 0.07 * fine)
    image = mix(image, cover(ellipse_depth(y - spine_y - 12, x, 3.5, 4.5), edge), FLUID)
    aorta = ellipse_depth(y - spine_y + 9, x - 12, 5.5, 5.5)
    image = mix(image, cover(aorta + 1.2, edge), MUSCLE)
    return mix(image, cover(aorta, edge), ATRIAL_BLOOD)


def _pull(heart: _Frame) -> np.ndarray:
    """Return the relative shift by which tissue follows the epicardium: R / r - 1, fading with the distance."""
    released = (heart.R_outer**2 - heart.outer**2) * np.exp(-np.clip(-heart.Z, 0, None) / 10)
    far = np.maximum(heart.r, heart.outer + 1)
    return (np.sqrt(1 + released / far**2) - 1) * np.exp(-(((far - heart.outer) / 25) ** 2))


def _paint_right_heart(
    image: np.ndarray, subject: Subject, time: float, grid: _Grid, heart: _Frame
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the right ventricle, a crescent around the left one, below the base; the atria above it.

    :returns: the image, and a mask of the right ventricle's cavity (bool).
    """
    c = rv_contraction(subject, time)
    cosine, sine = np.cos(subject.septum), np.sin(subject.septum)
    # material coordinates around the left ventricle's axis: along the septum's normal, and across it
    along = (heart.u * cosine + heart.v * sine) / (1 - subject.rv_contraction * c)
    across = (heart.v * cosine - heart.u * sine) / (1 - 0.4 * subject.rv_contraction * c)
    size = subject.radius + subject.wall
    profile = _ellipse_profile(heart.Z / (0.88 * subject.length)) + 1e-3
    free_wall = ellipse_depth(
        across - 0.1 * along, along - 0.72 * size * profile, 1.18 * size * profile, 0.98 * size * profile
    )
    above_apex = heart.Z / (0.88 * subject.length) < 1
    below_base = cover(heart.Z * heart.length, grid.thickness) * above_apex
    seed, edge = subject.seed, grid.pixel

    fat = cover(np.maximum(free_wall + 3.5, heart.outer + 2.5 - heart.r), edge) * below_base
    image = mix(image, fat, 0.85 * FAT)
    image = mix(image, cover(free_wall + 1.5, edge) * below_base, RV_WALL)
    trabeculae = texture(seed, 4, (heart.Z, across, along), (6, 14))
    blood = RV_BLOOD + 0.07 * trabeculae - 0.30 * (trabeculae > 0.9) * (free_wall < 6)
    image = mix(image, cover(free_wall - 1.5, edge) * below_base, blood)

    # the atria fill while the ventricles contract
    above_base = cover(-heart.Z * heart.length, grid.thickness)
    filling = size * (0.96 + 0.10 * c) * (_ellipse_profile(-heart.Z * heart.length / 42) + 1e-3)
    u, v = heart.u * cosine + heart.v * sine, heart.v * cosine - heart.u * sine
    for centre, width in ((-0.1, 0.80), (1.05, 0.72)):
        depth = ellipse_depth(v - 0.2 * size, u - centre * size, 0.75 * filling, width * filling)
        image = mix(image, cover(depth + 2, edge) * above_base, MUSCLE)
        image = mix(image, cover(depth, edge) * above_base, ATRIAL_BLOOD)
    return image, (heart.Z > 0) & above_apex & (free_wall > 1.5) & (heart.r > heart.outer)


def _paint_left_heart(image: np.ndarray, subject: Subject, grid: _Grid, heart: _Frame) -> np.ndarray:
    """Paint wall, blood and the two papillary muscles of the left ventricle."""
    seed, edge = subject.seed, grid.pixel
    whole = subject.length + subject.wall
    below_base = cover(heart.Z * heart.length, grid.thickness) * cover((whole - heart.Z), grid.thickness)

    R = np.sqrt(np.clip(heart.R_inner**2 + heart.length * (heart.r**2 - heart.inner**2), 0, None))
    angle = np.arctan2(heart.v, heart.u) - subject.twist * heart.contraction * (heart.Z / whole - 0.25)
    fibres = texture(seed, 5, (heart.Z, R * np.sin(angle), R * np.cos(angle)), (7, 18))
    image = mix(image, cover(heart.outer - heart.r, edge) * below_base, MYOCARDIUM + 0.06 * fibres)

    has_cavity = below_base * (heart.R_inner > 0)
    flow = texture(seed, 6, (heart.Z, heart.v / heart.scale, heart.u / heart.scale), (15, 40), modes=5)
    image = mix(image, cover(heart.inner - heart.r, edge) * has_cavity, LV_BLOOD + 0.03 * flow)

    reach = cover(6 - np.abs(heart.Z - 0.5 * subject.length) / 2, 4) * has_cavity
    for place in (subject.septum + 2.2, subject.septum - 2.2):
        place = place + subject.twist * heart.contraction * 0.25
        distance = np.hypot(heart.u - 0.72 * heart.inner * np.cos(place), heart.v - 0.72 * heart.inner * np.sin(place))
        image = mix(image, cover(3.2 - distance, edge) * reach, MYOCARDIUM)
    return image


def _coil_sensitivity(subject: Subject, grid: _Grid) -> np.ndarray:
    """Return a mild bias field: brighter towards the coil in front."""
    y, x = grid.y / FIELD_OF_VIEW[1], grid.x / FIELD_OF_VIEW[2]
    return 1 + subject.coil[0] * y + subject.coil[1] * x - 0.15 * (y**2 + x**2)


def _label(heart: _Frame, in_rv: np.ndarray) -> np.ndarray:
    """Label as ACDC does; papillary muscles belong to the cavity."""
    below_base = heart.Z >= 0
    label = in_rv.astype(np.uint8)
    label[below_base & (heart.r < heart.outer)] = LABELS["myocardium"]
    label[below_base & (heart.r < heart.inner)] = LABELS["left ventricle"]
    return label
