"""Judge samples of forecasts: energy score and spread, next to the forecast with the error that it usually has."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from longflow.data.images import read_scan
from longflow.errors import LongflowError
from longflow.evaluation.energy import energy_score, gaussian_energy_score, spread_of, spread_skill
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.horizon_intervals import ForecastError, Scale, fit_scale
from longflow.evaluation.metric import mean_of_defined
from longflow.evaluation.references import peak_bytes, read_like
from longflow.evaluation.summary import Row, horizon_bins, paired_summary, summary
from longflow.files import write_csv
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.reading import read_json
from longflow.tasks.forecast.metrics import nrmse, value_range
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction

logger = logging.getLogger(__name__)

SAMPLES_CSV = "metrics_samples.csv"

#: that are summarised over subjects
NUMBERS = ("nrmse", "spread", "energy_score", "gaussian_energy_score")

COLUMNS = ("case", "subject", "target_time", "horizon", "samples", *NUMBERS)

SAMPLE_DEFINITIONS = {
    "nrmse": "RMSE of the mean of the samples, divided by the range of the reference",
    "spread": "sqrt(mean variance of the samples over voxels x (n + 1) / n), by the range of the reference: the "
    "NRMSE that the mean would have if the acquired scan were one more sample",
    "spread_skill": "root of the mean squared spread over that of the NRMSE, over subjects: 1 where samples differ "
    "as much as the forecast is wrong, below 1 where they are too much alike",
    "energy_score": "mean |sample - reference| - half of the mean |sample - other sample|, with the norm of "
    "all voxels divided by the root of their number and by the range of the reference. Lower is "
    "better; for samples that are all alike it is the NRMSE",
    "gaussian_energy_score": "that of the mean of the samples with independent normal errors at each voxel. Their "
    "standard deviation is the NRMSE of out-of-fold forecasts at the horizon, a line fitted to them",
}

#: volumes of float32 that evaluating a target holds, without its samples
_FURTHER_VOLUMES = 8

_SMALLEST = 1e-9


def evaluate_samples(
    job: EvaluationJob, pairs: Sequence[ForecastPrediction], progress: Progress | None = None
) -> dict[str, Any]:
    """Judge the samples of a folder; write metrics_samples.csv.

    :param pairs: forecasts with samples, and their references.
    :returns: number (of samples, None where forecasts differ in it), out_of_fold (the line of the usual error, None
        where it is not known), definitions, overall and by_horizon; JSON-ready.
    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    scale = usual_error(job, pairs, progress)
    volumes = [len(pair.samples) + _FURTHER_VOLUMES for pair in pairs]
    fitting = processes_that_fit(
        job.processes, [peak_bytes(pair.reference, number) for pair, number in zip(pairs, volumes, strict=True)]
    )
    found = dict(
        for_each_subject(partial(measure, scale=scale), {pair.case: pair for pair in pairs}, fitting, progress)
    )
    rows = [found[pair.case] for pair in pairs]
    write_csv(COLUMNS, rows, job.predictions / SAMPLES_CSV)
    numbers = {row["samples"] for row in rows}
    return {
        "number": numbers.pop() if len(numbers) == 1 else None,
        "out_of_fold": None if scale is None else {"at_zero": scale.at_zero, "per_time_unit": scale.per_time_unit},
        "definitions": SAMPLE_DEFINITIONS,
        "overall": summarise(rows),
        "by_horizon": [
            summarise([row for row in rows if low <= row["horizon"] <= high])
            for low, high in horizon_bins([row["horizon"] for row in rows])
        ],
    }


def measure(pair: ForecastPrediction, scale: Scale | None) -> Row:
    """Measure the samples of one target; each number is the mean over the channels whose reference has a range.

    :param scale: usual NRMSE by horizon; None: not known.
    """
    reference = read_scan(pair.reference)
    samples = np.stack([read_like(files, reference, pair.reference[0], OWN_GRID).array for files in pair.samples])
    deviation = None if scale is None else scale.at(pair.horizon)
    found = [
        _measure_channel(samples[:, channel].reshape(len(samples), -1), observed.ravel(), deviation)
        for channel, observed in enumerate(reference.array)
    ]
    place = {name: getattr(pair, name) for name in COLUMNS[:4]}
    means = {name: mean_of_defined(one[name] for one in found) for name in NUMBERS}
    return {**place, "samples": len(samples), **means}


