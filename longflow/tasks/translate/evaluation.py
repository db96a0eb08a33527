"""Translations against scans that were acquired in the wanted phase, beside the untranslated scans."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription
from longflow.data.images import Volume, check_same_grid, read_scan
from longflow.data.labels import structures
from longflow.errors import first_few
from longflow.evaluation.summary import COMPARISON_DEFINITIONS, Row, differences, summary
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.tasks.forecast.evaluation import METRICS_CSV, METRICS_JSON
from longflow.tasks.forecast.pairs import Files, peak_bytes, subjects_of_training
from longflow.tasks.segment.label_maps import read_labels
from longflow.tasks.translate.metrics import DEFINITIONS, Metrics, label_mae, translation_metrics
from longflow.tasks.translate.pairs import TranslationPair, find_translation_pairs, translations_of_folder

logger = logging.getLogger(__name__)

#: the rows of every translation: itself, and the untranslated scan as the trivial baseline
TRANSLATION, INPUT = "translation", "input"

PLACE = ("case", "subject", "time", "source", "source_phase", "target_phase", "round_trip", "image")
TAKEN = ("seconds", "slices")

GRIDS = (
    "Voxels are compared with voxels, so both phases must lie on one grid and show the same anatomy there. "
    "longflow_register brings them there, and writes them to a new dataset; translate those."
)

#: volumes of float32 that evaluating a translation holds at the peak, float64 intermediates included (measured: 15,
#: beside what SSIM takes for a slab)
_VOLUMES_AT_PEAK = 16

FURTHER_DEFINITIONS = {
    "mae {structure}": "mean absolute error inside a structure, as it is labelled in the truth; undefined without it",
    "by_direction": "by the phase that was wanted; translations of scans that were acquired",
    "round_trip": "the same for translations of translations, back to the phase that was acquired",
    "input": "the scan before it was translated, as if nothing had to be done",
    "mean": "mean over subjects of each subject's mean over its scans",
    "median": "median over subjects of each subject's mean over its scans",
    "interval": COMPARISON_DEFINITIONS["interval"],
    "undefined": "scans for which the number is not defined; they are left out of it",
    "difference": "translation - input, paired: per scan where both are defined, then per subject, then over subjects",
    "seconds_per_volume": "seconds that preparing a scan, translating it and bringing it back to its grid took",
    "seconds_per_slice": "the same divided by the number of slices that were translated",
}


@dataclass(frozen=True)
class PairTask:
    """What a worker needs to know of a translation."""

    pair: TranslationPair
    description: DatasetDescription


def evaluate_translations(
    predictions: Path,
    references: Sequence[Path],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[Row]]:
    """Compare a folder of translations with acquired scans; write ``metrics.csv`` and ``metrics.json`` into it.

    :param references: folders of acquired scans with their tables, searched in this order for the truth of each
        translation and for the scan that it was made from.
    :returns: the content of metrics.json (keys: what was compared, ``definitions``, ``by_direction``, ``round_trip``;
        these two by the wanted phase, each as :func:`summarise` has it), and the rows of metrics.csv.
    :raises DataError: there are no translations, none has a truth, a source is missing, or grids differ.
    """
    translations = translations_of_folder(predictions, description)
    pairs, without_truth = find_translation_pairs(translations, references, description)
    if without_truth:
        share = f"{len(without_truth)} of {len(translations)}"
        logger.warning("%s translations have no acquired scan to be compared with: %s", share, first_few(without_truth))
    seen = sorted({pair.translation.subject for pair in pairs} & subjects_of_training(references))
    if seen:
        logger.warning(
            "%d of the subjects stand in imagesTr (%s): unless these are predictions of folds that were not trained on "
            "them, the numbers say nothing about new subjects.",
            len(seen),
            first_few(seen),
        )
    rows = evaluate_translation_pairs(pairs, description, processes, progress)
    labelled = [name for name in structures(description.labels) if any(row[f"mae {name}"] is not None for row in rows)]
    results = {
        "task": "translate",
        "predictions": str(predictions),
        "references": [str(folder) for folder in references],
        "methods": sorted({pair.translation.method for pair in pairs}),
        "ct": description.is_ct,
        "without_truth": without_truth,
        "subjects_of_training": seen,
        "definitions": {**DEFINITIONS, **FURTHER_DEFINITIONS},
        "by_direction": _by_direction([row for row in rows if not row["round_trip"]], labelled),
        "round_trip": _by_direction([row for row in rows if row["round_trip"]], labelled),
    }
    columns = (*PLACE, *DEFINITIONS, *(f"mae {name}" for name in structures(description.labels)), *TAKEN)
    write_csv(columns, rows, predictions / METRICS_CSV)
    write_json(results, predictions / METRICS_JSON)
    return results, rows


def evaluate_translation_pairs(
    pairs: Sequence[TranslationPair],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Two rows for every pair (translation, input), in the order of the pairs."""
    fitting = processes_that_fit(processes, [peak_bytes(pair.truth, _VOLUMES_AT_PEAK) for pair in pairs])
    tasks = {pair.translation.case: PairTask(pair, description) for pair in pairs}
    rows = dict(for_each_subject(evaluate_translation_pair, tasks, fitting, progress))
    return [row for case in tasks for row in rows[case]]


