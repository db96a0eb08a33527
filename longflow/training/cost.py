"""What a run took: memory, time, parameters."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from longflow.files import read_json, write_json

if TYPE_CHECKING:
    from longflow.training.run import Run


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process held at most: tensors on a GPU; on a CPU all resident memory, Python and torch included.

    None where the system does not tell (macOS). It is the kernel's VmHWM, as ``ru_maxrss`` of a process that was
    started by another begins with that one's.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if (status := Path("/proc/self/status")).is_file():
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), flags=re.MULTILINE)
        return int(peak[1]) * 1024 if peak else None
    return getattr(psutil.Process().memory_info(), "peak_wset", None)


def highest(*peaks: int | None) -> int | None:
    """The highest of those that are known."""
    return max((peak for peak in peaks if peak is not None), default=None)


def record_cost(run: "Run") -> None:
    """Add to run.json what the run took: parameters, iterations, seconds of training and validating, peak of memory."""
    cost: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in run.method.parameters()),
        "iterations": run.state.iteration,
        "seconds": run.state.seconds,
        "peak_memory": highest(run.state.peak_memory, peak_memory(run.device)),
    }
    write_json({**read_json(run.paths.run), "cost": cost}, run.paths.run)
