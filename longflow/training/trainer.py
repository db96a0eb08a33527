"""The training loop, for every method: settings, data, model, schedule, loop, checkpoints."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from longflow.data.dataset import training_series
from longflow.errors import ConfigurationError, DataError
from longflow.files import read_json, write_json
from longflow.methods.method import Method, build_method, method_class
from longflow.methods.weights import Checkpoint, check_identity, load_weights, read_checkpoint, write_checkpoint
from longflow.networks.precision import autocast, computes_bf16
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans, read_plans, write_plans
from longflow.preprocessing.series import load_prepared, prepared_subjects
from longflow.training.distributed import Processes
from longflow.training.logbook import EpochRecord, Logbook
from longflow.training.samplers import sampler_of, training_loader
from longflow.training.splits import read_or_draw_targets, read_or_make_splits, split_of_fold
from longflow.training.validation import ValidationScore, validate, write_validation_forecasts

logger = logging.getLogger(__name__)

#: with a time budget, validation begins after this share of it and takes about as large a share of the time
VALIDATION_SHARE = 0.1


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
    best_iteration: int = 0
    validated_iteration: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0


class Stopped(KeyboardInterrupt):
    """The run was asked to stop (SIGTERM, Ctrl-C) and has saved its state."""


@dataclass
class Run:
    """Everything the loop works with."""

    paths: FoldPaths
    method: Method
    step: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    header: dict
    settings: RunSettings
    device: torch.device
    state: State = field(default_factory=State)


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
    :raises Stopped: after SIGTERM or Ctrl-C, once the state is saved.
    """
    plans = read_plans(dataset.plans(plans_name))
    plan = plans.configuration(configuration)
    if not method_class(method_name).trains:
        raise ConfigurationError(
            f"The method '{method_name}' has nothing to train; longflow_evaluate shows it beside others."
        )
    model = dataset.model(method_name, plans_name, configuration)
    paths = model.fold(fold)

    # data
    cache = dataset.cache(plans_name, plan.data_identifier)
    scans = _prepared_scans(cache)
    splits = read_or_make_splits(dataset, scans)
    split = split_of_fold(splits, fold, dataset.splits)
    targets = read_or_draw_targets(dataset, splits, scans, plans.temporal.sequence_length)[fold]
    if paths.final.is_file() and not overwrite:
        logger.info(
            "Fold %d of %s is finished (%s). Train it again with --overwrite.", fold, model.folder.name, paths.final
        )
        return paths

    # model
    processes = Processes.start(settings.device)
    run = _set_up(paths, method_name, plans, configuration, settings, processes)
    if overwrite and processes.first:
        # without these the fold is begun anew: stopped now and started without --overwrite, it goes on
        for path in (paths.final, paths.latest, paths.best):
            path.unlink(missing_ok=True)
    if not overwrite and paths.latest.is_file():
        _load_state(run, plans, configuration, method_name)
        logger.info("Going on from iteration %d (%s).", run.state.iteration, paths.latest)
    if processes.first:
        paths.folder.mkdir(parents=True, exist_ok=True)
        write_plans(plans, model.plans)
        write_json(read_json(dataset.raw / "dataset.json"), model.dataset_json)
        write_json({"settings": asdict(settings), **run.header, "torch": torch.__version__}, paths.run)

    # loop
    samples = sampler_of(run.method)(
        cache, {subject: len(scans[subject]) for subject in split.train}, plans, configuration, settings.seed
    )
    log = Logbook(paths, run.state.iteration) if processes.first else None
    try:
        with _StopSignal() as stop:
            _loop(run, samples, plans, targets, cache, processes, log, on_progress, after_epoch, stop)
        if processes.first:
            save_state(run)
            _finish(run, dataset, targets, cache)
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
    return len(read_or_make_splits(dataset, _prepared_scans(prepared)))


def _prepared_scans(cache: Path) -> dict[str, list[str]]:
    """Cases of every prepared subject that has at least two scans, in order of time."""
    subjects = prepared_subjects(cache) if cache.is_dir() else []
    if not subjects:
        raise DataError(
            f"{cache} holds no preprocessed subject. Run longflow_preprocess (or longflow_plan_and_preprocess) first."
        )
    cases = {subject: load_prepared(cache, subject).properties.cases for subject in subjects}
    alone = sorted(subject for subject, found in cases.items() if len(found) < 2)
    if alone:
        logger.info(
            "%d subjects with one scan are left out: a forecast needs two (%s).", len(alone), ", ".join(alone[:5])
        )
    return {subject: found for subject, found in cases.items() if len(found) > 1}


