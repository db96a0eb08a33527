"""Measure the cost of a run: memory, time, parameters."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from longflow.files import write_json
from longflow.reading import read_json

if TYPE_CHECKING:
    from longflow.training.run import Run


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory that this process held.

    On a CPU it is the kernel's VmHWM: ``ru_maxrss`` of a process begins with that of the process that started it.

    :param device: a GPU, or a CPU.
    :returns: bytes of tensors on a GPU, of all resident memory on a CPU (Python and torch included); None where the
        system does not report it (macOS).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if (status := Path("/proc/self/status")).is_file():
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), flags=re.MULTILINE)
        return int(peak[1]) * 1024 if peak else None
    return getattr(psutil.Process().memory_info(), "peak_wset", None)


def highest(*peaks: int | None) -> int | None:
    """Return the highest of the known peaks; None where none is known."""
    return max((peak for peak in peaks if peak is not None), default=None)


def record_cost(run: "Run") -> None:
    """Add the cost of a run to run.json: parameters, iterations, seconds of training and validation, peak memory.

    ``solver_steps`` is the number of solver steps of the last validations; None where the planned number was not
    compared with fewer ones.
    """
    cost: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in run.method.parameters()),
        "iterations": run.state.iteration,
        "seconds": run.state.seconds,
        "peak_memory": highest(run.state.peak_memory, peak_memory(run.device)),
        "solver_steps": run.state.steps,
    }
    path = run.job.paths.run
    write_json({**read_json(path, dict), "cost": cost}, path)
