"""What two processes check together; tests/test_distributed.py starts them."""

import copy

import numpy as np
import pytest
import torch

from longflow.distributed import Processes, is_first_process, leave_group
from longflow.errors import DataError
from longflow.methods.registry import build_method, samples_of
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.stop import Stopped
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training.clock import Pace
from longflow.training.run import step_of
from longflow.training.splits import cohorts_of_fold
from tests.training.helpers import job_of


def check_all() -> None:
    """Run every check; print a line at the end."""
    torch.set_num_threads(1)
    processes = Processes.start("cpu")
    check_primitives(processes)
    job = job_of(DatasetPaths("Dataset001_Test"), "simvp")
    check_gradients(processes, job)
    check_validation(processes, job)
    processes.end()
    assert is_first_process() == processes.first
    leave_group()
    print(f"process {processes.index} of {processes.count}: all equal")


def check_primitives(processes: Processes) -> None:
    index = processes.index
    assert processes.count == 2 and processes.first == (index == 0)
    assert processes.agree(float(index)) == 1.0
    assert processes.gather({"index": index}) == [{"index": 0}, {"index": 1}]
    assert processes.from_first(lambda: ["of", index]) == ["of", 0]
    with pytest.raises(DataError, match="of process 0"):
        processes.from_first(lambda: fail(index))
    tensors = [torch.full((2, 3, 4, 5), float(index)).to(memory_format=torch.channels_last), torch.tensor(index)]
    processes.take_from_first(tensors)
    assert all((tensor == 0).all() for tensor in tensors)


def fail(index: int) -> None:
    raise DataError(f"of process {index}")


def check_gradients(processes: Processes, job) -> None:
    """The loss is a mean over samples: the mean gradient of two batches is that of both together."""
    training, _ = cohorts_of_fold(job)
    torch.manual_seed(3)
    method = build_method(job.method, job.plans, job.configuration)
    together = copy.deepcopy(method)
    samples = samples_of(method)(training, job.plans, job.configuration, 0, False)
    drawn = [samples[number] for number in range(20)]
    batches = [batch for batch in drawn if batch.context.shape == drawn[0].context.shape][: processes.count]
    assert len(batches) == processes.count
    wrapped = step_of(method, processes, compiles=False)
    wrapped(batches[processes.index]).backward()
    both = copy.copy(batches[0])
    for name, value in vars(both).items():
        if isinstance(value, torch.Tensor):
            setattr(both, name, torch.cat([getattr(batch, name) for batch in batches]))
    together.training_step(both).backward()
    compared = 0
    for one, other in zip(method.parameters(), together.parameters(), strict=True):
        if other.grad is not None:
            scale = other.grad.abs().max().item()
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5 * scale), (
                (one.grad - other.grad).abs().max()
            )
            compared += int(scale > 0)
    assert compared > 0


def check_validation(processes: Processes, job) -> None:
    """Scores and out-of-fold predictions are those of one process; a signal to one process stops both."""
    torch.manual_seed(4)
    method = build_method(job.method, job.plans, job.configuration).eval()
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    _, validating = cohorts_of_fold(job)
    validation = ForecastValidation(job, validating, processes.device)
    alone = validation.score(method)
    worked_on = []
    show = lambda number, of: worked_on.append(number)  # noqa: E731
    with Pace(processes=processes, show=show) as pace:
        shared = validation.score(method)
    assert worked_on == list(range(processes.index + 1, pace.of + 1, 2)) and pace.of > 2
    assert shared == alone and list(map(tuple, shared.errors)) == list(map(tuple, alone.errors))
    assert all(np.array_equal(one, other) for one, other in zip(shared.changes, alone.changes, strict=True))
    with pytest.raises(Stopped), Pace(processes=processes, stopped=lambda: processes.first):
        validation.score(method)
    with Pace(processes=processes, show=lambda number, of: worked_on.append(number)):
        validation.finish(method)
    processes.agree(0.0)
    folder = job.paths.validation(method.reductions[0])
    sidecars = [read_json(folder / f"{target.target}.json") for target in validation.targets]
    assert len(sidecars) == pace.of and (folder / "scans.csv").is_file()