def _set_up(
    paths: FoldPaths, method_name: str, plans: Plans, configuration: str, settings: RunSettings, processes: Processes
) -> Run:
    """Network, optimizer and averaged weights, from the seed."""
    torch.manual_seed(settings.seed)
    device = processes.device
    method = build_method(method_name, plans, configuration).to(device)
    method = method.to(
        memory_format=torch.channels_last_3d
        if len(plans.configuration(configuration).patch_size) == 3
        else torch.channels_last
    )
    rate = settings.learning_rate or plans.training.learning_rate
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate, weight_decay=plans.training.weight_decay)
    module: nn.Module = DistributedDataParallel(method) if processes.count > 1 else method
    step = compiled(module) if settings.compile else module
    average = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    header = {
        "method": method_name,
        "configuration": configuration,
        "plan_identity": plans.identity(configuration),
        "dataset": plans.dataset_name,
        "seed": settings.seed,
        "precision": "bf16" if computes_bf16(device) else "float32",
    }
    return Run(paths, method, step, optimizer, average, header, settings, device)


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


def _loop(run, samples, plans, targets, cache, processes, log, on_progress, after_epoch, stop) -> None:
    """Iterate until the budget is used."""
    settings, state, method = run.settings, run.state, run.method
    per_epoch = plans.training.iterations_per_epoch
    total = settings.iterations or (settings.epochs or plans.training.epochs) * per_epoch
    first = state.iteration * processes.count + processes.index
    batches = iter(training_loader(samples, first, processes.count, settings.workers, pin=run.device.type == "cuda"))
    last_checkpoint = epoch_start = time.monotonic()
    waited, worked = 0.0, 0.0
    method.train()
    while True:
        progress = processes.agree(state.seconds / settings.max_time if settings.max_time else state.iteration / total)
        if progress >= 1:
            break
        begun = time.monotonic()
        batch = next(batches).to(run.device)
        fetched = time.monotonic()
        loss = _train_step(run, batch, progress, plans)
        state.iteration += 1
        state.loss_sum += loss
        state.loss_count += 1
        state.seconds += time.monotonic() - begun
        waited += fetched - begun
        worked += time.monotonic() - begun

        if processes.first:
            on_progress(progress, state)

        ended = settings.max_time is None and state.iteration >= total
        if state.iteration % per_epoch == 0 or ended:
            epoch = math.ceil(state.iteration / per_epoch)
            score = _maybe_validate(run, targets, cache) if processes.first else None
            if log:
                epoch_seconds = time.monotonic() - epoch_start
                _record(run, log, plans, epoch, score, epoch_seconds, waited / worked, progress)
                after_epoch(run.paths)
            waited, worked, epoch_start = 0.0, 0.0, time.monotonic()
        if processes.first and time.monotonic() - last_checkpoint > settings.checkpoint_every:
            save_state(run)
            last_checkpoint = time.monotonic()
        if processes.agree(float(stop.asked)):
            if processes.first:
                save_state(run)
                logger.info("Stopped at iteration %d; the state is saved.", state.iteration)
            raise Stopped


