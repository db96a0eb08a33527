"""Compare translations with the scans acquired in the requested phase, next to the untranslated scans."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription
from longflow.data.images import check_same_grid, read_scan
from longflow.data.labels import structures
from longflow.evaluation.evaluation import FIGURES, Evaluation, EvaluationJob, check_predictions
from longflow.evaluation.metric import Metric, compute_metrics, metrics_of
from longflow.evaluation.references import dataset_folders, peak_bytes, read_like
from longflow.evaluation.significance import holm
from longflow.evaluation.summary import Row, paired_summary, summary, summary_definitions
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import METRICS_CSV, METRICS_JSON
from longflow.tasks.segment.label_maps import read_labels
from longflow.tasks.translate.metrics import Metrics, TranslationVolumes, label_mae, untranslated
from longflow.tasks.translate.pairs import (
    ONE_GRID,
    TranslationPrediction,
    find_translation_pairs,
    translations_of_folder,
)
from longflow.tasks.translate.task import TASK

#: the rows of every translation: itself, and the untranslated scan as the trivial baseline
TRANSLATION, INPUT = "translation", "input"

#: of metrics.csv, before and after the numbers
PLACE = ("case", "subject", "time", "source", "source_phase", "target_phase", "round_trip")
TAKEN = ("seconds", "slices")

#: file in the folder of predictions
FIGURE = f"{FIGURES}/translations.png"

#: volumes of float32 that evaluating a translation holds at the peak, float64 intermediates included (measured: 15,
#: in addition to what SSIM takes for a slab)
_VOLUMES_AT_PEAK = 16

FURTHER_DEFINITIONS = {
    "mae {structure}": "mean absolute error inside a structure, as it is labelled in the reference; undefined without "
    "it",
    "by_direction": "by the requested phase; translations of scans that were acquired",
    "round_trip": "the same for translations of translations, back to the phase that was acquired",
    "input": "the scan before it was translated, as if nothing had to be done; where the phases are different "
    "modalities, the scan after the linear map that fits the reference best inside the body",
    **summary_definitions("scans"),
    "difference": "translation - input, paired: per scan where both are defined, then per subject, then over subjects",
    "p_holm": "p, corrected for the number of requested phases (Holm 1979)",
    "seconds_per_volume": "seconds that preparing a scan, translating it and bringing it back to its grid took",
    "seconds_per_slice": "the same divided by the number of slices that were translated",
}


def evaluate_translations(job: EvaluationJob, progress: Progress | None = None) -> Evaluation:
    """Compare a folder of translations with acquired scans; write metrics.csv, metrics.json and a figure into it.

    The reference of each translation and its source are searched in the folders of the user, then in those of the
    dataset, by their tables. With a segmentation model, metrics_structures.csv and the label maps are written, too.

    :returns: its results are what was compared, ``definitions``, ``by_direction`` and ``round_trip``; these two by the
        requested phase, each as :func:`summarise_direction` returns it; with a segmentation model ``structures``
        (:func:`longflow.tasks.translate.structures.evaluate_structures`), else None.
    :raises DataError: there are no translations, none has a reference, a source is missing, or grids differ.
    """
    from longflow.tasks.translate.figures import draw_translations
    from longflow.tasks.translate.tables import show_translations

    description, folders = job.description, [*job.references, *dataset_folders(job.raw)]
    translations = translations_of_folder(job.predictions, description)
    pairs, without = find_translation_pairs(translations, folders, description)
    subjects, cases = [pair.subject for pair in pairs], [pair.case for pair in pairs]
    checked = check_predictions(job, TASK.words, subjects, cases, without)
    rows = evaluate_translation_pairs(pairs, description, job.processes, progress)
    structures_found, further = None, ()
    if job.segmenter is not None:
        # it waits for torch, which nothing else here needs
        from longflow.tasks.translate.structures import WRITTEN, evaluate_structures

        structures_found, further = evaluate_structures(job, pairs, progress or (lambda *_: None)), WRITTEN
    metrics = {metric.name: metric.definition for metric in metrics_of(TASK)}
    known = structures(description.labels)
    labelled = [name for name in known if any(row[f"mae {name}"] is not None for row in rows)]
    by_direction = partial(_by_direction, names=list(metrics), labelled=labelled)
    results = {
        "task": TASK.name,
        "predictions": str(job.predictions),
        "references": [str(folder) for folder in folders],
        "methods": sorted({pair.method for pair in pairs}),
        "ct": description.is_ct,
        "ct_of_phases": {phase: description.is_ct_of(phase) for phase in sorted({pair.target_phase for pair in pairs})},
        **checked,
        "definitions": {**metrics, **FURTHER_DEFINITIONS},
        "by_direction": by_direction([row for row in rows if not row["round_trip"]]),
        "round_trip": by_direction([row for row in rows if row["round_trip"]]),
        "structures": structures_found,
    }
    columns = (*PLACE, "image", *metrics, *(f"mae {name}" for name in known), *TAKEN)
    write_csv(columns, rows, job.predictions / METRICS_CSV)
    write_json(results, job.predictions / METRICS_JSON)
    draw_translations(rows, pairs, description, job.predictions / FIGURE)
    return Evaluation(results, (METRICS_CSV, METRICS_JSON, FIGURE, *further), partial(show_translations, results))


def evaluate_translation_pairs(
    pairs: Sequence[TranslationPrediction],
    description: DatasetDescription,
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure translations and untranslated scans.

    :returns: two rows for every pair (translation, input), in the order of the pairs.
    """
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, _VOLUMES_AT_PEAK) for pair in pairs])
    work = partial(evaluate_translation_pair, description=description, metrics=metrics_of(TASK))
    rows = dict(for_each_subject(work, {pair.case: pair for pair in pairs}, fitting, progress))
    return [row for pair in pairs for row in rows[pair.case]]


