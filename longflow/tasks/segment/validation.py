"""Validate on labels: Dice of whole scans during training, out-of-fold label maps at the end."""

import logging
from collections.abc import Iterable

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, Scan, label_path, training_series
from longflow.data.images import Geometry, read_label, read_scan, write_volume
from longflow.data.labels import label_manager, structures
from longflow.errors import DataError
from longflow.files import wait_for_files
from longflow.inference.output import sidecar_of, write_sidecar, write_table
from longflow.inference.windows import WindowSettings
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.networks.precision import autocast
from longflow.plans import Plans
from longflow.preprocessing.restore import export_labels, labels_of_logits
from longflow.preprocessing.series import load_prepared, read_properties
from longflow.spread import evenly_spaced
from longflow.tasks.segment.other_scans import candidates, others_of, prepare_with_others
from longflow.tasks.segment.overlap import dice
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.segment.volumes import structure_volumes, write_volumes
from longflow.tasks.segment.windows import predict_logits
from longflow.training.clock import results_in_time, writes_tables
from longflow.training.labelled_subjects import require_labelled_scans
from longflow.training.progress import ProgressColumns
from longflow.training.splits import Cohort
from longflow.training.validation import (
    WITHOUT_OVERLAP,
    Score,
    finished_before,
    out_of_fold_digests,
    out_of_fold_settings,
)

logger = logging.getLogger(__name__)

#: scans that are scored during training; at the end all are segmented
MOST_SCANS = 8

#: Dice of each structure of a scan, None where neither the prediction nor the reference has it
ScanDice = dict[str, float | None]


class LabelValidation:
    """Mean Dice of the labelled scans of the validation subjects.

    :param job: the fold.
    :param cohort: the subjects that validate it.
    :param device: that the method works on.
    :raises DataError: none of them has a label, or all labels are background.
    """

    progress = ProgressColumns("Dice", higher_is_better=True)

    def __init__(self, job: FoldJob, cohort: Cohort, device: torch.device):
        self.job, self.plans, self.folder, self.device = job, job.plans, cohort.folder, device
        self.structures = structures(job.plans.labels)
        highest = max(label_manager(job.plans.labels, job.plans.regions_class_order).all_labels)
        #: the smallest integer type that holds every label
        self.data_type = np.min_scalar_type(highest).name
        self.all_scans = require_labelled_scans(cohort, f"that validate fold {job.fold}")
        self.scans = [self.all_scans[index] for index in evenly_spaced(len(self.all_scans), MOST_SCANS)]
        if not any(self._has_structure(subject, scan) for subject, scan in self.scans):
            raise DataError(
                f"The labels of the subjects that validate fold {job.fold} hold none of the structures "
                f"{', '.join(self.structures)}: there is nothing to score. Look at labelsTr, or give other subjects in "
                "splits_final.json."
            )

    def score(self, method: Method) -> Score:
        """Return 1 - mean Dice on the prepared grid of the same scans every time, without overlap or mirroring.

        The mean is taken over a subject's scans, over structures, then over subjects.

        :param method: in evaluation mode.
        :returns: the score, with the Dice of each structure.
        """

        def score(place: tuple[str, int]) -> tuple[str, ScanDice]:
            subject, scan = place
            series = load_prepared(self.folder, subject)
            others = others_of(series, scan, self.plans) if method.uses_other_scans else None
            with autocast(self.device):
                image = np.asarray(series.images[scan])
                logits = predict_logits([method], image, WindowSettings(self.device, WITHOUT_OVERLAP), others)
            reference = np.asarray(series.segmentations[scan])
            return subject, dice_of_structures(labels_of_logits(logits, self.plans), reference, self.plans)

        mean, by_structure = mean_dice(by_subject(results_in_time(score, self.scans)))
        columns = {"dice": mean, **{f"dice_{name}": value for name, value in by_structure.items()}}
        return Score(1 - mean, columns, f"Dice {mean:.4f}")

    def finish(self, method: Method) -> None:
        """Write the label maps of all labelled validation scans, as ``longflow_predict`` would, and log their Dice.

        :param method: in evaluation mode, with the weights that are kept.
        """
        description, all_series = training_series(self.job.dataset.raw)
        scans = {scan.case: scan for series in all_series for scan in series.scans}
        folder = self.job.paths.validation("labels")

        def written(place: tuple[str, int]) -> tuple[SegmentationRequest, tuple[str, ScanDice]]:
            subject, index = place
            target = scans[read_properties(self.folder, subject).cases[index]]
            item = SegmentationRequest(target, others=candidates(target, list(scans.values()), method))
            overlap = self._write(method, item, description)
            logger.debug("Out-of-fold label map: %s", item.target.case)
            return item, (subject, overlap)

        made = results_in_time(written, self.all_scans)
        if not writes_tables():
            return
        items = [item for item, _ in made]
        wait_for_files(sidecar_of(item, folder) for item in items)
        write_table(items, folder, description)
        write_volumes(folder)
        mean, by_structure = mean_dice(by_subject([overlap for _, overlap in made]))
        listed = ", ".join(f"{name} {value:.4f}" for name, value in by_structure.items())
        logger.info("Mean Dice of %d out-of-fold label maps: %.4f (%s); %s", len(items), mean, listed, folder)

    def _write(self, method: Method, item: SegmentationRequest, description: DatasetDescription) -> ScanDice:
        """Segment a scan, prepared alone from its files; return the Dice on their grid."""
        scan, folder = item.target, self.job.paths.validation("labels")
        path = label_path(folder, scan.case, description)
        content = {
            **out_of_fold_settings(self.job, method),
            "digests": out_of_fold_digests(self.job, [image for one in (scan, *item.others) for image in one.images]),
        }
        if made := finished_before(item, folder, [path], content):
            return made["dice"]
        volume = read_scan(scan.images)
        reference = _reference(scan, volume.geometry)
        prepared = prepare_with_others(scan, volume, item.others, method, self.plans, self.job.configuration)
        windows = WindowSettings(self.device, self.plans.inference.tile_step_size, method.mirrors)
        logits = predict_logits([method], prepared.image, windows, prepared.others)
        labels = export_labels(logits, prepared.prepared.properties, self.plans)
        write_volume(labels, volume.geometry, self.data_type, path)
        overlap = dice_of_structures(labels, reference, self.plans)
        volumes = structure_volumes(labels, volume.geometry, self.structures)
        write_sidecar(item, folder, {**content, "volumes": volumes, "dice": overlap, "warnings": prepared.warnings})
        return overlap

    def _has_structure(self, subject: str, scan: int) -> bool:
        values = [value for values in self.structures.values() for value in values]
        return bool(np.isin(load_prepared(self.folder, subject).segmentations[scan], values).any())


