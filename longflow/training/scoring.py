"""Score and predict during a run, and keep to its time budget: measure what both cost, shorten them where needed."""

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from longflow.errors import DataError
from longflow.methods.weights import write_checkpoint
from longflow.training import clock
from longflow.training.checkpoints import averaged_weights
from longflow.training.clock import Pace
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
    longest = LONGEST_VALIDATION * budget
    quick, show = PROBED_SHARE * budget, partial(run.show_item, "measuring the time of validation")
    with _averaged(run):
        with Pace(until=clock.now() + quick, probe=True, show=show) as scoring:
            run.validation.score(run.method)
        with Pace(until=clock.now() + quick, probe=True, show=show) as predicting:
            run.validation.finish(run.method)
    shutil.rmtree(run.job.paths.validations, ignore_errors=True)  # those of the kept weights are written at the end
    state.prediction_cost = predicting.expected
    state.validation_cost, state.scored_items = scoring.expected, None
    if scoring.of and scoring.expected > longest:
        state.scored_items = max(1, int(longest / scoring.last_item))
        state.validation_cost = state.scored_items * scoring.last_item
        logger.warning(
            "Scoring all %d items of the validation would take about %.0f s of a time budget of %.0f s: %d are scored.",
            *(scoring.of, scoring.expected, budget, state.scored_items),
        )
    run.count_time()
    logger.info(
        "About %.0f s of the time budget are kept for the last validation and the out-of-fold predictions.",
        run.reserved,
    )


def may_validate(run: Run) -> bool:
    """Tell whether an epoch is validated: always, unless a time budget leaves validation no time yet or no more."""
    state, budget = run.state, run.job.settings.max_time
    if budget is None:
        return True
    early = state.seconds < VALIDATION_SHARE * budget
    spent = state.validation_seconds > VALIDATION_SHARE * state.seconds
    fits = state.seconds + state.validation_cost < budget - run.reserved
    return fits and not early and not spent


@contextmanager
def _averaged(run: Run) -> Iterator[None]:
    """Give the method the averaged weights and the mode of evaluation within the block."""
    method = run.method
    current = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    method.load_state_dict(run.average)
    method.eval()
    try:
        yield
    finally:
        method.load_state_dict(current)
        method.train()


def validate(run: Run) -> Score:
    """Score the averaged weights; keep them if they are the best so far, or if the recipe keeps the last."""
    state = run.state
    run.count_time()
    begun, show = state.seconds, partial(run.show_item, "validating")
    with _averaged(run):
        try:
            with Pace(state.scored_items, show=show):
                score = run.validation.score(run.method)
        except DataError:
            if state.scored_items is None:
                raise
            # a few items may show nothing where all of them do
            state.scored_items = None
            with Pace(show=show):
                score = run.validation.score(run.method)
    state.note = score.note
    better = state.best_value is None or math.isnan(state.best_value) or score.value < state.best_value
    if better or run.recipe.keep == "last":
        state.best_value, state.best_iteration = score.value, state.iteration
        write_checkpoint(averaged_weights(run, score), run.job.paths.best)
    state.validated_iteration = state.iteration
    run.count_time()
    state.validation_cost = state.seconds - begun
    state.validation_seconds += state.validation_cost
    return score


def predict_out_of_fold(run: Run) -> None:
    """Write the out-of-fold predictions, or as many of them as the time budget still allows."""
    state, budget = run.state, run.job.settings.max_time
    pace = Pace(show=partial(run.show_item, "predicting out of fold"))
    run.count_time()
    if budget is not None:
        pace.until = clock.now() + (1 + TOLERANCE) * budget - state.seconds
    with pace:
        run.validation.finish(run.method.eval())
    if pace.shortened:
        logger.warning(
            "Only %d of %d out-of-fold predictions were written: the time budget of %.0f s is used. longflow_find_best "
            "compares models that have the same ones: train again with more time and --overwrite.",
            *(pace.done, pace.of, budget),
        )
