"""Draw samples of translation: pair of contrast phases, direction and patch of each training step."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from longflow.data.body import body_blocks
from longflow.errors import DataError, first_few
from longflow.methods.batches import PhaseBatch
from longflow.plans import Plans
from longflow.preprocessing.patches import read_patch
from longflow.preprocessing.series import PreparedSeries, read_properties
from longflow.tasks.translate.augmentation import augment_batch, augment_phases, draw_geometry, may_be_turned
from longflow.training.open_series import OpenSeries
from longflow.training.patch_starts import draw_patch_start, draw_start_around
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)


class PhaseSamples(Dataset):
    """Batches of pairs of contrast phases: a subject, uniformly, one of its pairs, and either scan as the source.

    Each scan is in its own normal form, as a target of forecasts is, and a translation is mapped back by that of its
    source: an MR scanner's overall brightness cannot be predicted and must not be learnt. 3D patches are centred in
    the body, a third of them where the phases differ most. 2D patches are slices along the first axis, drawn uniformly
    among those that show body; a slice larger than the patch is cut to a patch centred in the body.

    :param cohort: the subjects.
    :param plans: with the phases.
    :param configuration: name of one of its configurations.
    :param seed: seed and number of a batch decide everything about that batch.
    :param augmented: whether patches are mirrored, turned and warped in the axial plane.
    :raises DataError: no subject has a pair.
    """

    def __init__(self, cohort: Cohort, plans: Plans, configuration: str, seed: int, augmented: bool = True):
        self.pairs = pairs_of_cohort(cohort, plans, "to train on")
        self.subjects = list(self.pairs)
        self.series = OpenSeries(cohort.folder)
        self.augmented, self.deferred = augmented, False
        self.plan = plans.configuration(configuration)
        self.seed = seed

    def defer_augmentation(self) -> Callable[[PhaseBatch], PhaseBatch]:
        """Give batches as they are read, with draws, and return the function that augments them, on a GPU."""
        self.deferred = True
        return augment_batch

    def __getitem__(self, number: int) -> PhaseBatch:
        """Draw the batch of an iteration."""
        generator = np.random.default_rng([self.seed, number])
        stacks, phases, draws = zip(*(self._draw(generator) for _ in range(self.plan.batch_size)), strict=True)
        sources, targets = (torch.stack([stack[scan] for stack in stacks]) for scan in (0, 1))
        phases = torch.tensor(phases, dtype=torch.float32)
        return PhaseBatch(sources, phases, targets, draws=list(draws) if self.augmented and self.deferred else None)

    @staticmethod
    def largest_batch(plans: Plans, configuration: str, batch_size: int) -> PhaseBatch:
        """Return pairs in both directions, whose contents mean nothing, to estimate memory."""
        shape = (batch_size, len(plans.channel_names), *plans.configuration(configuration).patch_size)
        return PhaseBatch(source=torch.rand(shape), source_phase=torch.arange(batch_size) % 2, target=torch.rand(shape))

    def _draw(self, generator: np.random.Generator) -> tuple[Tensor, int, tuple | None]:
        """Draw a patch of source and target, (2, channels, *patch), the phase of the source and the augmentation."""
        subject = self.subjects[generator.integers(len(self.subjects))]
        series, pairs = self.series[subject], self.pairs[subject]
        pair = pairs[generator.integers(len(pairs))]
        phase = int(generator.integers(2))
        source, target = pair[phase], pair[1 - phase]
        properties, flat = series.properties, len(self.plan.patch_size) == 2
        if flat:
            start = draw_start_around(series, uniform_over_slices(series), self.plan.tile, generator)
        else:
            change = series.coarse[target] - series.coarse[source]
            start = draw_patch_start(series, np.square(change).sum(0), self.plan.tile, generator)
        patch = read_patch(series.images, [source, target], start, self.plan.tile)
        stack = torch.from_numpy(patch[:, :, 0] if flat else patch)
        spacing, draw = properties.spacing[1:], None
        if self.augmented and self.deferred:
            draw = draw_geometry(generator, may_be_turned(stack.shape[-2:], spacing)), spacing
        elif self.augmented:
            stack = augment_phases(stack, spacing, generator)
        return stack, phase, draw


def uniform_over_slices(series: PreparedSeries) -> np.ndarray:
    """Weight coarse blocks so that every slice that shows body is drawn equally often, with its centre in the body.

    :param series: of the sample.
    :returns: (z', y', x'); all 0 where there is no body.
    """
    body = body_blocks(series.coarse)
    edge = series.coarse_block[0]
    # the image's end may cut the last block
    slices = np.minimum(edge, series.images.shape[2] - edge * np.arange(len(body)))
    of_slice = np.maximum(body.sum((1, 2)), 1)
    return body * (slices / of_slice)[:, None, None]


def pairs_of_cohort(cohort: Cohort, plans: Plans, purpose: str) -> dict[str, list[tuple[int, int]]]:
    """List the pairs of every subject; subjects without one are excluded, and logged.

    :param cohort: the subjects.
    :param plans: with the phases.
    :param purpose: for the message, as "to train on".
    :returns: positions of the two scans of each pair, by subject.
    :raises DataError: no subject has a pair.
    """
    found = {subject: read_properties(cohort.folder, subject).pairs(plans.phases) for subject in cohort.scans}
    pairs = {subject: of_subject for subject, of_subject in found.items() if of_subject}
    both = " and ".join(plans.phases)
    if not pairs:
        raise DataError(
            f"None of the {len(found)} subjects {purpose} ({first_few(found)}) has a pair: a scan in each of the "
            f"phases {both} with the same time. Look at the columns 'phase' and 'time' of scans.csv, or give other "
            "subjects in splits_final.json."
        )
    if alone := sorted(set(found) - set(pairs)):
        logger.info(
            "%d subjects %s without a pair of %s are excluded (%s).", len(alone), purpose, both, first_few(alone)
        )
    return pairs