def _reference(scan: Scan, geometry: Geometry) -> np.ndarray:
    reference = read_label(scan.label, scan.images[0], geometry)
    if reference is None:
        raise DataError(f"The label of {scan.case} has left labelsTr. Put it back, or run longflow_preprocess again.")
    return reference


def dice_of_structures(prediction: np.ndarray, reference: np.ndarray, plans: Plans) -> ScanDice:
    """Compute the Dice of each structure; voxels with nnU-Net's ignore label in the reference do not count.

    :param prediction: (z, y, x), label values.
    :param reference: (z, y, x), label values.
    :param plans: with the labels.
    :returns: Dice by structure.
    """
    counted = reference != plans.labels["ignore"] if "ignore" in plans.labels else np.ones(reference.shape, dtype=bool)
    return {
        name: dice(np.isin(prediction, values) & counted, np.isin(reference, values) & counted)
        for name, values in structures(plans.labels).items()
    }


def by_subject(overlaps: Iterable[tuple[str, ScanDice]]) -> list[list[ScanDice]]:
    """Group the Dice of scans by subject.

    :param overlaps: subject and Dice of each scan.
    :returns: the Dice of each subject's scans.
    """
    subjects: dict[str, list[ScanDice]] = {}
    for subject, overlap in overlaps:
        subjects.setdefault(subject, []).append(overlap)
    return list(subjects.values())


def mean_dice(subjects: Iterable[list[ScanDice]]) -> tuple[float, dict[str, float]]:
    """Average Dice where it is defined: over a subject's scans, then structures, then subjects.

    :param subjects: the Dice of each subject's scans.
    :returns: the mean, and that of each structure that some scan has; NaN and none where nothing is defined.
    """
    of_subjects = [_means_over_scans(scans) for scans in subjects]
    of_structures: dict[str, list[float]] = {}
    for means in of_subjects:
        for name, value in means.items():
            of_structures.setdefault(name, []).append(value)
    defined = [np.mean(list(means.values())) for means in of_subjects if means]
    mean = float(np.mean(defined)) if defined else float("nan")
    return mean, {name: float(np.mean(values)) for name, values in of_structures.items()}


def _means_over_scans(scans: list[ScanDice]) -> dict[str, float]:
    """Average the Dice of each structure over the scans in which it is defined."""
    defined = {name: [scan[name] for scan in scans if scan[name] is not None] for name in scans[0]}
    return {name: float(np.mean(values)) for name, values in defined.items() if values}
