import logging

import numpy as np
import pytest

from longflow.data.images import Volume
from longflow.preprocessing.series import RawSeries, prepare_volumes, save_prepared
from longflow.tasks.segment import unregistered
from longflow.tasks.segment.samples import PairSamples
from longflow.tasks.segment.unregistered import unregistered_pairs, warn_of_unregistered
from longflow.training.splits import Cohort
from tests.tasks.segment.cohort import segment_plans
from tests.training.helpers import geometry

SHAPE = (48, 64, 64)


@pytest.fixture(autouse=True)
def _said_nothing_yet():
    unregistered._warn_once.cache_clear()


def body(shift=(0, 0, 0), growth=0.0, seed=0) -> np.ndarray:
    """An ellipsoid with an organ inside, somewhere off the centre, and noise."""
    centre = np.array(SHAPE) / 2 + shift
    z, y, x = (grid - middle for grid, middle in zip(np.indices(SHAPE), centre, strict=True))
    inside = (z / 16) ** 2 + (y / 20) ** 2 + (x / 18) ** 2 < 1
    organ = (z - 3) ** 2 + (y + 6) ** 2 + (x - 5) ** 2 < (5 + growth) ** 2
    noise = np.random.default_rng(seed).normal(0, 5, SHAPE)
    return (100.0 * inside + 80 * organ + noise).astype(np.float32)


def cohort_of(folder, subjects: dict[str, list[np.ndarray]]) -> Cohort:
    plans = segment_plans()
    scans = {}
    for subject, arrays in subjects.items():
        scans[subject] = [f"{subject}_{index}" for index in range(len(arrays))]
        volumes = [Volume(array[None], geometry(SHAPE), "float32") for array in arrays]
        times = [float(index) for index in range(len(arrays))]
        raw = RawSeries(subject, scans[subject], times, volumes)
        save_prepared(prepare_volumes(raw, plans, "3d_fullres"), folder)
    return Cohort(folder, scans)


def test_shifted_scans_are_found_and_registered_ones_are_not(tmp_path):
    """Nor those that are shifted by less than the coarse means can be trusted to tell."""
    cohort = cohort_of(
        tmp_path,
        {
            "still": [body(seed=0), body(growth=3, seed=1), body((0, 6, 0), 5, seed=2)],
            "moved": [body(seed=3), body((0, 14, -4), seed=4), body((0, 13, -5), seed=5)],
        },
    )
    assert unregistered_pairs(cohort) == [("moved_0", "moved_1")]


def test_a_warning_names_the_command_once_where_the_median_pair_is_shifted(tmp_path, caplog):
    cohort = cohort_of(
        tmp_path, {"a": [body(), body((12, 0, 13))], "b": [body(), body((0, -14, 0))], "c": [body()] * 2}
    )
    with caplog.at_level(logging.WARNING, "longflow"):
        PairSamples(cohort, segment_plans(), "3d_fullres", 0)
        PairSamples(cohort, segment_plans(), "3d_fullres", 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 of 3 pairs" in caplog.text and "longflow_register" in caplog.text and "a_0 and a_1" in caplog.text


@pytest.mark.parametrize("subjects", [{"c": [body(), body(growth=4, seed=1)]}, {"a": [body()]}])
def test_silent_where_scans_fit_or_there_are_no_pairs(tmp_path, caplog, subjects):
    with caplog.at_level(logging.WARNING, "longflow"):
        warn_of_unregistered(cohort_of(tmp_path, subjects))
    assert not caplog.records


def test_at_most_so_many_subjects_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(unregistered, "SUBJECTS", 2)
    moved = [body(), body((0, 14, 0))]
    cohort = cohort_of(tmp_path, {"a": moved, "b": moved, "c": moved})
    assert unregistered_pairs(cohort) == [("a_0", "a_1"), ("c_0", "c_1")]
