"""Temporal Flow Matching (TFM, sections 2.3 and 2.4, algorithm 1)."""

import math

import torch
from torch import Tensor

from longflow.methods.batches import Batch
from longflow.methods.forecasting._flow import GridFlowMethod
from longflow.methods.method import Options
from longflow.plans import Plans

CODE_SIZE = 64
LONGEST_PERIOD = 10_000
STEPS_OF_TAU = 1000


class TemporalFlowMatching(GridFlowMethod):
    """TFM: the context padded to a set length, every missing place filled with the nearest earlier scan.

    Places before the first scan take the earliest one (section 2.4). Places are the slots of the planned grid, the
    "time axis" in which irregular sampling leaves holes. tau enters by the sinusoidal embedding that diffusion U-Nets
    have. The paper's network is ``diffusion_unet``, and "No Att" of its table 3 is ``concatenation_unet``. The default
    is the FiLM U-Net of CRONOS, so that a comparison of methods does not compare networks.
    """

    summary = "Temporal Flow Matching: filled sequence of a set length"

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None, network: str = ""):
        super().__init__(plans, configuration, CODE_SIZE, options, network)

    def code(self, batch: Batch, tau: Tensor) -> Tensor:
        """Make the sinusoidal embedding of tau, counted in steps of a thousandth."""
        return sinusoidal_embedding(tau * STEPS_OF_TAU, CODE_SIZE)


def sinusoidal_embedding(values: Tensor, size: int) -> Tensor:
    """Compute [cos(w_i v), sin(w_i v)], w_i falling geometrically from 1 to about 1 / 10000 (Vaswani et al. 2017).

    :param values: (batch,).
    :param size: even.
    :returns: (batch, size).
    """
    half = size // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=values.device) / half)
    angles = values.unsqueeze(1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


METHOD = TemporalFlowMatching
