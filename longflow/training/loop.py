"""Train a fold, with any method: data, model, loop, validation, checkpoints."""

import logging
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from longflow.distributed import Processes
from longflow.errors import ConfigurationError
from longflow.files import exclusive_lock
from longflow.job import FoldJob
from longflow.methods.batches import Batch
from longflow.methods.method import Method, Recipe
from longflow.methods.registry import method_class_for, samples_of, validation_class_of
from longflow.methods.weights import load_weights, read_checkpoint, write_checkpoint
from longflow.networks.precision import autocast
from longflow.paths import FoldPaths
from longflow.stop import Stopped, StopSignal
from longflow.training import clock
from longflow.training.checkpoints import restart_average, save_state, update_average
from longflow.training.cost import record_cost
from longflow.training.loader import training_batches
from longflow.training.logbook import EpochRecord, Logbook
from longflow.training.memory import warn_of_memory
from longflow.training.run import OnActivity, Run, State, set_up_run, step_of
from longflow.training.scoring import may_validate, must_probe, predict_out_of_fold, probe, validate
from longflow.training.splits import cohorts_of_fold
from longflow.training.staging import stage
from longflow.training.start import Start, begin, is_finished, of_several_processes, plan_start, record_start
from longflow.training.validation import Score, Validation

logger = logging.getLogger(__name__)

#: nnU-Net's exponent
POLYNOMIAL = 0.9

OnProgress = Callable[[float, State], None]
AfterEpoch = Callable[[FoldPaths], None]


def train_fold(
    job: FoldJob,
    overwrite: bool = False,
    on_progress: OnProgress = lambda *_: None,
    after_epoch: AfterEpoch = lambda *_: None,
    on_activity: OnActivity = lambda *_: None,
) -> FoldPaths:
    """Train one fold, or continue where an earlier command was stopped; a finished fold stays as it is.

    :param job: the fold.
    :param overwrite: train from scratch, even if the fold is finished or begun.
    :param on_progress: called in the first process after each step, with the share of the run that is done.
    :param after_epoch: called in the first process after each epoch (to draw).
    :param on_activity: called in the first process before each item of a validation, with the share of the run that is
        done and what is being done.
    :returns: the folder of the fold.
    :raises LongflowError: the plan, the preprocessed data or an earlier checkpoint do not fit.
    :raises InUseError: another process trains this fold.
    :raises Stopped: after a signal (:mod:`longflow.stop`), once the state is saved.
    """
    kind = trained_kind(job)

    # data
    training, validating = cohorts_of_fold(job)
    if not overwrite and is_finished(job):
        return job.paths
    plan_start(job, kind, training, overwrite)
    processes = Processes.start(job.settings.device)
    if job.settings.scratch:
        training, validating = stage(job, training, validating)
    validation = validation_class_of(kind)(job, validating, processes.device)

    # files are written from here on, so that an error before costs nothing
    doing = f"Fold {job.fold} of {job.model.folder.name} is being trained"
    with exclusive_lock(job.paths.lock, doing) if processes.first else nullcontext():
        # until now another process may have trained the fold
        if not overwrite and processes.from_first(lambda: is_finished(job)):
            processes.end()
            return job.paths
        start = processes.from_first(lambda: plan_start(job, kind, training, overwrite))
        start = replace(start, training=replace(start.training, folder=training.folder))  # that of this machine
        run = _begin(job, processes, validation, start, overwrite)
        samples = samples_of(kind)(
            start.training, job.plans, job.configuration, job.settings.seed, run.method.augmented
        )
        run.on_activity = on_activity
        _train(run, samples, on_progress, after_epoch)
    return job.paths


def trained_kind(job: FoldJob) -> type[Method]:
    """Return the class of the method of a fold.

    :param job: the fold.
    :returns: the class.
    :raises ConfigurationError: the method has nothing to train.
    """
    kind = method_class_for(job.method, job.plans)
    if not kind.trains:
        raise ConfigurationError(
            f"The method '{job.method}' has nothing to train; longflow_evaluate compares it with others."
        )
    return kind


def _begin(job: FoldJob, processes: Processes, validation: Validation, start: Start, overwrite: bool) -> Run:
    """Set up a run and write its settings."""
    if processes.first:
        warn_of_memory(job, processes.device)
    run = set_up_run(job, processes, validation)
    if processes.count > 1 and processes.first:
        logger.info("%s", of_several_processes(run))
    if job.plans.covariates and not run.method.uses_covariates and processes.first:
        names = ", ".join(covariate.name for covariate in job.plans.covariates)
        logger.warning("The method '%s' does not use the covariates of the dataset (%s).", job.method, names)
    first_weights = begin(run, start)
    if processes.first:
        if overwrite:
            _forget(job.paths)
        record_start(run, start, first_weights)
    return run


