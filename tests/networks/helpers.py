"""Networks whose every part shows in the output."""

import pytest
import torch
from torch import Tensor, nn

from longflow.networks.time_embedding import TimeModulation
from longflow.private import cpu_has_bf16


def awake(module: nn.Module) -> nn.Module:
    """With weights where a fresh network has zeros."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module


def never_modulated(network: nn.Module) -> nn.Module:
    """The network with A = 1 and B = 0 in all of its blocks: time says nothing."""
    for module in network.modules():
        if isinstance(module, TimeModulation):
            nn.init.zeros_(module.linear.weight)
            module.linear.bias.data = torch.tensor([1.0, 0.0]).repeat_interleave(module.linear.out_features // 2)
    return network


def in_bf16_and_float32(network: nn.Module, image: Tensor, time: Tensor) -> list[Tensor]:
    """All gradients of a network that translates, in one tensor each; bf16 must be something the processor has."""
    if not cpu_has_bf16():
        pytest.skip("this processor has no bf16 instructions, and longflow uses none")
    network.to(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)
    gradients = []
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        network.zero_grad()
        litter = [torch.full((100_000,), torch.nan) for _ in range(4)]
        del litter  # what is read without having been written is now likely NaN
        with context:
            loss = network(image, time).square().mean()
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    return gradients
