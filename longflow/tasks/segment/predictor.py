"""Segment each scan by itself, or with the subject's others: in memory (the Python interface) and for folders."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow.data.dataset import DatasetDescription, Scan, label_path
from longflow.data.images import Geometry, Volume, as_type, read_scan, write_volume
from longflow.data.labels import label_manager, structures
from longflow.errors import ConfigurationError
from longflow.fitness.verdict import Verdict
from longflow.inference.fitness import judge_scan
from longflow.inference.in_memory import image_like, volume_of
from longflow.inference.models import LoadedMember, Models
from longflow.inference.predictor import Predictor, input_warnings
from longflow.preprocessing.prepared import RawSeries
from longflow.preprocessing.restore import export_probabilities, export_slices
from longflow.preprocessing.series import prepare_volumes
from longflow.tasks.segment.calibration import calibration_of
from longflow.tasks.segment.keep_largest import keep_largest, recorded_steps
from longflow.tasks.segment.other_scans import ScanWithOthers, candidates, prepare_with_others
from longflow.tasks.segment.probabilities import labels_of_mean
from longflow.tasks.segment.requests import SegmentationRequest, segmentation_requests
from longflow.tasks.segment.volumes import structure_volumes, write_volumes
from longflow.tasks.segment.windows import logits_of_slices

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScanToSegment:
    """A scan that was read and prepared; its voxels as read are not needed any more.

    :param scans: the scan as it was prepared for each model, with the other scans that the model looks at.
    :param warnings: of reading it.
    :param verdict: whether it is of the kind that was trained on.
    """

    geometry: Geometry
    scans: list[ScanWithOthers]
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
    """A trained model, or an ensemble, ready to segment.

    >>> segmenter = Segmenter.load(dataset=103)  # doctest: +SKIP
    >>> labels = segmenter.predict(scan)         # doctest: +SKIP

    Each scan is prepared and segmented alone, as in nnU-Net, so the scans of a subject need not share a grid. A folder
    is segmented with the subject's other scans where the method looks at them; in memory a scan is always alone.
    """

    task = "segment"

    def __init__(self, models: Models):
        super().__init__(models)
        plans = models.plans
        for member in models.members[1:]:
            if (member.plans.labels, member.plans.regions_class_order) != (plans.labels, plans.regions_class_order):
                raise ConfigurationError(
                    f"{models.members[0].member.model.folder.name} and {member.member.model.folder.name} were trained "
                    f"with other labels ({plans.labels} and {member.plans.labels}), so their probabilities cannot be "
                    "averaged. Train the older one again, then run longflow_find_best again."
                )
        self.structures = structures(plans.labels)
        #: the smallest integer type that holds every label
        self.data_type = np.min_scalar_type(max(label_manager(plans.labels, plans.regions_class_order).all_labels)).name
        best = models.selection.dataset.best
        #: structures of which the largest component alone is kept, as longflow_find_best decided it for these weights
        self.keep_largest = recorded_steps(best, models.candidate, models.weights, self.structures)

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
        return keep_largest(self._label(self.prepare(volume, case)), self.keep_largest, self.structures)

    def prepare(self, volume: Volume, case: str) -> list[ScanWithOthers]:
        """Prepare a volume for each model; it is not needed any more after that."""
        raw = RawSeries.of_scan(case, volume)
        return [
            ScanWithOthers.alone(prepare_volumes(raw, member.plans, member.configuration))
            for member in self.models.members
        ]

    def _label(self, scans: Sequence[ScanWithOthers]) -> np.ndarray:
        """Segment a scan that was prepared for each model; with one model, a slice is labelled with its logits."""
        if len(scans) > 1:
            return labels_of_mean(self._probabilities(scans), self.models.plans.regions_class_order)
        (member,) = self.models.in_turn()
        return export_slices(self._logits(member, scans[0]), scans[0].prepared.properties, member.plans)

    def _probabilities(self, scans: Sequence[ScanWithOthers]) -> Iterator[np.ndarray]:
        """Predict a scan with each model in turn: (outputs, z, y, x), uint8, on the files' grid."""
        for member, scan in zip(self.models.in_turn(), scans, strict=True):
            yield export_probabilities(self._logits(member, scan), scan.prepared.properties, member.plans)

    def _logits(self, member: LoadedMember, scan: ScanWithOthers) -> Iterator[np.ndarray]:
        return logits_of_slices(member.methods, scan.image, self.models.windows(member), scan.others)

    def probabilities(self, scans: ScanToSegment) -> np.ndarray:
        """Return the probabilities of labels by one model: (outputs, z, y, x), uint8, in units of 1/255."""
        (found,) = self._probabilities(scans.scans)
        return found

    def requests(
        self, folder: Path, description: DatasetDescription, keep_all_components: bool = False
    ) -> list[SegmentationRequest]:
        """List every scan of the folder that has images, with the scans of its subject that the model looks at.

        :param keep_all_components: of structures of which the largest alone would be kept, too.
        """
        scans = [item.target for item in segmentation_requests(folder, description)]
        steps = () if keep_all_components else self.keep_largest
        return [replace(self.request(scan, scans), keep_largest=steps) for scan in scans]

    def request(self, scan: Scan, scans: Sequence[Scan]) -> SegmentationRequest:
        """Return the request to segment a scan, with those of ``scans`` that a model looks at."""
        # all folds of a model have the settings of its first one
        of_members = [candidates(scan, scans, member.methods[0]) for member in self.models.members]
        others = [one for own in of_members for one in own]
        return SegmentationRequest(scan, others=tuple(dict.fromkeys(others)), keep_largest=self.keep_largest)

    def conditions(self, item: SegmentationRequest) -> dict[str, Any]:
        """Return what is kept of structures, which all label maps of a folder share."""
        return {"keep_largest": item.provenance()["keep_largest"]}

    def settings(self) -> dict[str, Any]:
        """Return what a label map depends on apart from its scan."""
        return {**super().settings(), "keep_largest": [list(step) for step in self.keep_largest] or None}

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
        scans = [
            prepare_with_others(
                *(item.target, volume, candidates(item.target, item.others, member.methods[0])),
                *(member.methods[0], member.plans, member.configuration),
            )
            for member in self.models.members
        ]
        of_others = list(dict.fromkeys(warning for scan in scans for warning in scan.warnings))
        for warning in of_others:
            logger.warning("%s", warning)
        verdict = judge_scan(volume, self.models.plans, item.target.case)
        return ScanToSegment(volume.geometry, scans, [*warnings, *of_others], verdict)

    def verdict(self, item: SegmentationRequest, scans: ScanToSegment) -> Verdict:
        """Return the verdict on the scan."""
        return scans.verdict

    def make(self, item: SegmentationRequest, scans: ScanToSegment) -> LabelMap:
        """Segment the scan."""
        labels = keep_largest(self._label(scans.scans), item.keep_largest, self.structures)
        return LabelMap(scans.geometry, labels, scans.warnings)

    def write(
        self, item: SegmentationRequest, made: LabelMap, folder: Path, description: DatasetDescription
    ) -> dict[str, Any]:
        """Write the label map, on the scan's own grid, and return its volumes."""
        (path,) = self.files(item, folder, description)
        write_volume(made.labels, made.geometry, self.data_type, path)
        volumes = structure_volumes(made.labels, made.geometry, self.structures)
        return {**self.conditions(item), "volumes": volumes, "warnings_of_input": made.warnings}

    def finish(self, folder: Path) -> None:
        """Write ``volumes.csv``, with corrected volumes where ``longflow_find_best`` found how they are corrected."""
        best = self.models.selection.dataset.best
        write_volumes(
            folder, calibration_of(best, self.models.candidate, self.models.weights), self.settings()["keep_largest"]
        )
