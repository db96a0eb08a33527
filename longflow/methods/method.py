"""What a method is: the unit of extension.

A method builds its network from the plans, says which samples it wants, and has ``training_step(batch) -> loss`` and
``predict(batch) -> volumes``. The trainer, the predictor and the evaluation know nothing else about it.
"""

from dataclasses import dataclass
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
    :cvar samples: kind of training samples, a name of :data:`longflow.methods.registry.SAMPLES`; empty: the first kind
        of the task.
    :cvar validation: kind of validation, a name of :data:`longflow.methods.registry.VALIDATIONS`; empty: the first
        kind of the task.
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
    samples: ClassVar[str] = ""
    validation: ClassVar[str] = ""
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
