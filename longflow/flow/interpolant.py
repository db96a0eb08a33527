"""The straight path from context to target, and its velocity (CRONOS eq. 1, 4-7; TFM section 2.3)."""

import torch
from torch import Tensor


def broadcast_target(target: Tensor, scans: int) -> Tensor:
    """Repeat the target for every scan: X_1 = [I_target, ..., I_target] (CRONOS eq. 7).

    :param target: (batch, channels, *spatial).
    :returns: (batch, scans, channels, *spatial), a view without a copy.
    """
    return target.unsqueeze(1).expand(-1, scans, *target.shape[1:])


def interpolate(start: Tensor, end: Tensor, tau: Tensor, noise: float = 0.0) -> Tensor:
    """Compute the point on the path: X_tau = (1 - tau) X_0 + tau X_1 + sigma eps (CRONOS eq. 4).

    :param start: X_0, (batch, scans, channels, *spatial).
    :param end: X_1, of the same shape.
    :param tau: flow steps in [0, 1], (batch,).
    :param noise: sigma; CRONOS trains with 0 (section 3.3, table 7).
    """
    point = torch.lerp(start, end, _per_sample(tau, start))
    return point if noise == 0 else point + noise * torch.randn_like(point)


def velocity(start: Tensor, end: Tensor) -> Tensor:
    """Compute u = X_1 - X_0, constant along the path (CRONOS eq. 5)."""
    return end - start


def velocity_loss(predicted: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Average the squared difference of velocities (CRONOS eq. 6) over the observed scans; masked ones have no weight.

    :param predicted: (batch, scans, channels, *spatial).
    :param reference: of the same shape.
    :param mask: (batch, scans), True where a scan was observed.
    :returns: a scalar.
    """
    per_scan = (predicted.float() - reference.float()).square().flatten(2).mean(2)
    weight = mask.to(per_scan.dtype)
    return (per_scan * weight).sum() / weight.sum()


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))
