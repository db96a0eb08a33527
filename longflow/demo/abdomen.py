"""A phantom of abdominal CT in two contrast phases: organs with the HU of real ones, and a known enhancement.

The native phase has no contrast. In the arterial one, the structures of ``ENHANCEMENT`` are brighter by

    HU(arterial) = HU(native) + gain x ENHANCEMENT

and nothing else changes; each subject has its own gain. The same dose is diluted more in a larger body. A native scan
therefore tells a part of the gain; as in patients, the rest is unknown. Between the two phases the subject has
breathed: the arterial one is displaced by a smooth field. It is largest below the diaphragm and 0 at the spine and the
skin.

The same anatomy has an MR contrast (:func:`mr_scan`), to be translated into CT.

Lengths in mm; axes z from below to above, y from front to back, x from the subject's right to the left.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

Phase = Literal["native", "arterial"]
PHASES: tuple[Phase, Phase] = ("native", "arterial")

LABELS = {"background": 0, "aorta": 1, "vena cava": 2, "kidneys": 3, "liver": 4, "spleen": 5, "spine": 6}

FIELD_OF_VIEW = (120.0, 264.0, 352.0)
ABDOMEN_SHAPE = (24, 96, 128)

#: standard deviation of the noise, HU: about 10 in a routine scan, half of it in voxels as large as these
NOISE = 5.0

#: in HU, without contrast
AIR, FAT, MUSCLE, SKIN, TABLE = -1000.0, -105.0, 52.0, 20.0, -650.0
BLOOD, LIVER, SPLEEN, KIDNEY, PANCREAS = 40.0, 60.0, 48.0, 32.0, 36.0
BOWEL, FLUID, STOOL, GAS = 38.0, 10.0, -60.0, -900.0
CORTICAL, TRABECULAR, DISC, CANAL = 620.0, 180.0, 80.0, 25.0

#: brightening in the arterial phase of a subject whose gain is 1, HU
ENHANCEMENT = {"aorta": 275.0, "cortex": 150.0, "medulla": 50.0, "spleen": 65.0, "liver": 22.0}


#: brightness in MR, of tissues by their HU without contrast: neither air nor cortical bone gives a signal; fat and the
#: marrow in bones do, as bright as each other. So brightness alone does not tell HU
MR_OF_HU = (
    *((-1000, 0), (-650, 0), (-150, 420), (-105, 420), (-60, 330), (10, 90), (30, 150), (52, 210), (60, 280)),
    *((80, 240), (180, 380), (300, 330), (620, 25), (3071, 0)),
)
#: standard deviation of the noise in MR, where muscle has 210
MR_NOISE = 8.0


@dataclass(frozen=True)
class Patient:
    """The anatomy of a subject, the same in both phases.

    :param seed: of the noise.
    :param size: of the body, 1 on average.
    :param fat: mm of it under the skin.
    :param gain: of the contrast, 1 on average: the aorta is brighter by 275 gain HU.
    :param breath: mm by which the organs in front have moved up in the arterial phase.
    :param marrow: HU of trabecular bone beyond the mean.
    :param bend: shears of the anatomy, each in [-1, 1].
    :param organs: positions of the organs, each in [-1, 1].
    """

    seed: int
    size: float
    fat: float
    gain: float
    breath: float
    marrow: float
    bend: tuple[float, ...]
    organs: tuple[float, ...]


def draw_patient(seed: int) -> Patient:
    """Draw a patient."""
    generator = np.random.default_rng([seed, 0])
    size = float(generator.uniform(0.92, 1.06))
    return Patient(
        seed=seed,
        size=size,
        fat=float(generator.uniform(8, 22)),
        gain=expected_gain(size) * float(generator.uniform(0.92, 1.08)),
        breath=float(generator.uniform(1, 2.5) * generator.choice((-1, 1))),
        marrow=float(generator.uniform(-50, 50)),
        bend=tuple(generator.uniform(-1, 1, 6).tolist()),
        organs=tuple(generator.uniform(-1, 1, 8).tolist()),
    )


def abdomen_scan(
    patient: Patient,
    phase: Phase,
    shape: tuple[int, int, int] = ABDOMEN_SHAPE,
    noise: float = NOISE,
    breathing: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Scan a patient in a phase.

    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :param noise: standard deviation in HU; 0: no noise.
    :param breathing: factor of the displacement between the phases; 0: the phases are aligned exactly.
    :returns: image int16 in HU and label uint8, both (z, y, x). The same arguments give the same arrays.
    """
    is_arterial = phase == "arterial"
    gain, breath = (patient.gain, patient.breath * breathing) if is_arterial else (0.0, 0.0)
    image, label = _painted(patient, shape, gain, breath)
    if noise:
        generator = np.random.default_rng([patient.seed, 1, PHASES.index(phase)])
        grain = gaussian_filter(generator.standard_normal(shape, dtype=np.float32), (0, 0.5, 0.5))
        image += grain * np.float32(noise / grain.std())
    return _stored(image), label


