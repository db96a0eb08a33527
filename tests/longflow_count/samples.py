"""Draw whole scans with the number of their labelled voxels."""

import numpy as np
import torch
from torch.utils.data import Dataset

from longflow.errors import DataError
from longflow.preprocessing.series import load_prepared, read_properties

from .method import CountBatch


class CountedSamples(Dataset):
    """One labelled scan a batch, drawn uniformly; seed and number of a batch decide which.

    :raises DataError: no scan has a label.
    """

    def __init__(self, cohort, plans, configuration, seed, augmented=True):
        self.folder, self.seed = cohort.folder, seed
        self.scans = labelled_scans(cohort)
        if not self.scans:
            raise DataError("No scan has a label.")

    def __getitem__(self, number: int) -> CountBatch:
        generator = np.random.default_rng([self.seed, number])
        image, count = counted_scan(self.folder, *self.scans[generator.integers(len(self.scans))])
        return CountBatch(torch.from_numpy(image)[None], torch.tensor([count]))

    @staticmethod
    def largest_batch(plans, configuration, batch_size) -> CountBatch:
        shape = (1, len(plans.channel_names), *plans.configuration(configuration).patch_size)
        return CountBatch(torch.rand(shape), torch.ones(1))


def labelled_scans(cohort) -> list[tuple[str, int]]:
    """List subject and number of every labelled scan."""
    return [
        (subject, scan)
        for subject in cohort.scans
        for scan, labelled in enumerate(read_properties(cohort.folder, subject).labelled)
        if labelled
    ]


def counted_scan(folder, subject: str, scan: int) -> tuple[np.ndarray, float]:
    """Return a prepared scan, float32 (channels, z, y, x), and the number of its labelled voxels."""
    series = load_prepared(folder, subject)
    image = np.asarray(series.images[scan], dtype=np.float32)
    return image, float((np.asarray(series.segmentations[scan]) > 0).sum())
