"""Measure what a training costs before it is begun: some of its steps, and some items of a validation."""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace

import psutil
import torch

from longflow.distributed import Processes
from longflow.job import FoldJob
from longflow.methods.batches import Batch
from longflow.methods.registry import samples_of, validation_class_of
from longflow.training import clock
from longflow.training.cost import peak_memory
from longflow.training.loader import training_batches
from longflow.training.loop import add_losses, begin_due_stage, train_step, trained_kind
from longflow.training.measured import MeasuredTraining, write_measured
from longflow.training.run import Run, set_up_run
from longflow.training.scoring import probed
from longflow.training.splits import cohorts_of_fold
from longflow.training.staging import stage
from longflow.training.start import plan_start

logger = logging.getLogger(__name__)

#: steps of each stage that are not counted: they load data, and compile
FIRST_STEPS = 3
#: seconds of steps that are measured in each stage, and the least and largest number of steps
SECONDS, LEAST_STEPS, MOST_STEPS = 20.0, 10, 500


def measure_training(job: FoldJob) -> MeasuredTraining:
    """Measure what the training of a fold would cost; of the fold itself nothing is read, and nothing is written.

    The steps are those of the training, in each stage of the method. They begin from random weights: where others
    would be the first, these need not exist yet.

    :param job: the fold.
    :returns: the record, which is written into the folder of the model.
    :raises LongflowError: the plan or the preprocessed data do not fit.
    """
    job = replace(job, settings=replace(job.settings, pretrained=None))
    kind = trained_kind(job)
    training, validating = cohorts_of_fold(job)
    training = plan_start(job, kind, training, overwrite=True).training
    processes = Processes.start(job.settings.device)
    if job.settings.scratch:
        training, validating = stage(job, training, validating)
    run = set_up_run(job, processes, validation_class_of(kind)(job, validating, processes.device))
    samples = samples_of(kind)(training, job.plans, job.configuration, job.settings.seed, run.method.augmented)
    batches = training_batches(samples, processes.index, processes.count, job.settings.workers, processes.device)
    run.counted = clock.now()
    run.method.train()
    seconds, waited, steps = _measure_steps(run, batches)
    main_memory = _main_memory()
    validation = processes.agree(probed(run, run.validation.score).expected)
    found = MeasuredTraining(
        plan_identity=job.plan_identity,
        batch_size=job.plan.batch_size,
        processes=processes.count,
        device=torch.cuda.get_device_name(processes.device)
        if processes.device.type == "cuda"
        else processes.device.type,
        steps=steps,
        seconds_per_step=processes.agree(seconds),
        seconds_per_validation=validation,
        data_wait_share=processes.agree(waited),
        peak_memory=_highest(processes, peak_memory(processes.device)),
        main_memory=_highest(processes, main_memory),
    )
    if processes.first:
        write_measured(found, job.model)
        logger.info("%s", description_of(found, run))
    processes.end()
    return found


def _measure_steps(run: Run, batches: Iterator[Batch]) -> tuple[float, float, int]:
    """Measure steps of all stages.

    :returns: seconds of a step; share of them that batches were waited for; number of measured steps.
    """
    seconds = waited = 0.0
    steps = 0
    stages = run.method.stages
    for begins, ends in zip(stages, (*stages[1:], 1.0), strict=True):
        run.progress = begins
        first = clock.now()
        for _ in range(FIRST_STEPS):
            first = clock.now()
            _step(run, batches)
            run.settle()  # waits for the device
        step = run.processes.agree(clock.now() - first)
        count = min(MOST_STEPS, max(LEAST_STEPS, math.ceil(SECONDS / max(step, 1e-6))))
        begun = clock.now()
        for _ in range(count):
            waited += (ends - begins) * _step(run, batches) / count
        run.settle()
        seconds += (ends - begins) * (clock.now() - begun) / count
        steps += count
    return seconds, waited / seconds, steps


def _step(run: Run, batches: Iterator[Batch]) -> float:
    """Update once, as the training does. :returns: seconds that the batch was waited for."""
    begun = clock.now()
    batch = next(batches)
    waited = clock.now() - begun
    begin_due_stage(run, batch)
    add_losses(run.state, train_step(run, batch))
    run.state.iteration += 1
    run.state.batches += run.processes.count
    return waited


def _main_memory() -> int | None:
    """Return the bytes of main memory that this process held at most, and that its workers hold."""
    own = peak_memory(torch.device("cpu"))
    workers = psutil.Process().children(recursive=True)
    return None if own is None else own + sum(worker.memory_info().rss for worker in workers)


def _highest(processes: Processes, value: int | None) -> int | None:
    """Return the highest value of all processes; None where they do not know it."""
    return None if value is None else int(processes.agree(float(value)))


def description_of(found: MeasuredTraining, run: Run) -> str:
    """Say what was measured, and what follows for the training."""
    total = run.total_iterations
    hours = found.seconds_of(total, run.job.plans) / 3600
    memory = "" if found.main_memory is None else f", {found.main_memory / 1e9:.1f} GB of main memory"
    return (
        f"Measured in {found.steps} steps ({found.device}): {found.seconds_per_step:.3g} s a step, of which "
        f"{100 * found.data_wait_share:.0f} % are spent waiting for batches; {found.seconds_per_validation:.3g} s a "
        f"validation{memory}. A training of {total} steps takes about {hours:.2g} hours."
    )
