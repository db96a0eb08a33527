"""ODE-LSTM (Lechner & Hasani 2020), the continuous-time baseline "NODE + LSTM" of CRONOS (tables 2 and 8)."""

import torch
from torch import Tensor, nn

from longflow.methods.batches import Batch
from longflow.methods.forecasting._direct import DirectMethod
from longflow.networks.blocks import CONVOLUTIONS
from longflow.networks.conv_lstm import (
    ConvLSTMLayers,
    ScanEncoder,
    StateDecoder,
    States,
    recurrent_stage,
    where_seen,
    without_keeping,
)
from longflow.networks.padding import same_padding
from longflow.plans import NetworkPlan, Plans

#: Euler steps from one scan to the next: the number of the authors' code for solvers of fixed steps
STEPS = 3


class ODELSTM(DirectMethod):
    """An LSTM whose state is changed by every scan, and evolves by itself between scans.

    It sees the observed scans and the real times between them, in units of the plan's time scale. It does not use the
    planned grid.
    """

    summary = "NODE + LSTM: a recurrent network whose state goes on in continuous time between scans"

    def __init__(self, plans: Plans, configuration: str):
        super().__init__(plans, configuration)
        self.network = ODELSTMNetwork(len(plans.channel_names), self.configuration.network)

    def forecast(self, batch: Batch) -> Tensor:
        """Predict the target at the requested time."""
        return self.network(batch.context, waiting_times(batch), batch.context_mask)


class ODELSTMNetwork(nn.Module):
    """Encoder of single scans, layers of LSTM, dynamics of their hidden states, decoder.

    The LSTM is the authors', with convolutions for its products. A scan updates hidden state and cell of every layer.
    Then the hidden states follow dh/dt = f(h), each with its own f, until the next scan or the target; f has two layers
    with tanh in between. The cells stay constant, so that a gradient survives long intervals. Encoder, layers and
    decoder are those of ``convlstm``. CRONOS does not describe them. f starts at zero: at first nothing happens between
    scans.

    :param channels: of a scan.
    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, channels: int, plan: NetworkPlan):
        super().__init__()
        self.encoder = ScanEncoder(channels, plan)
        self.layers = ConvLSTMLayers(plan)
        self.dynamics = nn.ModuleList(
            dynamics_of_state(plan, stage) for stage in range(recurrent_stage(plan), len(plan.strides))
        )
        self.decoder = StateDecoder(channels, plan)

    def forward(self, scans: Tensor, waits: Tensor, mask: Tensor) -> Tensor:
        """Predict the target.

        :param scans: (batch, scans, channels, *spatial).
        :param waits: from each scan to the next, from the last to the target, (batch, scans).
        :param mask: (batch, scans), False where the states stay.
        :returns: (batch, channels, *spatial), float32.
        """
        maps = self.encoder(scans)
        states = self.layers.fresh_states(maps[:, 0])
        for x, wait, seen in zip(maps.unbind(1), waits.unbind(1), mask.unbind(1), strict=True):
            states = without_keeping(self._step, x, wait, seen, *states)
        return self.decoder(states)

    def _step(self, x: Tensor, wait: Tensor, seen: Tensor, *before: Tensor) -> States:
        after = list(self.layers(x, before))
        after[::2] = [evolve(f, hidden, wait) for f, hidden in zip(self.dynamics, after[::2], strict=True)]
        return where_seen(seen, tuple(after), before)


def dynamics_of_state(plan: NetworkPlan, stage: int) -> nn.Sequential:
    """Build f of a layer, which starts at zero.

    :param plan: features and kernel sizes.
    :param stage: of the layer.
    :returns: f, from a hidden state to its derivative.
    """
    features, kernel = plan.features_per_stage[stage], plan.kernel_sizes[stage]
    conv, same = CONVOLUTIONS[plan.dimensions], same_padding(kernel)
    f = nn.Sequential(
        conv(features, features, kernel, padding=same), nn.Tanh(), conv(features, features, kernel, padding=same)
    )
    nn.init.zeros_(f[-1].weight)
    nn.init.zeros_(f[-1].bias)
    return f


def evolve(f: nn.Module, hidden: Tensor, time: Tensor) -> Tensor:
    """Evolve a hidden state for a time that may differ between samples, by equal Euler steps.

    Every sample goes from 0 to 1 with its own time as a factor of f. The steps are those of torchdiffeq's ``euler``.
    That cannot be used here: it reads the numbers of its grid, and memory is planned on tensors without any.

    :param f: from a hidden state to its derivative.
    :param hidden: (batch, features, *spatial).
    :param time: (batch,).
    :returns: of the shape and type of ``hidden``; the steps are taken in float32.
    """
    step = time.view(-1, *[1] * (hidden.ndim - 1)) / STEPS
    h = hidden.float()
    for _ in range(STEPS):
        h = h + step * f(h)
    return h.to(hidden.dtype)


def waiting_times(batch: Batch) -> Tensor:
    """Compute the intervals from each scan to the next, and from the last to the target.

    :param batch: with its times.
    :returns: (batch, scans); arbitrary where no scan was observed.
    """
    return torch.cat([batch.context_times, batch.target_time.unsqueeze(1)], dim=1).diff(dim=1)


METHOD = ODELSTM
