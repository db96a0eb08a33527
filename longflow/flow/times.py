"""Bring time to a network: interpolated times (CRONOS eq. 9), their Fourier encoding (eq. 11), and their phase."""

import math

import torch
from torch import Tensor


def interpolate_times(context_times: Tensor, target_time: Tensor, tau: Tensor) -> Tensor:
    """Compute T_tau = (1 - tau) t_context + tau t_target (CRONOS eq. 9).

    :param context_times: (batch, scans).
    :param target_time: (batch,).
    :param tau: (batch,).
    :returns: (batch, scans).
    """
    tau = tau.unsqueeze(1)
    return (1 - tau) * context_times + tau * target_time.unsqueeze(1)


def time_frequencies(shortest: float, longest: float, count: int) -> Tensor:
    """Choose frequencies f_k that separate times ``shortest`` apart and do not confuse times ``longest`` apart.

    They form a geometric series. The lowest has a period of four times ``longest``: over the whole range its phase
    stays within a quarter turn to either side, so it is one-to-one. The highest has a period of twice ``shortest``:
    such a step turns its phase by half a turn, the most possible.

    :param shortest: shortest interval that matters.
    :param longest: longest span that occurs, in the same unit.
    :param count: how many frequencies.
    :returns: (count,), in turns per unit of time.
    """
    lowest = 1 / (4 * longest)
    highest = max(1 / (2 * shortest), 2 * lowest)
    return torch.logspace(math.log10(lowest), math.log10(highest), count)


def fourier_features(times: Tensor, frequencies: Tensor) -> Tensor:
    """Compute gamma(t) = [sin(2 pi f_k t), cos(2 pi f_k t)] (CRONOS section 3.3, after Tancik et al. 2020).

    :param times: any shape.
    :param frequencies: (count,).
    :returns: (*times.shape, 2 * count).
    """
    angles = 2 * math.pi * times.unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def encode_times(features: Tensor, mask: Tensor) -> Tensor:
    """Compute Enc(t) = 1/T sum_i gamma(t_i) (CRONOS eq. 11) over the observed scans; masked ones have no weight.

    :param features: gamma(t_i), (batch, scans, features).
    :param mask: (batch, scans), True where observed.
    :returns: (batch, features).
    """
    weight = mask.to(features.dtype).unsqueeze(-1)
    return (features * weight).sum(1) / weight.sum(1)


def harmonic_features(times: Tensor, period: Tensor, count: int) -> Tensor:
    """Compute [sin(2 pi k t / P), cos(2 pi k t / P)], k = 1 ... count: equal at t and t + P.

    :param times: (batch, ...).
    :param period: P, (batch,), in the unit of the times; NaN: not known, the features are zero.
    :param count: how many harmonics.
    :returns: (*times.shape, 2 * count).
    """
    turns = times / period.view(-1, *[1] * (times.ndim - 1))
    harmonics = torch.arange(1.0, count + 1, device=times.device)
    # nan_to_num after sine and cosine: the cosine of an angle of 0 would be 1
    return torch.nan_to_num(fourier_features(turns, harmonics))
