"""Compare forecasts with the acquired scans, next to the ladder of baselines without training."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from longflow.data.images import read_scan
from longflow.evaluation.conformal import INTERVALS_JSON
from longflow.evaluation.evaluation import FIGURES, Evaluation, EvaluationJob, check_predictions
from longflow.evaluation.metric import Metric, compute_metrics, metrics_of
from longflow.evaluation.references import dataset_folders, peak_bytes, read_like
from longflow.evaluation.summary import Row
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import METRICS_CSV, METRICS_JSON, DatasetPaths
from longflow.reading import read_json
from longflow.registration.motion import STEP
from longflow.tasks.forecast.comparison import COMPARISON_DEFINITIONS, FORECAST, compare
from longflow.tasks.forecast.folds import report_folds
from longflow.tasks.forecast.ladder import MOTION, Rung, read_given, rungs
from longflow.tasks.forecast.metrics import CHANGED_THRESHOLD, ForecastVolumes
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction, find_pairs, forecasts_of_folder
from longflow.tasks.forecast.task import TASK

#: of metrics.csv, before the numbers
PLACE = ("case", "subject", "target_time", "horizon", "method")

#: file in the folder of predictions
FIGURE = f"{FIGURES}/forecasts.png"

#: volumes of float32 that evaluating a target holds at the peak: most are the vectors of a motion, in float64
_VOLUMES_AT_PEAK = 48


def columns() -> list[str]:
    """Return the columns of metrics.csv."""
    return [*PLACE, *(metric.name for metric in metrics_of(TASK))]


def evaluate_forecasts(job: EvaluationJob, progress: Progress | None = None) -> Evaluation:
    """Compare a folder of forecasts with the acquired scans; write metrics.csv, metrics.json and a figure into it.

    Acquired scans are searched in the folders of the user, then in those of the dataset: the reference of each
    forecast, and the context scans that its sidecar names. With a segmenter, metrics_structures.csv and the label maps
    are written, too. A folder with intervals of volumes is segmented by the model that they are of.

    :returns: its results are what was compared, definitions, ``overall`` and ``by_horizon``; with a segmenter
        ``structures``, of forecasts with samples ``samples``.
    :raises DataError: there are no forecasts, none has a reference, context scans are missing, or grids differ.
    :raises LongflowError: the segmenter cannot segment the forecasts.
    """
    from longflow.tasks.forecast.figures import draw_forecasts
    from longflow.tasks.forecast.tables import show_forecasts

    segmenter = None
    if job.segmenter is not None or (job.predictions / INTERVALS_JSON).is_file():
        # these wait for torch, which nothing else here needs
        from longflow.tasks.forecast.interval_errors import recorded_segmenter
        from longflow.tasks.forecast.segmented import load_segmenter

        job = replace(job, segmenter=job.segmenter or recorded_segmenter(job.predictions))
        segmenter = load_segmenter(job) if job.segmenter is not None else None
    folders = [*job.references, *dataset_folders(job.raw)]
    forecasts = forecasts_of_folder(job.predictions, job.description)
    pairs, without = find_pairs(forecasts, folders, job.description)
    subjects, cases = [pair.subject for pair in pairs], [pair.case for pair in pairs]
    checked = check_predictions(job, TASK.words, subjects, cases, without)
    step = chosen_step(job.raw.name)
    rows = evaluate_pairs(pairs, job.processes, progress, step)
    definitions = {metric.name: metric.definition for metric in metrics_of(TASK)}
    results = {
        "predictions": str(job.predictions),
        "references": [str(folder) for folder in folders],
        "methods": sorted({pair.method for pair in pairs}),
        "test_protocols": sorted({pair.protocol for pair in pairs if pair.protocol}),
        "time_unit": job.description.time_unit,
        **checked,
        "definitions": {**definitions, **COMPARISON_DEFINITIONS},
        "changed_threshold": CHANGED_THRESHOLD,
        "motion_step": step,
        **compare(rows, definitions),
    }
    write_csv(columns(), rows, job.predictions / METRICS_CSV)
    written: tuple[str, ...] = (METRICS_CSV, METRICS_JSON, FIGURE)
    ladder = results["overall"]["best_rung"]["name"], step
    if segmenter is not None:
        from longflow.tasks.forecast.structures import WRITTEN, evaluate_structures

        results["structures"] = evaluate_structures(job, segmenter, pairs, ladder, progress)
        written += WRITTEN
    if any(pair.samples for pair in pairs):
        from longflow.tasks.forecast.sample_errors import SAMPLES_CSV, evaluate_samples

        results["samples"] = evaluate_samples(job, [pair for pair in pairs if pair.samples], progress)
        written += (SAMPLES_CSV,)
    write_json(results, job.predictions / METRICS_JSON)
    draw_forecasts(pairs, job.predictions / FIGURE, job.description.time_unit, ladder)
    return Evaluation(results, written, partial(show_forecasts, results))


def evaluate_pairs(
    pairs: Sequence[ForecastPrediction],
    processes: int | None = None,
    progress: Progress | None = None,
    step: float | None = STEP,
) -> list[Row]:
    """Measure forecasts and baselines.

    :param step: of ``motion``; None: the forecasts alone, where the rungs of these targets are known.
    :returns: rows for every pair (forecast, and each rung of the ladder that is defined), in the order of the pairs.
    """
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, _VOLUMES_AT_PEAK) for pair in pairs])
    work = partial(evaluate_pair, metrics=metrics_of(TASK), step=step)
    found = dict(for_each_subject(work, {pair.case: pair for pair in pairs}, fitting, progress))
    report_folds([(pair.subject, found[pair.case][1]) for pair in pairs])
    return [row for pair in pairs for row in found[pair.case][0]]


def evaluate_pair(
    pair: ForecastPrediction, metrics: Sequence[Metric], step: float | None = STEP
) -> tuple[list[Row], float]:
    """Measure one target: the forecast, and every rung of the ladder.

    :param step: of ``motion``; None: the forecast alone.
    :returns: a row for each, and the share of voxels at which ``motion`` folds.
    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    reference = read_scan(pair.reference)
    forecast = read_like(pair.images, reference, pair.reference[0], OWN_GRID)
    given, spacing = read_given(pair, reference), reference.geometry.array_spacing
    ladder = () if step is None else rungs(given, {MOTION: step})
    place = {name: getattr(pair, name) for name in PLACE if name != "method"}
    rows, folded = [], 0.0
    for method, array, folds in chain([Rung(FORECAST, forecast.array)], ladder):
        volumes = ForecastVolumes(array, reference.array, spacing, given.last.array)
        rows.append({**place, "method": method, **compute_metrics(metrics, volumes)})
        folded = max(folded, folds)
    return rows, folded


def chosen_step(dataset: str) -> float:
    """Return the step of ``motion`` that longflow_find_best chose for a dataset; the default before it has run.

    :param dataset: Dataset101_Name.
    """
    best = DatasetPaths(dataset).best
    step = read_json(best, dict).get("motion_step") if best.is_file() else None
    return float(step) if isinstance(step, int | float) else STEP
