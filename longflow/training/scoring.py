"""Score and predict during a run, and keep to its time budget: measure what both cost, shorten them where needed."""

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

from torch import Tensor

from longflow.errors import DataError
from longflow.methods.method import Method
from longflow.methods.weights import Checkpoint, read_checkpoint, record_steps, write_checkpoint
from longflow.stop import Stopped
from longflow.training import clock
from longflow.training.checkpoints import averaged_weights, record_score
from longflow.training.clock import Pace
from longflow.training.least_steps import MEASURED_AT, could_take_fewer, least_steps
from longflow.training.run import Run
from longflow.training.validation import Score

logger = logging.getLogger(__name__)

#: with a time budget, validation begins after this share of it and takes about as large a share of the time
VALIDATION_SHARE = 0.1
#: share of a time budget that one validation takes at most; where all items would take longer, fewer are scored
LONGEST_VALIDATION = 0.2
#: after this share of a time budget, the cost of its end is measured
PROBE_SHARE = 0.05
#: no second item is measured once the first took this share of a time budget
PROBED_SHARE = 0.01
#: a time budget may be exceeded by this share before an out-of-fold prediction is left out
TOLERANCE = 0.1


def must_probe(run: Run) -> bool:
    """Tell whether the cost of the end of a run is to be measured: once in each stage, with a time budget only."""
    state, budget = run.state, run.job.settings.max_time
    return budget is not None and state.prediction_cost is None and state.seconds >= PROBE_SHARE * budget


def probe(run: Run) -> None:
    """Measure what a validation and the out-of-fold predictions cost, by a few items of each; keep the time for them.

    Where a validation would take too long, fewer items are scored from here on.
    """
    state, budget = run.state, run.job.settings.max_time
    longest, quick = LONGEST_VALIDATION * budget, PROBED_SHARE * budget
    scoring = probed(run, run.validation.score, clock.now() + quick)
    predicting = probed(run, run.validation.finish, clock.now() + quick)
    if run.processes.first:
        shutil.rmtree(run.job.paths.validations, ignore_errors=True)  # those of the kept weights are written at the end
    state.prediction_cost = predicting.expected
    state.validation_cost, state.scored_items = scoring.expected, None
    if scoring.of and scoring.expected > longest:
        state.scored_items = max(1, int(longest / scoring.last_item) * run.processes.count)
        state.validation_cost = state.scored_items * scoring.last_item / run.processes.count
        logger.warning(
            "Scoring all %d items of the validation would take about %.0f s of a time budget of %.0f s: %d are scored.",
            *(scoring.of, scoring.expected, budget, state.scored_items),
        )
    run.count_time()
    run.take_state_of_first()
    logger.info(
        "About %.0f s of the time budget are kept for the last validation and the out-of-fold predictions.",
        run.reserved,
    )


def probed(run: Run, work: Callable[[Method], object], until: float = math.inf) -> Pace:
    """Measure a few items of a validation with the averaged weights.

    :param run: whose method works on them.
    :param work: ``score`` or ``finish`` of the validation.
    :param until: time of the clock at which no further item is begun.
    :returns: the pace, which knows how long all items are expected to take.
    """
    with _evaluated(run, run.average), run.pace("measuring the time of validation", until=until, probe=True) as pace:
        work(run.method)
    return pace


def may_validate(run: Run) -> bool:
    """Tell whether an epoch is validated: always, unless a time budget leaves validation no time yet or no more."""
    state, budget = run.state, run.job.settings.max_time
    if budget is None:
        return True
    early = state.seconds < VALIDATION_SHARE * budget
    spent = state.validation_seconds > VALIDATION_SHARE * state.seconds
    cost = max(state.validation_cost, state.check_cost if _measures_next(run) else 0.0)
    fits = state.seconds + cost < budget - run.reserved
    return fits and not early and not spent


