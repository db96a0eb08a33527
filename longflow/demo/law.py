"""The law of the phantom: how a subject is drawn and how its heart beats. Lengths in mm, times in ms.

The equations are in ``documentation/tutorials/first_forecast.md``.
"""

from dataclasses import dataclass

import numpy as np

#: share of a heartbeat in which the ventricle contracts; it relaxes in the rest
SYSTOLE = 0.38


@dataclass(frozen=True)
class Subject:
    """Anatomy and motion of one phantom subject, at end diastole.

    :param seed: of textures and noise.
    :param period: of the heartbeat, ms.
    :param phase: of the heartbeat at time 0, in [0, 1); 0 is end diastole.
    :param ejection_fraction: share of the cavity that is ejected.
    :param shortening: share of its length that the ventricle loses.
    :param twist: of the apex in systole, rad.
    :param rv_contraction: share of its width that the right ventricle loses.
    :param rv_delay: of the right ventricle, in heartbeats.
    :param radius: of the cavity at the base.
    :param wall: thickness of the wall.
    :param length: of the cavity, base to apex.
    :param apex: (z, y, x) of the outer apex.
    :param tilt: (y, x) mm that the axis moves per mm along z.
    :param septum: direction from the left to the right ventricle, rad.
    :param torso: half axes (y, x) of the body.
    :param liver: z of the liver's dome.
    :param coil: (y, x) relative change of the coil's sensitivity over the body.
    """

    seed: int
    period: float
    phase: float
    ejection_fraction: float
    shortening: float
    twist: float
    rv_contraction: float
    rv_delay: float
    radius: float
    wall: float
    length: float
    apex: tuple[float, float, float]
    tilt: tuple[float, float]
    septum: float
    torso: tuple[float, float]
    liver: float
    coil: tuple[float, float]

    @property
    def lv_volume_diastole(self) -> float:
        """Return the volume of the cavity at end diastole, mm³."""
        return 2 / 3 * np.pi * self.radius**2 * self.length

    @property
    def wall_volume(self) -> float:
        """Return the volume of the left ventricle's wall, mm³; it is the same at any time."""
        outer = 2 / 3 * np.pi * (self.radius + self.wall) ** 2 * (self.length + self.wall)
        return outer - self.lv_volume_diastole


def draw_subject(seed: int) -> Subject:
    """Draw a subject: anatomy, heart rate (60 to 90 per minute), phase and strength of the contraction."""
    draw = np.random.default_rng([seed, 1]).uniform
    return Subject(
        seed=seed,
        period=60_000 / draw(60, 90),
        phase=draw(0, 1),
        ejection_fraction=draw(0.52, 0.70),
        shortening=draw(0.12, 0.20),
        twist=draw(0.12, 0.28),
        rv_contraction=draw(0.22, 0.34),
        rv_delay=draw(0.06, 0.18),
        radius=draw(18.0, 21.5),
        wall=draw(6.0, 8.0),
        length=draw(50, 58),
        apex=(draw(29, 36), draw(-8, 0), draw(10, 18)),
        tilt=(draw(-0.06, 0.06), draw(-0.02, 0.10)),
        septum=draw(2.75, 3.55),
        torso=(draw(54, 59), draw(64, 69)),
        liver=draw(12, 24),
        coil=(draw(-0.30, -0.12), draw(-0.12, 0.12)),
    )


def contraction(phase: np.ndarray | float) -> np.ndarray:
    """Return c in [0, 1]: 0 at end diastole (phase 0), 1 at end systole (``SYSTOLE``).

    It is differentiable once and has the period 1.
    """
    phase = np.mod(phase, 1.0)
    rising = (1 - np.cos(np.pi * phase / SYSTOLE)) / 2
    falling = (1 + np.cos(np.pi * (phase - SYSTOLE) / (1 - SYSTOLE))) / 2
    return np.where(phase < SYSTOLE, rising, falling)


def lv_contraction(subject: Subject, time: float) -> float:
    """Return c of the left ventricle. :param time: in ms."""
    return float(contraction(subject.phase + time / subject.period))


def rv_contraction(subject: Subject, time: float) -> float:
    """Return c of the right ventricle, which follows with a delay. :param time: in ms."""
    return float(contraction(subject.phase - subject.rv_delay + time / subject.period))


def lv_volume(subject: Subject, time: float) -> float:
    """Return the volume of the left ventricle's cavity in mm³: V_ED (1 - EF c(t))."""
    return subject.lv_volume_diastole * (1 - subject.ejection_fraction * lv_contraction(subject, time))
