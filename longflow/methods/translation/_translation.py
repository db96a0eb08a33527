"""The base of the methods that translate: a network conditioned on a time, found by name."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from longflow.errors import ConfigurationError
from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Method, Options, Recipe
from longflow.networks.registry import NetworksFor, build_network
from longflow.plans import Plans

#: phases of the sources (0 or 1) of each choice of ``--set direction``
SOURCES = {"both": (0, 1), "to_first": (1,), "to_second": (0,)}

#: in the normal form: an error up to which "huber" is quadratic; 50 HU in CT
HUBER = 0.05

#: of an error, by the names of ``--set loss``
LOSSES = {
    "l2": lambda error: error.square().mean(),
    "l1": lambda error: error.abs().mean(),
    "huber": lambda error: F.huber_loss(error, torch.zeros_like(error), delta=HUBER) / HUBER,
}


class TranslationMethod(Method):
    """Translate both ways between two contrast phases with one network.

    With the option ``direction`` it learns one way only (MFM trains its regression and its diffusion so); predictions
    the other way are refused.

    :param network: a name in ``networks``; empty: the default.
    :param inputs: images that the network sees at once.
    """

    task = "translate"
    samples = "phases"
    validation = "phases"
    reductions = ("translation",)
    networks = NetworksFor("translation")
    options: ClassVar[Options] = {"augmentation": True, "direction": "both"}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"direction": tuple(SOURCES)}

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
        name = network or self.networks[0]
        self.network = build_network(name, inputs * channels, channels, self.configuration.topology(name))

    def directed(self, batch: PhaseBatch) -> PhaseBatch:
        """Exchange source and target of the pairs that go the way that is not learnt.

        :param batch: with targets, drawn both ways.
        :returns: with as many pairs.
        """
        phases = source_phases(self)
        if len(phases) == 2:
            return batch
        pair = ends(batch)
        source, target = pair[phases[0]], pair[1 - phases[0]]
        return replace(batch, source=source, target=target, source_phase=torch.full_like(batch.source_phase, phases[0]))

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


def source_phases(method: Method) -> tuple[int, ...]:
    """Return the phases that a method translates from, by its option ``direction``.

    :param method: that translates.
    :returns: positions in ``plans.phases``.
    """
    return SOURCES[str(method.options.get("direction", "both"))]


def check_source(method: Method, phase: int) -> None:
    """Refuse sources in a phase that a method does not translate from.

    :param method: that translates.
    :param phase: position in ``plans.phases``.
    :raises ConfigurationError: it was trained for the other direction alone.
    """
    if phase not in source_phases(method):
        learnt, other = method.plans.phases[phase], method.plans.phases[1 - phase]
        raise ConfigurationError(
            f"The model was trained with direction={method.options['direction']}: it translates to '{learnt}' alone, "
            f"not to '{other}'. Request '{learnt}' (--to {learnt}), or train with --set direction=both."
        )
