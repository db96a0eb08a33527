"""Do structures look right in a translation? One segmentation model on the translated and on the acquired scan.

The Dice coefficient of both label maps is a score of SynthRAD 2025 (Thummerer et al., Med. Phys. 2025): a translation
is good where a model that segments real scans finds in it what it finds in the acquired scan.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import Scan, label_path
from longflow.data.images import Geometry, check_same_grid, read_geometry
from longflow.errors import DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.references import Files
from longflow.evaluation.significance import holm
from longflow.evaluation.summary import Row, paired_summary, summary
from longflow.files import write_csv
from longflow.inference.models import PredictionSettings
from longflow.parallel import Progress
from longflow.tasks.segment.evaluation import volume_ml
from longflow.tasks.segment.label_maps import Structures, read_labels
from longflow.tasks.segment.overlap import dice
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.segment.segmented import SEGMENTED, case_of, check_channels, trained_on, write_label_maps
from longflow.tasks.translate.pairs import TranslationPrediction

#: file in the folder of predictions
STRUCTURES_CSV = "metrics_structures.csv"
WRITTEN = (STRUCTURES_CSV, f"{SEGMENTED}/")

#: whose label maps are compared: the translation, the scan before it, the scan that was acquired in the requested phase
TRANSLATION, INPUT, ACQUIRED = IMAGES = ("translation", "input", "acquired")

NUMBERS = {
    "dice": "Dice of the label maps that the segmentation model makes of this image and of the acquired scan "
    "(SynthRAD 2025); 1 for the acquired scan itself, so not given",
    "volume_error_ml": "absolute difference of the two volumes",
    "dice_to_labels": "Dice of the label map that the model makes of this image and the dataset's label map of the "
    "acquired scan; undefined without one. That of the acquired scan is the model's own error",
}


def evaluate_structures(
    job: EvaluationJob, pairs: Sequence[TranslationPrediction], progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Segment translations, their sources and the acquired scans, compare structures, and write a table.

    Sources are a baseline where they have the channels that the model segments. Phases of other channels are not
    segmented, and translations of translations are left out.

    :param job: with the segmentation model.
    :param pairs: of the evaluation.
    :returns: ``segmenter``, ``definitions``, ``trained_on`` (subjects that the model learned from), ``not_segmented``
        (phases of other channels), and ``by_direction``: by phase and structure, the numbers of each image, and the
        differences translation - input.
    :raises ConfigurationError: no phase has the channels that the model segments.
    :raises DataError: a scan cannot be segmented; each is named.
    """
    own = [pair for pair in pairs if not pair.round_trip]
    if not own:
        raise DataError(f"{job.predictions}: all translations lead back, so there is no acquired scan to segment.")
    phases = sorted({pair.target_phase for pair in own})
    segmenter = Segmenter.of(job.segmenter, PredictionSettings(job.device))
    takes, channels_of = segmenter.models.plans.channel_names, job.description.channels_of
    fitting = {phase for phase in (*phases, *(pair.source_phase for pair in own)) if channels_of(phase) == takes}
    if not fitting.intersection(phases):
        check_channels(segmenter, channels_of(phases[0]), f"the translations of {job.raw.name} to {phases[0]}")
    own = [pair for pair in own if pair.target_phase in fitting]
    _segment(job, segmenter, own, fitting, progress)
    rows = [row for pair in own for row in _rows(job, segmenter, pair, pair.source_phase in fitting)]
    write_csv(list(rows[0]), rows, job.predictions / STRUCTURES_CSV)
    return {
        "segmenter": segmenter.models.members[0].member.model.folder.name,
        "dataset": segmenter.models.selection.dataset.name,
        "definitions": NUMBERS,
        "trained_on": trained_on(segmenter, [pair.subject for pair in own]),
        "not_segmented": [phase for phase in phases if phase not in fitting],
        "by_direction": {
            phase: _summaries([row for row in rows if row["target_phase"] == phase])
            for phase in phases
            if phase in fitting
        },
    }


