"""Compare label maps with their references: overlap, consistency over time, volumes over time, lesions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from longflow.evaluation.evaluation import FIGURES, Evaluation, EvaluationJob, check_predictions
from longflow.evaluation.metric import Compared, Metric, compute_metrics, metrics_of
from longflow.evaluation.references import dataset_folders, peak_bytes
from longflow.evaluation.summary import Row, subject_means, summary, summary_definitions
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import METRICS_CSV, METRICS_JSON
from longflow.tasks.segment import consistency, trajectories
from longflow.tasks.segment.label_maps import (
    LABEL_FOLDERS,
    LabelMaps,
    LabelPrediction,
    Structures,
    find_label_pairs,
    methods_of,
    read_label_maps,
)
from longflow.tasks.segment.lesions import LESION_DEFINITIONS, count_lesions
from longflow.tasks.segment.task import TASK

PAIRS_CSV, SUBJECTS_CSV = "metrics_pairs.csv", "metrics_subjects.csv"

PAIR_COLUMNS = (
    *("subject", "structure", "first", "second", "first_time", "second_time", "same_grid"),
    *("stcs", "true_stcs", "aspc", "true_aspc", "change", "true_change"),
)
SUBJECT_COLUMNS = (
    *("subject", "structure", "scans", "first_time", "last_time"),
    *("slope", "true_slope", "slope_error", "absolute_slope_error", "relative_slope_error", "volume_error"),
    "slope_precision",
)

#: in addition to those of the metrics
SEGMENTATION_DEFINITIONS = {
    **consistency.CONSISTENCY_DEFINITIONS,
    **trajectories.TRAJECTORY_DEFINITIONS,
    **LESION_DEFINITIONS,
    **summary_definitions("scans"),
    "undefined": "scans, pairs or subjects for which the number is not defined; they are excluded from it",
    "overall": "mean over a subject's structures, then over subjects",
    "missed, invented, in_neither": "scans with the structure in the reference alone, in the prediction alone, in "
    "neither",
    "ignore": "voxels that carry the ignore label in the reference are excluded from everything; of a pair on one "
    "grid, those that carry it in either scan",
}

#: volumes of 4 bytes per voxel that a subject takes at its peak: two scans of two label maps, masks, surface distances
_VOLUMES_AT_PEAK = 14


@dataclass
class Rows:
    """Measured numbers: a row for each scan, each pair of consecutive scans, each subject; and structure."""

    scans: list[Row]
    pairs: list[Row]
    subjects: list[Row]


def scan_columns() -> list[str]:
    """Return the columns of metrics.csv."""
    return [
        *("case", "subject", "time", "structure"),
        *(metric.name for metric in metrics_of(TASK)),
        *("volume_ml", "true_volume_ml"),
        *("lesions", "lesions_detected", "lesions_found", "lesions_correct", *LESION_DEFINITIONS),
    ]


def evaluate_segmentations(job: EvaluationJob, progress: Progress | None = None) -> Evaluation:
    """Compare a folder of label maps with the references; write metrics.json, three CSV files and figures into it.

    :raises DataError: there are no label maps, none has a reference, grids differ, or a label value is unknown.
    """
    from longflow.tasks.segment.figures import draw_segmentations
    from longflow.tasks.segment.tables import show_segmentations

    folders = [*job.references, *dataset_folders(job.raw, LABEL_FOLDERS)]
    pairs, without = find_label_pairs(job.predictions, folders, job.raw, job.description)
    subjects, cases = [pair.subject for pair in pairs], [pair.case for pair in pairs]
    checked = check_predictions(job, TASK.words, subjects, cases, without)
    structures = Structures.of(job.description)
    rows = evaluate_scans(pairs, structures, job.processes, progress)
    metrics = {metric.name: metric.definition for metric in metrics_of(TASK)}
    results = {
        "task": TASK.name,
        "predictions": str(job.predictions),
        "references": [str(folder) for folder in folders],
        "truth_from": {str(folder): number for folder, number in _origins(pairs).items()},
        "methods": methods_of(pairs),
        "time_unit": job.description.time_unit,
        **checked,
        "definitions": {**metrics, **SEGMENTATION_DEFINITIONS},
        **summarise_cohort(rows, list(structures.values), list(metrics)),
    }
    for columns, content, name in (
        (scan_columns(), rows.scans, METRICS_CSV),
        (PAIR_COLUMNS, rows.pairs, PAIRS_CSV),
        (SUBJECT_COLUMNS, rows.subjects, SUBJECTS_CSV),
    ):
        write_csv(columns, content, job.predictions / name)
    write_json(results, job.predictions / METRICS_JSON)
    figures = draw_segmentations(results, rows, job.predictions / FIGURES)
    written = (METRICS_CSV, PAIRS_CSV, SUBJECTS_CSV, METRICS_JSON, *(f"{FIGURES}/{name}" for name in figures))
    return Evaluation(results, written, partial(show_segmentations, results))


def _origins(pairs: Sequence[LabelPrediction]) -> Counter:
    """How many references come from each folder."""
    return Counter(pair.reference[0].parent for pair in pairs)


def evaluate_scans(
    pairs: Sequence[LabelPrediction],
    structures: Structures,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Measure all label maps, subject by subject, in parallel."""
    of_subject: dict[str, list[LabelPrediction]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.subject, pair.time)):
        of_subject.setdefault(pair.subject, []).append(pair)
    needed = [peak_bytes(own[0].reference, _VOLUMES_AT_PEAK) for own in of_subject.values()]
    work = partial(evaluate_subject, structures=structures, metrics=metrics_of(TASK))
    answers = dict(for_each_subject(work, of_subject, processes_that_fit(processes, needed), progress))
    return Rows(
        scans=[row for subject in of_subject for row in answers[subject].scans],
        pairs=[row for subject in of_subject for row in answers[subject].pairs],
        subjects=[row for subject in of_subject for row in answers[subject].subjects],
    )


