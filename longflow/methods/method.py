"""The contract of a method: the unit of extension.

A method builds its network from the plans, names the samples it learns from, and has ``training_step(batch) -> loss``
and ``predict(batch) -> volumes``. The trainer, the predictor and the evaluation know nothing else about it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor, nn

from longflow.errors import ConfigurationError
from longflow.methods.batches import Batch
from longflow.plans import Plans

Options = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised.

    :param schedule: of the learning rate after the warm-up: "cosine", "linear", or "polynomial" (nnU-Net's, exponent
        0.9), all to zero.
    :param warmup: share of the run during which the rate rises.
    :param betas: of Adam; the first is SGD's momentum.
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

    :cvar task: name of the task, as "forecast".
    :cvar summary: one line for ``--help`` and tables.
    :cvar samples: kind of training samples, a name of :data:`longflow.methods.registry.SAMPLES`; empty: the first kind
        of the task.
    :cvar validation: kind of validation, a name of :data:`longflow.methods.registry.VALIDATIONS`; empty: the first kind
        of the task.
    :cvar trains: False for a method that has nothing to learn.
    :cvar predicts: False for pretraining.
    :cvar reductions: names of the volumes that :meth:`predict` returns; the first is the default where no validation
        chose another (``self.reduction``).
    :cvar mirrors: whether predictions are averaged over mirrored inputs, where neither user nor plan decides.
    :cvar networks: names of the networks that it can be trained with (``longflow_train --network``), the default first;
        a :class:`~longflow.networks.registry.NetworksFor` lists those of installed packages too. With another one than
        the default its name is ``{method}-{network}``, and it is made with ``network=NAME``.
    :cvar uses_covariates: whether ``Batch.covariates`` are conditions of its network.
    :cvar uses_other_scans: whether a scan is segmented with the subject's other scans as input (``ScanBatch.others``).
    :cvar whole_volume: whether :meth:`predict` needs all voxels of a scan at once, in 3D, rather than tiles of the
        patch size.
    :cvar noise: whether predictions begin with noise (``Batch.noise``, ``PhaseBatch.noise``).
    :cvar stages: shares of a run at which its stages begin, 0 first. Each is a training of its own, with a schedule,
        moments, averages and best weights of its own. It continues from the averaged weights of the stage before. The
        number of the present stage, from 0, is ``self.stage``, also in prediction.
    :cvar integrates: whether predictions are a velocity field integrated with ``solver`` and ``steps``.
    :cvar options: what ``longflow_train --set NAME=VALUE`` can change, with the defaults; stored with the weights. The
        value has the default's type. An option ``augmentation`` switches off all augmentation.
    :cvar choices: allowed words of an option of text; any word where the option is not listed.
    """

    task: ClassVar[str]
    summary: ClassVar[str]
    samples: ClassVar[str] = ""
    validation: ClassVar[str] = ""
    trains: ClassVar[bool] = True
    predicts: ClassVar[bool] = True
    mirrors: bool = False
    networks: ClassVar[tuple[str, ...]] = ()
    uses_covariates: ClassVar[bool] = False
    uses_other_scans: ClassVar[bool] = False
    whole_volume: ClassVar[bool] = False
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
        # an instance has its own values of the class attribute
        self.options = {**type(self).options, **(options or {})}  # type: ignore[misc]
        self.mirrors = type(self).mirrors if plans.inference.mirror is None else plans.inference.mirror
        #: parts of the loss of the last training step, to be logged
        self.terms: dict[str, Tensor] = {}
        self.solver = plans.inference.solver
        self.steps = plans.inference.steps
        self.stage = 0
        #: by which predictions are made where none is requested; with trained weights, the one that chose them
        self.reduction = self.reductions[0] if self.reductions else ""
        #: largest share of a prediction's voxels at which predicted motion folds, since it was last set to 0
        self.folded = 0.0
        #: file of the weights, for messages; None where they were not read
        self.file: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """Return how the method is optimised; by default as the plan says."""
        training = self.plans.training
        return Recipe(
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            warmup=training.warmup,
            gradient_clip=training.gradient_clip,
            ema_decay=training.ema_decay,
        )

    @property
    def most_scans(self) -> int:
        """Most context scans that a forecast is made from, the latest; all where there is no training to fit them."""
        return self.plans.temporal.sequence_length if self.trains else sys.maxsize

    @property
    def sees_earlier_scans(self) -> bool:
        """Whether a forecast depends on other scans than the last one."""
        return True

    @property
    def stochastic(self) -> bool:
        """Whether predictions differ with the noise that they are given in their batch."""
        return type(self).noise

    @property
    def augmented(self) -> bool:
        """Whether its samples are augmented."""
        return bool(self.options.get("augmentation", True))

    def begin_stage(self, stage: int, batch: Batch) -> None:
        """Prepare the first step of a later stage.

        :param stage: 1 or more.
        :param batch: of that first step.
        """
        self.stage = stage

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the loss of a batch that has targets.

        :param batch: of the kind that ``samples`` names.
        :returns: a scalar with a gradient.
        """
        raise ConfigurationError(f"{type(self).__name__} has nothing to train.")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Predict volumes.

        :param batch: without targets.
        :returns: (batch, channels, *spatial) for every name in ``reductions``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement predict(batch)")

    def forward(self, batch: Batch) -> Tensor:
        """Call the training step, under the name that torch's wrappers for several GPUs use."""
        return self.training_step(batch)