def mr_scan(
    patient: Patient, shape: tuple[int, int, int] = ABDOMEN_SHAPE, noise: float = MR_NOISE
) -> tuple[np.ndarray, np.ndarray]:
    """Scan a patient in MR, aligned with the native CT.

    Its units are the scanner's: each subject has a gain of its own, and coils that see one side more than the other.

    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :param noise: standard deviation, where muscle has 210.
    :returns: image int16 in arbitrary units and label uint8, both (z, y, x). The same arguments give the same arrays.
    """
    hounsfield, label = _painted(patient, shape, gain=0.0, breath=0.0)
    image = np.interp(hounsfield, *zip(*MR_OF_HU, strict=True))
    generator = np.random.default_rng([patient.seed, 2])
    grid = _grid(shape)
    tilt = generator.uniform(-0.15, 0.15, 2)
    image = image * (1 + tilt[0] * grid.y / 132 + tilt[1] * grid.x / 176)
    image = np.hypot(image + noise * generator.standard_normal(shape), noise * generator.standard_normal(shape))
    return np.rint(generator.uniform(0.6, 1.6) * image).astype(np.int16), label


def knowable_scan(
    patient: Patient, phase: Phase, shape: tuple[int, int, int] = ABDOMEN_SHAPE, breathing: float = 1.0
) -> np.ndarray:
    """Return approximately the best translation into a phase that the other one allows.

    It has no noise, the anatomy at its place in the other phase, and the mean gain of a body of this size.

    :param shape: (z, y, x) voxels over ``FIELD_OF_VIEW``.
    :param breathing: factor of the displacement between the phases.
    :returns: int16 (z, y, x), HU.
    """
    is_arterial = phase == "arterial"
    gain, breath = (expected_gain(patient.size), 0.0) if is_arterial else (0.0, patient.breath * breathing)
    return _stored(_painted(patient, shape, gain, breath)[0])


def expected_gain(size: float) -> float:
    """Return the mean gain of a body of a size: the same dose is diluted in its volume."""
    return 0.93 * size**-3


def _painted(
    patient: Patient, shape: tuple[int, int, int], gain: float, breath: float
) -> tuple[np.ndarray, np.ndarray]:
    """Paint HU float32 without noise, and label. :param breath: mm that the organs in front have moved."""
    grid = _grid(shape)
    return _organs(patient, _anatomy(patient, grid, breath), grid, gain)


