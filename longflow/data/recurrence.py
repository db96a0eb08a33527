"""Scans that repeat: infer the period of a subject from its scans, and combine them into the expected scan at a time.

Every voxel is taken as a Gaussian process over time whose values repeat after a period P (MacKay 1998),

    k(t, s) = exp(-2 sin^2(pi (t - s) / P) / length^2) + noise [t = s]

with the same kernel for all voxels and an unknown mean for each. Two things follow from the similarity of the scans
alone, a small matrix of their inner products:

- the evidence for each P: the restricted likelihood of the scans, whose scale is profiled out;
- the best linear unbiased forecast (ordinary kriging, Matheron 1963), a weighted sum of the scans. Its weights are
  averaged over the periods by their posterior probabilities.

The period differs between subjects and is seldom known. What subjects have in common (which periods occur, length and
noise) is measured in the fingerprint; a subject's own scans decide the rest.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: independent values that an image counts as, in the evidence for a period: neighbouring voxels are alike
INDEPENDENT_VALUES = 10
#: periods less probable than this are not computed
LEAST_PROBABLE = 1e-3
#: an evidence needs as many scans
FEWEST_SCANS = 3
#: voxels whose products are taken at once, in float64
VOXELS_AT_A_TIME = 250_000


class Kernel(NamedTuple):
    """The kernel, apart from the period: length (without unit) and variance of the noise over that of the process."""

    length: float
    noise: float


class Recurrence(NamedTuple):
    """What a subject's scans and their times say about a requested time.

    :param period: its expectation, in the unit of the times.
    :param weights: (scans,), sum 1: of each scan in the expected scan.
    """

    period: float
    weights: np.ndarray


def scan_similarity(scans: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the correlations of scans with each other: a gain or an offset of a scan does not matter.

    :param scans: (scans, channels, ...): volumes, or means over coarse blocks.
    :returns: (scans, scans), 1 on the diagonal (0 for a constant scan); the mean over channels.
    """
    channels = range(len(scans[0]))
    return np.mean([_correlations([scan[channel] for scan in scans]) for channel in channels], axis=0)


def _correlations(images: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the correlations of images, in float64, a portion of the voxels at a time."""
    flat = [np.asarray(image).reshape(-1) for image in images]
    sums, products = np.zeros(len(flat)), np.zeros((len(flat), len(flat)))
    reference = [float(image[0]) for image in flat]  # near the mean: no digits are lost
    for start in range(0, flat[0].size, VOXELS_AT_A_TIME):
        part = np.stack([image[start : start + VOXELS_AT_A_TIME] for image in flat]).astype(np.float64)
        part -= np.reshape(reference, (-1, 1))
        sums += part.sum(axis=1)
        products += part @ part.T
    means = sums / flat[0].size
    covariance = products / flat[0].size - np.outer(means, means)
    deviations = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.where(deviations > 0, deviations, 1)
    return covariance / np.outer(scale, scale)


def infer_recurrence(
    times: Sequence[float],
    target: float,
    similarity: np.ndarray,
    periods: np.ndarray,
    probabilities: np.ndarray,
    kernel: Kernel,
) -> Recurrence:
    """Infer the period of a subject and the weights of its scans.

    :param times: (scans,), different.
    :param target: requested time.
    :param similarity: (scans, scans), of :func:`scan_similarity`.
    :param periods: (periods,), those that occur; a known period is the only one.
    :param probabilities: (periods,), of each before the scans are looked at.
    :param kernel: length and noise.
    :returns: expected period and weights.
    """
    posterior = period_probabilities(times, similarity, periods, probabilities, kernel)
    probable = posterior >= LEAST_PROBABLE * posterior.max()
    share = posterior[probable] / posterior[probable].sum()
    weights = share @ kriging_weights(np.asarray(times, float), target, periods[probable], kernel)
    return Recurrence(float(share @ periods[probable]), weights)


def period_probabilities(
    times: Sequence[float], similarity: np.ndarray, periods: np.ndarray, probabilities: np.ndarray, kernel: Kernel
) -> np.ndarray:
    """Compute the posterior probability of each period; with fewer than three scans it is the prior one.

    :returns: (periods,), sum 1.
    """
    if len(periods) == 1 or len(times) < FEWEST_SCANS:
        return probabilities / probabilities.sum()
    evidence = INDEPENDENT_VALUES * log_evidence(np.asarray(times, float), similarity, periods, kernel)
    posterior = probabilities * np.exp(evidence - evidence.max())
    return posterior / posterior.sum()


def log_evidence(times: np.ndarray, similarity: np.ndarray, periods: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Compute the restricted log likelihood of the scans for one independent value, up to a constant.

    With B an orthonormal basis of the contrasts (vectors whose sum is 0), S = B'(K + noise)B and G = B'(similarity)B:
    -1/2 [(n - 1) log tr(S^-1 G) + log det S].

    :returns: (periods,).
    """
    count = len(times)
    basis = np.linalg.qr(np.concatenate([np.ones((count, 1)), np.eye(count)[:, 1:]], axis=1))[0][:, 1:]
    covariance = basis.T @ _covariance(times, periods, kernel) @ basis
    found = basis.T @ similarity @ basis
    misfit = np.trace(np.linalg.solve(covariance, np.broadcast_to(found, covariance.shape)), axis1=1, axis2=2)
    return -((count - 1) * np.log(np.maximum(misfit, 1e-12)) + np.linalg.slogdet(covariance)[1]) / 2


def kriging_weights(times: np.ndarray, target: float, periods: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Compute the weights of ordinary kriging.

    :returns: (periods, scans); each row sums to 1.
    """
    count = len(times)
    system = np.ones((len(periods), count + 1, count + 1))
    system[:, :count, :count] = _covariance(times, periods, kernel)
    system[:, count, count] = 0
    right = np.ones((len(periods), count + 1))
    right[:, :count] = _kernel(times - target, periods, kernel.length)
    return np.linalg.solve(system, right[:, :, None])[:, :count, 0]


def _covariance(times: np.ndarray, periods: np.ndarray, kernel: Kernel) -> np.ndarray:
    return _kernel(times[:, None] - times, periods, kernel.length) + kernel.noise * np.eye(len(times))


def _kernel(distances: np.ndarray, periods: np.ndarray, length: float) -> np.ndarray:
    """Compute exp(-2 sin^2(pi d / P) / length^2): (periods, *distances.shape)."""
    turns = distances / periods.reshape(-1, *[1] * distances.ndim)
    return np.exp(-2 * np.sin(np.pi * turns) ** 2 / length**2)
