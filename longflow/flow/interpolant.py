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


def noisy_source(start: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Add noise to the source of a flow: X_0 = context + sigma eps, with one eps for all scans of a stack.

    On the line from there to X_1 the noise has the share 1 - tau: it is CRONOS eq. 4 with sigma(tau) = (1 - tau) sigma,
    and the velocity X_1 - X_0 contains it. So the flow ends at the law of the target, without noise of the source.

    :param start: the context, (batch, scans, channels, *spatial).
    :param sigma: standard deviation.
    :param noise: eps, standard normal, (batch, channels, *spatial).
    :returns: the shape of ``start``.
    """
    return start + sigma * noise.unsqueeze(1)


def draw_flow_steps(count: int, at_start: float = 0.0) -> Tensor:
    """Draw tau: 0 with a given probability, else uniform on [0, 1) (CRONOS algorithm 1 draws all of them so).

    :param count: how many.
    :param at_start: probability of tau = 0, where a prediction with one Euler step evaluates the network.
    :returns: (count,), on the CPU.
    """
    uniform = torch.rand(count)
    return (uniform - at_start).clamp(min=0) / (1 - at_start or 1)


def velocity(start: Tensor, end: Tensor) -> Tensor:
    """Compute u = X_1 - X_0, constant along the path (CRONOS eq. 5)."""
    return end - start


def change_weights(target: Tensor, last: Tensor, strength: float) -> Tensor | None:
    """Compute voxel weights that grow with the change: 1 + w |I_target - I_last| / mean, divided by their mean.

    :param target: (batch, channels, *spatial).
    :param last: the last context scan, of the same shape.
    :param strength: w.
    :returns: of the same shape, with mean 1 in each sample; None for w = 0, where all weights are 1.
    """
    if strength == 0:
        return None
    change = (target - last).abs().float().flatten(1)
    weights = 1 + strength * change / change.mean(1, keepdim=True).clamp(min=torch.finfo(change.dtype).tiny)
    return with_mean_one(weights).view_as(target)


def with_mean_one(weights: Tensor) -> Tensor:
    """Divide weights by their mean in each sample.

    :param weights: (batch, ...), above 0.
    :returns: of the same shape.
    """
    return weights / weights.flatten(1).mean(1).view(-1, *[1] * (weights.ndim - 1))


def joint_weights(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Multiply weights of voxels, and divide the product by its mean in each sample.

    :param first: (batch, channels, *spatial), with mean 1 in each sample; None: all alike.
    :param second: likewise.
    :returns: likewise; where one of both is None, the other as it is.
    """
    if first is None or second is None:
        return second if first is None else first
    return with_mean_one(first * second)


def velocity_loss(predicted: Tensor, reference: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average the squared difference of velocities (CRONOS eq. 6) over the observed scans; masked ones have no weight.

    :param predicted: (batch, scans, channels, *spatial).
    :param reference: of the same shape.
    :param mask: (batch, scans), True where a scan was observed.
    :param weights: of voxels, with mean 1, (batch, channels, *spatial); None: all alike.
    :returns: a scalar.
    """
    errors = (predicted.float() - reference.float()).square()
    if weights is not None:
        errors = errors * weights.unsqueeze(1)
    per_scan = errors.flatten(2).mean(2)
    weight = mask.to(per_scan.dtype)
    return (per_scan * weight).sum() / weight.sum()


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))
