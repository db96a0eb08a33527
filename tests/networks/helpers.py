"""Networks whose every part shows in the output."""

from torch import nn


def awake(module: nn.Module) -> nn.Module:
    """With weights where a fresh network has zeros."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module
