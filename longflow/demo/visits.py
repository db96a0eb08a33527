"""A phantom of visits with a known law: a tumour grows in the liver and pushes the organs, which breathing moves.

Volumes in ml, times in days, lengths in mm; axes z from head to foot, y from front to back, x from right to left.

    tumour       V(t) = V_oo (V_0 / V_oo)^exp(-k t)              Gompertz; radius r(t) of a sphere
    tissue       R^3 = r^3 - r(t)^3 exp(-((r - r(t)) / REACH)^2)  pushed along r from the centre: near it, volumes stay
    breathing    Z = z - A sin^2(pi (t / period + phase)) (half_y - y) / (2 half_y)   the back stays in place

r is a distance from the tumour's centre in space, R that in the tissue before the tumour; textures are functions of
tissue. The intensities of a file are gain (image + noise) + offset. Either all visits share their units (gain
``FULL_SCALE``, offset 0), or each visit has a gain and an offset of its own, as scanners have.
"""

from dataclasses import dataclass

import numpy as np

from longflow.demo.painting import cover, ellipse_depth, mean_with_noise, mix, texture, with_noise

LABELS = {"background": 0, "tumour": 1}
FIELD_OF_VIEW = (72.0, 144.0, 144.0)
VISITS_SHAPE = (16, 48, 48)

#: an intensity of 1 in files whose visits share their units
FULL_SCALE = 1000.0
#: standard deviation of the real and imaginary part, relative to the full scale
NOISE = 0.009
#: mm from the tumour's border at which its push has faded
REACH = 28.0
#: of a visit with units of its own: largest logarithm of the gain / FULL_SCALE, and largest offset in files
LOG_GAIN, OFFSET = 0.35, 150.0

FAT, MUSCLE, LIVER, SPLEEN, KIDNEY, BONE, BLOOD, BOWEL = 0.75, 0.25, 0.42, 0.55, 0.62, 0.32, 0.90, 0.36
RIM, CORE = 1.6, 0.6


@dataclass(frozen=True)
class VisitSubject:
    """Anatomy, growth and breathing of a phantom subject.

    :param seed: of textures, noise and units.
    :param centre: (z, y, x) of the tumour.
    :param volume: ml of the tumour at time 0, V_0.
    :param limit: ml that it tends to, V_oo.
    :param rate: of growth, 1 / day.
    :param period: of the breathing state from visit to visit, days.
    :param phase: of it at time 0, in [0, 1).
    :param amplitude: of the breathing at the front, mm.
    :param torso: half axes (y, x) of the body.
    """

    seed: int
    centre: tuple[float, float, float]
    volume: float
    limit: float
    rate: float
    period: float
    phase: float
    amplitude: float
    torso: tuple[float, float]


def draw_visit_subject(seed: int) -> VisitSubject:
    """Draw a subject."""
    draw = np.random.default_rng([seed, 1]).uniform
    return VisitSubject(
        seed=seed,
        centre=(draw(-8, 8), draw(-14, 2), draw(-32, -22)),
        volume=draw(2.0, 6.0),
        limit=draw(60, 130),
        rate=draw(0.015, 0.025),
        period=draw(30, 60),
        phase=draw(0, 1),
        amplitude=draw(4, 8),
        torso=(draw(50, 55), draw(62, 67)),
    )


def tumour_volume(subject: VisitSubject, time: float) -> float:
    """Return the volume of the tumour in ml. :param time: in days."""
    return subject.limit * (subject.volume / subject.limit) ** float(np.exp(-subject.rate * time))


def tumour_radius(subject: VisitSubject, time: float) -> float:
    """Return the radius of the tumour in mm. :param time: in days."""
    return float(np.cbrt(1000 * tumour_volume(subject, time) / (4 / 3 * np.pi)))


def breathing(subject: VisitSubject, time: float) -> float:
    """Return how far the front has moved along z, mm. :param time: in days."""
    return subject.amplitude * float(np.sin(np.pi * (time / subject.period + subject.phase)) ** 2)


def visit_units(subject: VisitSubject, time: float, shared: bool) -> tuple[float, float]:
    """Return gain and offset of the files of a visit: the true intensity map.

    :param time: in days.
    :param shared: whether all visits have the same.
    """
    if shared:
        return FULL_SCALE, 0.0
    draw = _generator(subject, time, 2).uniform
    return FULL_SCALE * float(np.exp(draw(-LOG_GAIN, LOG_GAIN))), draw(0, OFFSET)


