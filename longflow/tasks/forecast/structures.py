"""Compare structures in segmented forecasts with those in the target: volume, overlap, change since the last scan.

Three errors stand next to each other, of one segmenter: that of the forecast, that of the baselines, and that of the
acquired scan itself, which is the segmenter's own.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.images import Geometry, check_same_grid, read_geometry
from longflow.errors import first_few
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.significance import holm
from longflow.evaluation.summary import Row, paired_summary, summary, summary_definitions
from longflow.files import write_csv
from longflow.parallel import Progress
from longflow.tasks.forecast.comparison import ACQUIRED, FORECAST
from longflow.tasks.forecast.interval_errors import (
    INTERVAL_COLUMNS,
    INTERVAL_DEFINITIONS,
    calibration_of_folder,
    judge_intervals,
    summarise_intervals,
)
from longflow.tasks.forecast.ladder import LCI
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.segmented import (
    LABELS,
    SEGMENTED_SCAN,
    LabelsOfDataset,
    acquired_scans,
    find_labels,
    segment_scans,
    segmented_path,
)
from longflow.tasks.segment.evaluation import volume_ml
from longflow.tasks.segment.label_maps import read_labels
from longflow.tasks.segment.overlap import dice
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.segmented import SEGMENTED, case_of, trained_on

logger = logging.getLogger(__name__)

STRUCTURES_CSV = "metrics_structures.csv"
#: names in the folder of predictions
WRITTEN = (STRUCTURES_CSV, f"{SEGMENTED}/")

#: errors that are compared with those of the baselines, target by target
ERRORS = ("volume_error_ml", "relative_volume_error", "dice", "volume_change_error")

STRUCTURE_DEFINITIONS = {
    "volume_ml": "of the structure in the segmented scan, ml",
    "true_volume_ml": "the same of the reference",
    "volume_error_ml": "|volume - reference volume|, ml",
    "relative_volume_error": "|volume - reference volume| / reference volume; undefined where that is 0",
    "dice": "2 |A ∩ B| / (|A| + |B|) of the segmented scan and the reference, 0 to 1; undefined where the structure is "
    "in neither",
    "volume_change": (
        "(volume in the last context scan - volume) / volume in the last context scan: the share that was lost, "
        "negative for growth; both volumes are of segmented scans. From end diastole to end systole it is the ejection "
        "fraction. LCI has none: 0. Undefined where the structure is not in the last context scan"
    ),
    "true_volume_change": "the same of the reference; both volumes from labels, or both from segmented scans",
    "volume_change_error": "|volume_change - true_volume_change|",
}

#: in addition to those of the numbers
FURTHER_DEFINITIONS = {
    **summary_definitions("targets"),
    "p_holm": "p, corrected for all structures and both baselines (Holm 1979)",
    "reference": f"'{LABELS}': the target's label map; '{SEGMENTED_SCAN}': the acquired scan, segmented by the same "
    "model, where the target has no label map or that does not name the structure",
    "change_reference": f"'{LABELS}' where both the target and the last context scan have label maps",
    ACQUIRED: "the acquired scan, segmented by the same model: the segmenter's own error. Only where the reference is "
    "a label map",
    "difference_to_lci, difference_to_best_rung": "error (or Dice) of the forecast minus that of the baseline, paired: "
    "per target where both are defined, then per subject, then over subjects",
    "ignore": "voxels with the ignore label, in the target or in the last context scan, are excluded from everything",
}

COLUMNS = (
    *("case", "subject", "target_time", "horizon", "method", "structure", "reference", "change_reference"),
    *STRUCTURE_DEFINITIONS,
    *INTERVAL_COLUMNS,
)


@dataclass(frozen=True)
class TargetMaps:
    """The label maps of one target in memory, (z, y, x), on one grid.

    :param segmented: by method: the forecast, LCI (the last context scan), the best rung, the acquired scan.
    :param labels: of the target; None where it has none.
    :param context_labels: of the last context scan, likewise.
    :param known: True where neither has the ignore label.
    :param spacing: mm, (z, y, x).
    """

    segmented: dict[str, np.ndarray]
    labels: np.ndarray | None
    context_labels: np.ndarray | None
    known: np.ndarray
    spacing: tuple[float, float, float]

    def mask(self, labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
        """Return where a label map has a structure."""
        return np.isin(labels, values) & self.known

    def volume(self, labels: np.ndarray, values: Sequence[int]) -> float:
        """Return the volume of a structure in ml."""
        return volume_ml(self.mask(labels, values), self.spacing)


def evaluate_structures(
    job: EvaluationJob,
    segmenter: Segmenter,
    pairs: Sequence[ForecastPrediction],
    ladder: tuple[str, float],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Segment all scans, measure their structures, and write ``metrics_structures.csv``.

    :param ladder: name of the best rung, and the step of ``motion``.
    :returns: what metrics.json holds under ``structures``.
    :raises LongflowError: a scan cannot be segmented, or a label map cannot be used; it is named.
    """
    rung, step = ladder
    labels = find_labels(job, segmenter, [one.target.case for one in acquired_scans(job, pairs)])
    seen = trained_on(segmenter, [pair.subject for pair in pairs])
    if seen:
        logger.warning(
            "%d of the subjects have names of subjects that the segmenter was trained on (%s): its errors on their "
            "acquired scans are too small. Choose folds that were not trained on them, with -f.",
            *(len(seen), first_few(seen)),
        )
    segment_scans(job, segmenter, pairs, rung, step, progress or (lambda *_: None))
    rows = [row for pair in pairs for row in measure_pair(job, segmenter, pair, labels, rung)]
    calibration = calibration_of_folder(job.predictions, segmenter)
    if calibration is not None:
        judge_intervals(rows, calibration)
    write_csv(COLUMNS, rows, job.predictions / STRUCTURES_CSV)
    by_structure = {name: summarise_structure(_of(rows, structure=name), rung) for name in segmenter.structures}
    correct_p_values(by_structure)
    intervals = {}
    if calibration is not None:
        of_structures = {
            name: summarise_intervals(_of(rows, structure=name), calibration) for name in segmenter.structures
        }
        intervals = {"intervals": {"level": calibration.level, "by_structure": of_structures}}
    return {
        "segmenter": {**segmenter.settings(), "digests": segmenter.models.digests()},
        "subjects_of_segmenter_training": seen,
        "definitions": {**STRUCTURE_DEFINITIONS, **FURTHER_DEFINITIONS, **(INTERVAL_DEFINITIONS if intervals else {})},
        "best_rung": rung,
        "by_structure": by_structure,
        **intervals,
    }


