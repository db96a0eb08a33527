"""Values of CT that are HU, and those that are not; as arrays, and in the integrity check of a dataset."""

from itertools import pairwise

import numpy as np
import pytest

from longflow.integrity.dataset import verify_dataset
from longflow.integrity.hounsfield import hounsfield_doubt
from tests.data.helpers import phase_array, write_dataset, write_image, write_phase_dataset

SHAPE = (8, 64, 64)
IMAGE = "imagesTr/p1_0_native_0000.nii.gz"


def scan(body=0.35, lung=0.1, bone=0.03, noise=15.0):
    """A trunk in HU: air, with shares of the voxels that are soft tissue (fat and organs), lung and bone."""
    generator = np.random.default_rng(0)
    count = int(np.prod(SHAPE))
    values = np.full(count, -1000.0)
    stops = np.cumsum([0, body / 2, body / 2, lung, bone]) * count
    for (start, stop), value in zip(pairwise(stops), (-100, 50, -850, 700), strict=True):
        values[int(start) : int(stop)] = value
    return np.rint(values + generator.normal(0, noise, count)).reshape(SHAPE)


def with_filling(array, value):
    """A fifth of the voxels outside the field of view, with a ring of interpolated values around it."""
    result = array.copy()
    result[:, -13:] = value
    result[:, -14] = (value + array[:, -14]) / 2
    return result


CLEAN = {
    "trunk": scan(),
    "clipped at -1024": np.clip(scan(noise=40), -1024, 3071),
    "filled with -2000": with_filling(scan(), -2000),
    "filled with -3024": with_filling(scan(), -3024),
    "lungs in little body": scan(body=0.12, lung=0.6),
    "a wrist in a wide field of view": scan(body=0.02, lung=0, bone=0.01),
    "metal": np.where(np.random.default_rng(1).random(SHAPE) < 0.01, 20000, scan()),
    "a brain without its skull": np.clip(scan(body=1, lung=0, bone=0), 0, 80),
    "an organ cut out, without air": scan(body=1, lung=0, bone=0),
    "constant": np.zeros(SHAPE),
    "constant filling": np.full(SHAPE, -2000.0),
}


@pytest.mark.parametrize("name", CLEAN)
def test_hounsfield_units_of_any_scan_are_not_doubted(name):
    assert hounsfield_doubt(CLEAN[name]) is None
    assert hounsfield_doubt(CLEAN[name].astype(np.int16)) is None


@pytest.mark.parametrize(
    "array",
    [
        scan() - 1024,
        np.clip(scan() - 1024, -2000, None),
        with_filling(scan(), -1000) - 1024,
        with_filling(scan(body=0.7, lung=0.2), -1500) - 1024,
    ],
)
def test_an_intercept_that_was_applied_twice(array):
    assert "applied twice" in hounsfield_doubt(array).advice


@pytest.mark.parametrize(
    "array",
    [
        scan() + 1024,
        np.clip(scan() + 1024, 0, None).astype(np.uint16),
        (scan() + 32768).astype(np.uint16),
        scan(body=0.9) + 1024,
    ],
)
def test_an_intercept_that_was_not_applied(array):
    assert "not applied" in hounsfield_doubt(array).advice


@pytest.mark.parametrize("array", [(scan() + 1000) / 2000, (scan() - scan().mean()) / scan().std()])
def test_normalised_values(array):
    assert "look normalised" in hounsfield_doubt(array).advice


def test_a_large_scan_is_judged_by_a_part_of_it(monkeypatch):
    monkeypatch.setattr("longflow.integrity.hounsfield.VOXELS", 1000)
    assert hounsfield_doubt(scan()) is None
    assert hounsfield_doubt(scan() - 1024) is not None


def test_it_is_an_error_where_translation_would_clip_it(tmp_path):
    raw = write_phase_dataset(tmp_path / "Dataset001_Tiny")
    assert verify_dataset(raw, processes=1) == []
    write_image(phase_array(0, False) - np.int16(1024), raw / IMAGE)
    (problem,) = verify_dataset(raw, processes=1)
    assert (problem.severity, problem.file, problem.field) == ("error", IMAGE, "values")
    assert "Hounsfield" in problem.expected and "twice" in problem.advice


def test_channels_that_are_not_ct_have_any_values(tmp_path):
    raw = write_phase_dataset(tmp_path / "Dataset001_Tiny", channel="T1")
    write_image(phase_array(0, False) - np.int16(1024), raw / IMAGE)
    assert verify_dataset(raw, processes=1) == []


def test_other_tasks_are_warned(tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", subjects=("p1", "p2"), channel_names={"0": "CT"})
    for path in (raw / "imagesTr").iterdir():
        write_image(scan()[:6, :8, :8].astype(np.int16), path)
    write_image((scan() + 1024)[:6, 24:32, :8].astype(np.int16), raw / "imagesTr" / "p1_1_0000.nii.gz")
    found = [problem for problem in verify_dataset(raw, processes=1) if problem.file.endswith("p1_1_0000.nii.gz")]
    assert [problem.severity for problem in found] == ["warning"]
