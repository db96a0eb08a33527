"""Work in one process or in several that torchrun or Slurm started; only this module reads their variables."""

import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from longflow.errors import ConfigurationError, LongflowError, WorkerError

Value = TypeVar("Value")

#: how long a process waits for the others to start, and for the slowest one's last item or share of the data
TO_START, PATIENCE = timedelta(minutes=15), timedelta(hours=2)
#: first port and number of ports of the runs under Slurm; below those that systems give to clients
FIRST_PORT, PORTS = 10_000, 20_000


@dataclass(frozen=True)
class Place:
    """The place of this process among those of a run, as its environment says.

    :param index: of this process, from 0.
    :param count: number of processes.
    :param local_index: of this process on its machine, from 0.
    :param address: machine and port of the first process; None: torch reads its own variables.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    address: tuple[str, int] | None = None


def place_of(environment: Mapping[str, str]) -> Place:
    """Read the place of this process.

    The variables of torchrun come first. Those of Slurm count in a job step only (``srun``): a batch script has some of
    them as well, and the command in it is alone.

    :param environment: variables of the process.
    :returns: its place; that of the only process where nothing is said.

    >>> place_of({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    ...           "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"})
    Place(index=3, count=4, local_index=1, address=('gpu07', 10012))
    """
    if "WORLD_SIZE" in environment:
        return Place(
            int(environment.get("RANK", "0")), int(environment["WORLD_SIZE"]), int(environment.get("LOCAL_RANK", "0"))
        )
    count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if count == 1:
        return Place()
    host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
    # the steps of a job run side by side, too
    number = int(environment.get("SLURM_JOB_ID", "0")) + 7919 * int(environment.get("SLURM_STEP_ID", "0"))
    port = int(environment.get("MASTER_PORT") or FIRST_PORT + number % PORTS)
    index, local = (int(environment[name]) for name in ("SLURM_PROCID", "SLURM_LOCALID"))
    return Place(index, count, local, (host, port))


def first_host(hosts: str) -> str:
    """Return the first host of a list in Slurm's form.

    :param hosts: names, with ranges of numbers in brackets.

    >>> first_host("gpu[007-011,020],cpu1"), first_host("a1,a2"), first_host("r[1-2]n[03-04].x")
    ('gpu007', 'a1', 'r1n03.x')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)[0]
    return re.sub(r"\[([0-9]+)[^\]]*\]", r"\1", first)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    :param index: of this process, from 0.
    :param count: number of processes.
    :param device: that this process works on.
    """

    index: int
    count: int
    device: torch.device

    @classmethod
    def start(cls, device: str) -> "Processes":
        """Join the group of the run (nccl for tensors on GPUs, gloo for the rest), or be the only process.

        :param device: "cpu", "cuda", "cuda:1", "mps"; of several processes each gets a GPU of its own.
        :returns: this process.
        :raises ConfigurationError: there are more processes than GPUs on this machine, or the others do not answer.
        """
        place = place_of(os.environ)
        if place.count == 1:
            return cls(0, 1, torch.device(device))
        if device.startswith("cuda"):
            device = f"cuda:{gpu_of(place.local_index, torch.cuda.device_count())}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            _join(place, gpu=device.startswith("cuda"))
        return cls(place.index, place.count, torch.device(device))

    @property
    def first(self) -> bool:
        """Whether this process writes and logs."""
        return self.index == 0

    def agree(self, value: float) -> float:
        """Return the largest value of all processes, so that all of them decide the same."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        with _together():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.item()

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order; all processes get them.

        :param value: that pickle can write. It is read by the processes of the same run only.
        """
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        with _together():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Value]) -> Value:
        """Call a function in the first process; return its result in all of them.

        Files that the first process has written need not be visible to other machines yet.

        :param make: the function; its result can be written by pickle.
        :raises Exception: in all processes, where the function raises it.
        """
        if self.count == 1:
            return make()
        answer: list = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = portable(error, self.index)
        with _together():
            dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Copy the tensors of the first process into those of the others.

        :param tensors: of the same shapes in all processes, on its device or the CPU; changed in place.
        """
        if self.count == 1:
            return
        with _together(), torch.no_grad():
            for tensor in tensors:
                dense = tensor.contiguous()  # channels-last tensors travel as others do
                dist.broadcast(dense, src=0)
                if dense is not tensor:
                    tensor.copy_(dense)

    def end(self) -> None:
        """End a piece of work together. A process that failed does not call this: its launcher ends the others."""
        if self.count > 1:
            with _together():
                dist.barrier()


def is_first_process() -> bool:
    """Tell whether this process is the first or the only one of its run, also before it joins the others."""
    return place_of(os.environ).index == 0


def leave_group() -> None:
    """Leave the group of the run at the end of a command; it is joined once, for all pieces of work of the command."""
    if dist.is_initialized():
        dist.destroy_process_group()


#: the only process, on the CPU
ALONE = Processes(0, 1, torch.device("cpu"))


def gpu_of(local_index: int, gpus: int) -> int:
    """Choose the GPU of a process; Slurm may show each of them its own one only.

    :param local_index: of the process on its machine.
    :param gpus: number of GPUs that it sees.
    :raises ConfigurationError: there is none left.
    """
    if gpus == 1:
        return 0
    if local_index >= gpus:
        raise ConfigurationError(
            f"Process {local_index + 1} of this machine has no GPU: it sees {gpus}. Start as many processes on a "
            "machine as it has GPUs (torchrun --nproc_per_node, srun --ntasks-per-node), or give --device cpu."
        )
    return local_index


def portable(error: Exception, index: int) -> Exception:
    """Return an error that can be sent to the other processes.

    :param error: that was raised in this process.
    :param index: of this process.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"Process {index} failed: {type(error).__name__}: {error}")
    return error if isinstance(error, LongflowError) else error.with_traceback(None)


def _join(place: Place, gpu: bool) -> None:
    """Join the group of the run."""
    # decisions pass from processor to processor, so that they wait for no GPU
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    if place.address is None:
        dist.init_process_group(backend, timeout=PATIENCE)
        return
    host, port = place.address
    try:
        store = dist.TCPStore(host, port, place.count, place.index == 0, timeout=TO_START)
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"The {place.count} processes did not find each other at {host}:{port} "
            f"({str(error).splitlines()[0][:200]}). See whether all of them started. If the port is used by another "
            "program, or the machines know each other by another name, set MASTER_PORT and MASTER_ADDR."
        ) from error
    dist.init_process_group(backend, store=store, rank=place.index, world_size=place.count, timeout=PATIENCE)


@contextmanager
def _together() -> Iterator[None]:
    """Explain why a process cannot go on without the others."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(
            f"Another process of this run has ended ({str(error).splitlines()[0][:200]}). The cause is in its own "
            "messages. Then run the same command again: finished work is kept."
        ) from error