def measure_pair(
    job: EvaluationJob, segmenter: Segmenter, pair: ForecastPrediction, labels: LabelsOfDataset, rung: str
) -> list[Row]:
    """Read the label maps of a target and measure every structure in them."""
    maps = read_target(job, segmenter, pair, labels, rung)
    place = {name: getattr(pair, name) for name in ("case", "subject", "target_time", "horizon")}
    return [
        {**place, **row}
        for name, values in segmenter.structures.items()
        for row in structure_rows(maps, name, values, labels.structures.values.get(name))
    ]


def read_target(
    job: EvaluationJob, segmenter: Segmenter, pair: ForecastPrediction, labels: LabelsOfDataset, rung: str
) -> TargetMaps:
    """Read the label maps of a target, those that were made and those that were drawn.

    :raises DataError: one is on another grid, or holds values that are not named; it is named.
    """
    target, last = (case_of(files, job.description) for files in (pair.reference, pair.context_images[-1]))
    made = {FORECAST: (FORECAST, pair.case), rung: (rung, pair.case)}
    made |= {LCI: (ACQUIRED, last), ACQUIRED: (ACQUIRED, target)}  # LCI is an acquired scan, the best rung or not
    known_values = frozenset(segmenter.models.description.label_values)
    paths = {method: segmented_path(job, *where) for method, where in made.items()}
    segmented = {method: read_labels(path, known_values)[0] for method, path in paths.items()}
    grid = read_geometry(pair.reference[0])
    drawn = [_read_drawn(labels, case, grid, pair.reference[0]) for case in (target, last)]
    ignored = [array == labels.structures.ignore for array in drawn if array is not None]
    known = ~np.logical_or.reduce([np.zeros(segmented[FORECAST].shape, bool), *ignored])
    return TargetMaps(segmented, *drawn, known, grid.array_spacing)


def _read_drawn(labels: LabelsOfDataset, case: str, grid: Geometry, reference: Path) -> np.ndarray | None:
    path = labels.paths.get(case)
    if path is None:
        return None
    array, own_grid = read_labels(path, labels.structures.known)
    check_same_grid(own_grid, path, grid, reference, "A label map has the grid of its scan.")
    return array


