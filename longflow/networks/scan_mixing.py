"""Combine scans linearly, with weights that depend on the times of all of them."""

import torch
from torch import Tensor, nn

HIDDEN = 128


class ScanMixing(nn.Module):
    """Compute W(times) X: at every place of a stack a weighted sum over its scans, the same for all voxels.

    The weights of a place sum to zero, so the sum does not depend on what all scans have in common. They start at zero.
    With fewer scans than the module was built for, the *last* places are used.

    :param scans: most scans of a stack.
    :param features: length of one scan's encoded time.
    :param further: length of the further code.
    """

    def __init__(self, scans: int, features: int, further: int):
        super().__init__()
        self.scans = scans
        self.weights_of = nn.Sequential(
            nn.Linear(scans * features + further, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, scans * scans),
        )
        nn.init.zeros_(self.weights_of[-1].weight)
        nn.init.zeros_(self.weights_of[-1].bias)

    def weights(self, times: Tensor, further: Tensor, mask: Tensor) -> Tensor:
        """Compute W.

        :param times: encoded times, (batch, scans, features).
        :param further: (batch, further).
        :param mask: (batch, scans), True where a scan was observed; the others get no weight.
        :returns: (batch, scans, scans); each row sums to zero.
        """
        batch, scans, features = times.shape
        observed = mask.to(times.dtype)
        absent = times.new_zeros(batch, self.scans - scans, features)
        code = torch.cat([absent, times * observed.unsqueeze(2)], dim=1).flatten(1)
        weights = self.weights_of(torch.cat([code, further], dim=1))
        weights = weights.view(batch, self.scans, self.scans)[:, -scans:, -scans:] * observed.unsqueeze(1)
        mean = weights.sum(2, keepdim=True) / observed.sum(1).view(batch, 1, 1)
        return weights - mean * observed.unsqueeze(1)

    def forward(self, stack: Tensor, times: Tensor, further: Tensor, mask: Tensor) -> Tensor:
        """Compute W(times) X.

        :param stack: (batch, scans, channels, *spatial).
        :param times: encoded times, (batch, scans, features).
        :param further: (batch, further).
        :param mask: (batch, scans), True where a scan was observed.
        :returns: the shape of ``stack``, float32.
        """
        with torch.autocast(stack.device.type, enabled=False):
            weights = self.weights(times.float(), further.float(), mask)
            return torch.bmm(weights, stack.float().flatten(2)).view_as(stack)
