"""Bring the flow time to every block of a network that translates (MFM section 3.2, D.1, figure 11).

Where the text leaves room, this was decided:

- Its times are in [0, 1], while the sinusoids of Vaswani et al. are meant for positions 0, 1, 2, ... Times are first
  multiplied by 1000, as in networks of diffusion, so that all of the frequencies matter.
- The "small multilayer perceptron" has two layers with SiLU after each.
- The text says both that the code "is added to the input of each ResNet block" and that it scales and shifts the output
  of SiLU. The second has an equation and a figure, and is used here.
- A starts near 1 and B near 0, but not exactly there: so the network is conditioned on time from its first step on.
"""

import math

import torch
from torch import Tensor, nn

from longflow.flow.times import fourier_features

FREQUENCIES = 32
#: positions that the time 0 ... 1 spans
POSITIONS = 1000.0
#: the longest wavelength of Vaswani et al. is 2 pi times this
LONGEST = 10000.0


class TimeEmbedding(nn.Module):
    """Turn times into codes: 32 sines and cosines (Vaswani et al., section 3.5), then a multilayer perceptron.

    :param code_size: length of a code.
    """

    def __init__(self, code_size: int):
        super().__init__()
        self.register_buffer("frequencies", vaswani_frequencies(FREQUENCIES), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, code_size), nn.SiLU(), nn.Linear(code_size, code_size), nn.SiLU()
        )

    def forward(self, time: Tensor) -> Tensor:
        """Encode times.

        :param time: (batch,) in [0, 1].
        :returns: (batch, code_size).
        """
        # in float32 even under autocast: bf16 does not distinguish positions 999 and 1000
        return self.layers(fourier_features(time.float() * POSITIONS, self.frequencies))


class TimeModulation(nn.Module):
    """Compute h -> A h + B, with A and B for each feature from one linear layer of length 2 C (MFM D.1).

    :param code_size: length of a code.
    :param features: C.
    """

    def __init__(self, code_size: int, features: int):
        super().__init__()
        self.linear = nn.Linear(code_size, 2 * features)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(features))

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """Modulate a map.

        :param h: (batch, features, *spatial), the output of SiLU.
        :param code: (batch, code_size).
        :returns: the shape of ``h``.
        """
        shape = (len(h), -1, *[1] * (h.ndim - 2))
        gain, shift = self.linear(code).to(h.dtype).chunk(2, dim=1)
        return torch.addcmul(shift.reshape(shape), h, gain.reshape(shape))


def vaswani_frequencies(count: int) -> Tensor:
    """Return 1 / 10000^(k / count), k = 0 ... count - 1, over 2 pi: turns per position, (count,)."""
    return LONGEST ** (-torch.arange(count) / count) / (2 * math.pi)
