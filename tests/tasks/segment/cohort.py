"""Tiny prepared cohorts with labels, without a raw dataset."""

import numpy as np

from longflow.data.images import Volume
from longflow.plans import Plans
from longflow.preprocessing.series import RawSeries, prepare_volumes, save_prepared
from longflow.training.splits import Cohort
from tests.methods.helpers import minimal_plans
from tests.training.helpers import geometry

SHAPE = (6, 14, 12)
TIMES = (0.0, 10.0, 30.0, 70.0)


def segment_plans(labels=None, order=(), batch_size=3, dimensions=3, patch=None, strides=None) -> Plans:
    """Plans of the task; by default 4 x 8 x 8 (or 8 x 8), two structures, one scale of deep supervision."""
    plans = minimal_plans(dimensions=dimensions)
    plans.task = "segment"
    plans.labels = {"background": 0, "left": 1, "right": 2} if labels is None else labels
    plans.regions_class_order = list(order)
    (plan,) = plans.configurations.values()
    plan.batch_size = batch_size
    plan.patch_size = list(patch or plan.patch_size)
    plan.network.strides = strides or plan.network.strides
    return plans


def ramp(shape=SHAPE) -> np.ndarray:
    """A different value at every voxel: where a patch was read can be told from it."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


def write_cohort(folder, plans: Plans, subjects: dict[str, list[np.ndarray | None]], image=ramp) -> Cohort:
    """Prepare subjects and save them.

    :param subjects: label of each scan, (z, y, x), None where it has none. :param image: makes that of a scan.
    """
    (name,) = plans.configurations
    scans = {}
    for subject, labels in subjects.items():
        scans[subject] = [f"{subject}_{index}" for index in range(len(labels))]
        shape = next((label.shape for label in labels if label is not None), SHAPE)
        volumes = [Volume(image(shape)[None].copy(), geometry(shape), "float32") for _ in labels]
        times = TIMES[: len(labels)]
        raw = RawSeries(subject, scans[subject], times, volumes, labels)
        save_prepared(prepare_volumes(raw, plans, name), folder)
    return Cohort(folder, scans)


def filled(value: int, shape=SHAPE) -> np.ndarray:
    """A label image of one value."""
    return np.full(shape, value, dtype=np.int16)


def with_voxel(position: tuple[int, int, int], value: int = 1, shape=SHAPE) -> np.ndarray:
    """A label image of one voxel."""
    label = filled(0, shape)
    label[position] = value
    return label
