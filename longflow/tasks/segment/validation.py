"""Validation on labels: Dice of whole scans during training, out-of-fold label maps at the end."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from longflow.data.dataset import Scan, training_series, write_description, write_scans
from longflow.data.images import Geometry, read_label, read_scan, write_volume
from longflow.data.labels import label_manager, structures
from longflow.errors import DataError
from longflow.files import write_json
from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.networks.precision import autocast
from longflow.paths import DatasetPaths, FoldPaths
from longflow.plans import Plans
from longflow.preprocessing.restore import export_labels, labels_of_logits
from longflow.preprocessing.series import load_prepared, prepare_volumes
from longflow.tasks.segment.labelled_subjects import require_labelled_scans
from longflow.tasks.segment.overlap import dice
from longflow.tasks.segment.volumes import structure_volumes, write_volumes
from longflow.tasks.segment.windows import predict_logits
from longflow.training.splits import Cohort
from longflow.training.validation import SIDE_BY_SIDE, Score, settings_of_fold

logger = logging.getLogger(__name__)

#: scans that are scored during training; at the end all are predicted as users would
MOST_SCANS = 8

#: Dice of each structure of a scan, None where neither the prediction nor the truth has it
ScanDice = dict[str, float | None]


class LabelValidation:
    """Mean Dice of the labelled scans of the validation subjects.

    :raises DataError: none of them has a label, or all labels are background.
    """

    def __init__(
        self,
        method: type[Method],
        dataset: DatasetPaths,
        plans: Plans,
        configuration: str,
        fold: int,
        cohort: Cohort,
        device: torch.device,
    ):
        self.dataset, self.plans, self.configuration, self.device = dataset, plans, configuration, device
        self.fold, self.folder, self.structures = fold, cohort.folder, structures(plans.labels)
        highest = max(label_manager(plans.labels, plans.regions_class_order).all_labels)
        #: the smallest integer type that holds every label
        self.data_type = np.min_scalar_type(highest).name
        self.all_scans = require_labelled_scans(cohort, f"that validate fold {fold}")
        chosen = np.linspace(0, len(self.all_scans) - 1, min(MOST_SCANS, len(self.all_scans))).round().astype(int)
        self.scans = [self.all_scans[index] for index in chosen]
        if not any(self._has_structure(subject, scan) for subject, scan in self.scans):
            raise DataError(
                f"The labels of the subjects that validate fold {fold} hold none of the structures "
                f"{', '.join(self.structures)}: there is nothing to score. Look at labelsTr, or give other subjects in "
                "splits_final.json."
            )

    def score(self, method: Method) -> Score:
        """1 - mean Dice on the prepared grid of the same scans every time: quickly, without overlap or mirroring.

        The mean is taken over a subject's scans, over structures, then over subjects.
        """
        found: dict[str, list[ScanDice]] = {}
        for subject, scan in self.scans:
            series = load_prepared(self.folder, subject)
            with autocast(self.device):
                image = np.asarray(series.images[scan])
                logits = predict_logits([method], image, WindowSettings(self.device, SIDE_BY_SIDE))
            truth = np.asarray(series.segmentations[scan])
            overlap = dice_of_structures(labels_of_logits(logits, self.plans), truth, self.plans)
            found.setdefault(subject, []).append(overlap)
        mean, by_structure = mean_dice(found.values())
        columns = {"dice": mean, **{f"dice_{name}": value for name, value in by_structure.items()}}
        return Score(1 - mean, columns, f"Dice {mean:.4f}")

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """Write the label maps of all labelled validation scans, as ``longflow_predict`` would, and log their Dice."""
        description, all_series = training_series(self.dataset.raw)
        scans = {scan.case: scan for series in all_series for scan in series.scans}
        folder, written = paths.validation("labels"), []
        found: dict[str, list[ScanDice]] = {}
        for number, (subject, index) in enumerate(self.all_scans, start=1):
            scan = scans[load_prepared(self.folder, subject).properties.cases[index]]
            labels, geometry, overlap = self._segment_file(method, scan)
            write_volume(labels, geometry, self.data_type, folder / f"{scan.case}{description.file_ending}")
            content = {"volumes": structure_volumes(labels, geometry, self.structures), "dice": overlap}
            write_json(self._sidecar(scan, method, paths) | content, folder / f"{scan.case}.json")
            found.setdefault(subject, []).append(overlap)
            written.append(scan)
            logger.debug("Out-of-fold label map %d of %d: %s", number, len(self.all_scans), scan.case)
        write_scans(written, folder / "scans.csv")
        write_description(description, folder / "dataset.json")
        write_volumes(folder)
        mean, by_structure = mean_dice(found.values())
        listed = ", ".join(f"{name} {value:.4f}" for name, value in by_structure.items())
        logger.info("Mean Dice of %d out-of-fold label maps: %.4f (%s); %s", len(written), mean, listed, folder)

    def _segment_file(self, method: Method, scan: Scan) -> tuple[np.ndarray, Geometry, ScanDice]:
        """Labels of a scan, prepared alone from its files, on their grid; and their Dice there."""
        volume = read_scan(scan.images)
        truth = read_label(scan.label, scan.images[0], volume.geometry)
        if truth is None:
            raise DataError(
                f"The label of {scan.case} has left labelsTr. Put it back, or run longflow_preprocess again."
            )
        prepared = prepare_volumes(scan.subject, [scan.case], [scan.time], [volume], self.plans, self.configuration)
        windows = WindowSettings(self.device, self.plans.inference.tile_step_size, method.mirrors)
        logits = predict_logits([method], np.asarray(prepared.images[0]), windows)
        labels = export_labels(logits, prepared.properties, self.plans)
        return labels, volume.geometry, dice_of_structures(labels, truth, self.plans)

    def _sidecar(self, scan: Scan, method: Method, paths: FoldPaths) -> dict[str, Any]:
        """What is segmented, and by which model."""
        return {
            "case": scan.case,
            "subject": scan.subject,
            "time": scan.time,
            "images": [path.name for path in scan.images],
            **settings_of_fold(method, paths, self.dataset, self.plans, self.configuration, self.fold),
        }

    def _has_structure(self, subject: str, scan: int) -> bool:
        values = [value for values in self.structures.values() for value in values]
        return bool(np.isin(load_prepared(self.folder, subject).segmentations[scan], values).any())


def dice_of_structures(found: np.ndarray, true: np.ndarray, plans: Plans) -> ScanDice:
    """Dice of each structure; voxels that the truth leaves open (nnU-Net's ignore label) do not count.

    :param found, true: label values, (z, y, x).
    """
    counted = true != plans.labels["ignore"] if "ignore" in plans.labels else np.ones(true.shape, dtype=bool)
    return {
        name: dice(np.isin(found, values) & counted, np.isin(true, values) & counted)
        for name, values in structures(plans.labels).items()
    }


def mean_dice(subjects: Iterable[list[ScanDice]]) -> tuple[float, dict[str, float]]:
    """Mean Dice of subjects' scans, where it is defined: over scans, then structures, then subjects.

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
    """Of each structure, over the scans in which its Dice is defined."""
    defined = {name: [scan[name] for scan in scans if scan[name] is not None] for name in scans[0]}
    return {name: float(np.mean(values)) for name, values in defined.items() if values}
