"""A segmenter whose label maps are known, and its dataset."""

import numpy as np

from longflow.data.dataset import DatasetDescription, write_description
from longflow.paths import DatasetPaths
from longflow.tasks.segment.other_scans import ScanWithOthers
from longflow.tasks.segment.predictor import Segmenter
from tests.inference.helpers import plans_to_segment, segmentation_model

#: its structures: voxels from 1 on are "rim", from 2 on "core"; "whole" is both
STRUCTURES = {"background": 0, "whole": [1, 2], "core": [2]}
EDGES = [1.0, 2.0]


def segmenter_dataset(channels=("MR",), labels=STRUCTURES, name="Dataset103_Segment", **further) -> DatasetPaths:
    """A dataset with a finished model that segments, with random weights; its times are in days."""
    dataset = DatasetPaths(name)
    names = {str(index): channel for index, channel in enumerate(channels)}
    write_description(
        DatasetDescription(channel_names=names, file_ending=".nii.gz", time_unit="days"), dataset.raw / "dataset.json"
    )
    plans = plans_to_segment(labels, [1, 2] if labels == STRUCTURES else (), channels=len(channels))
    plans.channel_names = list(channels)
    for plan, channel in zip(plans.channels, channels, strict=True):
        plan.name = channel
    segmentation_model(dataset, plans, **further)
    return dataset


def segment_by_threshold(monkeypatch) -> list[np.ndarray]:
    """Let every segmenter label the voxels of a scan by their value.

    :returns: the scans that were labelled, a growing list.
    """
    labelled = []

    def label(self, scans):
        (scan,) = scans
        array = scan.prepared.array[0]
        labelled.append(array)
        return np.digitize(array, EDGES).astype(np.int16)

    def unprepared(scan, volume, *_):
        return ScanWithOthers.alone(volume)

    monkeypatch.setattr(Segmenter, "prepare", lambda self, volume, case: [ScanWithOthers.alone(volume)])
    monkeypatch.setattr("longflow.tasks.segment.predictor.prepare_with_others", unprepared)
    monkeypatch.setattr(Segmenter, "_label", label)
    return labelled
