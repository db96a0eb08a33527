"""Masks of the observed scans of a stack."""

from torch import Tensor


def as_weights(mask: Tensor, stack: Tensor) -> Tensor:
    """Turn a mask into factors of a stack: 1 where a scan was observed, 0 elsewhere.

    :param mask: (batch, scans), bool.
    :param stack: (batch, scans, channels, *spatial).
    :returns: of the stack's type and number of axes, (batch, scans, 1, ...).
    """
    return mask.to(stack.dtype).view(*mask.shape, *([1] * (stack.ndim - 2)))
