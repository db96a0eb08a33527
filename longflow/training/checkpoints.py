"""Averaged weights of a run, and its whole state, in memory and on disk."""

from dataclasses import asdict

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from longflow.errors import ModelError
from longflow.methods.weights import (
    REDUCTION_KEY,
    Checkpoint,
    check_fit,
    check_identity,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from longflow.training.cost import highest, peak_memory
from longflow.training.run import Run, State
from longflow.training.validation import Score


@torch.no_grad()
def update_average(average: dict[str, Tensor], current: dict[str, Tensor], decay: float, iteration: int) -> None:
    """Update the exponential moving average of the weights.

    It forgets faster in the first iterations, so that the initial weights do not stay in the average.

    :param average: averaged weights by name, changed in place.
    :param current: weights by name.
    :param decay: of the average, 0 to 1.
    :param iteration: number of earlier updates.
    """
    decay = min(decay, (1 + iteration) / (10 + iteration))
    floating = [name for name, value in average.items() if value.is_floating_point()]
    get_ema_multi_avg_fn(decay)([average[name] for name in floating], [current[name] for name in floating], iteration)
    for name in average.keys() - floating:
        average[name].copy_(current[name])


def restart_average(run: Run) -> None:
    """Set the averaged weights to the present weights."""
    for name, tensor in run.method.state_dict().items():
        run.average[name].copy_(tensor)


def averaged_weights(run: Run, score: Score) -> Checkpoint:
    """Make a checkpoint of the averaged weights that prediction can use.

    :param run: with the averaged weights.
    :param score: of the averaged weights, for the header.
    :returns: the checkpoint.
    """
    tensors = {f"weights.{name}": tensor for name, tensor in run.average.items()}
    header = {**run.header, "iteration": run.state.iteration, "stage": run.state.stage}
    checkpoint = Checkpoint(tensors, header)
    record_score(checkpoint, score)
    return checkpoint


def record_score(checkpoint: Checkpoint, score: Score) -> None:
    """Record the score of the weights, and the reduction that it is the score of, by which they predict.

    :param checkpoint: whose header is changed in place.
    :param score: of its weights.
    """
    checkpoint.header["validation"] = score.columns
    if score.reduction is not None:
        checkpoint.header[REDUCTION_KEY] = score.reduction


def save_state(run: Run) -> None:
    """Write everything that is needed to continue as if nothing had happened.

    :param run: whose state is written.
    :raises DataError: its loss is not a finite number; nothing is written.
    """
    run.settle()
    run.state.peak_memory = highest(run.state.peak_memory, peak_memory(run.device))
    tensors = {f"weights.{name}": tensor for name, tensor in run.method.state_dict().items()}
    if run.recipe.ema_decay:
        tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    write_checkpoint(Checkpoint(tensors, {**run.header, "state": asdict(run.state)}), run.job.paths.latest)


def load_state(run: Run) -> None:
    """Return to the state that :func:`save_state` wrote, whatever the number of processes was.

    :param run: changed in place.
    :raises ModelError: the file belongs to another method or plan, or is damaged.
    """
    job, path = run.job, run.job.paths.latest
    checkpoint = run.processes.from_first(lambda: read_checkpoint(path))
    check_identity(checkpoint.header, path, job.method, job.plans, job.configuration)
    load_weights(run.method, checkpoint.part("weights"), path)
    if average := checkpoint.part("average"):
        check_fit(run.average, average, path)
        for name, tensor in average.items():
            run.average[name].copy_(tensor)
    try:
        run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": _moments(checkpoint, run)})
        run.state = TypeAdapter(State).validate_python(checkpoint.header["state"])
        if not run.state.batches:  # longflow 0.1 did not store it
            run.state.batches = run.state.iteration * run.processes.count
        if not 0 <= run.state.stage < max(1, len(run.method.stages)):
            raise ValueError(f"stage {run.state.stage}")
    except (LookupError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} does not hold the state of this training ({str(error)[:200]}). Copy it again from its source, or "
            "train from scratch with --overwrite."
        ) from error
    run.method.stage = run.state.stage


def _moments(checkpoint: Checkpoint, run: Run) -> dict[int, dict[str, Tensor]]:
    """Sort the tensors of the optimizer by parameter.

    :raises LookupError, ValueError: one belongs to no parameter, or has another shape.
    """
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        index, moment = name.split(".")
        if tensor.ndim and tensor.shape != parameters[int(index)].shape:
            raise ValueError(f"optimizer.{name[:100]} has shape {list(tensor.shape)}")
        moments.setdefault(int(index), {})[moment] = tensor
    return moments
