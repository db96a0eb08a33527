"""Segmentations against the truth: overlap, consistency over time, volumes over time, lesions."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.errors import first_few
from longflow.evaluation.summary import COMPARISON_DEFINITIONS, subject_means, summary
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.tasks.forecast.pairs import peak_bytes, subjects_of_training
from longflow.tasks.segment import consistency, lesions, overlap, trajectories
from longflow.tasks.segment.label_maps import (
    LabelledScan,
    LabelMaps,
    Structures,
    find_labelled_scans,
    methods_of,
    read_label_maps,
)

logger = logging.getLogger(__name__)

Row = dict[str, Any]

METRICS_JSON = "metrics.json"
SCANS_CSV, PAIRS_CSV, SUBJECTS_CSV = "metrics.csv", "metrics_pairs.csv", "metrics_subjects.csv"

SCAN_COLUMNS = (
    *("case", "subject", "time", "structure", *overlap.DEFINITIONS, "volume_ml", "true_volume_ml"),
    *("lesions", "lesions_detected", "lesions_found", "lesions_correct", *lesions.DEFINITIONS),
)
PAIR_COLUMNS = (
    *("subject", "structure", "first", "second", "first_time", "second_time", "same_grid"),
    *("stcs", "true_stcs", "aspc", "true_aspc", "change", "true_change"),
)
SUBJECT_COLUMNS = (
    *("subject", "structure", "scans", "first_time", "last_time"),
    *("slope", "true_slope", "slope_error", "absolute_slope_error", "relative_slope_error", "volume_error"),
)

DEFINITIONS = {
    **overlap.DEFINITIONS,
    **consistency.DEFINITIONS,
    **trajectories.DEFINITIONS,
    **lesions.DEFINITIONS,
    "mean": "mean over subjects of each subject's mean over its scans",
    "median": "median over subjects of each subject's mean over its scans",
    "interval": COMPARISON_DEFINITIONS["interval"],
    "undefined": "scans, pairs or subjects for which the number is not defined; they are left out of it",
    "overall": "mean over a subject's structures, then over subjects",
    "missed, invented, in_neither": "scans with the structure in the truth alone, in the prediction alone, in neither",
    "ignore": "voxels that carry the ignore label in the truth are left out of everything; of a pair on one grid, "
    "those that carry it in either scan",
}

#: volumes of 4 bytes per voxel that a subject takes at its peak: two scans of two label maps, masks, surface distances
_VOLUMES_AT_PEAK = 14


@dataclass(frozen=True)
class SubjectScans:
    """The scans of a subject in order of time, and what to look at; the work of one worker."""

    scans: tuple[LabelledScan, ...]
    structures: Structures


@dataclass
class Rows:
    """What was measured: a row for each scan, each pair of consecutive scans, each subject; and structure."""

    scans: list[Row]
    pairs: list[Row]
    subjects: list[Row]


def evaluate_segmentations(
    predictions: Path,
    references: Sequence[Path],
    raw: Path,
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Rows]:
    """Compare a folder of label maps with the true ones; write metrics.json and three CSV files into it.

    :param references: folders of true label maps, searched in this order. :param raw: of the dataset, for its tables.
    :returns: the content of metrics.json, and the rows of the CSV files.
    :raises DataError: there are no label maps, none has a truth, grids differ, or a label value is unknown.
    """
    scans, without_truth = find_labelled_scans(predictions, references, raw, description)
    if without_truth:
        share = f"{len(without_truth)} of {len(without_truth) + len(scans)}"
        logger.warning("%s label maps have no truth and are not evaluated: %s", share, first_few(without_truth))
    seen = sorted({scan.subject for scan in scans} & subjects_of_training([raw / "imagesTr"]))
    if seen:
        logger.warning(
            "%d of the subjects stand in imagesTr (%s): unless these are predictions of folds that were not trained on "
            "them, the numbers say nothing about new subjects.",
            len(seen),
            first_few(seen),
        )
    structures = Structures.of(description)
    rows = evaluate_scans(scans, structures, processes, progress)
    results = {
        "task": "segment",
        "predictions": str(predictions),
        "references": [str(folder) for folder in references],
        "truth_from": {str(folder): number for folder, number in Counter(scan.true.parent for scan in scans).items()},
        "methods": methods_of(scans),
        "time_unit": description.time_unit,
        "without_truth": without_truth,
        "subjects_of_training": seen,
        "definitions": DEFINITIONS,
        **summarise(rows, list(structures.values)),
    }
    for columns, content, name in (
        (SCAN_COLUMNS, rows.scans, SCANS_CSV),
        (PAIR_COLUMNS, rows.pairs, PAIRS_CSV),
        (SUBJECT_COLUMNS, rows.subjects, SUBJECTS_CSV),
    ):
        write_csv(columns, content, predictions / name)
    write_json(results, predictions / METRICS_JSON)
    return results, rows


def evaluate_scans(
    scans: Sequence[LabelledScan],
    structures: Structures,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Rows:
    """The rows of all scans, subject by subject, in parallel."""
    of_subject: dict[str, list[LabelledScan]] = {}
    for scan in sorted(scans, key=lambda scan: (scan.subject, scan.time)):
        of_subject.setdefault(scan.subject, []).append(scan)
    tasks = {subject: SubjectScans(tuple(own), structures) for subject, own in of_subject.items()}
    needed = [peak_bytes((task.scans[0].true,), _VOLUMES_AT_PEAK) for task in tasks.values()]
    answers = dict(for_each_subject(evaluate_subject, tasks, processes_that_fit(processes, needed), progress))
    return Rows(
        scans=[row for subject in tasks for row in answers[subject].scans],
        pairs=[row for subject in tasks for row in answers[subject].pairs],
        subjects=[row for subject in tasks for row in answers[subject].subjects],
    )


def evaluate_subject(task: SubjectScans) -> Rows:
    """The rows of one subject; two scans are in memory at a time.

    :raises DataError: grids of prediction and truth differ, or a file cannot be used; it is named.
    """
    rows = Rows([], [], [])
    earlier: tuple[LabelledScan, LabelMaps] | None = None
    for scan in task.scans:
        maps = read_label_maps(scan, task.structures)
        for name, values in task.structures.values.items():
            rows.scans.append(_scan_row(scan, name, *maps.masks(values), maps.geometry.array_spacing))
            if earlier is not None:
                rows.pairs.append(_pair_row(earlier, (scan, maps), name, values))
        earlier = scan, maps
    for name in task.structures.values:
        rows.subjects.append(_subject_row([row for row in rows.scans if row["structure"] == name]))
    return rows


def _scan_row(scan: LabelledScan, name: str, found: np.ndarray, true: np.ndarray, spacing: Sequence[float]) -> Row:
    counts = lesions.count_lesions(found, true)
    return {
        "case": scan.case,
        "subject": scan.subject,
        "time": scan.time,
        "structure": name,
        "dice": overlap.dice(found, true),
        "iou": overlap.iou(found, true),
        "hd95": overlap.hd95(found, true, spacing),
        "volume_ml": volume_ml(found, spacing),
        "true_volume_ml": volume_ml(true, spacing),
        "lesions": counts.true,
        "lesions_detected": counts.detected,
        "lesions_found": counts.found,
        "lesions_correct": counts.correct,
        "lesion_precision": counts.precision,
        "lesion_recall": counts.recall,
        "lesion_f1": counts.f1,
    }


def volume_ml(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Volume of a boolean mask in ml. :param spacing: mm."""
    return float(np.count_nonzero(mask) * np.prod(spacing) / 1000)


