"""Bring time to a network: interpolated times (CRONOS eq. 9) and their Fourier encoding (eq. 11)."""

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


def encode_times(times: Tensor, frequencies: Tensor, mask: Tensor) -> Tensor:
    """Compute Enc(t) = 1/T sum_i gamma(t_i) (CRONOS eq. 11) over the observed scans; masked ones have no weight.

    :param times: (batch, scans).
    :param frequencies: (count,).
    :param mask: (batch, scans), True where observed.
    :returns: (batch, 2 * count).
    """
    weight = mask.to(times.dtype).unsqueeze(-1)
    return (fourier_features(times, frequencies) * weight).sum(1) / weight.sum(1)
