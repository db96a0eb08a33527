"""Forecasts against acquired scans, beside LCI and the mean of the context scans."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription
from longflow.data.images import read_scan
from longflow.errors import first_few
from longflow.evaluation.summary import COMPARISON_DEFINITIONS, CONTEXT_MEAN, FORECAST, LCI, Row, compare
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.tasks.forecast.metrics import CHANGED_THRESHOLD, DEFINITIONS, target_metrics
from longflow.tasks.forecast.pairs import (
    Pair,
    find_pairs,
    forecasts_of_folder,
    last_and_mean,
    peak_bytes,
    read_like,
    subjects_of_training,
)

logger = logging.getLogger(__name__)

METRICS_CSV = "metrics.csv"
METRICS_JSON = "metrics.json"

COLUMNS = ("case", "subject", "target_time", "horizon", "method", *DEFINITIONS)

#: volumes of float32 that evaluating a target holds at the peak, float64 intermediates included (measured: 11)
_VOLUMES_AT_PEAK = 12


def evaluate_folder(
    predictions: Path,
    references: Sequence[Path],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a folder of forecasts with the acquired scans; write ``metrics.csv`` and ``metrics.json`` into it.

    :param references: folders of acquired scans, searched in this order for the truth of each forecast and for the
        context scans that its sidecar names.
    :param processes: default: one for each core, as far as memory allows.
    :returns: the content of ``metrics.json``: what was compared, definitions, ``overall`` and ``by_horizon``.
    :raises DataError: there are no forecasts, none has a truth, context scans are missing, or grids differ.
    """
    forecasts = forecasts_of_folder(predictions, description)
    pairs, without_truth = find_pairs(forecasts, references, description)
    if without_truth:
        share = f"{len(without_truth)} of {len(forecasts)}"
        logger.warning("%s forecasts have no acquired scan to be compared with: %s", share, first_few(without_truth))
    seen = sorted({pair.forecast.subject for pair in pairs} & subjects_of_training(references))
    if seen:
        logger.warning(
            "%d of the subjects stand in imagesTr (%s): the model may have been trained or chosen on them. "
            "Numbers of such subjects say nothing about new ones.",
            len(seen),
            first_few(seen),
        )
    rows = evaluate_pairs(pairs, processes, progress)
    results = {
        "predictions": str(predictions),
        "references": [str(folder) for folder in references],
        "methods": sorted({pair.forecast.method for pair in pairs}),
        "time_unit": description.time_unit,
        "without_truth": without_truth,
        "subjects_of_training": seen,
        "definitions": {**DEFINITIONS, **COMPARISON_DEFINITIONS},
        "changed_threshold": CHANGED_THRESHOLD,
        **compare(rows),
    }
    write_csv(COLUMNS, rows, predictions / METRICS_CSV)
    write_json(results, predictions / METRICS_JSON)
    return results


def evaluate_pairs(pairs: Sequence[Pair], processes: int | None = None, progress: Progress | None = None) -> list[Row]:
    """Three rows for every pair (forecast, LCI, context mean), in the order of the pairs."""
    fitting = processes_that_fit(processes, [peak_bytes(pair.target, _VOLUMES_AT_PEAK) for pair in pairs])
    tasks = {pair.forecast.case: pair for pair in pairs}
    rows = dict(for_each_subject(evaluate_pair, tasks, fitting, progress))
    return [row for case in tasks for row in rows[case]]


def evaluate_pair(pair: Pair) -> list[Row]:
    """The rows of one target: forecast, LCI, context mean.

    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    target = read_scan(pair.target)
    forecast = read_like(pair.forecast.images, target, pair.target[0])
    last_context, context_mean = last_and_mean(pair, target)
    volumes = {FORECAST: forecast, LCI: last_context, CONTEXT_MEAN: context_mean}
    return [
        {
            "case": pair.forecast.case,
            "subject": pair.forecast.subject,
            "target_time": pair.forecast.target_time,
            "horizon": pair.forecast.horizon,
            "method": method,
            **target_metrics(volume.array, target.array, last_context.array),
        }
        for method, volume in volumes.items()
    ]
