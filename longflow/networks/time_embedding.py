"""How the flow time reaches every block of a network that translates (MFM section 3.2, D.1, figure 11).

What the text leaves open, and how it was closed:

- Its times lie in [0, 1], while the sinusoids of Vaswani et al. are meant for positions 0, 1, 2, ...: times are
  multiplied by 1000 before, as networks of diffusion do, so that all of the frequencies matter.
- The "small multilayer perceptron" has two layers with SiLU after each.
- The text says both that the code "is added to the input of each ResNet block" and that it scales and shifts what comes
  out of SiLU. The second has an equation and a figure, and is what was done.
- A starts near 1 and B near 0, and not exactly there: so the network is told of time from its first step on.
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
    """Times to codes: sine and cosine at 32 frequencies (Vaswani et al., section 3.5), then a multilayer perceptron.

    :param code_size: length of a code.
    """

    def __init__(self, code_size: int):
        super().__init__()
        self.register_buffer("frequencies", vaswani_frequencies(FREQUENCIES), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, code_size), nn.SiLU(), nn.Linear(code_size, code_size), nn.SiLU()
        )

    def forward(self, time: Tensor) -> Tensor:
        """(batch,) in [0, 1] to (batch, code_size)."""
        # in float32 whatever the network computes in: bf16 cannot tell position 999 from 1000
        return self.layers(fourier_features(time.float() * POSITIONS, self.frequencies))


class TimeModulation(nn.Module):
    """h -> A h + B, with A and B for each feature from one linear layer of length 2 C (MFM D.1).

    :param code_size: length of a code. :param features: C.
    """

    def __init__(self, code_size: int, features: int):
        super().__init__()
        self.linear = nn.Linear(code_size, 2 * features)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(features))

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """(batch, features, *spatial), what comes out of SiLU; (batch, code_size) -> the shape of ``h``."""
        shape = (len(h), -1, *[1] * (h.ndim - 2))
        gain, shift = self.linear(code).to(h.dtype).chunk(2, dim=1)
        return torch.addcmul(shift.reshape(shape), h, gain.reshape(shape))


def vaswani_frequencies(count: int) -> Tensor:
    """1 / 10000^(k / count), k = 0 ... count - 1, over 2 pi: in turns per position, (count,)."""
    return LONGEST ** (-torch.arange(count) / count) / (2 * math.pi)
