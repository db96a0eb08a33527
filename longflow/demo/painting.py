"""Paint a phantom: partial volume at surfaces, smooth textures, and the noise of magnitude images."""

import numpy as np
from scipy.special import ive


def cover(depth: np.ndarray, width: float) -> np.ndarray:
    """Return the share of a voxel of ``width`` inside a surface, ``depth`` below it (negative: outside)."""
    return np.clip(depth / width + 0.5, 0, 1)


def mix(image: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    """Paint a share of each voxel with a value.

    :param image: (z, y, x).
    :param share: in [0, 1], of :func:`cover`.
    :param value: an intensity, or one for each voxel.
    :returns: (z, y, x).
    """
    return image + share * (value - image)


def texture(
    seed: int, which: int, points: tuple[np.ndarray, ...], wavelength: tuple[float, float], modes: int = 10
) -> np.ndarray:
    """Draw a smooth random function of position with mean 0 and variance 1: a sum of plane waves.

    :param which: number of the texture.
    :param points: coordinates z, y, x in mm that broadcast to (z, y, x).
    :param wavelength: shortest and longest, mm.
    """
    generator = np.random.default_rng([seed, 3, which])
    directions = generator.standard_normal((modes, 3))
    directions *= 2 * np.pi / np.linalg.norm(directions, axis=1, keepdims=True)
    waves = (directions / generator.uniform(*wavelength, (modes, 1))).astype(np.float32)
    phases = generator.uniform(0, 2 * np.pi, modes).astype(np.float32)
    (z, y, x), total = points, np.float32(0)
    for (kz, ky, kx), phase in zip(waves, phases, strict=True):
        total = total + np.cos(kz * z + ky * y + kx * x + phase)
    return total * np.float32(np.sqrt(2 / modes))


def ellipse_depth(y, x, half_y: float, half_x: float) -> np.ndarray:
    """Estimate the depth below an ellipse's edge, mm."""
    return (1 - np.hypot(y / half_y, x / half_x)) * np.sqrt(half_y * half_x)


def with_noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Add the noise of a magnitude image (Rician).

    :param image: (z, y, x).
    :param deviation: standard deviation of the real and the imaginary part, in the image's units.
    :param generator: source of randomness.
    :returns: (z, y, x).
    """
    real, imaginary = generator.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(deviation)
    return np.hypot(image + real, imaginary)


def mean_with_noise(image: np.ndarray, deviation: float) -> np.ndarray:
    """Compute the mean of all images that :func:`with_noise` could give (Rician mean).

    :param image: (z, y, x), without noise.
    :param deviation: as there; positive.
    :returns: (z, y, x).
    """
    x = (image / deviation) ** 2 / 4
    # deviation sqrt(pi / 2) L_1/2(-2 x), by modified Bessel functions scaled by exp(-x)
    return deviation * np.sqrt(np.pi / 2) * ((1 + 2 * x) * ive(0, x) + 2 * x * ive(1, x))
