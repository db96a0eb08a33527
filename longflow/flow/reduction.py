"""Reduce the transported stack to one volume (TFM section 2.3, table 3; CRONOS table 4)."""

import torch
from torch import Tensor

from longflow.flow.grid import carried_forward
from longflow.flow.masks import as_weights

REDUCTIONS = ("last", "mean")


def reduce_scans(stack: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Apply both reductions to a stack whose observed scans have all been carried to the target.

    ``last`` is the place of the last observed scan. There an untrained flow, whose velocity is zero, returns that scan
    (LCI). ``mean`` is the mean over the observed scans.

    :param stack: (batch, scans, channels, *spatial), in order of time.
    :param mask: (batch, scans), True where a scan was observed: at least one in each row.
    :returns: {"last", "mean"}: (batch, channels, *spatial).
    """
    weight = as_weights(mask, stack)
    rows, last = torch.arange(stack.shape[0], device=stack.device), carried_forward(mask)[:, -1]
    return {"last": stack[rows, last], "mean": (stack * weight).sum(1) / weight.sum(1)}