def _train_step(run: Run, batch, progress: float, plans: Plans) -> float:
    """One update. All that is random in it depends on the seed and the iteration."""
    torch.manual_seed(run.settings.seed * 1_000_003 + run.state.iteration)
    rate = (run.settings.learning_rate or plans.training.learning_rate) * schedule(progress, plans.training.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with autocast(run.device):
        loss = run.step(batch)
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(
            f"The loss became {value} at iteration {run.state.iteration}. Look for extreme intensities "
            "(longflow_verify), or train with a smaller --lr."
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.method.parameters(), plans.training.gradient_clip)
    run.optimizer.step()
    update_average(run.average, run.method.state_dict(), plans.training.ema_decay, run.state.iteration)
    return value


def schedule(progress: float, warmup: float) -> float:
    """Share of the learning rate: a linear rise over ``warmup`` of the run, then a cosine to zero.

    >>> schedule(0.05, 0.1), schedule(0.1, 0.1), round(schedule(0.55, 0.1), 6), round(schedule(1.0, 0.1), 6)
    (0.5, 1.0, 0.5, 0.0)
    """
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


@torch.no_grad()
def update_average(average: dict[str, Tensor], current: dict[str, Tensor], decay: float, iteration: int) -> None:
    """Exponential moving average of the weights; early on it forgets faster, so as not to drag the start along."""
    decay = min(decay, (1 + iteration) / (10 + iteration))
    for name, value in average.items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def _maybe_validate(run: Run, targets, cache: Path) -> ValidationScore | None:
    """Validate; with a time budget, not before validation may have its share of it, nor beyond that share."""
    state, budget = run.state, run.settings.max_time
    if budget and (
        state.seconds < VALIDATION_SHARE * budget or state.validation_seconds > VALIDATION_SHARE * state.seconds
    ):
        return None
    return _validate(run, targets, cache)


def _validate(run: Run, targets, cache: Path) -> ValidationScore:
    """Score the averaged weights; keep them if they are the best so far."""
    begun, state, method = time.monotonic(), run.state, run.method
    current = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    method.load_state_dict(run.average)
    score = validate(method.eval(), cache, targets, run.device)
    method.load_state_dict(current)
    method.train()
    if state.best_nrmse is None or math.isnan(state.best_nrmse) or score.best < state.best_nrmse:
        state.best_nrmse, state.best_iteration = score.best, state.iteration
        write_checkpoint(_weights(run, {"nrmse": score.best}), run.paths.best)
    state.validated_iteration = state.iteration
    used = time.monotonic() - begun
    state.seconds += used
    state.validation_seconds += used
    return score


def _record(run: Run, log: Logbook, plans: Plans, epoch, score, epoch_seconds, wait_share, progress) -> None:
    state = run.state
    rate = (run.settings.learning_rate or plans.training.learning_rate) * schedule(progress, plans.training.warmup)
    loss = state.loss_sum / max(state.loss_count, 1)
    state.loss_sum, state.loss_count = 0.0, 0
    log.add(
        EpochRecord(
            epoch=epoch,
            iteration=state.iteration,
            seconds=state.seconds,
            loss=loss,
            learning_rate=rate,
            nrmse=score.best if score else None,
            lci_nrmse=score.lci if score else None,
            context_mean_nrmse=score.context_mean if score else None,
            epoch_seconds=epoch_seconds,
            data_wait_share=wait_share,
        )
    )
    found = f", NRMSE {score.best:.4f} (LCI {score.lci:.4f}, context mean {score.context_mean:.4f})" if score else ""
    logger.debug("Epoch %d, iteration %d: loss %.5f%s", epoch, state.iteration, loss, found)


def _finish(run: Run, dataset: DatasetPaths, targets, cache: Path) -> None:
    """Validate the last weights, write the out-of-fold forecasts of the best ones, mark the fold as finished."""
    if run.state.validated_iteration != run.state.iteration:
        _validate(run, targets, cache)
    best = read_checkpoint(run.paths.best)
    load_weights(run.method, best.part("weights"), run.paths.best)
    description, series = training_series(dataset.raw)
    scans = {scan.case: scan for one in series for scan in one.scans}
    write_validation_forecasts(run.method.eval(), cache, targets, scans, description, run.paths, run.device)
    write_checkpoint(best, run.paths.final)
    logger.info(
        "Fold finished: best validation NRMSE %.4f at iteration %d of %d.",
        run.state.best_nrmse,
        run.state.best_iteration,
        run.state.iteration,
    )


def _weights(run: Run, further: dict) -> Checkpoint:
    tensors = {f"weights.{name}": tensor for name, tensor in run.average.items()}
    return Checkpoint(tensors, {**run.header, "iteration": run.state.iteration, **further})


def save_state(run: Run) -> None:
    """Write everything that is needed to go on as if nothing had happened."""
    tensors = {f"weights.{name}": tensor for name, tensor in run.method.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    write_checkpoint(Checkpoint(tensors, {**run.header, "state": asdict(run.state)}), run.paths.latest)


def _load_state(run: Run, plans: Plans, configuration: str, method_name: str) -> None:
    checkpoint = read_checkpoint(run.paths.latest)
    check_identity(checkpoint.header, run.paths.latest, method_name, plans, configuration)
    load_weights(run.method, checkpoint.part("weights"), run.paths.latest)
    for name, tensor in checkpoint.part("average").items():
        run.average[name].copy_(tensor)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.part("optimizer").items():
        index, moment = name.split(".")
        moments.setdefault(int(index), {})[moment] = tensor
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": moments})
    run.state = State(**checkpoint.header["state"])


class _StopSignal:
    """Within its block, SIGTERM and Ctrl-C are a flag that the loop reads between two steps."""

    def __init__(self):
        self.asked = False
        self.handlers: dict[int, object] = {}

    def __enter__(self) -> "_StopSignal":
        # Python hears signals in the main thread alone
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True
        logger.warning("Stopping after this step; the state will be saved. (Once more: stop at once, without saving.)")