def _segment(
    job: EvaluationJob,
    segmenter: Segmenter,
    pairs: Sequence[TranslationPrediction],
    fitting: set[str],
    progress: Progress,
) -> None:
    """Write the label maps of translations, acquired scans and sources; finished ones are kept."""
    acquired: dict[str, Scan] = {}
    for pair in pairs:
        files = [pair.reference, *([pair.source_images] if pair.source_phase in fitting else [])]
        for one in files:
            case = case_of(one, job.description)
            acquired[case] = Scan(case, pair.subject, pair.time, one)
    translated = [Scan(pair.case, pair.subject, pair.time, pair.images) for pair in pairs]
    for kind, scans in ((TRANSLATION, translated), (ACQUIRED, list(acquired.values()))):
        requests = [SegmentationRequest(scan) for scan in scans]
        write_label_maps(segmenter, requests, job.predictions / SEGMENTED / kind, job.description, progress)


def _rows(job: EvaluationJob, segmenter: Segmenter, pair: TranslationPrediction, with_input: bool) -> list[Row]:
    """Compare the structures of a pair: a row for each structure and image.

    :raises DataError: label maps are on other grids; they are named.
    """
    grid = read_geometry(pair.reference[0])
    made = {TRANSLATION: (TRANSLATION, pair.case), ACQUIRED: (ACQUIRED, case_of(pair.reference, job.description))}
    if with_input:
        made[INPUT] = (ACQUIRED, case_of(pair.source_images, job.description))
    values = frozenset(segmenter.models.description.label_values)
    maps = {
        image: _read(
            label_path(job.predictions / SEGMENTED / kind, case, job.description), values, grid, pair.reference
        )
        for image, (kind, case) in made.items()
    }
    drawn = Structures.of(job.description) if pair.label_map is not None else None
    labels = None if drawn is None else _read(pair.label_map, drawn.known, grid, pair.reference)
    rows = []
    for name, own in segmenter.structures.items():
        acquired = np.isin(maps[ACQUIRED], own)
        named = drawn.values.get(name) if drawn else None
        truth = None if named is None else np.isin(labels, named)
        for image in (one for one in IMAGES if one in maps):
            mask = np.isin(maps[image], own)
            is_acquired = image == ACQUIRED
            volumes = [volume_ml(one, grid.array_spacing) for one in (mask, acquired)]
            rows.append(
                {
                    **{key: getattr(pair, key) for key in ("case", "subject", "source_phase", "target_phase")},
                    "structure": name,
                    "image": image,
                    "volume_ml": volumes[0],
                    "dice": None if is_acquired else dice(mask, acquired),
                    "volume_error_ml": None if is_acquired else abs(volumes[0] - volumes[1]),
                    "dice_to_labels": None if truth is None else dice(mask, truth),
                }
            )
    return rows


def _read(path: Path, values: frozenset[int], grid: Geometry, reference: Files) -> np.ndarray:
    """Read a label map on the grid of the acquired scan."""
    array, own = read_labels(path, values)
    check_same_grid(own, path, grid, reference[0], "A translation, its source and its reference have one grid.")
    return array


def _summaries(rows: Sequence[Row]) -> dict[str, Any]:
    """Summarise the structures of one direction over subjects; p values are corrected for their number."""
    found: dict[str, Any] = {}
    for structure in dict.fromkeys(row["structure"] for row in rows):
        of_image = {
            image: own
            for image in IMAGES
            if (own := [row for row in rows if (row["structure"], row["image"]) == (structure, image)])
        }
        subjects = [row["subject"] for row in of_image[TRANSLATION]]
        one: dict[str, Any] = {
            image: {name: summary(subjects, [row[name] for row in own]) for name in NUMBERS}
            for image, own in of_image.items()
        }
        if INPUT in of_image:
            one["difference"] = {
                name: paired_summary(
                    subjects, *([row[name] for row in of_image[image]] for image in (TRANSLATION, INPUT))
                )
                for name in NUMBERS
            }
        found[structure] = one
    for name in NUMBERS:
        tests = {structure: one["difference"][name]["p"] for structure, one in found.items() if "difference" in one}
        for structure, p in holm(tests).items():
            found[structure]["difference"][name]["p_holm"] = p
    return found
