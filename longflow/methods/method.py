"""What a method is: the unit of extension.

A method builds its network from the plans, says which samples it wants, and has ``training_step(batch) -> loss`` and
``predict(batch) -> volumes``. The trainer, the predictor and the evaluation know nothing else about it.
"""

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from longflow.errors import ConfigurationError, unknown_name
from longflow.plans import Plans

Options = dict[str, bool | int | float | str]

ENTRY_POINT_GROUP = "longflow.methods"


class OnDevice:
    """What a batch of tensors can do: move to a device."""

    def to(self, device: torch.device | str):
        """The same batch on another device; lists of tensors are moved too."""
        return replace(self, **{name: _moved(value, device) for name, value in vars(self).items()})


def _moved(value, device):
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return [_moved(one, device) for one in value] if isinstance(value, list) else value


@dataclass
class Batch(OnDevice):
    """Samples of one forecast each, in the normal form, on one device.

    Times are relative to each sample's last context scan and in units of the plan's ``time_scale``: the last context
    scan is at 0, earlier ones are negative, ``target_time`` is the horizon. Scans are in order of time; where samples
    of a batch have different numbers of context scans, the missing *first* ones are zero and masked out.

    :param context: (batch, scans, channels, *spatial).
    :param context_times: (batch, scans).
    :param context_mask: (batch, scans), True where a scan was observed.
    :param target_time: (batch,).
    :param target: (batch, channels, *spatial), or None where it is to be predicted.
    :param noise: (batch, channels, *spatial), standard normal, from which a method with ``noise`` predicts; cut from
        one field for the whole volume. None in training.
    """

    context: Tensor
    context_times: Tensor
    context_mask: Tensor
    target_time: Tensor
    target: Tensor | None = None
    noise: Tensor | None = None


@dataclass
class ScanBatch(OnDevice):
    """Patches of single scans, of neighbouring scans j and j + 1 of a subject, or of both, in the normal form.

    :param image: (batch, channels, *spatial), augmented; None where only pairs were asked for.
    :param labels: nnU-Net's targets, finest first: (batch, 1 or regions, *spatial of the scale) for each scale of deep
        supervision. None where labels are to be predicted.
    :param pair: (pairs, 2, channels, *spatial): both scans under one spatial draw A_g and an intensity draw A_i each.
        None where none was asked for.
    :param clean_pair: the same under the spatial draw alone, A_g(x).
    :param pair_times: (pairs, 2): times in units of the plan's ``time_scale``, the first of each pair at 0.
    :param position: (pairs,): where the centre of the patch lies along the image's first axis, 0 to 1.
    :param subject: (pairs,): number of the subject, to tell subjects of a batch apart.
    """

    image: Tensor | None = None
    labels: list[Tensor] | None = None
    pair: Tensor | None = None
    clean_pair: Tensor | None = None
    pair_times: Tensor | None = None
    position: Tensor | None = None
    subject: Tensor | None = None


@dataclass
class PhaseBatch(OnDevice):
    """Scans of one subject and time in two contrast phases, each in its own normal form.

    :param source: the scan to translate, (batch, channels, *spatial).
    :param source_phase: (batch,), 0 or 1: where each source lies on the way from ``plans.phases[0]`` to ``phases[1]``
        (MFM: t = 0 is native, t = 1 is contrast); the target lies at the other end.
    :param target: like ``source``, or None where it is to be predicted.
    :param noise: like ``source``, standard normal, from which a method with ``noise`` predicts; the same in all slices
        of a subject. None in training.
    """

    source: Tensor
    source_phase: Tensor
    target: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised.

    :param schedule: of the learning rate after the warm-up: "cosine", "linear", or "polynomial" (nnU-Net's, exponent
        0.9), all to zero.
    :param warmup: share of the run during which the rate rises. :param betas: of Adam; the first is SGD's momentum.
    :param ema_decay: of the averaged weights that are validated and kept; 0: the weights as they are.
    :param keep: "best": the weights of the best validation; "last": those at the end, which validation did not choose.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "linear", "polynomial"] = "cosine"
    warmup: float = 0.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    keep: Literal["best", "last"] = "best"


