import logging

import numpy as np
import pytest

from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.data.labels import label_manager
from longflow.errors import DataError
from longflow.files import file_digest
from longflow.tasks.segment.label_maps import LabelPrediction
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.probabilities import (
    is_written,
    labels_of_mean,
    probability_file,
    read_probabilities,
    write_missing,
    write_probabilities,
)
from tests.inference.helpers import LABELS, REGIONS, segmentation_model
from tests.training.helpers import make_dataset


def voxels(*probabilities):
    """Volumes of one voxel in a row for each of the given (outputs of each voxel)."""
    return np.array(probabilities, np.uint8).T[:, None, None]


def test_the_mean_of_two_models():
    """The first voxel: each model is surer of another label; together, 2 wins. The last: a tie goes to the lower."""
    one = voxels((55, 140, 60), (255, 0, 0), (0, 128, 127))
    other = voxels((0, 55, 200), (100, 155, 0), (0, 127, 128))
    assert labels_of_mean([one], []).ravel().tolist() == [1, 0, 1]
    assert labels_of_mean([one, other], []).ravel().tolist() == [2, 0, 1]
    assert labels_of_mean(iter([one, other]), []).dtype == np.int16


def test_regions_are_written_in_their_order_above_one_half():
    whole, core = (255, 127, 130), (200, 255, 0)
    volume = np.array([whole, core], np.uint8)[:, None, None]
    assert labels_of_mean([volume], [1, 2]).ravel().tolist() == [2, 2, 1]
    nothing = np.zeros_like(volume)
    assert labels_of_mean([volume, nothing], [1, 2]).ravel().tolist() == [0, 0, 0]  # 255 / 510 is not above one half


@pytest.mark.parametrize(("labels", "order"), [(LABELS, []), (REGIONS, [1, 2])])
def test_labels_are_those_of_nnunet(labels, order):
    manager = label_manager(labels, order)
    generator = np.random.default_rng(0)
    volumes = [generator.integers(0, 256, (manager.num_segmentation_heads, 3, 4, 5), np.uint8) for _ in range(3)]
    expected = manager.convert_probabilities_to_segmentation(np.mean(volumes, axis=0) / 255)
    assert np.array_equal(labels_of_mean(volumes, order), expected)


def test_a_file_of_probabilities(tmp_path):
    path, volume = tmp_path / "a" / "b.npz", np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    assert not is_written(path, "w")
    write_probabilities(volume, "w", path)
    assert np.array_equal(read_probabilities(path), volume)
    assert is_written(path, "w") and not is_written(path, "other")


def test_a_damaged_file(tmp_path):
    path = tmp_path / "b.npz"
    write_probabilities(np.zeros((2, 3, 2, 2), np.uint8), "w", path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"b.npz is damaged .*Delete it"):
        read_probabilities(path)
    write_probabilities(np.zeros((2, 3), np.float32), "w", path)
    with pytest.raises(DataError, match="holds no probabilities of labels"):
        read_probabilities(path)
    np.savez(path, probabilities=np.array([{}], dtype=object))  # a pickle is not read
    with pytest.raises(DataError, match="damaged"):
        read_probabilities(path)


def test_missing_ones_are_made_by_the_fold_that_a_scan_validates(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=2, scans=1, prepare=False)
    for fold in (0, 1):
        model = segmentation_model(dataset, fold=fold, seed=fold)
    assert read_description(dataset.raw / "dataset.json").task == "segment"
    pairs = [LabelPrediction(case=f"s{fold}_0", subject=f"s{fold}", time=0.0, images=(), fold=fold) for fold in (0, 1)]
    with caplog.at_level(logging.INFO, "longflow"):
        write_missing(dataset, model, pairs)
    assert "Probabilities of 2 validation scans are kept in validation/probabilities" in caplog.text
    for fold in (0, 1):
        path = probability_file(model, fold, f"s{fold}_0")
        found = read_probabilities(path)
        segmenter = Segmenter.load(device="cpu", folds=[fold])
        scan = next(one for one in pairs if one.fold == fold)
        files = tuple((dataset.raw / "imagesTr").glob(f"{scan.case}_0000.nii.gz"))
        labels = segmenter.segment(read_scan(files))
        assert np.abs(found.astype(int).sum(0) - 255).max() <= 2  # rounded
        assert np.mean(labels_of_mean([found], []) == labels) > 0.99  # ties of rounded numbers
    before = path.stat().st_mtime_ns
    write_missing(dataset, model, pairs)
    assert path.stat().st_mtime_ns == before  # kept
    segmentation_model(dataset, fold=1, seed=7)  # trained again
    write_missing(dataset, model, pairs)
    assert path.stat().st_mtime_ns != before and is_written(path, file_digest(model.fold(1).final))
