"""Tests with files of each task: tests/tasks/*/test_pairs.py and test_label_maps.py."""

import numpy as np
import pytest

from longflow.data.images import Geometry, read_scan
from longflow.errors import DataError
from longflow.evaluation.references import Prediction, dataset_folders, joined_names, peak_bytes, read_like
from tests.tasks.conftest import GEOMETRY, SHAPE, description, write_scan  # noqa: F401 - fixtures

SCAN = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def test_a_label_names_the_fold_of_an_out_of_fold_prediction():
    prediction = Prediction(case="s1_0", subject="s1", images=())
    assert prediction.label == "s1_0"
    assert Prediction(case="s1_0", subject="s1", images=(), fold=0).label == "s1_0, fold 0"


def test_names_of_an_ensemble_are_joined_once():
    assert joined_names("tfm") == joined_names(["tfm", "tfm"]) == "tfm"
    assert joined_names(["cronos", "tfm"]) == "cronos + tfm"
    assert (joined_names(5), joined_names([None, "tfm"])) == ("5", "None + tfm")


def test_only_folders_that_exist_in_the_order_of_their_names(tmp_path):
    for name in ("imagesTr", "labelsTr", "targetsTs"):
        (tmp_path / name).mkdir()
    assert dataset_folders(tmp_path) == [tmp_path / "targetsTs", tmp_path / "imagesTr"]
    assert dataset_folders(tmp_path, ("labelsTs", "labelsTr")) == [tmp_path / "labelsTr"]


def test_scan_on_another_grid(tmp_path, write_scan):  # noqa: F811
    write_scan(tmp_path, "a", SCAN)
    write_scan(tmp_path, "b", SCAN, Geometry(GEOMETRY.size, (1.0, 1.0, 5.0), GEOMETRY.origin, GEOMETRY.direction))
    a, b = (tmp_path / f"{case}_0000.nii.gz" for case in "ab")
    with pytest.raises(
        DataError, match=r"b_0000.nii.gz: spacing is 1 x 1 x 5, .*a_0000.nii.gz has 1 x 1 x 3.*Register"
    ):
        read_like((b,), read_scan((a,)), a, "Register them.")


def test_bytes_at_the_peak_follow_the_header(tmp_path, write_scan):  # noqa: F811
    write_scan(tmp_path, "a", SCAN)
    files = (tmp_path / "a_0000.nii.gz",)
    assert peak_bytes(files, 5) - peak_bytes(files, 2) == 3 * 4 * SCAN.size
    assert peak_bytes(files * 2, 1) - peak_bytes(files, 1) == 4 * SCAN.size
