"""Calibrate the volumes of structures in forecasts: from errors of out-of-fold forecasts to intervals of new ones.

Each fold forecasts the validation targets of its own subjects, which it did not learn from, as ``longflow_predict``
would. The forecasts and the acquired scans are segmented by one model. What is calibrated is thus the whole way from
scans to a volume. See :mod:`longflow.evaluation.horizon_intervals` for the intervals, and
``documentation/explanation/uncertainty.md`` for what they mean.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan, read_description, training_series
from longflow.data.images import read_geometry
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.evaluation.best import check_references, comparable_models
from longflow.evaluation.conformal import CALIBRATION_CSV, CALIBRATION_JSON, attainable_level, fewest_subjects
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.horizon_intervals import ForecastError, HorizonIntervals, calibrate_by_horizon, scales_of_folds
from longflow.evaluation.summary import Row
from longflow.files import exclusive_lock, write_csv, write_json
from longflow.inference.models import PredictionSettings
from longflow.inference.predictor import predict_missing
from longflow.inference.selection import Selection
from longflow.parallel import Progress
from longflow.paths import DatasetPaths, ModelPaths, lock_in
from longflow.registration.motion import STEP
from longflow.tasks.forecast.best import Source, forecasts_of_source, written_reductions
from longflow.tasks.forecast.calibration_record import FORMAT, identity
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST
from longflow.tasks.forecast.conditions import with_conditions
from longflow.tasks.forecast.ladder import LCI
from longflow.tasks.forecast.pairs import find_pairs, forecasts_of_folder
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.forecast.retest import measure_retest, read_retest_pairs
from longflow.tasks.forecast.segmented import (
    LABELS,
    SEGMENTED_SCAN,
    acquired_scans,
    find_labels,
    segment_scans,
)
from longflow.tasks.forecast.structures import measure_pair
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.segmented import checked_segmenter, trained_on

COLUMNS = (
    *("structure", "subject", "case", "fold", "horizon", "volume_ml", "reference_ml", "error_ml", "scale_ml", "score"),
    "lci_error_ml",
)


def calibrate_volumes(
    selection: Selection,
    segmenting: Selection,
    level: float,
    device: str | None = None,
    progress: Progress = lambda *_: None,
    retest: Path | None = None,
) -> dict[str, Any]:
    """Make intervals of volumes from out-of-fold forecasts; write calibration.json and calibration.csv.

    :param selection: the model that forecasts, with the folds that predictions average.
    :param segmenting: the model that segments.
    :param level: lowest probability with which an interval holds.
    :param device: that both compute on; None: a GPU where there is one.
    :param retest: table of pairs of scans without change in between; None: the measurement noise is not estimated.
    :returns: content of calibration.json.
    :raises DataError: out-of-fold forecasts or scans are missing, or there are too few subjects for the level.
    :raises LongflowError: a model cannot be loaded, or a scan cannot be used.
    """
    dataset = selection.dataset
    description = read_description(dataset.raw / "dataset.json")
    segmenter = checked_segmenter(segmenting, device, description.channels, f"the forecasts of {dataset.name}")
    forecaster = Forecaster.of(selection, PredictionSettings(device))
    requests = out_of_fold_requests(forecaster, description)
    pairs = read_retest_pairs(retest, _scans_of_training(dataset)) if retest else []
    subjects = {item.target.subject for items in requests.values() for item in items}
    check_level(level, len(subjects))
    folder = dataset.calibration(segmenter.models.selection.dataset.name)
    noise = measure_retest(segmenter, pairs, folder / "retest", description, progress) if pairs else {}
    rows: list[Row] = []
    for fold, items in requests.items():
        write_forecasts(forecaster, fold, items, folder / f"fold_{fold}", progress)
        cases = {item.target.case for item in items}
        of_fold = measure_fold(segmenter, dataset.raw, folder / f"fold_{fold}", cases, description, progress)
        rows += [{**row, "fold": fold} for row in of_fold]
    found = {name: calibrate_structure(rows, name, level) for name in segmenter.structures}
    seen = trained_on(segmenter, sorted(subjects))
    record = {
        "format": FORMAT,
        "dataset": dataset.name,
        "time_unit": description.time_unit,
        "level": level,
        "attainable_level": attainable_level(len(subjects)),
        "subjects": len(subjects),
        "targets": sum(map(len, requests.values())),
        "folds": list(requests),
        "subjects_of_segmenter_training": seen,
        "model": identity(forecaster),
        "segmenter": identity(segmenter),
        "by_structure": {
            name: {**one, "repeatability": noise[name].record() if noise else None} for name, (one, _) in found.items()
        },
    }
    write_csv(COLUMNS, [row for _, of_structure in found.values() for row in of_structure], folder / CALIBRATION_CSV)
    write_json(record, folder / CALIBRATION_JSON)
    return record


def check_level(level: float, subjects: int) -> None:
    """Refuse a level that so many subjects cannot give, before anything is computed.

    :raises DataError: there are too few subjects.
    """
    if subjects < fewest_subjects(level):
        raise DataError(
            f"The chosen folds validate {subjects} subjects; intervals of {level:.0%} need {fewest_subjects(level)}. "
            f"The highest level of these is {attainable_level(subjects):.1%}. Choose a lower --level, train further "
            "folds, or add subjects."
        )


def out_of_fold_requests(forecaster: Forecaster, description: DatasetDescription) -> dict[int, list[ForecastRequest]]:
    """List the forecasts to make of subjects that a fold did not learn from: those that validated it.

    :param forecaster: the model, with the folds that predictions average.
    :param description: of the dataset.
    :returns: by fold.
    :raises DataError: a fold has no validation forecasts, or a scan of them does not exist any more.
    """
    selection = forecaster.models.selection
    model, folds = validated_model(selection)
    source = Source(model, written_reductions(model, folds)[0])
    scans = _scans_of_training(selection.dataset)
    requests: dict[int, list[ForecastRequest]] = {fold: [] for fold in folds}
    for forecast in forecasts_of_source(source, folds, description).values():
        if missing := [case for case in (forecast.case, *forecast.context) if case not in scans]:
            raise DataError(
                f"{model.folder.name} was validated on scans that imagesTr does not have any more: "
                f"{first_few(missing)}. Restore them, or train the model again."
            )
        context = sorted((scans[case] for case in forecast.context), key=lambda scan: scan.time)
        item = ForecastRequest(scans[forecast.case], tuple(context))
        requests[forecast.fold].append(with_conditions(item, forecaster.models.plans))
    return requests


def _scans_of_training(dataset: DatasetPaths) -> dict[str, Scan]:
    """Return the scans of imagesTr, by case."""
    return {scan.case: scan for one in training_series(dataset.raw)[1] for scan in one.scans}


def validated_model(selection: Selection) -> tuple[ModelPaths, Sequence[int]]:
    """Return a model whose validation targets are out of fold for all members, and its folds.

    A forecast without training learned from nobody: any trained model's targets serve.

    :raises ConfigurationError: the members have different folds.
    :raises NotFoundError: nothing is trained.
    """
    trained = [member for member in selection.members if member.folds]
    if not trained:
        models, folds = comparable_models(selection.dataset, selection.dataset.models())
        return models[0], folds
    if len({member.folds for member in trained}) > 1:
        names = ", ".join(member.model.folder.name for member in trained)
        raise ConfigurationError(
            f"{names} have different folds, so a fold of one may have learned from subjects that validate another. "
            "Train the same folds of both, and run longflow_find_best again."
        )
    return trained[0].model, trained[0].folds


def write_forecasts(
    forecaster: Forecaster, fold: int, items: Sequence[ForecastRequest], folder: Path, progress: Progress
) -> None:
    """Write the forecasts of a fold's own validation subjects; finished ones are kept."""
    of_fold = Forecaster(forecaster.models.of_folds([fold]))
    with exclusive_lock(lock_in(folder), f"{folder} is being written"):
        predict_missing(of_fold, items, folder, of_fold.models.description, progress=progress)


