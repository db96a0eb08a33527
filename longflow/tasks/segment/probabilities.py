"""Probabilities of labels on the grid of the files: written once for out-of-fold scans, averaged over models.

Labels of different models cannot be averaged, nor can their logits, which are on different grids. Their probabilities
on the grid of the scan can. They are kept as whole numbers of 1/255: a voxel of a scan takes one byte for each output
of the network, and much less on the disk, since most are 0 or 255.
"""

import logging
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longflow.data.dataset import training_series
from longflow.errors import DataError
from longflow.files import atomic_write, file_digest
from longflow.parallel import Progress
from longflow.paths import DatasetPaths, ModelPaths, path_in
from longflow.preprocessing.restore import CERTAIN

if TYPE_CHECKING:
    from longflow.tasks.segment.label_maps import LabelPrediction

logger = logging.getLogger(__name__)

#: the folder of out-of-fold probabilities below ``validation``
PROBABILITIES = "probabilities"

ENDING = ".npz"


def labels_of_mean(volumes: Iterable[np.ndarray], regions_class_order: Sequence[int]) -> np.ndarray:
    """Label a scan by the mean of several models' probabilities, as nnU-Net labels them.

    :param volumes: (outputs, z, y, x), uint8, of each model; only one is needed at a time.
    :param regions_class_order: of the plans; empty without regions.
    :returns: (z, y, x), int16: the most probable label, the lowest among equals; or the values of the regions in their
        order, where a region's mean is above one half.
    """
    volumes = iter(volumes)
    total, count = next(volumes).astype(np.uint16), 1
    for volume in volumes:
        total += volume
        count += 1
    if not regions_class_order:
        return np.stack([one.argmax(axis=0).astype(np.int16) for one in np.moveaxis(total, 1, 0)])
    labels = np.zeros(total.shape[1:], np.int16)
    for region, value in zip(total, regions_class_order, strict=True):
        labels[region > count * CERTAIN / 2] = value
    return labels


def probability_file(model: ModelPaths, fold: int, case: str) -> Path:
    """Return the file of the out-of-fold probabilities of a scan."""
    return path_in(model.fold(fold).validation(PROBABILITIES), f"{case}{ENDING}")


def write_probabilities(probabilities: np.ndarray, weights: str, path: Path) -> None:
    """Write probabilities, compressed.

    :param probabilities: (outputs, z, y, x), uint8.
    :param weights: digest of the weights that predicted them.
    :param path: of the file.
    """
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities, weights=np.array(weights))


def read_probabilities(path: Path) -> np.ndarray:
    """Read probabilities: (outputs, z, y, x), uint8.

    :raises DataError: the file is damaged, or not one that longflow wrote.
    """
    array = _read(path, "probabilities")
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DataError(f"{path} holds no probabilities of labels. Delete it, and run longflow_find_best again.")
    return array


def _read(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            return content[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DataError(f"{path} is damaged ({error}). Delete it, and run longflow_find_best again.") from error


def is_written(path: Path, weights: str) -> bool:
    """Check that probabilities of these weights were written. :param weights: their digest."""
    return path.is_file() and str(_read(path, "weights")) == weights


def write_missing(
    dataset: DatasetPaths, model: ModelPaths, pairs: Sequence["LabelPrediction"], progress: Progress | None = None
) -> None:
    """Write the out-of-fold probabilities of a model that are missing, or are of other weights.

    Each scan is segmented again, as ``longflow_predict`` would, by the fold that it validates.

    :param pairs: out-of-fold label maps of the model, with their folds.
    """
    missing = [
        pair
        for pair in pairs
        if not is_written(probability_file(model, pair.fold, pair.case), file_digest(model.fold(pair.fold).final))
    ]
    if not missing:
        return
    # these import torch, which the workers of longflow_find_best do not need
    from longflow.inference.models import load_models
    from longflow.inference.selection import Member, Selection
    from longflow.tasks.segment.predictor import Segmenter

    scans = {scan.case: scan for series in training_series(dataset.raw)[1] for scan in series.scans}
    for fold in dict.fromkeys(pair.fold for pair in missing):
        segmenter = Segmenter(load_models(Selection(dataset, (Member(model, (fold,)),)), "segment"))
        weights = file_digest(model.fold(fold).final)
        for number, pair in enumerate(missing):
            if pair.fold != fold:
                continue
            if progress:
                progress(number, len(missing), f"{pair.case}, {model.method} {model.configuration}, fold {fold}")
            item = segmenter.request(scans[pair.case], list(scans.values()))
            probabilities = segmenter.probabilities(segmenter.read(item))
            write_probabilities(probabilities, weights, probability_file(model, fold, pair.case))
    written = sum(probability_file(model, pair.fold, pair.case).stat().st_size for pair in pairs)
    logger.info(
        "Probabilities of %d validation scans are kept in validation/%s of each fold of %s: %.1f MB in all.",
        *(len(pairs), PROBABILITIES, model.folder, written / 1e6),
    )
