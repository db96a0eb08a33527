"""A run: its settings, its state, and both on disk."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longflow.methods.method import Method, Options, Recipe
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, check_identity, load_weights, read_checkpoint, write_checkpoint
from longflow.networks.precision import computes_bf16
from longflow.paths import FoldPaths
from longflow.plans import Plans
from longflow.training.cost import highest, peak_memory
from longflow.training.distributed import Processes
from longflow.training.validation import Score, Validation

logger = logging.getLogger(__name__)


@dataclass
class RunSettings:
    """How long and how to train; what is None comes from the plan.

    :param max_time: seconds; the schedule then runs on the share of the budget that is used, and ``epochs`` is ignored.
    :param iterations: total number, instead of ``epochs``.
    :param workers: processes that prepare batches; 0 prepares them between the steps.
    :param checkpoint_every: seconds between checkpoints. :param options: of the method.
    :param pretrained: weights to begin with: a method whose same fold is finished, or a file.
    :param labelled_subjects: how many training subjects' labels may be used, or a file that names them; None: all.
    """

    epochs: int | None = None
    iterations: int | None = None
    max_time: float | None = None
    learning_rate: float | None = None
    seed: int = 0
    device: str = "cpu"
    workers: int = 0
    compile: bool = False
    checkpoint_every: float = 600.0
    options: Options = field(default_factory=dict)
    pretrained: str | None = None
    labelled_subjects: str | None = None


@dataclass
class State:
    """Where a run stands; written with every checkpoint.

    :param best_value: of the best validation so far. :param note: what the last validation found, in words.
    :param loss_sums: of the loss and its terms since the last record. :param peak_memory: bytes, over all sittings.
    :param stage: of the method's ``stages``, and :param stage_iteration: with which it began.
    """

    iteration: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    best_value: float | None = None
    best_iteration: int = 0
    validated_iteration: int = 0
    note: str = ""
    loss_sums: dict[str, float] = field(default_factory=dict)
    loss_count: int = 0
    peak_memory: int | None = None
    stage: int = 0
    stage_iteration: int = 0


class Stopped(KeyboardInterrupt):
    """The run was asked to stop (SIGTERM, Ctrl-C) and has saved its state."""


@dataclass
class Run:
    """Everything the loop works with.

    :param step: the method, or what wraps it for several processes or compilation.
    :param average: of the weights; where the recipe averages nothing, the weights themselves, not a copy.
    :param recipe: how the method is optimised. :param header: what every checkpoint says of itself.
    """

    paths: FoldPaths
    plans: Plans
    settings: RunSettings
    processes: Processes
    method: Method
    step: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    recipe: Recipe
    header: dict
    validation: Validation
    state: State = field(default_factory=State)

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def learning_rate(self) -> float:
        """The highest rate of the schedule."""
        return self.settings.learning_rate or self.recipe.learning_rate

    @property
    def total_iterations(self) -> int:
        """Where the run ends, unless it has a time budget."""
        settings, training = self.settings, self.plans.training
        return settings.iterations or (settings.epochs or training.epochs) * training.iterations_per_epoch

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.settings.max_time:
            return self.state.seconds / self.settings.max_time
        return self.state.iteration / self.total_iterations

    def progress_of_stage(self, progress: float) -> float:
        """Share of the method's present stage that is done, where this share of the run is."""
        begun, end = (*self.method.stages, 1.0)[self.state.stage :][:2]
        return max(0.0, progress - begun) / (end - begun)

    @property
    def ended(self) -> bool:
        """Whether the budget is used."""
        return self.progress >= 1


def set_up_run(
    paths: FoldPaths,
    method_name: str,
    plans: Plans,
    configuration: str,
    settings: RunSettings,
    processes: Processes,
    validation: Validation,
) -> Run:
    """Network, optimizer and averaged weights, from the seed."""
    torch.manual_seed(settings.seed)
    plan = plans.configuration(configuration)
    layout = torch.channels_last_3d if len(plan.patch_size) == 3 else torch.channels_last
    method = build_method(method_name, plans, configuration, settings.options)
    method = method.to(processes.device).to(memory_format=layout)
    # the coarsest output of deep supervision has no weight in the loss
    module: nn.Module = DistributedDataParallel(method, find_unused_parameters=True) if processes.count > 1 else method
    header = {
        "method": method_name,
        "configuration": configuration,
        "plan_identity": plans.identity(configuration),
        "dataset": plans.dataset_name,
        "seed": settings.seed,
        "options": method.options,
        "precision": "bf16" if computes_bf16(processes.device) else "float32",
    }
    recipe, average = method.recipe, method.state_dict()
    if recipe.ema_decay:
        average = {name: tensor.clone() for name, tensor in average.items()}
    return Run(
        paths=paths,
        plans=plans,
        settings=settings,
        processes=processes,
        method=method,
        step=compiled(module) if settings.compile else module,
        optimizer=optimizer_of(recipe, method.parameters(), settings.learning_rate or recipe.learning_rate),
        average=average,
        recipe=recipe,
        header=header,
        validation=validation,
    )


def optimizer_of(recipe: Recipe, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer of a recipe; SGD has Nesterov's momentum, as nnU-Net's."""
    common = {"lr": learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.betas[0], nesterov=True, **common)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, betas=recipe.betas, **common)


def compiled(module: nn.Module) -> Callable[..., Tensor]:
    """The module compiled by torch; where compilation fails, a warning and the module as it is."""
    fast = torch.compile(module)

    def step(*batch: object) -> Tensor:
        nonlocal fast
        try:
            return fast(*batch)
        except Exception as error:
            if fast is module:
                raise
            logger.warning("Compilation failed (%s): training goes on without it.", str(error).splitlines()[0])
            fast = module
            return module(*batch)

    return step


def averaged_weights(run: Run, score: Score) -> Checkpoint:
    """The averaged weights as a checkpoint that prediction can use."""
    tensors = {f"weights.{name}": tensor for name, tensor in run.average.items()}
    header = {**run.header, "iteration": run.state.iteration, "validation": score.columns, "stage": run.state.stage}
    return Checkpoint(tensors, header)


def restart_average(run: Run) -> None:
    """Let the averaged weights begin at what the weights are now."""
    for name, tensor in run.method.state_dict().items():
        run.average[name].copy_(tensor)


def save_state(run: Run) -> None:
    """Write everything that is needed to go on as if nothing had happened."""
    run.state.peak_memory = highest(run.state.peak_memory, peak_memory(run.device))
    tensors = {f"weights.{name}": tensor for name, tensor in run.method.state_dict().items()}
    if run.recipe.ema_decay:
        tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    write_checkpoint(Checkpoint(tensors, {**run.header, "state": asdict(run.state)}), run.paths.latest)


def load_state(run: Run) -> None:
    """Go back to what :func:`save_state` wrote.

    :raises ModelError: the file belongs to another method or plan, or is damaged.
    """
    checkpoint = read_checkpoint(run.paths.latest)
    check_identity(checkpoint.header, run.paths.latest, run.header["method"], run.plans, run.header["configuration"])
    load_weights(run.method, checkpoint.part("weights"), run.paths.latest)
    for name, tensor in checkpoint.part("average").items():
        run.average[name].copy_(tensor)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        index, moment = name.split(".")
        moments.setdefault(int(index), {})[moment] = tensor
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": moments})
    run.state = State(**checkpoint.header["state"])
    run.method.stage = run.state.stage