def measure_fold(
    segmenter: Segmenter,
    raw: Path,
    folder: Path,
    cases: Collection[str],
    description: DatasetDescription,
    progress: Progress,
) -> list[Row]:
    """Segment the forecasts of a fold and the acquired scans, and measure every structure.

    :param raw: folder of the raw dataset.
    :param folder: of the forecasts.
    :param cases: of the forecasts; others in the folder are of earlier calibrations.
    :param description: of the dataset.
    :returns: rows as in metrics_structures.csv, with ``voxel_ml``.
    """
    forecasts = [one for one in forecasts_of_folder(folder, description) if one.case in cases]
    pairs, without = find_pairs(forecasts, [raw / "imagesTr"], description)
    check_references(without, raw / "imagesTr")
    job = EvaluationJob(folder, (), raw, description)
    segment_scans(job, segmenter, pairs, LCI, STEP, progress)
    labels = find_labels(job, segmenter, [one.target.case for one in acquired_scans(job, pairs)])
    rows = []
    for pair in pairs:
        voxel_ml = float(np.prod(read_geometry(pair.reference[0]).array_spacing)) / 1000
        rows += [{**row, "voxel_ml": voxel_ml} for row in measure_pair(job, segmenter, pair, labels, LCI)]
    return rows


def calibrate_structure(rows: Sequence[Row], structure: str, level: float) -> tuple[dict[str, Any], list[Row]]:
    """Make the intervals of one structure, and those that the last context image (LCI) would have.

    The reference is the label map if every target has one, else the segmented scan of every target: the intervals are
    of one kind of volume.

    :param rows: of :func:`measure_fold`, of all structures and folds, with ``fold``.
    :returns: the structure's part of calibration.json, and of calibration.csv.
    :raises DataError: there are too few subjects for the level.
    """
    own = [row for row in rows if row["structure"] == structure]
    by_method = {
        method: {(row["fold"], row["case"]): row for row in own if row["method"] == method}
        for method in (FORECAST, LCI, ACQUIRED)
    }
    forecasts = by_method[FORECAST]
    labelled = all(row["reference"] == LABELS for row in forecasts.values())
    # where there is a label map, the segmented scan has a row of its own
    segmented = {place: row["volume_ml"] for place, row in by_method[ACQUIRED].items()} if not labelled else {}
    references = {place: segmented.get(place, row["true_volume_ml"]) for place, row in forecasts.items()}
    errors, of_lci = (_errors(by_method[method], references) for method in (FORECAST, LCI))
    smallest = float(np.median([row["voxel_ml"] for row in forecasts.values()]))
    intervals, lci = (calibrate_by_horizon(one, level, smallest) for one in (errors, of_lci))
    scales = scales_of_folds(errors, smallest)
    table = [
        {
            **{"structure": structure, "subject": error.subject, "case": place[1], "fold": error.fold},
            **{"horizon": error.horizon, "volume_ml": forecasts[place]["volume_ml"]},
            **{"reference_ml": references[place], "error_ml": error.error},
            "scale_ml": scales[error.fold].at(error.horizon),
            "score": abs(error.error) / scales[error.fold].at(error.horizon),
            "lci_error_ml": other.error,
        }
        for place, error, other in zip(forecasts, errors, of_lci, strict=True)
    ]
    record = {
        "reference": LABELS if labelled else SEGMENTED_SCAN,
        "mean_reference_ml": float(np.mean(list(references.values()))),
        "half_widths": half_widths(intervals, lci),
        "intervals": intervals.record(),
    }
    return record, table


def _errors(rows: Mapping[tuple[int, str], Row], references: Mapping[tuple[int, str], float]) -> list[ForecastError]:
    """Compute volume - reference of each target. :param rows: of a method, by fold and case."""
    return [
        ForecastError(rows[place]["subject"], place[0], rows[place]["horizon"], rows[place]["volume_ml"] - reference)
        for place, reference in references.items()
    ]


def half_widths(intervals: HorizonIntervals, lci: HorizonIntervals) -> list[dict[str, Any]]:
    """Return how wide the intervals are in the middle of each group of horizons, next to those of LCI.

    :param lci: intervals of the last context image, of the same forecasts.
    """
    rows = []
    for group, other in zip(intervals.groups, lci.groups, strict=True):
        middle = (group.shortest + group.longest) / 2
        rows.append(
            {
                "shortest": group.shortest,
                "longest": group.longest,
                "subjects": len(group.scores),
                "attainable_level": attainable_level(len(group.scores)),
                "half_width_ml": group.factor * intervals.scale.at(middle),
                "lci_half_width_ml": other.factor * lci.scale.at(middle),
            }
        )
    return rows
