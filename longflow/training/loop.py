"""The training loop, for every method: data, model, loop, validation, checkpoints."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import Tensor, nn

from longflow.errors import ConfigurationError, DataError
from longflow.files import exclusive_lock, read_json, write_json
from longflow.methods.batches import Batch
from longflow.methods.method import Recipe
from longflow.methods.registry import method_class_for, samples_of
from longflow.methods.weights import load_weights, read_checkpoint, write_checkpoint
from longflow.networks.precision import autocast
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans, read_plans, write_plans
from longflow.preprocessing.series import prepared_subjects
from longflow.training.cost import record_cost
from longflow.training.distributed import Processes
from longflow.training.loader import training_loader
from longflow.training.logbook import EpochRecord, Logbook
from longflow.training.run import (
    Run,
    RunSettings,
    State,
    Stopped,
    averaged_weights,
    load_state,
    restart_average,
    save_state,
    set_up_run,
)
from longflow.training.splits import cohorts_of_fold, prepared_scans, splits_of
from longflow.training.start import begin_with, check_same_settings, pretrained_file, with_labelled_subjects
from longflow.training.stop import StopSignal
from longflow.training.validation import Score, validation_of

logger = logging.getLogger(__name__)

#: with a time budget, validation begins after this share of it and takes about as large a share of the time
VALIDATION_SHARE = 0.1
#: nnU-Net's exponent
POLYNOMIAL = 0.9


def train_fold(
    dataset: DatasetPaths,
    plans_name: str,
    method_name: str,
    configuration: str,
    fold: int,
    settings: RunSettings,
    overwrite: bool = False,
    on_progress: Callable[[float, State], None] = lambda *_: None,
    after_epoch: Callable[[FoldPaths], None] = lambda *_: None,
) -> FoldPaths:
    """Train one fold, or go on where an earlier command was stopped; a finished fold is left as it is.

    :param on_progress: called in the first process after each step with the share of the run that is done.
    :param after_epoch: called in the first process after each epoch (to draw).
    :raises LongflowError: the plan, the preprocessed data or an earlier checkpoint do not fit.
    :raises InUseError: another process trains this fold.
    :raises Stopped: after SIGTERM or Ctrl-C, once the state is saved.
    """
    plans = read_plans(dataset.plans(plans_name))
    plan = plans.configuration(configuration)
    kind = method_class_for(method_name, plans)
    if not kind.trains:
        raise ConfigurationError(
            f"The method '{method_name}' has nothing to train; longflow_evaluate shows it beside others."
        )
    model = dataset.model(method_name, plans_name, configuration)
    paths = model.fold(fold)

    # data
    cache = dataset.cache(plans_name, plan.data_identifier)
    training, validating = cohorts_of_fold(dataset, plans.task, cache, fold)
    if paths.run.is_file() and not overwrite:
        check_same_settings(paths, settings)
    if paths.final.is_file() and not overwrite:
        logger.info(
            "Fold %d of %s is finished (%s). Train it again with --overwrite.", fold, model.folder.name, paths.final
        )
        return paths
    going_on = paths.latest.is_file() and not overwrite
    pretrained = None if going_on or not settings.pretrained else pretrained_file(dataset, settings, model, fold)
    training = with_labelled_subjects(training, kind, paths, settings, going_on)

    # model
    processes = Processes.start(settings.device)
    validation = validation_of(kind, dataset, plans, configuration, fold, validating, processes.device)
    run = set_up_run(paths, method_name, plans, configuration, settings, processes, validation)
    begun_with = None
    if going_on:
        load_state(run)
        logger.info("Going on from iteration %d (%s).", run.state.iteration, paths.latest)
    elif pretrained:
        begun_with = begin_with(run, pretrained)

    # from here on files are written, so that an error before costs nothing
    doing = f"Fold {fold} of {model.folder.name} is being trained"
    with exclusive_lock(paths.lock, doing) if processes.first else nullcontext():
        if overwrite and processes.first:
            # without these the fold is begun anew: stopped now and started without --overwrite, it goes on
            for path in (paths.final, paths.latest, paths.best, paths.pretrained, paths.labelled_subjects):
                path.unlink(missing_ok=True)
            # by other splits, those of subjects who do not validate any more would be taken for this run's
            shutil.rmtree(paths.validations, ignore_errors=True)
        if processes.first:
            write_plans(plans, model.plans)
            write_json(read_json(dataset.raw / "dataset.json"), model.dataset_json)
            write_json({"settings": asdict(settings), **run.header, "torch": torch.__version__}, paths.run)
            if training.labelled is not None:
                write_json(sorted(training.labelled), paths.labelled_subjects)
            if begun_with:
                write_json(begun_with, paths.pretrained)

        # loop
        samples = samples_of(run.method)(training, plans, configuration, settings.seed, run.method.augmented)
        log = Logbook(paths, run.state.iteration) if processes.first else None
        try:
            with StopSignal() as stop:
                _loop(run, samples, log, stop, on_progress, after_epoch)
            if processes.first:
                save_state(run)
                _finish(run)
                paths.latest.unlink(missing_ok=True)
            processes.end()
        except Stopped:
            processes.end()
            raise
        finally:
            if log:
                log.close()
    return paths


def number_of_folds(dataset: DatasetPaths, plans: Plans) -> int:
    """How many folds a dataset has; the splits are made if there are none yet."""
    identifiers = sorted({plan.data_identifier for plan in plans.configurations.values()})
    caches = [dataset.cache(plans.plans_name, identifier) for identifier in identifiers]
    prepared = next((cache for cache in caches if cache.is_dir() and prepared_subjects(cache)), caches[0])
    return len(splits_of(dataset, plans.task, prepared, prepared_scans(prepared, plans.task)))


def _loop(run: Run, samples, log: Logbook | None, stop: StopSignal, on_progress, after_epoch) -> None:
    """Iterate until the budget is used."""
    state, processes = run.state, run.processes
    first = state.iteration * processes.count + processes.index
    pin = run.device.type == "cuda"
    batches = iter(training_loader(samples, first, processes.count, run.settings.workers, pin))
    last_checkpoint = epoch_start = time.monotonic()
    waited = worked = 0.0
    run.method.train()
    while (progress := processes.agree(run.progress)) < 1:
        begun = time.monotonic()
        batch = next(batches).to(run.device)
        fetched = time.monotonic()
        _begin_due_stage(run, batch, progress)
        losses = _train_step(run, batch, progress)
        seconds = time.monotonic() - begun
        waited, worked = waited + fetched - begun, worked + seconds
        state.iteration += 1
        for name, value in losses.items():
            state.loss_sums[name] = state.loss_sums.get(name, 0.0) + value
        state.loss_count += 1
        state.seconds += seconds

        if processes.first:
            on_progress(progress, state)
        if log and (state.iteration % run.plans.training.iterations_per_epoch == 0 or run.ended):
            if run.ended:
                save_state(run)  # the last validation may take long
            score = _validate(run) if run.ended or _may_validate(run) else None
            _record(run, log, score, time.monotonic() - epoch_start, waited / worked)
            after_epoch(run.paths)
            waited, worked, epoch_start = 0.0, 0.0, time.monotonic()
        if processes.first and time.monotonic() - last_checkpoint > run.settings.checkpoint_every:
            save_state(run)
            last_checkpoint = time.monotonic()
        if processes.agree(float(stop.asked)):
            if processes.first:
                save_state(run)
                logger.info("Stopped at iteration %d; the state is saved.", state.iteration)
            raise Stopped


def _begin_due_stage(run: Run, batch: Batch, progress: float) -> None:
    """Where the method's next stage is due, begin it from the averaged weights, and all else anew.

    The best weights so far were the best of another stage.
    """
    state, method = run.state, run.method
    if state.stage + 1 == len(method.stages) or progress < method.stages[state.stage + 1]:
        return
    state.stage, state.stage_iteration = state.stage + 1, state.iteration
    state.best_value, state.loss_sums, state.loss_count = None, {}, 0
    run.optimizer.zero_grad(set_to_none=True)
    run.optimizer.state.clear()
    method.load_state_dict(run.average)
    with autocast(run.device):
        method.begin_stage(state.stage, batch)
    restart_average(run)
    logger.info("Stage %d of %d begins after iteration %d.", state.stage + 1, len(method.stages), state.iteration)


def _train_step(run: Run, batch: Batch, progress: float) -> dict[str, float]:
    """One update; its loss and the terms of it. All that is random depends on seed, iteration and process."""
    seed, processes = run.settings.seed, run.processes
    torch.manual_seed(seed * 1_000_003 + run.state.iteration * processes.count + processes.index)
    for group in run.optimizer.param_groups:
        group["lr"] = run.learning_rate * schedule(run.progress_of_stage(progress), run.recipe)
    run.optimizer.zero_grad(set_to_none=True)  # before the forward pass, which then has their memory
    with autocast(run.device):
        loss = run.step(batch)
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(
            f"The loss became {value} at iteration {run.state.iteration}. Look for extreme intensities "
            "(longflow_verify), or train with a smaller --lr."
        )
    loss.backward()
    nn.utils.clip_grad_norm_(run.method.parameters(), run.recipe.gradient_clip)
    run.optimizer.step()
    if run.recipe.ema_decay:
        in_stage = run.state.iteration - run.state.stage_iteration
        update_average(run.average, run.method.state_dict(), run.recipe.ema_decay, in_stage)
    return {"loss": value, **{f"loss_{name}": float(term) for name, term in run.method.terms.items()}}


def schedule(progress: float, recipe: Recipe) -> float:
    """Share of the learning rate: a linear rise over the warm-up, then the recipe's way to zero.

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


