"""Draw samples of forecasts: subject, target, context and patch of each training step."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch.utils.data import Dataset

from longflow.flow.interpolant import with_mean_one
from longflow.methods.batches import Batch
from longflow.plans import Plans
from longflow.preprocessing.patches import read_patch
from longflow.preprocessing.prepared import PreparedSeries
from longflow.tasks.forecast.augmentation import augment, augment_batch, draw_augmentation, draw_time_factor
from longflow.tasks.forecast.conditions import covariates_at_target
from longflow.tasks.forecast.context import draw_context
from longflow.tasks.forecast.windows import (
    Times,
    context_recurrence,
    covariates_for_network,
    periods_for_network,
    recurrence_for_network,
    times_for_network,
)
from longflow.training.labelled_subjects import require_labelled_scans
from longflow.training.open_series import OpenSeries
from longflow.training.patch_starts import draw_patch_start
from longflow.training.splits import Cohort


class ForecastSamples(Dataset):
    """Batches of forecasts, drawn as validation targets are: a subject, a target, the scans that are given.

    The target is uniform among the scans after the first; then its distance from the last scan that is given is, among
    those that it allows. So long horizons are as frequent as the series has room for them. Of the given scans, the
    context is drawn by :func:`~longflow.tasks.forecast.context.draw_context`.

    All samples of a batch have the same number of context scans, so that nothing is padded. Patches are drawn inside
    the body, a third of them where the target differs most from the last context scan.

    With ``training.label_weight`` w in the plans, voxels of the target that have a label (above 0) weigh 1 + w in the
    loss, the others 1. Where the target's scan has no label, all voxels weigh the same.

    :param cohort: the subjects.
    :param plans: with sequence length and time scale.
    :param configuration: name of one of its configurations.
    :param seed: seed and number of a batch decide everything about that batch.
    :param augmented: whether patches are warped, mirrored and changed in intensity.
    :raises DataError: the plans have a ``label_weight``, and no scan of the cohort has a prepared label.
    """

    def __init__(self, cohort: Cohort, plans: Plans, configuration: str, seed: int, augmented: bool = True):
        self.series = OpenSeries(cohort.folder)
        self.scan_counts = {subject: len(cases) for subject, cases in cohort.scans.items() if len(cases) > 1}
        self.augmented, self.deferred = augmented, False
        self.plans = plans
        self.plan = plans.configuration(configuration)
        self.seed = seed
        self.maps = 1 if plans.training.label_weight else 0
        if self.maps:
            require_labelled_scans(cohort, "to train on with label_weight")

    def defer_augmentation(self) -> Callable[[Batch], Batch]:
        """Give batches as they are read, with draws, and return the function that augments them, on a GPU.

        Elastic deformations are not deferred: the processes that read draw and smooth a field of displacements.
        """
        self.deferred = self.plans.training.elastic == 0
        return augment_batch

    def __getitem__(self, number: int) -> Batch:
        """Draw the batch of an iteration."""
        generator = np.random.default_rng([self.seed, number])
        samples, count = [], None
        for _ in range(self.plan.batch_size):
            sample = self._draw(generator, count)
            count = sample[1].shape[0]
            samples.append(sample)
        targets, contexts, weights, times, horizons, periods, expected, covariates, draws = zip(*samples, strict=True)
        return Batch(
            context=torch.stack(contexts),
            context_times=torch.tensor(times, dtype=torch.float32),
            context_mask=torch.ones(len(samples), count, dtype=torch.bool),
            target_time=torch.tensor(horizons, dtype=torch.float32),
            target=torch.stack(targets),
            period=periods_for_network(periods, self.plans.temporal),
            recurrence=recurrence_for_network(expected),
            covariates=covariates_for_network(covariates, self.plans),
            weights=with_mean_one(torch.stack(weights)) if self.maps else None,
            draws=list(draws) if self.augmented and self.deferred else None,
        )

    @staticmethod
    def largest_batch(plans: Plans, configuration: str, batch_size: int) -> Batch:
        """Return a batch of full sequences, whose contents mean nothing, to estimate memory."""
        patch_size = plans.configuration(configuration).patch_size
        scans, channels = plans.temporal.sequence_length, len(plans.channel_names)
        horizon = plans.temporal.shortest_interval / plans.temporal.time_scale
        return Batch(
            context=torch.rand(batch_size, scans, channels, *patch_size),
            context_times=torch.arange(1.0 - scans, 1.0).repeat(batch_size, 1) * horizon,
            context_mask=torch.ones(batch_size, scans, dtype=torch.bool),
            target_time=torch.full((batch_size,), horizon),
            target=torch.rand(batch_size, channels, *patch_size),
            period=periods_for_network([plans.temporal.time_scale] * batch_size, plans.temporal),
            recurrence=torch.full((batch_size, scans), 1 / scans) if plans.temporal.recurrence else None,
            covariates=covariates_for_network([{}] * batch_size, plans),
        )

    def _draw(self, generator: np.random.Generator, count: int | None):
        """Draw a target patch, its context, weights, context times, horizon, conditions and deferred augmentation.

        :param count: number of context scans; None: random.
        """
        subject, target, given = self._draw_target(generator, count or 1)
        series = self.series[subject]
        times = series.properties.times
        known = Times(times[:given], times[target], series.properties.period)
        context = draw_context(generator, known, self.plans.temporal.sequence_length, count)
        change = np.square(series.coarse[target] - series.coarse[context[-1]]).sum(0)
        start = draw_patch_start(series, change, self.plan.tile, generator)
        stack = read_patch(series.images, [*context, target], start, self.plan.tile)
        if self.maps:
            stack = np.concatenate([stack, self._weights(series, target, start, stack.shape[1])])
        stack = torch.from_numpy(stack[:, :, 0] if len(self.plan.patch_size) == 2 else stack)
        draw = None
        if self.augmented and self.deferred:
            draw = draw_augmentation(self.plans, self.plan, generator)
        elif self.augmented:
            stack = augment(stack, self.plans, self.plan, generator, self.maps)
        drawn = replace(known, context=[times[index] for index in context])
        temporal, properties = self.plans.temporal, series.properties
        expected = context_recurrence(drawn, series.coarse[context], temporal)
        period = properties.period if expected is None else expected.period
        context_times, horizon = times_for_network(drawn.context, times[target], temporal.time_scale)
        factor = draw_time_factor(self.plans, generator) if self.augmented else 1.0
        context_times, horizon = [factor * time for time in context_times], factor * horizon
        covariates = covariates_at_target(properties, context[-1], target)
        scans, weights = (stack[:-1], stack[-1]) if self.maps else (stack, None)
        return scans[-1], scans[:-1], weights, context_times, horizon, period, expected, covariates, draw

    def _weights(self, series: PreparedSeries, target: int, start: Sequence[int], channels: int) -> np.ndarray:
        """Return the weights of a target patch, the same in each channel: (1, channels, z, y, x), float32."""
        weights = np.ones((1, channels, *self.plan.tile), np.float32)
        if series.segmentations is not None:  # -1 where the scan has no label
            box = [[first, first + extent] for first, extent in zip(start, self.plan.tile, strict=True)]
            label = crop_and_pad_nd(series.segmentations, [[target, target + 1], *box], 0)
            weights += self.plans.training.label_weight * (label > 0)[:, None]
        return weights

    def _draw_target(self, generator: np.random.Generator, least: int) -> tuple[str, int, int]:
        """Draw a subject, uniformly, a target that has at least ``least`` scans before it, and how many are given."""
        eligible = [subject for subject, count in self.scan_counts.items() if count > least]
        subject = eligible[generator.integers(len(eligible))]
        target = int(generator.integers(least, self.scan_counts[subject]))
        return subject, target, int(generator.integers(least, target + 1))
