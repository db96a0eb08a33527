"""Segment each scan by itself, or with the subject's others: in memory (the Python interface) and for folders."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow.data.dataset import DatasetDescription, label_path
from longflow.data.images import Geometry, Volume, as_type, read_scan, write_volume
from longflow.data.labels import label_manager, structures
from longflow.errors import ConfigurationError
from longflow.fitness.verdict import Verdict
from longflow.inference.fitness import judge_scan
from longflow.inference.in_memory import image_like, volume_of
from longflow.inference.models import Models
from longflow.inference.predictor import Predictor, input_warnings
from longflow.methods.method import Method
from longflow.preprocessing.prepared import PreparedSeries, RawSeries
from longflow.preprocessing.restore import export_slices
from longflow.preprocessing.series import prepare_volumes
from longflow.tasks.segment.calibration import calibration_of
from longflow.tasks.segment.other_scans import ScanWithOthers, candidates, prepare_with_others
from longflow.tasks.segment.requests import SegmentationRequest, segmentation_requests
from longflow.tasks.segment.volumes import structure_volumes, write_volumes
from longflow.tasks.segment.windows import logits_of_slices

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScanToSegment:
    """A scan that was read and prepared; its voxels as read are not needed any more.

    :param scan: with the other scans that the model looks at.
    :param warnings: of reading it.
    :param verdict: whether it is of the kind that was trained on.
    """

    geometry: Geometry
    scan: ScanWithOthers
    warnings: list[str]
    verdict: Verdict


@dataclass(frozen=True)
class LabelMap:
    """A scan that was segmented.

    :param labels: (z, y, x), int16, on the grid of the scan.
    :param warnings: of reading the scan.
    """

    geometry: Geometry
    labels: np.ndarray
    warnings: list[str]


class Segmenter(Predictor[SegmentationRequest]):
    """A trained model, ready to segment.

    >>> segmenter = Segmenter.load(dataset=103)  # doctest: +SKIP
    >>> labels = segmenter.predict(scan)         # doctest: +SKIP

    Each scan is prepared and segmented alone, as in nnU-Net, so the scans of a subject need not share a grid. A folder
    is segmented with the subject's other scans where the method looks at them; in memory a scan is always alone.
    """

    task = "segment"

    def __init__(self, models: Models):
        if len(models.members) > 1:
            names = ", ".join(member.member.model.folder.name for member in models.members)
            raise ConfigurationError(
                f"{len(models.members)} models are selected: {names}. Segmentation averages the folds of one model, "
                "not several models. Say which with -m and -c."
            )
        super().__init__(models)
        plans = models.plans
        self.structures = structures(plans.labels)
        #: the smallest integer type that holds every label
        self.data_type = np.min_scalar_type(max(label_manager(plans.labels, plans.regions_class_order).all_labels)).name

    def predict(
        self, image: np.ndarray | sitk.Image, spacing: Sequence[float] | None = None
    ) -> np.ndarray | sitk.Image:
        """Segment a scan.

        :param image: a SimpleITK image, or an array (z, y, x) or, with several channels, (channels, z, y, x).
        :param spacing: (z, y, x), mm; needed for arrays, taken from the image otherwise.
        :returns: an image, or an array (z, y, x), on the scan's grid, of the smallest integer type that holds the
        labels.
        :raises DataError: the scan has other channels than the model, or voxels that are not numbers.
        """
        labels = as_type(self.segment(volume_of(image, spacing)), self.data_type)
        return image_like(labels[None], image) if isinstance(image, sitk.Image) else labels

    def segment(self, volume: Volume, case: str = "scan") -> np.ndarray:
        """Segment a volume.

        :param case: name of the scan for messages.
        :returns: labels (z, y, x), int16, on the grid of the volume.
        """
        return self.label(self.prepare(volume, case))

    def prepare(self, volume: Volume, case: str) -> PreparedSeries:
        """Prepare a volume; it is not needed any more after that."""
        (member,) = self.models.members
        return prepare_volumes(RawSeries.of_scan(case, volume), member.plans, member.configuration)

    def label(self, prepared: PreparedSeries) -> np.ndarray:
        """Segment a prepared scan, as :meth:`segment`: a slice is labelled as soon as its logits are known."""
        return self._label(ScanWithOthers.alone(prepared))

    def _label(self, scan: ScanWithOthers) -> np.ndarray:
        (member,) = self.models.members
        logits = logits_of_slices(member.methods, scan.image, self.models.windows(member), scan.others)
        return export_slices(logits, scan.prepared.properties, member.plans)

    def requests(self, folder: Path, description: DatasetDescription) -> list[SegmentationRequest]:
        """List every scan of the folder that has images, with the scans of its subject that the model looks at."""
        items = segmentation_requests(folder, description)
        scans = [item.target for item in items]
        return [replace(item, others=candidates(item.target, scans, self.method)) for item in items]

    @property
    def method(self) -> Method:
        """The method of the first fold; all folds have its settings."""
        return self.models.members[0].methods[0]

    def inputs(self, item: SegmentationRequest) -> list[Path]:
        """Return the images of the scan and of the other scans that the model looks at."""
        return [path for scan in (item.target, *item.others) for path in scan.images]

    def files(self, item: SegmentationRequest, folder: Path, description: DatasetDescription) -> list[Path]:
        """Return ``{case}{file_ending}``, as in labelsTr."""
        return [label_path(folder, item.target.case, description)]

    def read(self, item: SegmentationRequest) -> ScanToSegment:
        """Read and prepare the scan."""
        volume = read_scan(item.target.images)
        warnings = input_warnings(volume, item.target, self.models.plans)
        (member,) = self.models.members
        scan = prepare_with_others(item.target, volume, item.others, self.method, member.plans, member.configuration)
        for warning in scan.warnings:
            logger.warning("%s", warning)
        verdict = judge_scan(volume, self.models.plans, item.target.case)
        return ScanToSegment(volume.geometry, scan, [*warnings, *scan.warnings], verdict)

    def verdict(self, item: SegmentationRequest, scans: ScanToSegment) -> Verdict:
        """Return the verdict on the scan."""
        return scans.verdict

    def make(self, item: SegmentationRequest, scans: ScanToSegment) -> LabelMap:
        """Segment the scan."""
        return LabelMap(scans.geometry, self._label(scans.scan), scans.warnings)

    def write(
        self, item: SegmentationRequest, made: LabelMap, folder: Path, description: DatasetDescription
    ) -> dict[str, Any]:
        """Write the label map, on the scan's own grid, and return its volumes."""
        (path,) = self.files(item, folder, description)
        write_volume(made.labels, made.geometry, self.data_type, path)
        volumes = structure_volumes(made.labels, made.geometry, self.structures)
        return {"volumes": volumes, "warnings_of_input": made.warnings}

    def finish(self, folder: Path) -> None:
        """Write ``volumes.csv``, with corrected volumes where ``longflow_find_best`` found how they are corrected."""
        (member,) = self.models.members
        best = self.models.selection.dataset.best
        write_volumes(folder, calibration_of(best, member.member.model.folder.name, member.weights))
