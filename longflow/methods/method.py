"""What a method is: the unit of extension.

A method builds its network from the plans, says which samples it wants, and has ``training_step(batch) -> loss`` and
``predict(batch) -> volumes``. The trainer, the predictor and the evaluation know nothing else about it.
"""

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.errors import ConfigurationError, unknown_name
from longflow.plans import Plans

ENTRY_POINT_GROUP = "longflow.methods"


@dataclass
class Batch:
    """Samples of one forecast each, in the normal form, on one device.

    Times are relative to each sample's last context scan and in units of the plan's ``time_scale``: the last context
    scan is at 0, earlier ones are negative, ``target_time`` is the horizon. Scans are in order of time; where samples
    of a batch have different numbers of context scans, the missing *first* ones are zero and masked out.

    :param context: (batch, scans, channels, *spatial).
    :param context_times: (batch, scans).
    :param context_mask: (batch, scans), True where a scan was observed.
    :param target_time: (batch,).
    :param target: (batch, channels, *spatial), or None where it is to be predicted.
    """

    context: Tensor
    context_times: Tensor
    context_mask: Tensor
    target_time: Tensor
    target: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class Method(nn.Module):
    """A way to do a task.

    Subclasses set the class attributes and implement :meth:`training_step` and :meth:`predict`. The plans in use are
    ``self.plans`` and ``self.configuration``.

    :cvar task: "forecast", ...
    :cvar summary: one line for ``--help`` and tables.
    :cvar samples: which samples training draws: "forecast" (a target and a subset of its earlier scans).
    :cvar trains: False for a method that has nothing to learn.
    :cvar reductions: names of the volumes that :meth:`predict` returns; the first is the default.
    """

    task: ClassVar[str]
    summary: ClassVar[str]
    samples: ClassVar[str] = "forecast"
    trains: ClassVar[bool] = True
    reductions: ClassVar[tuple[str, ...]] = ("forecast",)

    def __init__(self, plans: Plans, configuration: str):
        super().__init__()
        self.plans = plans
        self.configuration = plans.configuration(configuration)
        self.solver = plans.inference.solver
        self.steps = plans.inference.steps

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
_FAMILIES = ("forecasting",)


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
    """The class of a method by its name on the command line.

    :raises NotFoundError: no such method; the nearest is named.
    :raises ConfigurationError: an installed package announces it but it cannot be loaded or is not a Method.
    """
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


def build_method(name: str, plans: Plans, configuration: str) -> Method:
    """A fresh method for a plan.

    :raises ConfigurationError: the method serves another task than the plan.
    """
    kind = method_class(name)
    if kind.task != plans.task:
        raise ConfigurationError(
            f"The method '{name}' is for the task '{kind.task}', but {plans.dataset_name} is planned for "
            f"'{plans.task}'."
        )
    return kind(plans, configuration)