@contextmanager
def _evaluated(run: Run, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the method these weights, the solver steps of validations and the mode of evaluation within the block.

    All processes take the weights of the first one: some numbers, such as those of batch normalisation, are its own.
    """
    run.processes.take_from_first(weights.values())
    method, planned = run.method, run.method.steps
    current = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    method.load_state_dict(weights)
    method.steps = run.validation_steps
    method.eval()
    try:
        yield
    finally:
        method.load_state_dict(current)
        method.steps = planned
        method.train()


def validate(run: Run) -> Score:
    """Score the averaged weights; keep them if they are the best so far, or if the recipe keeps the last.

    Only scores of equal solver steps are compared: where their number changes, the best weights are scored again.

    :raises Stopped: a signal has come; the run is as it was before, apart from its time.
    """
    before = deepcopy(vars(run.state))
    try:
        return _validate(run)
    except Stopped:
        run.count_time()
        vars(run.state).update(before, seconds=run.state.seconds)
        raise


def _validate(run: Run) -> Score:
    """Validate; the state of the run is changed."""
    state = run.state
    run.count_time()
    begun, before = state.seconds, run.validation_steps
    measures, state.validations = _measures_next(run), state.validations + 1
    with _evaluated(run, run.average):
        score = _measure_steps(run) if measures else _score(run)
    if run.validation_steps != before and state.best_value is not None and run.recipe.keep == "best":
        _score_best_again(run)
    state.note = score.note
    better = state.best_value is None or math.isnan(state.best_value) or score.value < state.best_value
    if better or run.recipe.keep == "last":
        state.best_value, state.best_iteration = score.value, state.iteration
        if run.processes.first:
            write_checkpoint(averaged_weights(run, score), run.job.paths.best)
    state.validated_iteration = state.iteration
    run.count_time()
    cost = state.seconds - begun
    state.validation_seconds += cost
    if measures:
        state.check_cost = cost
    else:
        state.validation_cost = cost
    run.take_state_of_first()
    return score


def _score(run: Run) -> Score:
    """Score the method with the weights and steps that it has."""
    state = run.state
    try:
        with run.pace("validating", most=state.scored_items):
            return run.validation.score(run.method)
    except DataError:
        if state.scored_items is None:
            raise
        # a few items may show nothing where all of them do
        state.scored_items = None
        with run.pace("validating"):
            return run.validation.score(run.method)


def _measures_next(run: Run) -> bool:
    """Tell whether the next validation measures the number of solver steps: a few ones, among them the last.

    Where a time budget shortens validations, their few items say too little, and the planned number stays.
    """
    due = run.state.validations + 1 in MEASURED_AT or run.progress >= 1
    return due and run.state.scored_items is None and could_take_fewer(run.method)


def _measure_steps(run: Run) -> Score:
    """Find the least number of solver steps for the weights that the method has, and validate with it from here on.

    :param run: whose method is ready to be scored.
    :returns: the score with this number.
    """
    state, method, planned = run.state, run.method, run.job.plans.inference.steps
    before, seconds = method.steps, {}

    def score_with(steps: int) -> Score:
        method.steps, begun = steps, clock.now()
        score = _score(run)
        seconds[steps] = clock.now() - begun
        return score

    state.steps, score = least_steps(planned, score_with)
    method.steps = state.steps
    state.validation_cost = seconds[state.steps]
    if state.steps != before:
        logger.info(
            "Solver steps of validations from here on: %d (so far %d, planned %d), the fewest whose predictions equal "
            "those of the planned steps within 1 %% of the skill.",
            *(state.steps, before, planned),
        )
        if state.prediction_cost and seconds.get(before):
            state.prediction_cost *= seconds[state.steps] / seconds[before]
    return score


def _score_best_again(run: Run) -> None:
    """Score the best weights so far with the present number of solver steps."""
    state, path = run.state, run.job.paths.best
    best = run.processes.from_first(lambda: read_checkpoint(path))
    with _evaluated(run, best.part("weights")):
        score = _score(run)
    state.best_value, state.best_iteration = score.value, best.header["iteration"]
    record_score(best, score)
    if run.processes.first:
        write_checkpoint(best, path)


def settle_steps(run: Run, kept: Checkpoint) -> None:
    """Predict with the number of solver steps of the validations from here on, and record it with the kept weights.

    It is measured again where other weights are kept than the last ones.

    :param run: whose method has the kept weights.
    :param kept: their checkpoint; its header gets the record, and the file of the best weights is written again.
    """
    state, method = run.state, run.method
    if state.steps is None:
        return
    method.steps = state.steps
    if kept.header["iteration"] != state.validated_iteration:
        _measure_steps(run)
    record_steps(kept.header, method)
    if run.processes.first:
        write_checkpoint(kept, run.job.paths.best)


def predict_out_of_fold(run: Run, kept: Checkpoint) -> None:
    """Write the out-of-fold predictions, or as many of them as the time budget still allows.

    :param run: whose method has the kept weights.
    :param kept: their checkpoint, with the number of solver steps of the predictions afterwards.
    """
    state, budget = run.state, run.job.settings.max_time
    run.method.eval()
    settle_steps(run, kept)
    pace = run.pace("predicting out of fold")
    run.count_time()
    if budget is not None:
        pace.until = clock.now() + (1 + TOLERANCE) * budget - state.seconds
    with pace:
        run.validation.finish(run.method)
    if pace.shortened:
        logger.warning(
            "Only %d of %d out-of-fold predictions were written: the time budget of %.0f s is used. longflow_find_best "
            "compares models that have the same ones: train again with more time and --overwrite.",
            *(pace.done, pace.of, budget),
        )