def _forget(paths: FoldPaths) -> None:
    """Delete what an earlier training of the fold left."""
    # without these the fold is unfinished: stopped now and started without --overwrite, it continues
    for path in (paths.final, paths.latest, paths.best, paths.pretrained, paths.labelled_subjects):
        path.unlink(missing_ok=True)
    # with other splits, predictions of subjects that no longer validate would count as predictions of this run
    shutil.rmtree(paths.validations, ignore_errors=True)


def _train(run: Run, samples: Dataset, on_progress: OnProgress, after_epoch: AfterEpoch) -> None:
    """Iterate until the budget is used, then finish the fold; after a signal, leave it to be continued."""
    paths, processes = run.job.paths, run.processes
    log = Logbook(paths, run.state.iteration) if processes.first else None
    try:
        with StopSignal() as run.stop:
            _loop(run, samples, log, on_progress, after_epoch)
            if processes.first:
                save_state(run)
            _finish(run)
        processes.end()
    except Stopped:
        if processes.first:
            logger.info("Stopped at iteration %d; the state is saved.", run.state.iteration)
        processes.end()
        raise
    finally:
        if log:
            log.close()


def _loop(run: Run, samples: Dataset, log: Logbook | None, on_progress: OnProgress, after_epoch: AfterEpoch) -> None:
    """Iterate until the budget is used; after a signal, save the state.

    :raises Stopped: after a signal.
    """
    state, settings, processes = run.state, run.job.settings, run.processes
    first = state.batches + processes.index
    batches = training_batches(samples, first, processes.count, settings.workers, run.device)
    last_checkpoint = epoch_start = run.counted = clock.now()
    waited = worked = 0.0
    run.method.train()
    run.advance()

    def end_epoch(score: Score | None) -> None:
        nonlocal waited, worked, epoch_start
        _record(run, log, score, clock.now() - epoch_start, waited / worked if worked else 0.0)
        if processes.first:
            after_epoch(run.job.paths)
        waited, worked, epoch_start = 0.0, 0.0, clock.now()

    try:
        while run.progress < 1:
            # an epoch whose validation was stopped in an earlier command
            if run.epoch_is_complete:
                end_epoch(validate(run) if processes.from_first(lambda: may_validate(run)) else None)

            # step
            begun = clock.now()
            batch = next(batches)
            fetched = clock.now()
            begin_due_stage(run, batch)
            losses = train_step(run, batch)
            waited, worked = waited + fetched - begun, worked + clock.now() - begun
            state.iteration += 1
            state.batches += processes.count
            add_losses(state, losses)
            if processes.first:
                on_progress(run.share_done, state)
            run.count_time()
            if run.decides and processes.from_first(lambda: must_probe(run)):
                probe(run)
            run.advance()

            # epoch
            if run.epoch_is_complete and run.progress < 1:
                run.settle()
                end_epoch(validate(run) if processes.from_first(lambda: may_validate(run)) else None)

            # checkpoint
            if processes.first and clock.now() - last_checkpoint > settings.checkpoint_every:
                save_state(run)
                last_checkpoint = clock.now()
            if run.decides:
                _stop_if_told(run)
                run.plan_decision()

        # last epoch, also of an earlier command that was killed in its validation
        if state.loss_count:
            if processes.first:
                save_state(run)  # the validation may take long
            end_epoch(validate(run))
        _stop_if_told(run)
    except Stopped:
        if processes.first:
            save_state(run)
        raise


def _stop_if_told(run: Run) -> None:
    """Stop, if any of the processes received a signal.

    :raises Stopped: one did.
    """
    if run.processes.agree(float(run.stop.received)):
        raise Stopped


def begin_due_stage(run: Run, batch: Batch) -> None:
    """Begin the method's next stage where it is due: from the averaged weights, everything else from scratch.

    The best weights so far were the best of another stage.

    :param run: changed in place.
    :param batch: of the next step.
    """
    state, method = run.state, run.method
    if state.stage + 1 == len(method.stages) or run.progress < method.stages[state.stage + 1]:
        return
    state.stage, state.stage_iteration = state.stage + 1, state.iteration
    state.best_value, state.loss_sums, state.loss_count = None, {}, 0
    state.prediction_cost = None  # of another network
    run.optimizer.zero_grad(set_to_none=True)
    run.optimizer.state.clear()
    method.load_state_dict(run.average)
    with autocast(run.device):
        method.begin_stage(state.stage, batch)
    restart_average(run)
    run.step = step_of(method, run.processes, run.job.settings.compile)  # other weights are trained
    logger.info("Stage %d of %d begins after iteration %d.", state.stage + 1, len(method.stages), state.iteration)