def evaluate_translation_pair(task: PairTask) -> list[Row]:
    """The rows of one translation: itself and the untranslated scan.

    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    pair, one, ct = task.pair, task.pair.translation, task.description.is_ct
    truth = read_scan(pair.truth)
    files = {TRANSLATION: one.images, INPUT: pair.source}
    found = {image: read_on_grid(files[image], truth, pair.truth[0]) for image in files}
    labels = None
    if pair.label is not None:
        labels, grid = read_labels(pair.label, frozenset(task.description.label_values))
        check_same_grid(grid, pair.label, truth.geometry, pair.truth[0], "A label map lies on the grid of its scan.")
    body = body_of_scan(truth.array, ct)
    return [
        {
            **{name: getattr(one, name) for name in PLACE if name != "image"},
            "image": image,
            **translation_metrics(array, truth.array, body, truth.geometry.array_spacing, ct),
            **_label_metrics(array, truth.array, labels, task.description, ct),
            **({name: getattr(one, name) for name in TAKEN} if image == TRANSLATION else {}),
        }
        for image, array in found.items()
    ]


def read_on_grid(files: Files, truth: Volume, truth_file: Path) -> np.ndarray:
    """A scan (channels, z, y, x) that has to lie on the grid of the truth.

    :raises DataError: it does not; both files are named, and what to do.
    """
    volume = read_scan(files)
    check_same_grid(volume.geometry, files[0], truth.geometry, truth_file, GRIDS)
    return volume.array


def _label_metrics(
    found: np.ndarray, truth: np.ndarray, labels: np.ndarray | None, description: DatasetDescription, ct: Sequence[bool]
) -> Metrics:
    """``mae {structure}`` of every structure of the dataset; all undefined where the truth has no label map."""
    known = structures(description.labels)
    errors = dict.fromkeys(known) if labels is None else label_mae(found, truth, labels, known, ct)
    return {f"mae {name}": value for name, value in errors.items()}


def _by_direction(rows: Sequence[Row], labelled: Sequence[str]) -> dict[str, Any]:
    """The summary of every wanted phase, in order of name."""
    return {
        phase: summarise([row for row in rows if row["target_phase"] == phase], labelled)
        for phase in sorted({row["target_phase"] for row in rows})
    }


def summarise(rows: Sequence[Row], labelled: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that is said about the translations into one phase; JSON-ready.

    :param rows: two of each translation, in order. :param labelled: structures that have numbers.
    :returns: source_phases, translations and subjects (how many); ``translation``, ``input`` and ``difference``, each
        with the numbers of :data:`DEFINITIONS` as mean, median, interval, subjects, undefined; ``by_label``: the same
        three for the MAE of each structure; seconds_per_volume and seconds_per_slice.
    """
    of_image = {image: [row for row in rows if row["image"] == image] for image in (TRANSLATION, INPUT)}
    translations = of_image[TRANSLATION]
    subjects = [row["subject"] for row in translations]

    def compared(name: str) -> dict[str, Any]:
        values = {image: [row[name] for row in of_image[image]] for image in of_image}
        values["difference"] = differences(values[TRANSLATION], values[INPUT])
        return {image: summary(subjects, of_this) for image, of_this in values.items()}

    numbers = {name: compared(name) for name in DEFINITIONS}
    return {
        "source_phases": sorted({row["source_phase"] for row in translations}),
        "translations": len(translations),
        "subjects": len(set(subjects)),
        **{
            image: {name: number[image] for name, number in numbers.items()}
            for image in (TRANSLATION, INPUT, "difference")
        },
        "by_label": {name: compared(f"mae {name}") for name in labelled},
        "seconds_per_volume": summary(subjects, [row["seconds"] for row in translations]),
        "seconds_per_slice": summary(subjects, [_per_slice(row) for row in translations]),
    }


def _per_slice(row: Row) -> float | None:
    return row["seconds"] / row["slices"] if row["seconds"] is not None and row["slices"] else None