def visit_scan(
    subject: VisitSubject, time: float, shape: tuple[int, int, int] = VISITS_SHAPE, shared: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Scan a subject at a time.

    :param time: in days.
    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :param shared: whether all visits have the same units.
    :returns: image int16 and label uint8, both (z, y, x). The same arguments give the same arrays.
    """
    gain, offset = visit_units(subject, time, shared)
    image, label = _noiseless(subject, time, shape)
    noisy = with_noise(image, NOISE, _generator(subject, time, 4))
    return np.rint(gain * noisy + offset).astype(np.int16), label


def expected_visit(
    subject: VisitSubject, time: float, shape: tuple[int, int, int] = VISITS_SHAPE, shared: bool = True
) -> np.ndarray:
    """Return the mean of all scans that the noise could give: no forecast can have a lower error.

    :param time: in days.
    :param shape: (z, y, x) voxels.
    :param shared: whether all visits have the same units.
    :returns: float64 (z, y, x), in the units of the visit's file.
    """
    gain, offset = visit_units(subject, time, shared)
    return gain * mean_with_noise(_noiseless(subject, time, shape)[0].astype(np.float64), NOISE) + offset


def visit_spacing(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return (z, y, x) in mm: the field of view is always the same."""
    return tuple(extent / count for extent, count in zip(FIELD_OF_VIEW, shape, strict=True))


def _generator(subject: VisitSubject, time: float, which: int) -> np.random.Generator:
    return np.random.default_rng([subject.seed, which, int(np.float64(time).view(np.uint64))])


def _noiseless(subject: VisitSubject, time: float, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Paint a subject: the image in units of the full scale, and the label."""
    spacing = visit_spacing(shape)
    axes = [(np.arange(count) - (count - 1) / 2) * step for count, step in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    half_y = subject.torso[0]
    # breathing moves the abdomen, more at the front
    z = z - breathing(subject, time) * np.clip((half_y - y) / (2 * half_y), 0, 1)
    tissue, distance = _before_the_tumour(subject, time, (z, y, x))
    image = _organs(subject, tissue, (y, x), spacing)
    radius, edge = tumour_radius(subject, time), float(np.mean(spacing))
    inside = tuple((axis - middle) / radius for axis, middle in zip((z, y, x), subject.centre, strict=True))
    lobes = texture(subject.seed, 5, inside, (0.5, 1.5))
    image = mix(image, cover(radius - distance, edge), RIM + 0.04 * lobes)
    image = mix(image, cover(0.55 * radius * (1 + 0.1 * lobes) - distance, edge), CORE)
    return image.astype(np.float32), (distance < radius).astype(np.uint8)


def _before_the_tumour(
    subject: VisitSubject, time: float, points: tuple[np.ndarray, ...]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return where the tissue was before the tumour pushed it, and the distance from the tumour's centre, mm."""
    away = [axis - middle for axis, middle in zip(points, subject.centre, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in away)) + 1e-6
    radius = tumour_radius(subject, time)
    pushed = radius**3 * np.exp(-((np.clip(distance - radius, 0, None) / REACH) ** 2))
    share = np.cbrt(np.clip(distance**3 - pushed, 0, None)) / distance
    tissue = tuple(middle + share * axis for axis, middle in zip(away, subject.centre, strict=True))
    return tissue, distance


def _organs(
    subject: VisitSubject, tissue: tuple[np.ndarray, ...], wall: tuple[np.ndarray, ...], spacing: tuple[float, ...]
) -> np.ndarray:
    """Paint the body.

    :param tissue: coordinates z, y, x in the tissue, mm.
    :param wall: coordinates y, x in space: the wall of the body does not give way.
    """
    (z, y, x), seed, edge, (half_y, half_x) = tissue, subject.seed, float(np.mean(spacing)), subject.torso
    fine, coarse = texture(seed, 0, (z, y, x), (9, 24)), texture(seed, 1, (z, y, x), (28, 70), modes=6)
    skin = ellipse_depth(*wall, half_y, half_x)
    image = cover(skin, edge) * (FAT + 0.03 * fine)
    image = mix(image, cover(skin - 7, edge), MUSCLE + 0.03 * fine)
    inside = cover(skin - 13, edge)
    image = mix(image, inside, BOWEL + 0.10 * fine + 0.05 * coarse)
    liver = _ellipsoid(tissue, (-2, -6, -24), (40, 36, 34)) + 2 * coarse
    vessels = np.clip(texture(seed, 2, (z, y, x), (14, 40)) - 1.2, 0, 1)
    image = mix(image, cover(liver, edge) * inside, LIVER + 0.04 * fine + 0.4 * vessels)
    image = mix(image, cover(_ellipsoid(tissue, (-8, 8, 38), (28, 22, 13)), edge) * inside, SPLEEN + 0.03 * fine)
    for side in (-1, 1):
        kidney = _ellipsoid(tissue, (18, 22, 30 * side), (22, 10, 11))
        image = mix(image, cover(kidney, edge) * inside, KIDNEY + 0.06 * fine)
    behind = wall[0] - half_y + 20, wall[1]
    image = mix(image, cover(ellipse_depth(*behind, 10, 12), edge), BONE + 0.05 * fine)
    return mix(image, cover(ellipse_depth(behind[0] + 18, behind[1] - 6, 6, 6), edge), BLOOD)


def _ellipsoid(points: tuple[np.ndarray, ...], centre: tuple[float, ...], axes: tuple[float, ...]) -> np.ndarray:
    """Estimate the depth below the surface of an ellipsoid, mm."""
    scaled = [(point - middle) / axis for point, middle, axis in zip(points, centre, axes, strict=True)]
    return (1 - np.sqrt(sum(axis**2 for axis in scaled))) * min(axes)
