"""A cohort of six subjects whose forecasts are their last context images, and a segmenter by threshold."""

import numpy as np
import torch

from longflow.data.images import read_scan
from longflow.methods.registry import build_method
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training.splits import cohorts_of_fold
from tests.tasks.forecast import segmenting
from tests.training.helpers import finished_model, job_of

#: of the segmenter, for values from 100 to 200 and 100 more for each scan before in the corner that changes
THRESHOLDS = {"whole": 150.0, "core": 250.0}

#: ml of a voxel
VOXEL = 0.001


def validated_model(dataset: DatasetPaths, folds=range(5), method="cronos") -> None:
    """Finish folds without training, so that they forecast LCI, and write their out-of-fold forecasts."""
    for fold in folds:
        job = job_of(dataset, method, fold=fold)
        finished_model(dataset, job.plans, method, fold=fold)
        validation = ForecastValidation(job, cohorts_of_fold(job)[1], torch.device("cpu"))
        validation.finish(build_method(method, job.plans, "3d_fullres").eval())


def threshold_segmenter(monkeypatch, dataset: DatasetPaths, **further) -> list[np.ndarray]:
    """Make Dataset103_Segment, and let its model label by :data:`THRESHOLDS`; return the growing list of its scans."""
    monkeypatch.setattr(segmenting, "EDGES", list(THRESHOLDS.values()))
    segmenting.segmenter_dataset(tuple(read_plans(dataset.plans()).channel_names), **further)
    return segmenting.segment_by_threshold(monkeypatch)


def volume_of(dataset: DatasetPaths, case: str, structure: str) -> float:
    """Count the volume of a structure in an acquired scan, ml."""
    array = read_scan((dataset.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array[0]
    return float((array >= THRESHOLDS[structure]).sum()) * VOXEL