@torch.no_grad()
def update_average(average: dict[str, Tensor], current: dict[str, Tensor], decay: float, iteration: int) -> None:
    """Exponential moving average of the weights; early on it forgets faster, so as not to drag the start along."""
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for name, value in average.items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def _may_validate(run: Run) -> bool:
    """Always, unless there is a time budget: then not before validation may have its share, nor beyond that share."""
    state, budget = run.state, run.settings.max_time
    early = budget is not None and state.seconds < VALIDATION_SHARE * budget
    spent = budget is not None and state.validation_seconds > VALIDATION_SHARE * state.seconds
    return not (early or spent)


def _validate(run: Run) -> Score:
    """Score the averaged weights; keep them if they are the best so far, or if the last are to be kept."""
    begun, state, method = time.monotonic(), run.state, run.method
    current = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    method.load_state_dict(run.average)
    score = run.validation.score(method.eval())
    method.load_state_dict(current)
    method.train()
    state.note = score.note
    better = state.best_value is None or math.isnan(state.best_value) or score.value < state.best_value
    if better or run.recipe.keep == "last":
        state.best_value, state.best_iteration = score.value, state.iteration
        write_checkpoint(averaged_weights(run, score), run.paths.best)
    state.validated_iteration = state.iteration
    used = time.monotonic() - begun
    state.seconds += used
    state.validation_seconds += used
    return score


