"""One fold of one model, resolved once per command and passed on."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from longflow.paths import DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import ConfigurationPlan, Plans, read_plans
from longflow.task import Task, get_task


@dataclass(frozen=True)
class FoldSettings:
    """How long and how to train; the plans decide where a value is None.

    :param epochs: of the planned number of iterations.
    :param iterations: total number, instead of ``epochs``.
    :param max_time: seconds of the whole fold, instead of ``epochs``; the schedule follows the used share of it.
    :param learning_rate: highest of the schedule.
    :param seed: of weights and samples.
    :param device: "cpu", "cuda", "cuda:1", "mps".
    :param workers: processes that prepare batches; 0 prepares them between the steps.
    :param compile: compile the training step; None: on a CUDA GPU.
    :param checkpoint_every: seconds between checkpoints.
    :param options: of the method.
    :param pretrained: weights to begin with: a method whose same fold is finished, or a file.
    :param labelled_subjects: number of training subjects whose labels may be used, or a file that names them; None:
        all.
    :param scratch: folder on a disk of this machine to which the prepared subjects are copied; names of variables in it
        are replaced (``$SLURM_TMPDIR``). None: they are read where they are.
    """

    epochs: int | None = None
    iterations: int | None = None
    max_time: float | None = None
    learning_rate: float | None = None
    seed: int = 0
    device: str = "cpu"
    workers: int = 0
    compile: bool | None = None
    checkpoint_every: float = 600.0
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    pretrained: str | None = None
    labelled_subjects: str | None = None
    scratch: str | None = None


@dataclass(frozen=True)
class FoldJob:
    """A fold of a model: dataset, plans, configuration, method and settings.

    :param dataset: folders of the dataset.
    :param plans: read once, for the whole command.
    :param configuration: name of one of its configurations.
    :param method: name as on the command line, with its network where that is not the default one (``mfm-unet``).
    :param fold: counted from 0.
    :param settings: of the training.
    """

    dataset: DatasetPaths
    plans: Plans
    configuration: str
    method: str
    fold: int
    settings: FoldSettings = FoldSettings()

    @classmethod
    def resolve(
        cls, dataset: DatasetPaths, plans_name: str, configuration: str, method: str | None = None, fold: int = 0
    ) -> "FoldJob":
        """Read the plans and check the configuration's name.

        :param dataset: folders of the dataset.
        :param plans_name: of the file; a copied file may still contain the name of the original plans.
        :param configuration: name of one of the plans' configurations.
        :param method: name; None: the default of the task.
        :param fold: counted from 0.
        :returns: the job, with default settings.
        :raises LongflowError: there are no such plans, or no such configuration in them.
        """
        plans = read_plans(dataset.plans(plans_name)).model_copy(update={"plans_name": plans_name})
        plans.configuration(configuration)
        return cls(dataset, plans, configuration, method or get_task(plans.task).default_method, fold)

    def with_fold(self, fold: int) -> "FoldJob":
        """Return the job of another fold."""
        return replace(self, fold=fold)

    @cached_property
    def task(self) -> Task:
        """The task of the plans."""
        return get_task(self.plans.task)

    @property
    def plan(self) -> ConfigurationPlan:
        """The plan of the configuration."""
        return self.plans.configuration(self.configuration)

    @property
    def plan_identity(self) -> str:
        """Hash of everything that trained weights depend on."""
        return self.plans.identity(self.configuration)

    @property
    def model(self) -> ModelPaths:
        """The folder of the model's folds."""
        return self.dataset.model(self.method, self.plans.plans_name, self.configuration)

    @property
    def paths(self) -> FoldPaths:
        """The folder of this fold."""
        return self.model.fold(self.fold)

    @property
    def cache(self) -> Path:
        """The folder of the prepared subjects."""
        return self.dataset.cache(self.plans.plans_name, self.plan.data_identifier)

    def provenance(self) -> dict[str, Any]:
        """Return what predictions of this fold depend on, with the keys of every sidecar."""
        return {
            "dataset": self.dataset.name,
            "method": [self.method],
            "configuration": [self.configuration],
            "plans": [self.plans.plans_name],
            "plan_identity": [self.plan_identity],
            "folds": [[self.fold]],
        }
