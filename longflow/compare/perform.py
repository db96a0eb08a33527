"""Perform a comparison: train, predict and evaluate run by run.

Finished work is found on the disk, so that a comparison that was interrupted continues.
"""

import csv
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from longflow.commands import Command, run_command, why_ended
from longflow.compare.comparison import Comparison, Run
from longflow.data.dataset import DatasetDescription
from longflow.errors import LongflowError, first_few
from longflow.evaluation.summary import Row
from longflow.files import write_csv, write_json
from longflow.parallel import Progress
from longflow.paths import METRICS_CSV, folders_with_results
from longflow.reading import read_json
from longflow.registration.motion import STEP
from longflow.tasks.forecast.comparison import FORECAST
from longflow.tasks.forecast.evaluation import columns, evaluate_pairs
from longflow.tasks.forecast.ladder import MOTION
from longflow.tasks.forecast.pairs import ForecastPrediction, find_pairs, forecasts_of_folder
from longflow.training.logbook import read_progress

logger = logging.getLogger(__name__)

#: exit code of a command that the user stopped
STOPPED = 130

#: makes the progress bar for the evaluation of a run
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    :param rows: of every target, for the forecast and each rung of the ladder that is defined.
    :param cost: of training (``cost`` of run.json), and ``seconds_per_prediction``.
    :param failure: why there is no result; empty where there is one.
    """

    run: Run
    rows: list[Row] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Standing:
    """The progress of a comparison when it begins with a run.

    :param number: of the run, from 1.
    :param of: number of runs.
    :param left: seconds; None: unknown yet.
    :param at_least: whether ``left`` lacks a part that could not be estimated.
    """

    run: Run
    number: int
    of: int
    left: float | None
    at_least: bool


class Failed(Exception):
    """A command of a run failed; its own message is above."""


def perform(
    comparison: Comparison,
    description: DatasetDescription,
    before: Callable[[Standing], None] = lambda _: None,
    show: Callable[[Command], None] = lambda _: None,
    bar: Bar = lambda _: nullcontext(),
) -> Iterator[Outcome]:
    """Perform every run and yield its outcome; a failure stops none of the others.

    :param before: called with every run that is not finished.
    :param show: called with every command.
    :param bar: makes the progress bar of an evaluation.
    :raises KeyboardInterrupt: the user stopped a command.
    """
    runs, clock = comparison.runs, Clock(comparison.budget.max_time)
    failed: dict[tuple, Failed] = {}

    def go(kind: str, weight: float, command: Command, results: Path) -> None:
        show(command)
        begun = time.monotonic()
        code = run_command(command, folders_with_results(results))
        if code == STOPPED:
            raise KeyboardInterrupt
        if code:
            raise Failed(f"{command.typed}: {why_ended(code)}")
        clock.note(kind, weight, time.monotonic() - begun)

    for number, run in enumerate(runs):
        try:
            if not is_measured(comparison, run):
                before(Standing(run, number + 1, len(runs), *clock.left(comparison, runs[number:])))
                _train(comparison, run, go, failed)
                _predict(comparison, run, go)
                with bar(f"Evaluating {run.label}") as progress:
                    measure(comparison, run, description, progress)
            outcome = outcome_of(comparison, run)
        except (Failed, LongflowError) as failure:
            outcome = Outcome(run, failure=str(failure))
        yield outcome


def run_key(run: Run) -> tuple[str, int, int]:
    """Return the key of the training of a run; other variants may share it."""
    return run.variant.training, run.fold, run.seed


def _train(comparison: Comparison, run: Run, go: Callable[..., None], failed: dict[tuple, Failed]) -> None:
    """Train where a run lacks it; a training that failed for another variant is not tried again."""
    if run_key(run) in failed:
        raise failed[run_key(run)]
    try:
        if training := comparison.training(run):
            go("train", 1, training, comparison.own_results(run))
    except Failed as failure:
        failed[run_key(run)] = failure
        raise


def _predict(comparison: Comparison, run: Run, go: Callable[..., None]) -> None:
    """Predict the targets of a run; forecasts of other weights, scans or settings are deleted first."""
    out, results = comparison.predictions(run), comparison.write_model(run)
    oldest = min((sidecar.stat().st_mtime for sidecar in out.glob("*.json")), default=math.inf)
    if oldest < changed(comparison, run) or not _is_current(comparison, run):
        shutil.rmtree(out, ignore_errors=True)
    write_json(comparison.made_from(run), _record(comparison, run))
    go("predict", weight_of(run), comparison.prediction(run), results)


def _record(comparison: Comparison, run: Run) -> Path:
    return comparison.paths.made_from(run.variant.folder, run.fold, run.seed)


def _is_current(comparison: Comparison, run: Run) -> bool:
    """Return whether the forecasts in the folder fit the request: the name of a comparison can be used again."""
    record = _record(comparison, run)
    return record.is_file() and read_json(record) == comparison.made_from(run)


def changed(comparison: Comparison, run: Run) -> float:
    """Return when weights or targets of a run were written last."""
    files = [comparison.targets[run.fold].folder / "scans.csv"]
    if run.variant.trains:
        files.append(comparison.fold(run).final)
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def is_measured(comparison: Comparison, run: Run) -> bool:
    """Return whether the metrics of a run exist, newer than weights and targets."""
    metrics = comparison.predictions(run) / METRICS_CSV
    if not (metrics.is_file() and _is_current(comparison, run)):
        return False
    if run.variant.trains and not comparison.is_trained(comparison.model(run), run):
        return False
    cases = {row["case"] for row in read_metrics(metrics)}
    return metrics.stat().st_mtime >= changed(comparison, run) and cases <= set(comparison.targets[run.fold].subjects)


def measure(
    comparison: Comparison, run: Run, description: DatasetDescription, progress: Progress | None = None
) -> None:
    """Compare the forecasts of a run with the acquired scans; write ``metrics.csv`` next to them.

    :raises DataError: a forecast, a reference or a context scan is missing.
    """
    out = comparison.predictions(run)
    pairs, without_reference = pairs_of(comparison, run, description)
    if without_reference:
        logger.warning(
            "%d targets have no acquired scan and are excluded: %s",
            len(without_reference),
            first_few(without_reference),
        )
    known = rows_of_rungs(comparison, run, pairs, description)
    own = evaluate_pairs(pairs, progress=progress, step=None if known else STEP)
    write_csv(columns(), own + known, out / METRICS_CSV, exact=True)


def pairs_of(
    comparison: Comparison, run: Run, description: DatasetDescription
) -> tuple[list[ForecastPrediction], list[str]]:
    """List the forecasts of a run that have a reference, with their files; and the cases of the others.

    :raises DataError: a forecast or a context scan is missing, or no forecast has a reference.
    """
    targets = comparison.targets[run.fold]
    forecasts = [
        replace(one, subject=targets.subjects[one.case])
        for one in forecasts_of_folder(comparison.predictions(run), description)
        if one.case in targets.subjects
    ]
    return find_pairs(forecasts, [targets.folder, *targets.references], description)


def rows_of_rungs(
    comparison: Comparison, run: Run, pairs: Sequence[ForecastPrediction], description: DatasetDescription
) -> list[Row]:
    """Find the rungs of these targets in the metrics of another run, where they were made of the same context scans.

    :param pairs: the forecasts of the run.
    :returns: rows of every target; none where no other run has them.
    """
    wanted = {pair.case: pair.context for pair in pairs}
    for other in comparison.runs:
        if other == run or comparison.targets[other.fold] != comparison.targets[run.fold]:
            continue
        out = comparison.predictions(other)
        if not is_measured(comparison, other):
            continue
        contexts = {one.case: one.context for one in forecasts_of_folder(out, description)}
        rows = [row for row in read_metrics(out / METRICS_CSV) if row["method"] != FORECAST]
        measured = {row["case"] for row in rows if row["method"] == MOTION}
        if measured == wanted.keys() and all(contexts.get(case) == context for case, context in wanted.items()):
            return rows
    return []


def outcome_of(comparison: Comparison, run: Run) -> Outcome:
    """Read the outcome of a finished run."""
    out = comparison.predictions(run)
    rows = read_metrics(out / METRICS_CSV)
    seconds = seconds_between(out / f"{row['case']}.json" for row in rows)
    return Outcome(
        run, rows, {**comparison.cost(run), "looks": looks_of(comparison, run), "seconds_per_prediction": seconds}
    )


def looks_of(comparison: Comparison, run: Run) -> int | None:
    """Count the validations from which the weights of a run were kept; None where nothing is trained or recorded."""
    records = read_progress(comparison.fold(run).progress_csv) if run.variant.trains else []
    return sum(record.found.get("nrmse") is not None for record in records) or None


def read_metrics(path: Path) -> list[Row]:
    """Read the rows of a ``metrics.csv``; an empty cell is None."""
    names = ("case", "subject", "method")
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: value if key in names else float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def seconds_between(sidecars: Iterable[Path]) -> float | None:
    """Return the median seconds from the end of one forecast to the end of the next: read, compute, write.

    The start of a command, and the pause where one was interrupted, do not count.

    :param sidecars: files whose times of change are the ends.
    :returns: None for fewer than two forecasts.
    """
    ends = sorted({path: path.stat().st_mtime_ns for path in sidecars}.values())
    return median((b - a) / 1e9 for a, b in pairwise(ends)) if len(ends) > 1 else None


def weight_of(run: Run) -> float:
    """Estimate the relative time of a prediction: its number of steps, where variants differ in it."""
    return run.variant.steps or 1


class Clock:
    """Estimate the time left from the commands so far.

    :param max_time: seconds of every training; None: not limited.
    """

    def __init__(self, max_time: float | None):
        self.max_time = max_time
        self.rates: dict[str, list[float]] = {}

    def note(self, kind: str, weight: float, seconds: float) -> None:
        """Record the duration of a command. :param kind: "train" or "predict". :param weight: relative size."""
        self.rates.setdefault(kind, []).append(seconds / weight)

    def left(self, comparison: Comparison, runs: Sequence[Run]) -> tuple[float | None, bool]:
        """Return the seconds that these runs will take, and whether a part is unknown; None: all of it."""
        lacking = [run for run in runs if not is_measured(comparison, run)]
        trainings = len({run_key(run) for run in lacking if comparison.training(run)})
        predictions = sum(weight_of(run) for run in lacking)
        known = {kind: mean(rates) for kind, rates in self.rates.items()}
        if self.max_time:
            known.setdefault("train", self.max_time)
        amounts = {kind: amount for kind, amount in (("train", trainings), ("predict", predictions)) if amount}
        unknown = [kind for kind in amounts if kind not in known]
        if unknown and len(unknown) == len(amounts):
            return None, True
        return sum(known.get(kind, 0.0) * amount for kind, amount in amounts.items()), bool(unknown)
