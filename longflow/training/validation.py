"""How a method is validated during training and at its end: what a kind of validation offers, and which there are."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from longflow.methods.method import Method
from longflow.methods.registry import validation_class_of
from longflow.paths import DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import Plans
from longflow.training.splits import Cohort

#: ``tile_step_size`` while training: patches beside each other, which is quick; what is written at the end is predicted
#: as users would
SIDE_BY_SIDE = 1.0


@dataclass(frozen=True)
class Score:
    """What a validation found.

    :param value: by which weights are compared; lower is better. :param columns: of progress.csv.
    :param note: a few words for the progress bar and the log.
    """

    value: float
    columns: dict[str, float]
    note: str


class Validation(Protocol):
    """Made once per run, before training, of (class of the method, dataset, plans, configuration, fold, validation
    cohort, device); what it lacks is an error then, not after the first epoch.
    """

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
    return validation_class_of(method)(method, dataset, plans, configuration, fold, cohort, device)


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
