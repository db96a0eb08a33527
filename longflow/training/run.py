"""A run: everything the training loop works with, and where it stands."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longflow.distributed import Processes
from longflow.job import FoldJob
from longflow.methods.method import Method, Recipe
from longflow.methods.registry import build_method
from longflow.networks.precision import computes_bf16
from longflow.parallel import free_memory
from longflow.planning.memory import GB
from longflow.private import return_freed_memory
from longflow.stop import StopSignal, shielded_children
from longflow.training import clock
from longflow.training.clock import Pace
from longflow.training.losses import FiniteCheck
from longflow.training.validation import Validation

logger = logging.getLogger(__name__)

#: the last validation and the out-of-fold predictions are given at most this share of a time budget
MOST_FOR_THE_END = 0.5
#: of the time that is kept for them over what was measured
MARGIN = 1.2
#: several processes decide together about so often; in between nobody waits for another one's word
DECISION_SECONDS = 1.0
#: on a CPU, glibc keeps up to as much freed memory again as a training step needs, and steps take 0.7 of the time.
#: Where less than this many times the planned memory is free, what is freed is returned at once
HELD_FOR_SPEED = 3
#: what the bar shows of an unfinished run at most
MOST_SHOWN = 0.99

OnActivity = Callable[[float, str], None]


@dataclass
class State:
    """Where a run stands; written with every checkpoint.

    :param iteration: number of updates so far.
    :param batches: number of batches so far, of all processes; the number of the next one.
    :param learning_rate: of the last update.
    :param seconds: of training and validation so far, over all sessions.
    :param validation_seconds: the part of ``seconds`` that validation took.
    :param validation_cost: seconds that the next validation will take; 0: unknown.
    :param scored_items: number of items that a validation scores; None: all.
    :param prediction_cost: seconds that all out-of-fold predictions will take; None: unknown.
    :param best_value: of the best validation so far.
    :param best_iteration: of the best validation so far.
    :param validated_iteration: of the last validation.
    :param validations: number of validations so far.
    :param steps: of the solver, with which validations are made; None: the planned ones.
    :param check_cost: seconds that a validation takes at which this number is measured; 0: unknown.
    :param note: result of the last validation, for the progress bar.
    :param loss_sums: of the loss and its terms since the last record; :meth:`Run.settle` makes numbers of tensors.
    :param loss_count: number of updates in ``loss_sums``.
    :param peak_memory: bytes, over all sessions.
    :param stage: position in the method's ``stages``.
    :param stage_iteration: the iteration with which the stage began.
    """

    iteration: int = 0
    batches: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    validation_cost: float = 0.0
    scored_items: int | None = None
    prediction_cost: float | None = None
    best_value: float | None = None
    best_iteration: int = 0
    validated_iteration: int = 0
    validations: int = 0
    steps: int | None = None
    check_cost: float = 0.0
    note: str = ""
    loss_sums: dict[str, float] = field(default_factory=dict)
    loss_count: int = 0
    peak_memory: int | None = None
    stage: int = 0
    stage_iteration: int = 0


@dataclass
class Run:
    """Everything the loop works with.

    :param job: the fold that is trained.
    :param processes: this process among those of the run.
    :param method: the method that is trained, on the device.
    :param step: the method, or its wrapper for several processes or compilation.
    :param optimizer: of the method's parameters.
    :param average: averaged weights; where the recipe averages nothing, the weights themselves, not a copy.
    :param recipe: how the method is optimised.
    :param validation: of the averaged weights.
    :param state: where the run stands.
    :param on_activity: called with the share of the run that is done, and what is being done.
    :param check: of each loss.
    :param progress: share of the training that is done; schedule and stages follow it.
    :param stop: whether a signal has come.
    :param counted: time of the clock up to which ``state.seconds`` counts.
    :param next_decision: iteration at which several processes decide together again.
    """

    job: FoldJob
    processes: Processes
    method: Method
    step: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    recipe: Recipe
    validation: Validation
    state: State = field(default_factory=State)
    on_activity: OnActivity = lambda share, activity: None
    check: FiniteCheck = field(default_factory=FiniteCheck)
    progress: float = 0.0
    stop: StopSignal = field(default_factory=StopSignal)
    counted: float = 0.0
    next_decision: int = 0

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def header(self) -> dict[str, Any]:
        """The identity of the run, which stands in run.json and in every checkpoint."""
        return {
            "method": self.job.method,
            "configuration": self.job.configuration,
            "plan_identity": self.job.plan_identity,
            "dataset": self.job.plans.dataset_name,
            "channel_names": self.job.plans.channel_names,
            "seed": self.job.settings.seed,
            "options": self.method.options,
            "precision": "bf16" if computes_bf16(self.device) else "float32",
        }

    @property
    def learning_rate(self) -> float:
        """The highest rate of the schedule."""
        return self.job.settings.learning_rate or self.recipe.learning_rate

    @property
    def validation_steps(self) -> int:
        """The number of solver steps of a validation."""
        return self.state.steps or self.job.plans.inference.steps

    @property
    def iterations_per_epoch(self) -> int:
        return self.job.plans.training.iterations_per_epoch

    @property
    def total_iterations(self) -> int:
        """The iteration at which the run ends, unless it has a time budget."""
        settings = self.job.settings
        return settings.iterations or (settings.epochs or self.job.plans.training.epochs) * self.iterations_per_epoch

    @property
    def epoch_is_complete(self) -> bool:
        """Whether the steps of an epoch are done that is not recorded yet."""
        return self.state.loss_count > 0 and self.state.iteration % self.iterations_per_epoch == 0

    def take_state_of_first(self) -> None:
        """Take over the state of the first process, whose clock and costs count; all of them then decide alike.

        The sums of the losses stay: those of an epoch are the mean over the processes.
        """
        if self.processes.count == 1:
            return
        self.settle()
        own = self.state.loss_sums
        vars(self.state).update(self.processes.from_first(lambda: vars(self.state)), loss_sums=own)

    @property
    def decides(self) -> bool:
        """Whether a decision is due after this iteration, which all processes make alike."""
        return self.processes.count == 1 or self.state.iteration >= self.next_decision

    def plan_decision(self) -> None:
        """Let the processes decide together again about ``DECISION_SECONDS`` later, after the same iteration."""
        seconds = self.processes.agree(self.state.seconds / max(1, self.state.iteration))
        self.next_decision = self.state.iteration + 1 + int(DECISION_SECONDS / max(seconds, 1e-3))

    def advance(self) -> None:
        """Update the progress. With a time budget it is that of the slowest process, and it never falls."""
        budget = self.job.settings.max_time
        if budget is None:
            self.progress = self.state.iteration / self.total_iterations
        elif self.decides:
            share = self.state.seconds / (budget - self.reserved)
            self.progress = self.processes.agree(max(self.progress, share))

    def settle(self) -> None:
        """Wait for the device: make numbers of the sums of the losses.

        :raises DataError: the last loss is not a finite number.
        """
        self.check.read()
        self.state.loss_sums = {name: float(value) for name, value in self.state.loss_sums.items()}

    @property
    def reserved(self) -> float:
        """Seconds of a time budget that are kept for the last validation and the out-of-fold predictions."""
        # where the last weights are not the best, solver steps are measured for both
        checks = 1 if self.state.best_iteration == self.state.validated_iteration else 2
        validation = max(self.state.validation_cost, checks * self.state.check_cost)
        cost = validation + (self.state.prediction_cost or 0.0)
        return min(MARGIN * cost, MOST_FOR_THE_END * self.job.settings.max_time)

    def count_time(self) -> None:
        """Add the time since the last call to the seconds of the run."""
        now = clock.now()
        self.state.seconds += now - self.counted
        self.counted = now

    @property
    def share_done(self) -> float:
        """Share of the whole run that is done, for the progress bar, which is full at the very end only."""
        budget = self.job.settings.max_time
        return min(self.state.seconds / budget if budget else self.progress, MOST_SHOWN)

    def show_item(self, activity: str, number: int, of: int) -> None:
        """Show which item of a validation is worked on, in the first process."""
        self.count_time()
        self.on_activity(self.share_done, f"{activity}, {number} of {of}")

    def pace(self, activity: str, **limits: Any) -> Pace:
        """Make the pace of a validation: shown item by item, shared out over the processes, ended by a signal.

        :param activity: for the bar.
        :param limits: of :class:`~longflow.training.clock.Pace`.
        """
        show = partial(self.show_item, activity)
        return Pace(show=show, processes=self.processes, stopped=lambda: self.stop.received, **limits)

    def progress_of_stage(self, progress: float) -> float:
        """Return the share of the method's present stage that is done.

        :param progress: share of the run that is done.
        :returns: 0 to 1.
        """
        begun, end = (*self.method.stages, 1.0)[self.state.stage :][:2]
        return max(0.0, progress - begun) / (end - begun)


def set_up_run(job: FoldJob, processes: Processes, validation: Validation) -> Run:
    """Make network, optimizer and averaged weights, from the seed.

    :param job: the fold to train.
    :param processes: this process among those of the run.
    :param validation: of the averaged weights.
    :returns: a run at iteration 0.
    """
    settings = job.settings
    if processes.device.type == "cpu" and job.plans.gpu_memory * HELD_FOR_SPEED * GB > free_memory():
        return_freed_memory()
    torch.manual_seed(settings.seed)
    layout = torch.channels_last_3d if len(job.plan.patch_size) == 3 else torch.channels_last
    method = build_method(job.method, job.plans, job.configuration, settings.options)
    method = method.to(processes.device).to(memory_format=layout)
    recipe, average = method.recipe, method.state_dict()
    if recipe.ema_decay:
        average = {name: tensor.clone() for name, tensor in average.items()}
    return Run(
        job=job,
        processes=processes,
        method=method,
        step=step_of(method, processes, settings.compile),
        optimizer=optimizer_of(recipe, method.parameters(), settings.learning_rate or recipe.learning_rate),
        average=average,
        recipe=recipe,
        validation=validation,
    )


def step_of(method: Method, processes: Processes, compiles: bool | None) -> Callable[..., Tensor]:
    """Make the training step of a method, and of a later stage of it.

    :param method: on the device.
    :param processes: this process among those of the run.
    :param compiles: whether to compile it; None: on a CUDA GPU.
    :returns: a function of a batch.
    """
    module: nn.Module = method
    if processes.count > 1:
        # in each stage the same weights are used; the coarsest output of deep supervision has no part in the loss
        module = DistributedDataParallel(method, static_graph=True, gradient_as_bucket_view=True)
    if compiles is None:
        compiles = processes.device.type == "cuda"
    return compiled(module) if compiles else module


def optimizer_of(recipe: Recipe, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe; SGD has Nesterov's momentum, as nnU-Net's.

    :param recipe: kind and settings of the optimizer.
    :param parameters: to optimise, on their device.
    :param learning_rate: at the beginning.
    :returns: the optimizer.
    """
    parameters = list(parameters)
    # one kernel for all weights of a GPU; on a CPU its results differ in the last digit
    fused = all(parameter.device.type == "cuda" for parameter in parameters)
    common = {"lr": learning_rate, "weight_decay": recipe.weight_decay, "fused": fused or None}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.betas[0], nesterov=True, **common)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, betas=recipe.betas, **common)


def compiled(module: nn.Module) -> Callable[..., Tensor]:
    """Compile a module with torch; where compilation fails, warn and use the module as it is.

    :param module: to compile.
    :returns: a function with the arguments and result of the module.
    """
    fast = torch.compile(module)

    def step(*batch: object) -> Tensor:
        nonlocal fast
        try:
            with shielded_children():  # compilers
                return fast(*batch)
        except Exception as error:
            if fast is module:
                raise
            logger.warning("Compilation failed (%s): training continues without it.", str(error).splitlines()[0])
            fast = module
            return module(*batch)

    return step