def structure_rows(
    maps: TargetMaps, name: str, values: Sequence[int], label_values: Sequence[int] | None
) -> Iterator[Row]:
    """Measure a structure of a target: a row for each method.

    :param values: of the structure in segmented scans.
    :param label_values: the same in the label maps that were drawn; None where they do not name it.
    """
    named = label_values is not None
    labels = maps.labels if named else None
    context_labels = maps.context_labels if named else None
    acquired = maps.segmented[ACQUIRED]
    truth = maps.mask(acquired, values) if labels is None else maps.mask(labels, label_values)
    true_volume = volume_ml(truth, maps.spacing)
    before = maps.volume(maps.segmented[LCI], values)
    of_labels = labels is not None and context_labels is not None
    if of_labels:
        true_change = share_lost(maps.volume(context_labels, label_values), true_volume)
    else:
        true_change = share_lost(before, maps.volume(acquired, values))
    for method, array in maps.segmented.items():
        if method == ACQUIRED and labels is None:
            continue  # it is the reference
        mask = maps.mask(array, values)
        volume = volume_ml(mask, maps.spacing)
        change = share_lost(before, volume)
        error = abs(volume - true_volume)
        is_own_reference = method == ACQUIRED and not of_labels
        yield {
            "method": method,
            "structure": name,
            "reference": SEGMENTED_SCAN if labels is None else LABELS,
            "change_reference": LABELS if of_labels else SEGMENTED_SCAN,
            "volume_ml": volume,
            "true_volume_ml": true_volume,
            "volume_error_ml": error,
            "relative_volume_error": error / true_volume if true_volume else None,
            "dice": dice(mask, truth),
            "volume_change": change,
            "true_volume_change": true_change,
            "volume_change_error": (
                None if change is None or true_change is None or is_own_reference else abs(change - true_change)
            ),
        }


def share_lost(before: float, after: float) -> float | None:
    """Compute the share of a volume that was lost; None where there was none.

    >>> share_lost(120, 48), share_lost(0, 10)
    (0.6, None)
    """
    return (before - after) / before if before else None


def summarise_structure(rows: Sequence[Row], rung: str) -> dict[str, Any]:
    """Summarise the rows of a structure over subjects; JSON-ready.

    :param rung: the best rung of the ladder.
    """
    forecasts = _of(rows, method=FORECAST)
    methods = [method for method in dict.fromkeys((FORECAST, rung, LCI, ACQUIRED)) if _of(rows, method=method)]
    numbers = [name for name in STRUCTURE_DEFINITIONS if not name.startswith("true_")]
    return {
        "targets": len(forecasts),
        "subjects": len({row["subject"] for row in forecasts}),
        "targets_with_labels": len(_of(forecasts, reference=LABELS)),
        "changes_with_labels": len(_of(forecasts, change_reference=LABELS)),
        "reference": {name: _summary(forecasts, f"true_{name}") for name in ("volume_ml", "volume_change")},
        **{method: {name: _summary(_of(rows, method=method), name) for name in numbers} for method in methods},
        "difference_to_lci": _difference(forecasts, _of(rows, method=LCI)),
        "difference_to_best_rung": _difference(forecasts, _of(rows, method=rung)),
    }


def _of(rows: Sequence[Row], **cells: str) -> list[Row]:
    """The rows with these cells."""
    return [row for row in rows if all(row[name] == cell for name, cell in cells.items())]


def _summary(rows: Sequence[Row], name: str) -> dict[str, Any]:
    return summary([row["subject"] for row in rows], [row[name] for row in rows])


def _difference(forecasts: Sequence[Row], baseline: Sequence[Row]) -> dict[str, Any]:
    """Forecast minus baseline of each error; both have a row for each target, in one order."""
    subjects = [row["subject"] for row in forecasts]
    return {
        name: paired_summary(subjects, [row[name] for row in forecasts], [row[name] for row in baseline])
        for name in ERRORS
    }


def correct_p_values(by_structure: Mapping[str, dict[str, Any]]) -> None:
    """Add ``p_holm`` to the differences: corrected for all structures and both baselines, error by error.

    :param by_structure: of :func:`summarise_structure`.
    """
    # where LCI is the best rung, both differences are one and the same test
    keys = ("difference_to_lci", "difference_to_best_rung")
    for error in ERRORS:
        tests = {}
        for structure, one in by_structure.items():
            repeated = one[keys[0]][error] == one[keys[1]][error]
            tests |= {(structure, key): one[key][error]["p"] for key in keys[: 1 if repeated else 2]}
        corrected = holm(tests)
        for structure, one in by_structure.items():
            for key in keys:
                one[key][error]["p_holm"] = corrected.get((structure, key), corrected[structure, keys[0]])