def train_step(run: Run, batch: Batch) -> dict[str, Tensor]:
    """Update once; return the loss and its terms, which a GPU may still have to compute.

    Randomness depends on the seed and the number of the batch alone.

    :param run: changed in place.
    :param batch: to learn from.
    :returns: scalars by name.
    """
    torch.manual_seed(run.job.settings.seed * 1_000_003 + run.state.batches + run.processes.index)
    run.state.learning_rate = run.learning_rate * schedule(run.progress_of_stage(run.progress), run.recipe)
    for group in run.optimizer.param_groups:
        group["lr"] = run.state.learning_rate
    run.optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
    with autocast(run.device):
        loss = run.step(batch)
    run.check.add(loss, run.state.iteration)
    loss.backward()
    nn.utils.clip_grad_norm_(run.method.parameters(), run.recipe.gradient_clip)
    run.optimizer.step()
    if run.recipe.ema_decay:
        in_stage = run.state.iteration - run.state.stage_iteration
        update_average(run.average, run.method.state_dict(), run.recipe.ema_decay, in_stage)
    losses = {"loss": loss, **{f"loss_{name}": term for name, term in run.method.terms.items()}}
    return {name: torch.as_tensor(value).detach() for name, value in losses.items()}


def add_losses(state: State, losses: dict[str, Tensor]) -> None:
    """Add the losses of a step to the sums since the last record, where they are: the device is not waited for.

    :param state: changed in place.
    :param losses: scalars by name.
    """
    for name, value in losses.items():
        # float64 as Python's numbers, which Apple's GPUs do not have
        value = value if value.device.type == "mps" else value.double()
        state.loss_sums[name] = state.loss_sums.get(name, 0.0) + value
    state.loss_count += 1


def schedule(progress: float, recipe: Recipe) -> float:
    """Compute the share of the learning rate: a linear rise over the warm-up, then the recipe's decay to zero.

    :param progress: share of the stage that is done, 0 to 1.
    :param recipe: warm-up and form of the decay.
    :returns: 0 to 1.

    >>> recipe = Recipe(schedule="cosine", warmup=0.1)
    >>> schedule(0.05, recipe), schedule(0.1, recipe), round(schedule(0.55, recipe), 6), round(schedule(1.0, recipe), 6)
    (0.5, 1.0, 0.5, 0.0)
    """
    if progress < recipe.warmup:
        return max(progress, 1e-3) / recipe.warmup
    rest = max(0.0, 1 - (progress - recipe.warmup) / (1 - recipe.warmup))
    if recipe.schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * rest))
    return rest**POLYNOMIAL if recipe.schedule == "polynomial" else rest


def _record(run: Run, log: Logbook | None, score: Score | None, epoch_seconds: float, wait_share: float) -> None:
    """Record an epoch and begin the next; a loss is the mean over the processes."""
    state = run.state
    run.settle()
    every = run.processes.gather({name: value / max(state.loss_count, 1) for name, value in state.loss_sums.items()})
    common = [name for name in every[0] if all(name in one for one in every)]
    means = {name: sum(one[name] for one in every) / len(every) for name in common}
    state.loss_sums, state.loss_count = {}, 0
    if log is None:
        return
    record = EpochRecord(
        epoch=math.ceil(state.iteration / run.iterations_per_epoch),
        iteration=state.iteration,
        seconds=state.seconds,
        loss=means.pop("loss"),
        learning_rate=state.learning_rate,
        epoch_seconds=epoch_seconds,
        data_wait_share=wait_share,
        found={**means, **(score.columns if score else {})},
    )
    log.add(record)
    note = f", {score.note}" if score else ""
    logger.debug("Epoch %d, iteration %d: loss %.5f%s", record.epoch, record.iteration, record.loss, note)


def _finish(run: Run) -> None:
    """Validate the last weights, write the out-of-fold predictions of the kept ones, mark the fold as finished."""
    state, paths = run.state, run.job.paths
    if state.stage + 1 < len(run.method.stages):
        logger.warning(
            "The run ended in stage %d of the %d stages of the method, so that the later ones are not trained. Give it "
            "more time or iterations, with --overwrite.",
            *(state.stage + 1, len(run.method.stages)),
        )
    if state.validated_iteration != state.iteration:
        validate(run)
    kept = run.processes.from_first(lambda: read_checkpoint(paths.best))
    load_weights(run.method, kept.part("weights"), paths.best)
    predict_out_of_fold(run, kept)
    if not run.processes.first:
        return
    record_cost(run)
    write_checkpoint(kept, paths.final)
    paths.latest.unlink(missing_ok=True)
    logger.info(
        "Fold finished: %s at iteration %d; kept are the weights of iteration %d.",
        *(state.note, state.validated_iteration, state.best_iteration),
    )
