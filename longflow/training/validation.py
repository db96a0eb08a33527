"""How a method is validated during training and at its end: what a kind of validation offers, and which there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Protocol

import torch

from longflow.errors import unknown_name
from longflow.methods.method import Method
from longflow.paths import DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import Plans
from longflow.training.splits import Cohort

#: ``tile_step_size`` while training: patches beside each other, which is quick; what is written at the end is predicted
#: as users would
SIDE_BY_SIDE = 1.0

#: what ``Method.validation`` may name: module and class; only the one that is used is imported
VALIDATIONS = {
    "forecast": ("longflow.tasks.forecast.validation", "ForecastValidation"),
    "labels": ("longflow.tasks.segment.validation", "LabelValidation"),
    "loss": ("longflow.training.loss_validation", "LossValidation"),
    "phases": ("longflow.tasks.translate.validation", "PhaseValidation"),
}


@dataclass(frozen=True)
class Score:
    """What a validation found.

    :param value: by which weights are compared; lower is better. :param columns: of progress.csv.
    :param note: a few words for the progress bar and the log.
    """

    value: float
    columns: dict[str, float]
    note: str


@dataclass(frozen=True)
class ProgressColumns:
    """How the progress figure of a training shows the columns of a validation.

    :param measure: name of the first column on the axis; empty: as the column is called.
    :param higher_is_better: of the first column.
    :param baselines: columns that do not change, with their names; each is a horizontal line.
    :param hidden: prefixes of columns that are not drawn.
    """

    measure: str = ""
    higher_is_better: bool = False
    baselines: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()


class Validation(Protocol):
    """Made once per run, before training, of (class of the method, dataset, plans, configuration, fold, validation
    cohort, device); what it lacks is an error then, not after the first epoch.
    """

    #: of progress.csv
    progress: ClassVar[ProgressColumns]

    def score(self, method: Method) -> Score:
        """How good a method is, in evaluation mode, on what is the same every time."""

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """Write the out-of-fold predictions of the finished method."""


def validation_of(
    method: type[Method],
    dataset: DatasetPaths,
    plans: Plans,
    configuration: str,
    fold: int,
    cohort: Cohort,
    device: torch.device,
) -> Validation:
    """The validation that a method wants."""
    if method.validation not in VALIDATIONS:
        raise unknown_name(
            "kind of validation", method.validation, VALIDATIONS, hint="(The attribute 'validation' of a method.)"
        )
    module, name = VALIDATIONS[method.validation]
    kind = getattr(import_module(module), name)
    return kind(method, dataset, plans, configuration, fold, cohort, device)


def settings_of_fold(
    method: Method, paths: FoldPaths, dataset: DatasetPaths, plans: Plans, configuration: str, fold: int
) -> dict[str, Any]:
    """What an out-of-fold prediction depends on beside its scans, for sidecars; as a predictor's ``settings``."""
    model = ModelPaths(paths.folder.parent)
    return {
        "time_unit": plans.temporal.time_unit,
        "dataset": dataset.name,
        "method": [model.method],
        "configuration": [configuration],
        "plans": [model.plans_name],
        "plan_identity": [plans.identity(configuration)],
        "folds": [[fold]],
        "mirror": method.mirrors,
    }