def _measure_channel(samples: np.ndarray, observed: np.ndarray, deviation: float | None) -> Row:
    """Measure one channel. :param samples: (samples, voxels). :param deviation: usual NRMSE."""
    extent = value_range(observed)
    if not extent:
        return dict.fromkeys(NUMBERS)
    error = samples.mean(axis=0, dtype=np.float64) - observed
    relative = float(np.sqrt(np.mean(error**2))) / extent
    return {
        "nrmse": relative,
        "spread": spread_of(samples) / extent,
        "energy_score": energy_score(samples, observed) / extent,
        "gaussian_energy_score": None if deviation is None else gaussian_energy_score(relative, deviation),
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarise targets over subjects; JSON-ready.

    :param rows: of :func:`measure`.
    :returns: from, to (horizons), targets, the numbers, spread_skill, and difference_to_gaussian of the energy score.
    """
    subjects, horizons = [row["subject"] for row in rows], [row["horizon"] for row in rows]
    defined = [row for row in rows if row["nrmse"] is not None]
    spreads, errors = ([row[name] for row in defined] for name in ("spread", "nrmse"))
    scores, gaussian = ([row[name] for row in rows] for name in ("energy_score", "gaussian_energy_score"))
    return {
        "from": min(horizons),
        "to": max(horizons),
        "targets": len(rows),
        **{name: summary(subjects, [row[name] for row in rows]) for name in NUMBERS},
        "spread_skill": spread_skill([row["subject"] for row in defined], spreads, errors) if defined else None,
        "difference_to_gaussian": paired_summary(subjects, scores, gaussian),
    }


def usual_error(
    job: EvaluationJob, pairs: Sequence[ForecastPrediction], progress: Progress | None = None
) -> Scale | None:
    """Fit the NRMSE of the model's out-of-fold forecasts by horizon.

    :param pairs: forecasts of one model; their sidecars name it.
    :returns: the expected NRMSE; None where the model or its validation is not here, which is said.
    """
    from longflow.inference.selection import select
    from longflow.tasks.forecast.best import Source, forecasts_of_source
    from longflow.tasks.forecast.pairs import find_pairs
    from longflow.tasks.forecast.units import with_units

    sidecar = read_json(job.predictions / f"{pairs[0].case}.json", dict)
    try:
        named = (sidecar["configuration"][0], sidecar["method"][0], tuple(sidecar["folds"][0]))
        selection = select(sidecar["dataset"], *named)
        (member,) = selection.members
        source = Source(member.model, sidecar["reduction"])
        forecasts = forecasts_of_source(source, member.folds, job.description)
        found, _ = find_pairs(list(forecasts.values()), [selection.dataset.raw / "imagesTr"], job.description)
        validated = with_units(found, [member.model], selection.dataset)
    except (LongflowError, KeyError, IndexError, TypeError) as error:
        logger.warning(
            "The samples are not compared with the usual error: its out-of-fold forecasts are missing: %s", error
        )
        return None
    fitting = processes_that_fit(job.processes, [peak_bytes(pair.reference, _FURTHER_VOLUMES) for pair in validated])
    by_label = {pair.label: pair for pair in validated}
    errors = dict(for_each_subject(_nrmse_of, by_label, fitting, progress))
    sizes = [
        ForecastError(pair.subject, pair.fold or 0, pair.horizon, errors[label])
        for label, pair in by_label.items()
        if errors[label] is not None
    ]
    return fit_scale(sizes, _SMALLEST) if sizes else None


def _nrmse_of(pair: ForecastPrediction) -> float | None:
    """Measure an out-of-fold forecast, in the units in which it is judged."""
    from longflow.tasks.forecast.units import read_reference

    return nrmse(read_scan(pair.images).array, read_reference(pair).array)
