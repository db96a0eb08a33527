"""A comparison, performed: what is missing is trained, predicted and measured, one after the other.

Everything that is finished is found again on the disk, so that a comparison that was stopped goes on where it was.
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

from longflow.commands import Command, run_command
from longflow.compare.comparison import Comparison, Run
from longflow.data.dataset import DatasetDescription
from longflow.errors import LongflowError, first_few
from longflow.evaluation.evaluation import METRICS_CSV
from longflow.evaluation.summary import Row
from longflow.files import read_json, write_csv, write_json
from longflow.parallel import Progress
from longflow.paths import folders_with_results
from longflow.tasks.forecast.evaluation import columns, evaluate_pairs
from longflow.tasks.forecast.pairs import find_pairs, forecasts_of_folder

logger = logging.getLogger(__name__)

#: of a command that the user stopped
STOPPED = 130

#: a bar for the evaluation of a run
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class Outcome:
    """What a run led to.

    :param rows: of every target, three (forecast, LCI, context mean). :param cost: of training (``cost`` of run.json),
        and ``seconds_per_prediction``. :param failure: why there is nothing; empty where there is.
    """

    run: Run
    rows: list[Row] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Standing:
    """How far a comparison is, when it begins with a run.

    :param number: of the run, from 1, :param of: how many. :param left: seconds; None: nothing is known yet.
    :param at_least: whether ``left`` lacks what could not be estimated.
    """

    run: Run
    number: int
    of: int
    left: float | None
    at_least: bool


class Failed(Exception):
    """A command of a run failed; its own message stands above."""


def perform(
    comparison: Comparison,
    description: DatasetDescription,
    before: Callable[[Standing], None] = lambda _: None,
    show: Callable[[Command], None] = lambda _: None,
    bar: Bar = lambda _: nullcontext(),
) -> Iterator[Outcome]:
    """Perform every run, and yield what it led to; one that fails costs none of the others.

    :param before: called with every run that is not finished. :param show: with every command that is run.
    :raises KeyboardInterrupt: a command was stopped by the user.
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
            raise Failed(f"{command.typed}: {_why(code)}")
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
    """What is trained in a run; other variants may share it."""
    return run.variant.training, run.fold, run.seed


def _why(code: int) -> str:
    """An exit code for people."""
    if code < 0:
        return f"ended by the system (signal {-code}), most often for want of memory"
    return f"exit code {code}, its message stands above"


def _train(comparison: Comparison, run: Run, go: Callable[..., None], failed: dict[tuple, Failed]) -> None:
    """The training that a run lacks; one that failed for another variant is not tried again."""
    if run_key(run) in failed:
        raise failed[run_key(run)]
    try:
        if training := comparison.training(run):
            go("train", 1, training, comparison.own_results(run))
    except Failed as failure:
        failed[run_key(run)] = failure
        raise


def _predict(comparison: Comparison, run: Run, go: Callable[..., None]) -> None:
    """The forecasts of a run; those that were made by other weights, from other scans or in another way go first."""
    out, results = comparison.predictions(run), comparison.write_model(run)
    oldest = min((sidecar.stat().st_mtime for sidecar in out.glob("*.json")), default=math.inf)
    if oldest < changed(comparison, run) or not _is_made_so(comparison, run):
        shutil.rmtree(out, ignore_errors=True)
    write_json(comparison.made_from(run), _record(comparison, run))
    go("predict", weight_of(run), comparison.prediction(run), results)


def _record(comparison: Comparison, run: Run) -> Path:
    return comparison.paths.made_from(run.variant.folder, run.fold, run.seed)


def _is_made_so(comparison: Comparison, run: Run) -> bool:
    """Whether the forecasts that lie there were made for what is asked now: a comparison's name can be used again."""
    record = _record(comparison, run)
    return record.is_file() and read_json(record) == comparison.made_from(run)


def changed(comparison: Comparison, run: Run) -> float:
    """When what a run's forecasts are made from was written last: weights and targets."""
    files = [comparison.targets[run.fold].folder / "scans.csv"]
    if run.variant.trains:
        files.append(comparison.fold(run).final)
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def is_measured(comparison: Comparison, run: Run) -> bool:
    """Whether the numbers of a run are there, and younger than weights and targets."""
    metrics = comparison.predictions(run) / METRICS_CSV
    if not (metrics.is_file() and _is_made_so(comparison, run)):
        return False
    if run.variant.trains and not comparison.is_trained(comparison.model(run), run):
        return False
    cases = {row["case"] for row in read_metrics(metrics)}
    return metrics.stat().st_mtime >= changed(comparison, run) and cases <= set(comparison.targets[run.fold].subjects)


def measure(
    comparison: Comparison, run: Run, description: DatasetDescription, progress: Progress | None = None
) -> None:
    """Compare the forecasts of a run with the acquired scans; write ``metrics.csv`` beside them.

    :raises DataError: a forecast, a truth or a context scan is missing.
    """
    targets, out = comparison.targets[run.fold], comparison.predictions(run)
    forecasts = [
        replace(one, subject=targets.subjects[one.case])
        for one in forecasts_of_folder(out, description)
        if one.case in targets.subjects
    ]
    pairs, without_truth = find_pairs(forecasts, [targets.folder, *targets.references], description)
    if without_truth:
        logger.warning(
            "%d targets have no acquired scan and are left out: %s", len(without_truth), first_few(without_truth)
        )
    write_csv(columns(), evaluate_pairs(pairs, progress=progress), out / METRICS_CSV)


def outcome_of(comparison: Comparison, run: Run) -> Outcome:
    """What is on the disk of a run that is measured."""
    out = comparison.predictions(run)
    rows = read_metrics(out / METRICS_CSV)
    seconds = seconds_between(out / f"{row['case']}.json" for row in rows)
    return Outcome(run, rows, {**comparison.cost(run), "seconds_per_prediction": seconds})


def read_metrics(path: Path) -> list[Row]:
    """The rows of a ``metrics.csv``; an empty cell is None."""
    names = ("case", "subject", "method")
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: value if key in names else float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def seconds_between(sidecars: Iterable[Path]) -> float | None:
    """Median of the seconds from one forecast's being finished to the next one's: reading, computing and writing.

    So the start of a command is left out, and the pause where one was stopped. None for fewer than two forecasts.
    """
    ends = sorted({path: path.stat().st_mtime_ns for path in sidecars}.values())
    return median((b - a) / 1e9 for a, b in pairwise(ends)) if len(ends) > 1 else None


def weight_of(run: Run) -> float:
    """How long a prediction takes beside others: as its number of steps, where the variants differ in it."""
    return run.variant.steps or 1


class Clock:
    """How long is left, from how long the commands so far took.

    :param max_time: of every training, where it is limited.
    """

    def __init__(self, max_time: float | None):
        self.max_time = max_time
        self.rates: dict[str, list[float]] = {}

    def note(self, kind: str, weight: float, seconds: float) -> None:
        """A command of a kind took so long."""
        self.rates.setdefault(kind, []).append(seconds / weight)

    def left(self, comparison: Comparison, runs: Sequence[Run]) -> tuple[float | None, bool]:
        """Seconds that these runs will take, and whether that is only a part; None where nothing is known."""
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