def _record(run: Run, log: Logbook, score: Score | None, epoch_seconds: float, wait_share: float) -> None:
    """Write an epoch down and begin the next."""
    state = run.state
    means = {name: value / max(state.loss_count, 1) for name, value in state.loss_sums.items()}
    record = EpochRecord(
        epoch=math.ceil(state.iteration / run.plans.training.iterations_per_epoch),
        iteration=state.iteration,
        seconds=state.seconds,
        loss=means.pop("loss"),
        learning_rate=run.optimizer.param_groups[0]["lr"],
        epoch_seconds=epoch_seconds,
        data_wait_share=wait_share,
        found={**means, **(score.columns if score else {})},
    )
    state.loss_sums, state.loss_count = {}, 0
    log.add(record)
    found = f", {score.note}" if score else ""
    logger.debug("Epoch %d, iteration %d: loss %.5f%s", record.epoch, record.iteration, record.loss, found)


def _finish(run: Run) -> None:
    """Validate the last weights, write the out-of-fold predictions of those kept, mark the fold as finished."""
    if run.state.stage + 1 < len(run.method.stages):
        logger.warning(
            "The run ended in stage %d of the %d stages that the method has: it is not trained. Give it more time or "
            "iterations, with --overwrite.",
            *(run.state.stage + 1, len(run.method.stages)),
        )
    if run.state.validated_iteration != run.state.iteration:
        _validate(run)
    kept = read_checkpoint(run.paths.best)
    load_weights(run.method, kept.part("weights"), run.paths.best)
    run.validation.finish(run.method.eval(), run.paths)
    record_cost(run)
    write_checkpoint(kept, run.paths.final)
    logger.info(
        "Fold finished: %s at iteration %d; kept are the weights of iteration %d.",
        *(run.state.note, run.state.validated_iteration, run.state.best_iteration),
    )
