"""The networks that translate: which there are, by name.

Each is made of (channels in, channels out, plan) and maps an image (batch, channels in, *spatial) and a time (batch,)
to (batch, channels out, *spatial), float32. It takes any image size, has the time in every block of its encoder, and
its last convolution starts at zero.
"""

from importlib import import_module

from torch import nn

from longflow.errors import unknown_name
from longflow.plans import NetworkPlan

#: module and class, of which only the one that is used is imported; the first is the default
NETWORKS = {
    "timeresnet": ("timeresnet", "TimeResNet"),
    "unet": ("timed_unet", "TimedUNet"),
    "segresnet": ("timed_segresnet", "TimedSegResNet"),
    "swin_unetr": ("timed_swin_unetr", "TimedSwinUNETR"),
    "umamba_bot": ("umamba_bot", "UMambaBot"),
}


def build_translation_network(name: str, channels_in: int, channels_out: int, plan: NetworkPlan) -> nn.Module:
    """A fresh network by name.

    :raises NotFoundError: there is no such network; the nearest is named.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    module, kind = NETWORKS[name]
    return getattr(import_module(f"longflow.networks.{module}"), kind)(channels_in, channels_out, plan)
