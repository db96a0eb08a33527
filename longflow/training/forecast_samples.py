"""Samples of forecasts: which subject, target, context and patch a training step sees."""

from functools import lru_cache

import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch.utils.data import Dataset

from longflow.inference.sliding_window import relative_times
from longflow.methods.method import Batch
from longflow.plans import Plans
from longflow.preprocessing.patches import read_patch
from longflow.preprocessing.series import PreparedSeries, load_prepared
from longflow.training.augmentation import augment
from longflow.training.splits import Cohort, draw_context

#: share of the patches that are drawn where the target differs most from the last context scan
CHANGE_SHARE = 1 / 3
SERIES_HELD_OPEN = 64


class ForecastSamples(Dataset):
    """Batches of forecasts: a subject, a target after its first scan, a random subset of earlier scans (CRONOS C.2).

    All samples of a batch have the same number of context scans, so that nothing is padded. Patches are drawn inside
    the body, a third of them where the target differs most from the last context scan.

    :param seed: with the number of a batch it decides everything about that batch.
    :param augmented: whether patches are warped, mirrored and changed in intensity.
    """

    def __init__(self, cohort: Cohort, plans: Plans, configuration: str, seed: int, augmented: bool = True):
        self.folder = cohort.folder
        self.scan_counts = {subject: len(cases) for subject, cases in cohort.scans.items() if len(cases) > 1}
        self.augmented = augmented
        self.plans = plans
        self.plan = plans.configuration(configuration)
        self.seed = seed
        self._open_lazily()

    def __getstate__(self) -> dict:
        # open files do not travel to worker processes
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open_lazily()

    def _open_lazily(self) -> None:
        self._open = lru_cache(SERIES_HELD_OPEN)(lambda subject: load_prepared(self.folder, subject))

    def __getitem__(self, number: int) -> Batch:
        """The batch of an iteration."""
        generator = np.random.default_rng([self.seed, number])
        samples, count = [], None
        for _ in range(self.plan.batch_size):
            sample = self._draw(generator, count)
            count = sample[1].shape[0]
            samples.append(sample)
        targets, contexts, times, horizons = zip(*samples, strict=True)
        return Batch(
            context=torch.stack(contexts),
            context_times=torch.tensor(times, dtype=torch.float32),
            context_mask=torch.ones(len(samples), count, dtype=torch.bool),
            target_time=torch.tensor(horizons, dtype=torch.float32),
            target=torch.stack(targets),
        )

    def _draw(self, generator: np.random.Generator, count: int | None):
        """A target patch, its context, context times and horizon; ``count`` fixes the number of context scans."""
        subject, target = self._draw_target(generator, count or 1)
        context = draw_context(generator, target, self.plans.temporal.sequence_length, count)
        series = self._open(subject)
        start = draw_patch_start(series, context[-1], target, self.plan.tile, generator)
        stack = read_patch(series.images, [*context, target], start, self.plan.tile)
        stack = torch.from_numpy(stack[:, :, 0] if len(self.plan.patch_size) == 2 else stack)
        if self.augmented:
            stack = augment(stack, self.plans, self.plan, generator)
        all_times = series.properties.times
        times, horizon = relative_times(
            [all_times[index] for index in context], all_times[target], self.plans.temporal.time_scale
        )
        return stack[-1], stack[:-1], times, horizon

    def _draw_target(self, generator: np.random.Generator, earlier: int) -> tuple[str, int]:
        """A subject, uniformly, and one of its scans that has at least ``earlier`` scans before it."""
        eligible = [subject for subject, count in self.scan_counts.items() if count > earlier]
        subject = eligible[generator.integers(len(eligible))]
        return subject, int(generator.integers(earlier, self.scan_counts[subject]))


def draw_patch_start(
    series: PreparedSeries, last: int, target: int, tile: tuple[int, ...], generator: np.random.Generator
) -> list[int]:
    """First voxel of a patch.

    Its centre lies in a coarse block of the body; in ``CHANGE_SHARE`` of the draws, in one chosen in proportion to the
    squared difference between target and last context scan. The patch is then moved into the image; along an axis
    where the image is smaller than the patch it is centred.
    """
    coarse = series.coarse
    at_change = generator.random() < CHANGE_SHARE
    weight = np.square(coarse[target] - coarse[last]).sum(0) if at_change else body_of(coarse)
    flat = weight.ravel().astype(np.float64)
    total = flat.sum()
    block = generator.choice(flat.size, p=flat / total) if total > 0 else generator.integers(flat.size)
    block = np.unravel_index(block, weight.shape)
    start = []
    for axis, size in enumerate(series.images.shape[2:]):
        edge = series.coarse_block[axis]
        centre = block[axis] * edge + generator.integers(edge)
        if size <= tile[axis]:
            start.append(-((tile[axis] - size) // 2))
        else:
            start.append(int(np.clip(centre - tile[axis] // 2, 0, size - tile[axis])))
    return start


def body_of(coarse: np.ndarray) -> np.ndarray:
    """Where the body is: blocks whose mean over all scans is above Otsu's threshold in any channel.

    :param coarse: (scans, channels, z, y, x). :returns: (z, y, x), True inside.
    """
    mean = coarse.mean(0)
    return np.any(
        [channel >= threshold_otsu(channel.ravel()) if np.ptp(channel) > 0 else channel == channel for channel in mean],
        axis=0,
    )