class Method(nn.Module):
    """A way to do a task.

    Subclasses set the class attributes and implement :meth:`training_step` and :meth:`predict`. The plans in use are
    ``self.plans`` and ``self.configuration``.

    :cvar task: "forecast", "translate", "segment".
    :cvar summary: one line for ``--help`` and tables.
    :cvar samples: which samples training draws: "forecast" (a target and a subset of its earlier scans), "labelled"
        (patches of labelled scans), "pairs" (neighbouring scans), "labelled_pairs" (both), "phases" (two contrast
        phases of one time).
    :cvar validation: how it is validated: "forecast" (stored targets), "labels" (labelled scans), "loss" (its training
        loss on stored draws from the validation subjects), "phases" (translations both ways).
    :cvar trains: False for a method that has nothing to learn. :cvar predicts: False for pretraining.
    :cvar reductions: names of the volumes that :meth:`predict` returns; the first is the default.
    :cvar mirrors: whether predictions are averaged over mirrored inputs where neither user nor plan says.
    :cvar networks: names of the networks that it can be trained with (``longflow_train --network``), the default first;
        the name of a method with another one is ``{method}-{network}``. Such a method takes ``network=NAME`` when made.
    :cvar noise: whether predictions begin with noise (``Batch.noise``, ``PhaseBatch.noise``).
    :cvar stages: shares of a run at which its stages begin, 0 first. Each is a training of its own, with a schedule,
        moments, averages and best weights of its own; it goes on from the averaged weights of the one before. Which one
        it is stands in ``self.stage``, from 0, also in prediction.
    :cvar integrates: whether predictions are a velocity field integrated with ``solver`` and ``steps``.
    :cvar options: what of the method can be changed by ``longflow_train --set NAME=VALUE``, with the defaults; stored
        with the weights. The value has the default's type. An option ``augmentation`` switches off all augmentation.
    :cvar choices: the words that an option of text may be; any word where it is not named here.
    """

    task: ClassVar[str]
    summary: ClassVar[str]
    samples: ClassVar[str] = "forecast"
    validation: ClassVar[str] = "forecast"
    trains: ClassVar[bool] = True
    predicts: ClassVar[bool] = True
    mirrors: bool = False
    networks: ClassVar[tuple[str, ...]] = ()
    noise: ClassVar[bool] = False
    stages: ClassVar[tuple[float, ...]] = (0.0,)
    integrates: ClassVar[bool] = False
    reductions: ClassVar[tuple[str, ...]] = ("forecast",)
    options: ClassVar[Options] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__()
        self.plans = plans
        self.configuration = plans.configuration(configuration)
        self.options = {**type(self).options, **(options or {})}
        self.mirrors = type(self).mirrors if plans.inference.mirror is None else plans.inference.mirror
        #: parts of the loss of the last training step, to be logged
        self.terms: dict[str, Tensor] = {}
        self.solver = plans.inference.solver
        self.steps = plans.inference.steps
        self.stage = 0

    @property
    def recipe(self) -> Recipe:
        """How it is optimised; by default as the plan says."""
        training = self.plans.training
        return Recipe(
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            warmup=training.warmup,
            gradient_clip=training.gradient_clip,
            ema_decay=training.ema_decay,
        )

    @property
    def augmented(self) -> bool:
        """Whether its samples are augmented."""
        return bool(self.options.get("augmentation", True))

    def begin_stage(self, stage: int, batch: Batch) -> None:
        """What is to be done before the first step of a later stage.

        :param stage: 1 or more. :param batch: of that first step.
        """
        self.stage = stage

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of a batch that has targets: a scalar with a gradient."""
        raise ConfigurationError(f"{type(self).__name__} has nothing to train.")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The wanted volumes, (batch, channels, *spatial) each, one for every name in ``reductions``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement predict(batch)")

    def forward(self, batch: Batch) -> Tensor:
        """The training step, under the name by which torch's wrappers for several GPUs call it."""
        return self.training_step(batch)


#: the folders of methods that come with longflow; a method is a module in one of them, named as on the command line,
#: whose attribute ``METHOD`` is its class
_FAMILIES = ("forecasting", "translation", "segmentation", "pretraining")

#: the method that a task is done with where the user names none
DEFAULT_METHODS = {"forecast": "cronos", "translate": "mfm", "segment": "unet"}


def _own_modules() -> dict[str, str]:
    """Names of longflow's own methods and their modules, without importing any."""
    return {
        module.name: f"longflow.methods.{family}.{module.name}"
        for family in _FAMILIES
        for module in iter_modules([str(Path(__file__).parent / family)])
        if not module.name.startswith("_")
    }