def evaluate_subject(scans: Sequence[LabelPrediction], structures: Structures, metrics: Sequence[Metric]) -> Rows:
    """Measure the scans of one subject; two scans are in memory at a time.

    :param scans: in order of time.
    :raises DataError: grids of prediction and reference differ, or a file cannot be used; it is named.
    """
    rows = Rows([], [], [])
    earlier: tuple[LabelPrediction, LabelMaps] | None = None
    for scan in scans:
        maps = read_label_maps(scan, structures)
        for name, values in structures.values.items():
            rows.scans.append(_scan_row(scan, name, maps.masks(values), metrics))
            if earlier is not None:
                rows.pairs.append(_pair_row(earlier, (scan, maps), name, values))
        earlier = scan, maps
    for name in structures.values:
        rows.subjects.append(_subject_row([row for row in rows.scans if row["structure"] == name]))
    return rows


def _scan_row(scan: LabelPrediction, name: str, masks: Compared, metrics: Sequence[Metric]) -> Row:
    counts = count_lesions(masks.prediction, masks.reference)
    return {
        "case": scan.case,
        "subject": scan.subject,
        "time": scan.time,
        "structure": name,
        **compute_metrics(metrics, masks),
        "volume_ml": volume_ml(masks.prediction, masks.spacing),
        "true_volume_ml": volume_ml(masks.reference, masks.spacing),
        "lesions": counts.reference,
        "lesions_detected": counts.detected,
        "lesions_found": counts.predicted,
        "lesions_correct": counts.correct,
        "lesion_precision": counts.precision,
        "lesion_recall": counts.recall,
        "lesion_f1": counts.f1,
    }


