"""A run: its settings, its state, and both on disk."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longflow.methods.method import Method, build_method
from longflow.methods.weights import Checkpoint, check_identity, load_weights, read_checkpoint, write_checkpoint
from longflow.networks.precision import computes_bf16
from longflow.paths import FoldPaths
from longflow.plans import Plans
from longflow.training.distributed import Processes
from longflow.training.splits import ForecastTarget

logger = logging.getLogger(__name__)


@dataclass
class RunSettings:
    """How long and how to train; what is None comes from the plan.

    :param max_time: seconds; the schedule then runs on the share of the budget that is used, and ``epochs`` is ignored.
    :param iterations: total number, instead of ``epochs``.
    :param workers: processes that prepare batches; 0 prepares them between the steps.
    :param checkpoint_every: seconds between checkpoints.
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


@dataclass
class State:
    """Where a run stands; written with every checkpoint."""

    iteration: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    best_nrmse: float | None = None
    lci_nrmse: float | None = None
    best_iteration: int = 0
    validated_iteration: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0


class Stopped(KeyboardInterrupt):
    """The run was asked to stop (SIGTERM, Ctrl-C) and has saved its state."""


@dataclass
class Run:
    """Everything the loop works with.

    :param step: the method, or what wraps it for several processes or compilation. :param average: of the weights.
    :param header: what every checkpoint says of itself.
    :param cache: folder of the prepared subjects. :param targets: what is validated.
    """

    paths: FoldPaths
    plans: Plans
    settings: RunSettings
    processes: Processes
    method: Method
    step: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    header: dict
    cache: Path
    targets: Sequence[ForecastTarget]
    state: State = field(default_factory=State)

    @property
    def device(self) -> torch.device:
        return self.processes.device

    @property
    def learning_rate(self) -> float:
        """The highest rate of the schedule."""
        return self.settings.learning_rate or self.plans.training.learning_rate

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

    @property
    def ended(self) -> bool:
        """Whether the last of a fixed number of iterations is done."""
        return self.settings.max_time is None and self.state.iteration >= self.total_iterations


def set_up_run(
    paths: FoldPaths,
    method_name: str,
    plans: Plans,
    configuration: str,
    settings: RunSettings,
    processes: Processes,
    cache: Path,
    targets: Sequence[ForecastTarget],
) -> Run:
    """Network, optimizer and averaged weights, from the seed."""
    torch.manual_seed(settings.seed)
    plan = plans.configuration(configuration)
    layout = torch.channels_last_3d if len(plan.patch_size) == 3 else torch.channels_last
    method = build_method(method_name, plans, configuration).to(processes.device).to(memory_format=layout)
    module: nn.Module = DistributedDataParallel(method) if processes.count > 1 else method
    header = {
        "method": method_name,
        "configuration": configuration,
        "plan_identity": plans.identity(configuration),
        "dataset": plans.dataset_name,
        "seed": settings.seed,
        "precision": "bf16" if computes_bf16(processes.device) else "float32",
    }
    rate = settings.learning_rate or plans.training.learning_rate
    return Run(
        paths=paths,
        plans=plans,
        settings=settings,
        processes=processes,
        method=method,
        step=compiled(module) if settings.compile else module,
        optimizer=torch.optim.AdamW(method.parameters(), lr=rate, weight_decay=plans.training.weight_decay),
        average={name: tensor.detach().clone() for name, tensor in method.state_dict().items()},
        header=header,
        cache=cache,
        targets=targets,
    )


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


def averaged_weights(run: Run, nrmse: float) -> Checkpoint:
    """The averaged weights as a checkpoint that prediction can use."""
    tensors = {f"weights.{name}": tensor for name, tensor in run.average.items()}
    return Checkpoint(tensors, {**run.header, "iteration": run.state.iteration, "nrmse": nrmse})


def save_state(run: Run) -> None:
    """Write everything that is needed to go on as if nothing had happened."""
    tensors = {f"weights.{name}": tensor for name, tensor in run.method.state_dict().items()}
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