def _pair_row(
    earlier: tuple[LabelledScan, LabelMaps], later: tuple[LabelledScan, LabelMaps], name: str, values: tuple[int, ...]
) -> Row:
    """A structure in two consecutive scans: consistency and change, found and true."""
    (first, first_maps), (second, second_maps) = earlier, later
    same_grid = not first_maps.geometry.differences(second_maps.geometry)
    known = first_maps.known & second_maps.known if same_grid else None
    masks = zip(first_maps.masks(values, known), second_maps.masks(values, known), strict=True)
    row: Row = {
        "subject": first.subject,
        "structure": name,
        "first": first.case,
        "second": second.case,
        "first_time": first.time,
        "second_time": second.time,
        "same_grid": same_grid,
    }
    for prefix, (one, other) in zip(("", "true_"), masks, strict=True):
        before = volume_ml(one, first_maps.geometry.array_spacing)
        after = volume_ml(other, second_maps.geometry.array_spacing)
        row[f"{prefix}stcs"] = consistency.stcs(one, other) if same_grid else None
        row[f"{prefix}aspc"] = consistency.aspc(before, after)
        row[f"{prefix}change"] = after - before
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


def summarise(rows: Rows, structures: Sequence[str]) -> dict[str, Any]:
    """Everything that is said about a cohort; JSON-ready."""
    return {
        "subjects": len({row["subject"] for row in rows.scans}),
        "scans": len({row["case"] for row in rows.scans}),
        "subjects_with_one_scan": sorted({row["subject"] for row in rows.subjects if row["scans"] == 1}),
        "pairs": len({(row["first"], row["second"]) for row in rows.pairs}),
        "pairs_on_other_grids": len({(row["first"], row["second"]) for row in rows.pairs if not row["same_grid"]}),
        "overall": {name: mean_over_structures(rows.scans, name) for name in overlap.DEFINITIONS},
        "by_structure": {name: _summarise_structure(rows, name) for name in structures},
    }


def mean_over_structures(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """A number over subjects: mean over a subject's scans, then over its structures, then over subjects."""
    means = subject_values(rows, name)
    return {**summary(list(means), list(means.values())), "undefined": sum(row[name] is None for row in rows)}


def subject_values(rows: Sequence[Row], name: str) -> dict[str, float]:
    """A number of each subject: mean over its scans, then over its structures; subjects without any are left out."""
    pairs = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == structure]
        pairs += subject_means([row["subject"] for row in own], [row[name] for row in own]).items()
    return subject_means([subject for subject, _ in pairs], [value for _, value in pairs])


def _summarise_structure(rows: Rows, name: str) -> dict[str, Any]:
    scans, pairs, subjects = (
        [row for row in part if row["structure"] == name] for part in (rows.scans, rows.pairs, rows.subjects)
    )
    of_scans = [row["subject"] for row in scans]
    present = [(row["volume_ml"] > 0, row["true_volume_ml"] > 0) for row in scans]
    return {
        **{number: summary(of_scans, [row[number] for row in scans]) for number in overlap.DEFINITIONS},
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
        **{name: summary(subjects, [row[name] for row in scans]) for name in lesions.DEFINITIONS},
    }
