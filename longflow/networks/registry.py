"""Networks by name, for the methods that can be trained with several."""

from typing import Any

from torch import nn

from longflow.errors import ConfigurationError
from longflow.registry import Registry

#: longflow's own, by what they serve; the first of each is the default
_OWN = {
    "flow": {
        "film_unet": "longflow.networks.film_unet:FiLMUNet",
        "diffusion_unet": "longflow.networks.diffusion_unet:DiffusionUNet",
        "concatenation_unet": "longflow.networks.diffusion_unet:ConcatenationUNet",
    },
    "translation": {
        "timeresnet": "longflow.networks.timeresnet:TimeResNet",
        "unet": "longflow.networks.timed_unet:TimedUNet",
        "segresnet": "longflow.networks.timed_segresnet:TimedSegResNet",
        "swin_unetr": "longflow.networks.timed_swin_unetr:TimedSwinUNETR",
        "umamba_bot": "longflow.networks.umamba_bot:UMambaBot",
        "timeresnet_without_attention": "longflow.networks.timeresnet:TimeResNetWithoutAttention",
    },
}

#: an outside network names in its class attribute ``serves`` one of:
#:
#: - "flow": made of (most channels of a stack, plan, length of the code). It maps a stack (batch, channels, *spatial)
#:   and a code (batch, length) to a velocity of the stack's shape, float32. Fewer channels are those of the last scans.
#: - "translation": made of (channels in, channels out, plan). It maps an image (batch, channels in, *spatial) of any
#:   size and a time (batch,) to (batch, channels out, *spatial), float32. The time reaches every block of its encoder.
#:
#: In both the last convolution starts at zero, so that an untrained method predicts its input.
NETWORKS = Registry(
    "network",
    "longflow.networks",
    lambda: {name: place for networks in _OWN.values() for name, place in networks.items()},
    lambda found: isinstance(found, type) and issubclass(found, nn.Module) and getattr(found, "serves", None) in _OWN,
    f"a torch module whose attribute 'serves' is one of {', '.join(_OWN)}",
)


class NetworksFor:
    """The class attribute ``networks`` of a method: names of all networks that serve a purpose, the default first."""

    def __init__(self, purpose: str):
        self.purpose = purpose

    def __get__(self, method: object, kind: type | None = None) -> tuple[str, ...]:
        own = NETWORKS.own()
        outside = [name for name in NETWORKS.names() if name not in own and _serves(name, self.purpose)]
        return (*_OWN[self.purpose], *outside)


def _serves(name: str, purpose: str) -> bool:
    try:
        return NETWORKS.get(name).serves == purpose
    except ConfigurationError:
        return False  # the message comes when the network is requested


def build_network(name: str, *sizes: Any) -> nn.Module:
    """Build a fresh network.

    :param sizes: positional arguments, as :data:`NETWORKS` says for each purpose.
    :raises NotFoundError: there is no such network; the nearest name is in the message.
    :raises ConfigurationError: that of an installed package cannot be loaded.
    """
    return NETWORKS.get(name)(*sizes)
