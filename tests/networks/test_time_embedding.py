import math

import numpy as np
import torch

from longflow.flow.times import fourier_features
from longflow.networks.time_embedding import FREQUENCIES, TimeEmbedding, TimeModulation, vaswani_frequencies


def test_sinusoids_are_those_of_vaswani():
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)) and PE(pos, 2i + 1) = cos of it; here all sines come first."""
    position, size = 37.0, 2 * FREQUENCIES
    expected = [math.sin(position / 10000 ** (2 * i / size)) for i in range(FREQUENCIES)]
    expected += [math.cos(position / 10000 ** (2 * i / size)) for i in range(FREQUENCIES)]
    found = fourier_features(torch.tensor([position]), vaswani_frequencies(FREQUENCIES))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_code_for_each_time_which_tells_neighbouring_steps_apart_in_bf16_too():
    torch.manual_seed(0)
    embedding = TimeEmbedding(24)
    with torch.autocast("cpu", torch.bfloat16):
        codes = embedding(torch.tensor([0.0, 0.998, 0.999, 1.0])).float()
    assert codes.shape == (4, 24)
    gaps = torch.pdist(codes)
    assert gaps.min() > 0.01
    torch.testing.assert_close(embedding(torch.tensor([0.998]))[0], codes[1], atol=0.01, rtol=0.02)


def test_frequencies_are_not_weights():
    assert not any("frequencies" in name for name in TimeEmbedding(8).state_dict())


def test_modulation_is_a_h_plus_b_of_one_linear_layer():
    torch.manual_seed(0)
    modulation, h, code = TimeModulation(5, 3), torch.randn(2, 3, 4, 6), torch.randn(2, 5)
    assert modulation.linear.out_features == 6
    both = code.numpy() @ modulation.linear.weight.detach().numpy().T + modulation.linear.bias.detach().numpy()
    expected = both[:, :3, None, None] * h.numpy() + both[:, 3:, None, None]
    np.testing.assert_allclose(modulation(h, code).detach(), expected, rtol=1e-5, atol=1e-6)


def test_modulation_starts_near_the_identity_but_is_conditioned_on_time():
    torch.manual_seed(0)
    modulation, h = TimeModulation(64, 8), torch.randn(1, 8, 2, 3, 4)
    torch.testing.assert_close(modulation(h, torch.zeros(1, 64)), h)
    assert not torch.allclose(modulation(h, torch.ones(1, 64)), h, atol=0.01)


def test_modulation_keeps_the_type_of_what_it_modulates():
    assert TimeModulation(4, 8)(torch.randn(1, 8, 2, 2).bfloat16(), torch.randn(1, 4)).dtype == torch.bfloat16
