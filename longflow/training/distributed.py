"""Train in one process or several; only this module reads the variables that torchrun sets."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

#: how long the others wait while the first process validates whole volumes
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Each draws its own batches of the planned size.

    :param index: of this process, from 0.
    :param count: number of processes.
    :param device: that this process works on.
    """

    index: int
    count: int
    device: torch.device

    @classmethod
    def start(cls, device: str) -> "Processes":
        """Join the group that torchrun made (nccl for what is on GPUs, gloo for the rest), or be the only process.

        :param device: "cpu", "cuda", "cuda:1", "mps".
        :returns: this process.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        index = int(os.environ.get("RANK", "0"))
        if count == 1:
            return cls(0, 1, torch.device(device))
        if device.startswith("cuda"):
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            # decisions pass from processor to processor, so that they wait for no GPU
            backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
            dist.init_process_group(backend, timeout=PATIENCE)
        return cls(index, count, torch.device(device))

    @property
    def first(self) -> bool:
        """Whether this process validates, writes and logs."""
        return self.index == 0

    def agree(self, value: float) -> float:
        """Return the largest value of all processes, so that all of them decide the same."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.item()

    def end(self) -> None:
        """Leave the group together. A process that failed does not call this: torchrun ends the others."""
        if self.count > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