def evaluate_translation_pair(
    pair: TranslationPrediction, description: DatasetDescription, metrics: Sequence[Metric]
) -> list[Row]:
    """Measure one translation and its untranslated scan.

    :raises DataError: grids differ, or a file cannot be read; it is named.
    """
    reference = read_scan(pair.reference)
    arrays = {
        image: read_like(files, reference, pair.reference[0], ONE_GRID).array
        for image, files in ((TRANSLATION, pair.images), (INPUT, pair.source_images))
    }
    labels = None
    if pair.label_map is not None:
        labels, grid = read_labels(pair.label_map, frozenset(description.label_values))
        advice = "A label map has the grid of its scan."
        check_same_grid(grid, pair.label_map, reference.geometry, pair.reference[0], advice)
    ct = description.is_ct_of(pair.target_phase)
    body, spacing = body_of_scan(reference.array, ct), reference.geometry.array_spacing
    other = bool(description.phase_channels)
    arrays[INPUT] = untranslated(arrays[INPUT], reference.array, body, description)
    return [
        {
            **{name: getattr(pair, name) for name in PLACE},
            "image": image,
            **compute_metrics(metrics, TranslationVolumes(array, reference.array, spacing, body, ct, other)),
            **_label_metrics(array, reference.array, labels, description, ct),
            **({name: getattr(pair, name) for name in TAKEN} if image == TRANSLATION else {}),
        }
        for image, array in arrays.items()
    ]


def _label_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray | None,
    description: DatasetDescription,
    ct: Sequence[bool],
) -> Metrics:
    """``mae {structure}`` of every structure of the dataset; all undefined where the reference has no label map."""
    known = structures(description.labels)
    errors = dict.fromkeys(known) if labels is None else label_mae(prediction, reference, labels, known, ct)
    return {f"mae {name}": value for name, value in errors.items()}


def _by_direction(rows: Sequence[Row], names: Sequence[str], labelled: Sequence[str]) -> dict[str, Any]:
    """The summary of every requested phase, in order of name; p values are corrected for the number of phases."""
    found = {
        phase: summarise_direction([row for row in rows if row["target_phase"] == phase], names, labelled)
        for phase in sorted({row["target_phase"] for row in rows})
    }
    for name in names:
        for phase, p in holm({phase: one["difference"][name]["p"] for phase, one in found.items()}).items():
            found[phase]["difference"][name]["p_holm"] = p
    return found


def summarise_direction(rows: Sequence[Row], names: Sequence[str], labelled: Sequence[str] = ()) -> dict[str, Any]:
    """Summarise the translations into one phase; JSON-ready.

    :param rows: two of each translation, in order.
    :param names: of the metrics.
    :param labelled: structures that have numbers.
    :returns: source_phases, translations and subjects (how many); ``translation``, ``input`` and ``difference``, each
        with the metrics as mean, median, interval, subjects, undefined; ``by_label``: the same three for the MAE of
        each structure; seconds_per_volume and seconds_per_slice.
    """
    of_image = {image: [row for row in rows if row["image"] == image] for image in (TRANSLATION, INPUT)}
    translations = of_image[TRANSLATION]
    subjects = [row["subject"] for row in translations]

    def compared(name: str) -> dict[str, Any]:
        values = {image: [row[name] for row in of_image[image]] for image in of_image}
        return {
            **{image: summary(subjects, of_this) for image, of_this in values.items()},
            "difference": paired_summary(subjects, values[TRANSLATION], values[INPUT]),
        }

    numbers = {name: compared(name) for name in names}
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
