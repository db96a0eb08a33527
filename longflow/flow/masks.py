"""Masks of observed scans beside stacks of scans."""

from torch import Tensor


def as_weights(mask: Tensor, stack: Tensor) -> Tensor:
    """A mask as numbers that multiply a stack: 1 where a scan was observed, 0 elsewhere.

    :param mask: (batch, scans), bool. :param stack: (batch, scans, channels, *spatial).
    :returns: of the stack's type and number of axes, (batch, scans, 1, ...).
    """
    return mask.to(stack.dtype).view(*mask.shape, *([1] * (stack.ndim - 2)))
