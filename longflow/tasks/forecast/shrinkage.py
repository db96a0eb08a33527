"""Correct the shrinkage for the average of the folds that a prediction is.

Each validation target is forecast by one fold, but ``longflow_predict`` averages all K. With d_k = forecast of fold k -
last context image (LCI), the model is

    d_k = c + e_k        c: common to all folds;  e_k: the fold's own, independent of c, of the target and of the others

so that d_k.d_k is c.c + v with v = e_k.e_k, and that of the average is c.c + v / K. The products with the target are
the same. A shrinkage that is fitted to single folds is therefore too small. With the share v / (c.c + v), which is
measured,

    d.d of the average = d_k.d_k (1 - share (1 - 1 / K)).

The share needs several folds' forecasts of one subject, but no reference. It is measured on subjects that no fold was
trained on, those of ``imagesTs``. Where there are none, on validation subjects, by the K - 1 folds that were trained on
them: folds agree more there, so this share is too small, and the shrinkage lies between the uncorrected and the right
one. A single fold needs no correction, and two without ``imagesTs`` get none.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longflow.data.dataset import DatasetDescription, read_description, series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.evaluation.references import Files
from longflow.inference.models import Models, load_models
from longflow.inference.selection import Selection
from longflow.parallel import Progress
from longflow.spread import evenly_spaced
from longflow.tasks.forecast.conditions import conditions_of
from longflow.tasks.forecast.metrics import value_range
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.predictor import Context, Forecaster
from longflow.tasks.forecast.targets import draw_targets
from longflow.tasks.forecast.windows import Times
from longflow.training.splits import SEED
from longflow.training.validation import WITHOUT_OVERLAP

logger = logging.getLogger(__name__)

#: forecasts that the share is measured on, at most
MOST_FORECASTS = 6


@dataclass(frozen=True)
class GivenScans:
    """What a forecast is made from, and the folds that make it.

    :param times: of the scans that are given and of the target.
    :param images: files of the scans, in order of time.
    """

    subject: str
    times: Times
    images: Sequence[Files]
    folds: Sequence[int]


@dataclass(frozen=True)
class FoldShare:
    """How much of a forecast's change is a fold's own.

    :param share: v / (c.c + v), 0 to 1.
    :param measured_on: which subjects.
    :param forecasts: number that it was measured on.
    """

    share: float
    measured_on: str
    forecasts: int

    def of_average(self, folds: int) -> float:
        """Return d.d of the average of folds, as a share of d.d of a single one."""
        return 1 - self.share * (1 - 1 / folds)


def measure_fold_share(
    selection: Selection, pairs: Sequence[ForecastPrediction], progress: Progress | None = None
) -> FoldShare | None:
    """Measure how much of a forecast's change is a fold's own.

    :param selection: the chosen model with all of its folds.
    :param pairs: the validation targets, with their context scans.
    :returns: the share; None where there is one fold, nothing to train, or nothing to measure it on.
    """
    folds = sorted({fold for member in selection.members for fold in member.folds})
    if len(folds) < 2:
        return None
    description = read_description(selection.dataset.raw / "dataset.json")
    models = load_models(replace(selection, shrinkage=1.0), "forecast")
    for member in models.members:
        member.plans.inference.tile_step_size = WITHOUT_OVERLAP
    given, measured_on = _of_held_out(models, folds, description), "imagesTs"
    if not given:
        given, measured_on = _of_validation(pairs, folds), "training subjects"
    given = [given[position] for position in evenly_spaced(len(given), MOST_FORECASTS)] if given else []
    powers = []
    for number, one in enumerate(given):
        if progress:
            progress(number, len(given), f"{one.subject}, {len(one.folds)} folds")
        powers.append(own_and_whole(np.stack(list(_changes(models, one)))))
    own, whole = np.sum(powers, axis=0) if powers else (0.0, 0.0)
    if not whole > 0:
        return None
    return FoldShare(float(np.clip(own / whole, 0, 1)), measured_on, len(powers))


def own_and_whole(changes: np.ndarray) -> tuple[float, float]:
    """Estimate v and c.c + v from the forecasts of several folds, without bias under the model.

    :param changes: (folds, ...), forecast - last context image.
    :returns: v, the variance between folds; the mean of d_k.d_k.
    """
    folds = len(changes)
    whole = float(np.square(changes, dtype=np.float64).sum()) / folds
    of_average = float(np.square(changes.mean(0, dtype=np.float64)).sum())
    return (whole - of_average) * folds / (folds - 1), whole


def prepared_scans(given: GivenScans, forecaster: Forecaster) -> Context:
    """Read and prepare the context scans that a forecaster takes.

    :param given: all scans that are given.
    :param forecaster: with its rule.
    :returns: what ``forecaster.forecast_from`` needs.
    """
    choice = forecaster.choose(given.times)
    volumes = {position: read_scan(given.images[position]) for position in choice.taken}
    return forecaster.prepare(given.subject, choice, volumes)


def given_of_pair(pair: ForecastPrediction, folds: Sequence[int] = ()) -> GivenScans:
    """Return what an out-of-fold forecast was made from.

    :param pair: with the files of its context scans.
    :param folds: that are to forecast it.
    """
    times = Times(sorted(pair.context_times), pair.target_time, pair.period, pair.covariates)
    return GivenScans(pair.subject, times, pair.context_images, folds)


def _changes(models: Models, given: GivenScans) -> Iterator[np.ndarray]:
    """Forecast with each fold; give forecast - last context image, in units of the latter's range in each channel."""
    context = prepared_scans(given, Forecaster(models))
    last = context.last.array
    ranges = np.array([value_range(channel) or 1.0 for channel in last]).reshape(-1, *[1] * (last.ndim - 1))
    for fold in given.folds:
        yield (Forecaster(models.of_folds([fold])).forecast_from(context) - last) / ranges


def _of_held_out(models: Models, folds: Sequence[int], description: DatasetDescription) -> list[GivenScans]:
    """List forecasts of subjects that no fold was trained on, drawn as validation targets are."""
    raw = models.selection.dataset.raw
    folder = raw / "imagesTs"
    if not folder.is_dir():
        return []
    trained_on = {series.subject for series in training_series(raw)[1]}
    complete = {series.subject: series.with_images().scans for series in series_of_folder(folder, description)}
    series = {name: scans for name, scans in complete.items() if len(scans) > 1 and name not in trained_on}
    if not series:
        return []
    found = []
    for target in draw_targets(
        {name: [scan.case for scan in scans] for name, scans in series.items()}, np.random.default_rng(SEED)
    ):
        scans = {scan.case: scan for scan in series[target.subject]}
        context = [scans[case] for case in target.context]
        conditions = conditions_of(scans[target.target], context, models.plans)
        period, covariates = conditions.get("period"), conditions.get("covariates", {})
        times = Times([scan.time for scan in context], scans[target.target].time, period, covariates)
        found.append(GivenScans(target.subject, times, [scan.images for scan in context], folds))
    return found


def _of_validation(pairs: Sequence[ForecastPrediction], folds: Sequence[int]) -> list[GivenScans]:
    """List the validation targets, each for the folds that were trained on its subject."""
    of_others = [given_of_pair(pair, [fold for fold in folds if fold != pair.fold]) for pair in pairs]
    return [given for given in of_others if len(given.folds) > 1]