def known_methods() -> list[str]:
    """Names of all methods: longflow's own and those of installed packages (entry points ``longflow.methods``)."""
    return sorted({*_own_modules(), *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def method_class(name: str) -> type[Method]:
    """The class of a method by its name on the command line, with or without a network (``mfm-segresnet``).

    :raises NotFoundError: no such method, or it has no such network; the nearest is named.
    :raises ConfigurationError: an installed package announces it but it cannot be loaded or is not a Method.
    """
    method, network = network_of(name)
    kind = _class_named(method)
    if network and network not in kind.networks:
        if not kind.networks:
            raise ConfigurationError(f"The method '{method}' has one network: leave --network away.")
        raise unknown_name("network", network, kind.networks, hint=f"(Networks of the method '{method}'.)")
    return kind


def network_of(name: str) -> tuple[str, str]:
    """The method and the network that a name means; the network is empty where the name has none.

    >>> network_of("mfm-segresnet")
    ('mfm', 'segresnet')
    """
    if name in known_methods():
        return name, ""
    method, _, network = name.partition("-")
    return (method, network) if method in known_methods() else (name, "")


def named_with_network(method: str, network: str | None) -> str:
    """The name of a method trained with a network; the default one is not named, so that a model has one name.

    >>> named_with_network("mfm", "segresnet"), named_with_network("mfm-timeresnet", None)
    ('mfm-segresnet', 'mfm')

    :param network: None: the one that ``method`` names, or the default.
    :raises NotFoundError, ConfigurationError: as :func:`method_class`; also where both name a network.
    """
    method, named = network_of(method)
    if named and network:
        raise ConfigurationError(f"'{method}-{named}' names a network already: leave --network {network} away.")
    network = network or named
    kind = method_class(f"{method}-{network}" if network else method)
    return method if not network or network == kind.networks[0] else f"{method}-{network}"


def _class_named(name: str) -> type[Method]:
    own = _own_modules()
    if name in own:
        return import_module(own[name]).METHOD
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if not points:
        raise unknown_name("method", name, known_methods())
    try:
        found = points[0].load()
    except Exception as error:
        raise ConfigurationError(f"The method '{name}' of {points[0].value} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ConfigurationError(
            f"The method '{name}' ({points[0].value}) is not a subclass of longflow.methods.Method."
        )
    return found


def build_method(name: str, plans: Plans, configuration: str, options: Options | None = None) -> Method:
    """A fresh method for a plan.

    :param options: those of the method's ``options`` that differ from its defaults.
    :raises ConfigurationError: the method serves another task than the plan, or has no such option.
    """
    kind = method_class_for(name, plans)
    network = network_of(name)[1]
    further = {"network": network} if network else {}
    if options:
        return kind(plans, configuration, checked_options(name, options), **further)
    return kind(plans, configuration, **further)


def method_class_for(name: str, plans: Plans) -> type[Method]:
    """The class of a method that does what was planned for.

    :raises ConfigurationError: the method serves another task than the plan.
    """
    kind = method_class(name)
    if kind.task != plans.task:
        raise ConfigurationError(
            f"The method '{name}' is for the task '{kind.task}', but {plans.dataset_name} is planned for "
            f"'{plans.task}'. Name a method for that ('{DEFAULT_METHODS.get(plans.task, 'none')}' is the usual one), "
            f'or set "task": "{kind.task}" in dataset.json and plan again.'
        )
    return kind


def checked_options(name: str, options: dict[str, object]) -> Options:
    """Options of a method, given as values or as text, in the types of its defaults.

    :raises NotFoundError: the method has no such option, or an option of text is not one of its words.
    :raises ConfigurationError: a value is not of its type.
    """
    known, choices = method_class(name).options, method_class(name).choices
    checked: Options = {}
    for option, value in options.items():
        if option not in known:
            raise unknown_name("option", option, known, hint=f"(Options of the method '{name}'.)")
        kind = type(known[option])
        words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
        try:
            checked[option] = words[str(value).lower()] if kind is bool else kind(value)
        except (KeyError, ValueError, TypeError) as error:
            wanted = {bool: "on or off", int: "a whole number", float: "a number", str: "a word"}[kind]
            raise ConfigurationError(
                f"The option '{option}' of the method '{name}' is '{value}', expected {wanted}."
            ) from error
        if option in choices and checked[option] not in choices[option]:
            raise unknown_name(option, checked[option], choices[option], hint=f"(Option of the method '{name}'.)")
    return checked