def _stored(image: np.ndarray) -> np.ndarray:
    """Round as scanners do: whole HU in 12 bits."""
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16)


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
    axes = [
        ((np.arange(count) - (count - 1) / 2) * size).astype(np.float32)
        for count, size in zip(shape, spacing, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return _Grid(z, y, x, spacing[2])


class _Points(NamedTuple):
    """Coordinates in the anatomy of an average subject, mm, (z, y, x)."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray


def _anatomy(patient: Patient, grid: _Grid, breath: float) -> _Points:
    """Map each voxel to the average anatomy. :param breath: mm that the organs in front have moved."""
    a, b, c, d, e, f = patient.bend
    # most behind the wall in front, nothing at the spine and at the skin; more below the diaphragm, mostly along z
    inside = np.clip(1.4 - 1.4 * np.hypot((grid.y + 20) / 90, grid.x / 150), 0, 1)
    away = 1 - np.exp(-((grid.y - 60) ** 2 + grid.x**2) / 45**2)
    moved = breath * inside * away * (0.6 + 0.4 * grid.z / 60)
    z = (grid.z - moved) / patient.size
    y = (grid.y + 0.2 * moved) / patient.size
    x = grid.x / patient.size
    y = y + 2.5 * a * np.sin(z / 40 + 3 * b) + 2.0 * c * np.cos(x / 60 + d)
    x = x + 3.0 * e * np.sin(z / 45 + 3 * f)
    return _Points(z, y, x)


def _ellipse(y: np.ndarray, x: np.ndarray, half_y: float, half_x: float, power: float = 2.0) -> np.ndarray:
    """Estimate the depth below the edge of a (super)ellipse, mm; negative outside."""
    radius = (np.abs(y / half_y) ** power + np.abs(x / half_x) ** power) ** (1 / power) + 1e-3
    return (np.hypot(y, x) + 1e-3 * min(half_y, half_x)) / radius * (1 - radius)


def _ellipsoid(points: _Points, centre: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    """Estimate the depth below the surface of an ellipsoid, mm; negative outside."""
    away = [axis - middle for axis, middle in zip(points, centre, strict=True)]
    radius = np.sqrt(sum((axis / size) ** 2 for axis, size in zip(away, half, strict=True))) + 1e-3
    return (np.sqrt(sum(axis**2 for axis in away)) + 1e-3 * min(half)) / radius * (1 - radius)


class _Canvas:
    """The image and its label, painted one structure over the other."""

    def __init__(self, shape: tuple[int, ...], edge: float):
        self.image = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.edge = edge

    def paint(self, depth: np.ndarray, value: np.ndarray | float, name: str = "background") -> None:
        """Paint where ``depth`` (mm below a surface) is positive; smeared over the edge of a voxel (partial volume)."""
        share = np.clip(depth / self.edge + 0.5, 0, 1)
        self.image += share * (value - self.image)
        self.label[np.broadcast_to(depth > 0, self.label.shape)] = LABELS[name]


def _organs(patient: Patient, points: _Points, grid: _Grid, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Paint HU float32 and label, (z, y, x), without noise. :param gain: of the contrast; 0 in the native phase."""
    z, y, x = points
    canvas = _Canvas(np.broadcast_shapes(z.shape, y.shape, x.shape), grid.edge)
    # the table does not breathe; it is a shell below the back
    canvas.paint(3 - np.abs(grid.y - 126 + 0.0009 * grid.x**2), TABLE)
    grain = np.sin(z / 7 + patient.bend[0]) * np.sin(y / 6) * np.sin(x / 6.5 + patient.bend[1])
    cavity = _wall(canvas, patient, points, grain)
    _bowel(canvas, patient, points, cavity)
    _liver_and_spleen(canvas, patient, points, cavity, grain, gain)
    _kidneys(canvas, patient, points, gain)
    _vessels(canvas, points, gain)
    _spine(canvas, patient, points, grain)
    return canvas.image, canvas.label


def _wall(canvas: _Canvas, patient: Patient, points: _Points, grain: np.ndarray) -> np.ndarray:
    """Paint skin, fat, muscles and ribs; return the depth below the inner surface of the wall, mm."""
    z, y, x = points
    body = _ellipse(y + np.zeros_like(z), x, 106, 160, power=2.3)
    canvas.paint(body, SKIN)
    canvas.paint(body - 2, FAT + 5 * grain)
    # more fat at the flanks
    muscle = body - 2 - patient.fat * (0.7 + 0.6 * (x / 160) ** 2)
    canvas.paint(muscle, MUSCLE + 6 * grain)
    cavity = muscle - 12 + 3 * np.clip(-y / 106, 0, 1)
    canvas.paint(cavity, FAT + 6 * grain)
    # ribs run down from the back to the front, and end at an arch
    turn = np.arctan2(np.abs(x) / 160, y / 106)
    between = (z + 42 * turn + 9 * patient.organs[0]) % 30 - 15
    rib = np.minimum(5 - np.hypot(0.8 * between, muscle - 7), 0.25 * (z + 5 + 70 * (y - 10) / 106))
    canvas.paint(np.minimum(rib, 0.4 * (y + 45)), CORTICAL - 150)
    canvas.paint(np.minimum(rib, 0.4 * (y + 45)) - 2.5, TRABECULAR + patient.marrow)
    # next to the spine: the muscles of the back, psoas, which thickens downwards, and quadratus lumborum
    side = np.abs(x)
    lower = 0.5 - z / 120
    for depth in (
        _ellipse(y - 77, side - 30 + 0 * z, 17, 26),
        _ellipse(y - 46 + 0 * z, (side - 27 - 9 * lower), 20, 18) - 9 * (1 - lower),
        _ellipse(y - 66 + 0 * z, side - 66, 7, 20),
    ):
        canvas.paint(np.minimum(depth, muscle), MUSCLE + 6 * grain)
    return cavity


def _bowel(canvas: _Canvas, patient: Patient, points: _Points, cavity: np.ndarray) -> None:
    """Paint stomach, pancreas, loops of small bowel, ascending and descending colon; gas is in front."""
    z, y, x = points
    organs = patient.organs
    # loops: tubes of a wavy lattice, with fat between them
    p, q, r = (axis / 13 + 2 * bend for axis, bend in zip(points, patient.bend, strict=False))
    tubes = np.sin(p) * np.cos(q) + np.sin(q) * np.cos(r) + np.sin(r) * np.cos(p)
    loops = np.minimum(np.minimum(cavity - 4, 0.7 * (14 - 6 * organs[1] - z - 0.2 * np.abs(x))), 0.8 * (4 - y))
    canvas.paint(np.minimum(loops, 11 * (tubes + 0.15)), BOWEL)
    canvas.paint(np.minimum(loops, 11 * (tubes - 0.65)), FLUID)
    canvas.paint(np.minimum(np.minimum(loops, 11 * (tubes - 0.75)), 0.5 * (-52 + 10 * organs[2] - y)), GAS)
    for middle, top in ((-108, -22 + 8 * organs[1]), (112, 22 + 8 * organs[2])):
        width = 19 + 3 * np.sin(z / 9 + 3 * organs[3])
        colon = np.minimum(np.minimum(width - np.hypot(y - 6, x - middle), 0.8 * (top - z)), cavity)
        canvas.paint(colon, BOWEL)
        canvas.paint(colon - 3, STOOL + 40 * np.sin(x / 5) * np.sin(y / 5 + z / 6))
        canvas.paint(np.minimum(colon - 3, -2 - 5 * organs[4] - y), GAS)
    stomach = _ellipsoid(points, (44 + 5 * organs[5], -36, 52), (40, 42, 50))
    stomach = np.minimum(stomach, cavity - 3)
    canvas.paint(stomach, BOWEL)
    canvas.paint(stomach - 5, FLUID + 12)
    canvas.paint(np.minimum(stomach - 5, -50 + 8 * organs[4] - y), GAS)
    arch = y + 14 + 16 * (x / 60) ** 2
    lobes = 1.5 * np.sin(x / 5) * np.sin(z / 6)
    canvas.paint(_ellipsoid(_Points(z - 6 - 0.2 * x, arch, x - 22), (0, 0, 0), (15, 11, 62)) + lobes, PANCREAS)


def _liver_and_spleen(
    canvas: _Canvas, patient: Patient, points: _Points, cavity: np.ndarray, grain: np.ndarray, gain: float
) -> None:
    """Paint the liver with its veins and gallbladder; spleen."""
    z, y, x = points
    organs = patient.organs
    right = _ellipsoid(points, (46 + 8 * organs[6], -2, -82), (84, 84, 76))
    left = _ellipsoid(points, (54, -58, -14), (44, 38, 66))
    liver = np.minimum(np.maximum(right, left), cavity - 2)
    canvas.paint(liver, LIVER + gain * ENHANCEMENT["liver"] + 4 * grain, "liver")
    veins = np.abs(np.sin(x / 22 + z / 50 + organs[6])) + np.abs(np.sin(y / 19 - z / 35 + organs[7]))
    canvas.paint(np.minimum(liver - 8, 14 * (0.22 - veins)), BLOOD, "liver")
    gallbladder = _ellipsoid(points, (0 + 8 * organs[6], -46, -48), (26, 15, 14))
    canvas.paint(gallbladder + 2, BOWEL)
    canvas.paint(gallbladder, FLUID)
    spleen = _ellipsoid(points, (42 + 8 * organs[7], 30, 104), (46 + 5 * organs[5], 40, 24))
    spleen = np.minimum(spleen, cavity - 2)
    canvas.paint(spleen, SPLEEN + gain * ENHANCEMENT["spleen"] + 4 * grain, "spleen")


def _kidneys(canvas: _Canvas, patient: Patient, points: _Points, gain: float) -> None:
    """Paint cortex around pyramids of medulla, open to the middle with fat and the pelvis; fat around it."""
    z, y, x = points
    for side, height in ((-1, -14 + 8 * patient.organs[2]), (1, -2 + 8 * patient.organs[3])):
        # the upper pole is nearer to the spine
        own = _Points(z - height, y - 40 - 0.15 * (z - height), side * x - 66 + 0.22 * (z - height))
        size = 1 + 0.06 * patient.organs[4]
        kidney = _ellipsoid(own, (0, 0, 0), (54 * size, 26 * size, 27 * size))
        hilum = _ellipsoid(own, (0, -8, -16), (27, 12, 16))
        canvas.paint(kidney + 6, FAT)
        columns = 3.5 * np.sin(own.z / 5.5) * np.sin(3 * np.arctan2(own.y, own.x + 8))
        canvas.paint(kidney, KIDNEY + gain * ENHANCEMENT["cortex"], "kidneys")
        canvas.paint(np.minimum(kidney - 8 - columns, 3 - hilum), KIDNEY + gain * ENHANCEMENT["medulla"], "kidneys")
        canvas.paint(hilum, FAT + 15)
        canvas.paint(_ellipsoid(own, (-2, -7, -15), (16, 5, 9)), FLUID)


def _vessels(canvas: _Canvas, points: _Points, gain: float) -> None:
    """Paint the aorta, the superior mesenteric artery before it, and the vena cava, without contrast yet."""
    z, y, x = points
    wave = 2.5 * np.sin(z / 38)
    cava = _ellipse(y - 19, x + 22 - wave, 9, 13)
    canvas.paint(cava + 3, FAT)
    canvas.paint(cava, BLOOD, "vena cava")
    bright = BLOOD + gain * ENHANCEMENT["aorta"]
    artery = np.minimum(4 - np.hypot(y - 20 + 0.16 * (34 - z), x - 6 - wave), 0.5 * (34 - z))
    aorta = 10.5 - np.hypot(y - 18, x - 9 - wave)
    canvas.paint(np.maximum(artery, aorta) + 3, FAT)
    canvas.paint(artery, bright, "aorta")
    canvas.paint(aorta, bright, "aorta")


def _spine(canvas: _Canvas, patient: Patient, points: _Points, grain: np.ndarray) -> None:
    """Paint vertebrae with a cortical shell around trabecular bone, discs, the canal and the processes behind it."""
    z, y, x = points
    level = (z + 14 * patient.organs[7]) % 36 - 18
    side = np.abs(x)
    body = _ellipse(y - 49 + 0 * z, x, 18, 24)
    bone = np.minimum(body, 14 - np.abs(level))
    marrow = TRABECULAR + patient.marrow + 25 * grain
    arch = 5 - np.abs(np.hypot(y - 76, x) - 13)
    spinous = np.minimum(_ellipse(y - 89 + 0 * z, x, 11, 4.5), 12 - np.abs(level + 4))
    transverse = np.minimum(_ellipse(y - 72 + 0 * z, side - 22, 4.5, 20), 7 - np.abs(level))
    canvas.paint(body, DISC, "spine")
    canvas.paint(np.maximum(np.minimum(arch, 14 - np.abs(level)), np.maximum(spinous, transverse)), 380, "spine")
    canvas.paint(bone, CORTICAL, "spine")
    canvas.paint(bone - 2.5, marrow, "spine")
    canvas.paint(9.5 - np.hypot(y - 76 + 0 * z, x), CANAL)
