"""The base of the methods that translate: a network conditioned on a time, found by name."""

from typing import ClassVar

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Method, Options, Recipe
from longflow.networks.registry import NetworksFor, build_network
from longflow.plans import Plans


class TranslationMethod(Method):
    """Translate both ways between two contrast phases with one network.

    :param network: a name in ``networks``; empty: the default.
    :param inputs: images that the network sees at once.
    """

    task = "translate"
    samples = "phases"
    validation = "phases"
    reductions = ("translation",)
    networks = NetworksFor("translation")
    options: ClassVar[Options] = {"augmentation": True}

    def __init__(
        self,
        plans: Plans,
        configuration: str,
        options: Options | None = None,
        network: str = "",
        inputs: int = 1,
    ):
        super().__init__(plans, configuration, options)
        channels = len(plans.channel_names)
        self.network = build_network(
            network or self.networks[0], inputs * channels, channels, self.configuration.network
        )

    @property
    def recipe(self) -> Recipe:
        """Return Adam without weight decay (MFM B.4), at the plan's rate."""
        training = self.plans.training
        return Recipe(
            optimizer="adam",
            learning_rate=training.learning_rate,
            warmup=training.warmup,
            gradient_clip=training.gradient_clip,
            ema_decay=training.ema_decay,
        )


def direction(batch: PhaseBatch) -> bool:
    """Check whether a batch is translated from t = 1 to 0.

    :param batch: with sources of one phase.
    :returns: True for t = 1 to 0.
    :raises ConfigurationError: the batch holds scans of both phases, which are not predicted together.
    """
    if not torch.equal(batch.source_phase, batch.source_phase[:1].expand_as(batch.source_phase)):
        raise ConfigurationError("A batch to predict holds sources of both phases; give those of one phase at a time.")
    return bool(batch.source_phase[0] > 0.5)


def ends(batch: PhaseBatch) -> tuple[Tensor, Tensor]:
    """Sort the pairs of a batch into x_0 and x_1.

    :param batch: with targets.
    :returns: both, (batch, channels, *spatial).
    """
    swapped = (batch.source_phase > 0.5).view(-1, *[1] * (batch.source.ndim - 1))
    return torch.where(swapped, batch.target, batch.source), torch.where(swapped, batch.source, batch.target)
