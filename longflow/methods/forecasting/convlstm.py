"""ConvLSTM (SHI et al. 2015), a baseline of CRONOS (table 2) and TFM (table 2)."""

from torch import Tensor, nn

from longflow.methods.batches import Batch
from longflow.methods.forecasting._direct import DirectMethod, scans_on_grid
from longflow.networks.conv_lstm import (
    ConvLSTMLayers,
    ScanEncoder,
    StateDecoder,
    States,
    where_seen,
    without_keeping,
)
from longflow.plans import NetworkPlan, Plans


class ConvLSTM(DirectMethod):
    """A recurrent network: one scan after the other changes a state, and the target is decoded from the last state.

    It sees the scans on the planned grid, slots between and after them as zeros (:func:`scans_on_grid`): a series of
    even spacing that ends right before the target, as the frames of SHI et al. and those of the papers' experiments. So
    it is given no times, but sees the gaps and the horizon. Slots before the first scan leave the state unchanged.
    """

    summary = "ConvLSTM: a recurrent network over scans on a regular grid"

    def __init__(self, plans: Plans, configuration: str):
        super().__init__(plans, configuration)
        self.network = ConvLSTMNetwork(len(plans.channel_names), self.configuration.network)

    def forecast(self, batch: Batch) -> Tensor:
        """Predict the target from the scans on the grid."""
        stack, occupied = scans_on_grid(batch, self.plans)
        return self.network(stack, occupied.cumsum(1) > 0)


class ConvLSTMNetwork(nn.Module):
    """Encoder of single scans, layers of ConvLSTM, decoder of their last hidden states.

    SHI et al. have two or three layers, and a second network that unrolls the future frame by frame. CRONOS and TFM
    give neither the number of layers nor that of features. Here the layers are those of the plan's stages, so that the
    network is of the size of CRONOS's, and a single target needs no second network.

    :param channels: of a scan.
    :param plan: features, strides, kernel sizes.
    """

    def __init__(self, channels: int, plan: NetworkPlan):
        super().__init__()
        self.encoder = ScanEncoder(channels, plan)
        self.layers = ConvLSTMLayers(plan)
        self.decoder = StateDecoder(channels, plan)

    def forward(self, scans: Tensor, mask: Tensor) -> Tensor:
        """Predict the target.

        :param scans: (batch, scans, channels, *spatial).
        :param mask: (batch, scans), False where the states stay.
        :returns: (batch, channels, *spatial), float32.
        """
        maps = self.encoder(scans)
        states = self.layers.fresh_states(maps[:, 0])
        for x, seen in zip(maps.unbind(1), mask.unbind(1), strict=True):
            states = without_keeping(self._step, x, seen, *states)
        return self.decoder(states)

    def _step(self, x: Tensor, seen: Tensor, *before: Tensor) -> States:
        return where_seen(seen, self.layers(x, before), before)


METHOD = ConvLSTM