def volume_ml(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Compute the volume of a boolean mask in ml.

    :param spacing: mm.
    """
    return float(np.count_nonzero(mask) * np.prod(spacing) / 1000)


def _pair_row(
    earlier: tuple[LabelPrediction, LabelMaps],
    later: tuple[LabelPrediction, LabelMaps],
    name: str,
    values: tuple[int, ...],
) -> Row:
    """A structure in two consecutive scans: consistency and change, of prediction and reference."""
    (first, first_maps), (second, second_maps) = earlier, later
    same_grid = not first_maps.geometry.differences(second_maps.geometry)
    known = first_maps.known & second_maps.known if same_grid else None
    one, other = first_maps.masks(values, known), second_maps.masks(values, known)
    row: Row = {
        "subject": first.subject,
        "structure": name,
        "first": first.case,
        "second": second.case,
        "first_time": first.time,
        "second_time": second.time,
        "same_grid": same_grid,
    }
    for prefix, before, after in (
        ("", one.prediction, other.prediction),
        ("true_", one.reference, other.reference),
    ):
        volumes = volume_ml(before, one.spacing), volume_ml(after, other.spacing)
        row[f"{prefix}stcs"] = consistency.stcs(before, after) if same_grid else None
        row[f"{prefix}aspc"] = consistency.aspc(*volumes)
        row[f"{prefix}change"] = volumes[1] - volumes[0]
    return row


def _subject_row(of_scans: Sequence[Row]) -> Row:
    """A structure of one subject over time."""
    times = [row["time"] for row in of_scans]
    volumes = ([row[column] for row in of_scans] for column in ("volume_ml", "true_volume_ml"))
    return {
        "subject": of_scans[0]["subject"],
        "structure": of_scans[0]["structure"],
        "scans": len(of_scans),
        "first_time": min(times),
        "last_time": max(times),
        **trajectories.trajectory(times, *volumes),
    }


def summarise_cohort(rows: Rows, structures: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Summarise the label maps of a cohort; JSON-ready.

    :param names: of the metrics.
    """
    by_structure = {structure: _summarise_structure(rows, structure, names) for structure in structures}
    consistency.judge({name: one["consistency"] for name, one in by_structure.items() if one["consistency"]})
    return {
        "subjects": len({row["subject"] for row in rows.scans}),
        "scans": len({row["case"] for row in rows.scans}),
        "subjects_with_one_scan": sorted({row["subject"] for row in rows.subjects if row["scans"] == 1}),
        "pairs": len({(row["first"], row["second"]) for row in rows.pairs}),
        "pairs_on_other_grids": len({(row["first"], row["second"]) for row in rows.pairs if not row["same_grid"]}),
        "overall": {name: mean_over_structures(rows.scans, name) for name in names},
        "by_structure": by_structure,
    }


def mean_over_structures(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Summarise a number over subjects: mean over a subject's scans, then over its structures, then over subjects."""
    means = subject_values(rows, name)
    return {**summary(list(means), list(means.values())), "undefined": sum(row[name] is None for row in rows)}


def subject_values(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Return a number of each subject: mean over its scans, then over its structures; subjects without are excluded."""
    values = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == structure]
        values += subject_means([row["subject"] for row in own], [row[name] for row in own]).items()
    return subject_means([subject for subject, _ in values], [value for _, value in values])


def _summarise_structure(rows: Rows, structure: str, names: Sequence[str]) -> dict[str, Any]:
    scans, pairs, subjects = (
        [row for row in part if row["structure"] == structure] for part in (rows.scans, rows.pairs, rows.subjects)
    )
    of_scans = [row["subject"] for row in scans]
    present = [(row["volume_ml"] > 0, row["true_volume_ml"] > 0) for row in scans]
    return {
        **{name: summary(of_scans, [row[name] for row in scans]) for name in names},
        "missed": present.count((False, True)),
        "invented": present.count((True, False)),
        "in_neither": present.count((False, False)),
        "lesions": _summarise_lesions(scans),
        "consistency": consistency.summarise_consistency(pairs) if pairs else None,
        "trajectories": trajectories.summarise_trajectories(subjects, pairs) if pairs else None,
    }


def _summarise_lesions(scans: Sequence[Row]) -> dict[str, Any] | None:
    """Lesion-wise numbers of a structure that has more than one component in most scans; None for others."""
    numbers = [row["lesions"] for row in scans if row["lesions"]]
    if not numbers or np.median(numbers) <= 1:
        return None
    subjects = [row["subject"] for row in scans]
    return {
        "median_number": float(np.median(numbers)),
        **{name: summary(subjects, [row[name] for row in scans]) for name in LESION_DEFINITIONS},
    }
