"""Draw samples of scans: patches of labelled scans, of neighbouring scans of a subject, or of both."""

import logging
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch import Tensor
from torch.utils.data import Dataset

from longflow.data.labels import label_manager, sides, structures
from longflow.errors import DataError, first_few
from longflow.methods.batches import ScanBatch
from longflow.nnunet import LabelKey, LabelManager, PatchPlaces, annotated_key
from longflow.plans import ConfigurationPlan, Plans
from longflow.preprocessing.series import PreparedSeries, load_prepared
from longflow.random_state import isolated_randomness
from longflow.tasks.segment.augmentation import (
    augment_labelled,
    augment_pair,
    augment_series,
    build_transforms,
)
from longflow.tasks.segment.other_scans import is_aligned
from longflow.tasks.segment.unregistered import warn_of_each_unregistered, warn_of_unregistered
from longflow.training.labelled_subjects import require_labelled_scans
from longflow.training.open_series import HELD_OPEN, OpenSeries
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: share of the labelled patches of a batch that are centred on a structure: nnU-Net's number
FOREGROUND_SHARE = 0.33


class _ScanSamples(Dataset):
    """Batches of labelled scans, pairs or both; seed and number of a batch decide everything about it.

    :cvar labelled: whether batches have labelled scans.
    :cvar series_of_scans: whether labelled scans have other scans of their subject with them.
    :cvar pairs: whether batches have pairs.
    :param cohort: the subjects.
    :param plans: with labels and time scale.
    :param configuration: name of one of its configurations.
    :param seed: of the draws.
    :param augmented: whether patches are warped, mirrored and changed in intensity.
    :raises DataError: no scan has a label, or no subject has two scans.
    """

    labelled: ClassVar[bool] = False
    series_of_scans: ClassVar[bool] = False
    pairs: ClassVar[bool] = False

    def __init__(self, cohort: Cohort, plans: Plans, configuration: str, seed: int, augmented: bool = True):
        self.cohort, self.plans, self.seed = cohort, plans, seed
        self.plan = plans.configuration(configuration)
        self.manager = label_manager(plans.labels, plans.regions_class_order) if self.labelled else None
        self.transforms = build_transforms(self.plan, self.manager, augmented)
        if self.labelled:
            self.scans = require_labelled_scans(cohort, "to draw labelled scans from")
            warn_of_absent_structures(cohort, self.scans, plans)
            if augmented:
                warn_of_mirrored_sides(plans, configuration)
        if self.pairs or self.series_of_scans:
            self.subjects = subjects_with_pairs(cohort)
        if self.pairs:
            warn_of_unregistered(cohort)
        if self.series_of_scans:
            warn_of_each_unregistered(cohort)
        self.series = OpenSeries(cohort.folder)
        self._remember_locations()

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("_locations", "_aligned")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._remember_locations()

    def _remember_locations(self) -> None:
        self._locations = lru_cache(HELD_OPEN)(
            lambda subject, scan: class_locations(self.series[subject], scan, self.manager)
        )
        self._aligned = lru_cache(None)(lambda subject, scan, other: is_aligned(self.series[subject], scan, other))

    def __getitem__(self, number: int) -> ScanBatch:
        """Draw the batch of an iteration."""
        generator = np.random.default_rng([self.seed, number])
        # labelled patches first, so that methods with and without pairs get the same ones
        with torch.no_grad(), isolated_randomness(generator):
            labelled = self._draw_labelled(generator) if self.labelled else {}
            pairs = self._draw_pairs(generator) if self.pairs else {}
        return ScanBatch(**labelled, **pairs)

    @classmethod
    def largest_batch(cls, plans: Plans, configuration: str, batch_size: int) -> ScanBatch:
        """Return patches of scans or pairs, whose contents mean nothing, to estimate memory."""
        channels, patch_size = len(plans.channel_names), plans.configuration(configuration).patch_size
        batch = ScanBatch()
        if cls.labelled:
            batch.image = torch.rand(batch_size, channels, *patch_size)
            batch.labels = [torch.zeros(batch_size, *size) for size in label_sizes(plans, configuration)]
        if cls.series_of_scans:
            most = plans.configuration(configuration).other_scans
            batch.others = torch.rand(batch_size, most, channels, *patch_size)
            batch.other_times = torch.ones(batch_size, most)
            batch.other_mask = batch.other_aligned = torch.ones(batch_size, most, dtype=torch.bool)
        if cls.pairs:
            pairs = plans.configuration(configuration).pairs_per_batch or max(1, batch_size // 2)
            batch.pair = torch.rand(pairs, 2, channels, *patch_size)
            batch.clean_pair = torch.rand(pairs, 2, channels, *patch_size)
            batch.pair_times = torch.arange(2.0).repeat(pairs, 1)
            batch.position = torch.rand(pairs)
            batch.subject = torch.arange(pairs)
        return batch

    def _draw_labelled(self, generator: np.random.Generator) -> dict[str, Tensor | list[Tensor]]:
        """Draw ``batch_size`` patches of labelled scans, the last third centred on a structure, as in nnU-Net."""
        places = patch_places(self.plan, self.transforms.read_size, self.manager)
        images, labels, compared = [], [], []
        for index in range(self.plan.batch_size):
            subject, scan = self.scans[generator.integers(len(self.scans))]
            series = self.series[subject]
            centred = places.is_centred(index)
            locations = self._locations(subject, scan) if centred or self.manager.has_ignore_label else None
            box = places.draw(series.properties.shape, centred, locations)
            segmentation = self._flat(read_segmentation(series, scan, box))
            if self.series_of_scans:
                chosen = self._draw_others(series, scan, generator)
                scans = [self._flat(read_scans(series, one, one + 1, box)[0]) for one in (scan, *chosen)]
                (image, *others), targets = augment_series(self.transforms, torch.stack(scans), segmentation)
                compared.append(self._padded(series, scan, chosen, others, image))
            else:
                image = self._flat(read_scans(series, scan, scan + 1, box)[0])
                image, targets = augment_labelled(self.transforms, image, segmentation)
            images.append(image)
            labels.append(targets)
        return {
            "image": torch.stack(images),
            "labels": [torch.stack(scale) for scale in zip(*labels, strict=True)],
            **{name: torch.stack([one[name] for one in compared]) for name in (compared[0] if compared else ())},
        }

    def _draw_others(self, series: PreparedSeries, scan: int, generator: np.random.Generator) -> list[int]:
        """Draw the places of the other scans of a sample, in order of time."""
        others = [one for one in range(len(series.properties.times)) if one != scan]
        count = generator.integers(min(len(others), self.plan.other_scans) + 1)
        return sorted(int(one) for one in generator.choice(others, count, replace=False)) if count else []

    def _padded(
        self, series: PreparedSeries, scan: int, chosen: list[int], patches: list[Tensor], image: Tensor
    ) -> dict[str, Tensor]:
        """Return the other scans of a sample, zeros for the missing ones."""
        most, times = self.plan.other_scans, series.properties.times
        others, since = torch.zeros(most, *image.shape), torch.zeros(most)
        mask, aligned = torch.zeros(most, dtype=torch.bool), torch.zeros(most, dtype=torch.bool)
        for place, (one, patch) in enumerate(zip(chosen, patches, strict=True)):
            others[place], mask[place] = patch, True
            since[place] = (times[one] - times[scan]) / self.plans.temporal.time_scale
            aligned[place] = self._aligned(series.properties.subject, scan, one)
        return {"others": others, "other_times": since, "other_mask": mask, "other_aligned": aligned}

    def _draw_pairs(self, generator: np.random.Generator) -> dict[str, Tensor]:
        """Draw the plan's number of pairs: neighbouring scans j, j + 1 (Ren et al., section 3).

        Subject, j and the position of the patch are uniform; both scans have the same position.
        """
        places = patch_places(self.plan, self.transforms.read_size, None)
        drawn = []
        for _ in range(self.plan.pairs):
            number = int(generator.integers(len(self.subjects)))
            series = self.series[self.subjects[number]]
            times, shape = series.properties.times, series.properties.shape
            first = int(generator.integers(len(times) - 1))
            box = places.draw(shape, False, None)
            patches = read_scans(series, first, first + 2, box)
            pair, clean = augment_pair(self.transforms, self._flat(patches), self.plans.training.shared_intensity)
            drawn.append(
                {
                    "pair": pair,
                    "clean_pair": clean,
                    "pair_times": torch.tensor(
                        [0.0, (times[first + 1] - times[first]) / self.plans.temporal.time_scale], dtype=torch.float32
                    ),
                    "position": torch.tensor(float(np.clip(sum(box[0]) / 2 / shape[0], 0, 1))),
                    "subject": torch.tensor(number),
                }
            )
        return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}

    def _flat(self, patch: Tensor) -> Tensor:
        """Remove the z axis where patches are slices."""
        return patch.squeeze(-3) if len(self.plan.patch_size) == 2 else patch


class LabelledSamples(_ScanSamples):
    """``batch_size`` patches of labelled scans, scans drawn uniformly."""

    labelled = True


class LabelledSeriesSamples(_ScanSamples):
    """``batch_size`` patches of labelled scans, each with patches of other scans of its subject.

    How many others a patch has is drawn, 0 to ``other_scans`` of the plan or as many as there are, then which ones.
    """

    labelled = series_of_scans = True


class PairSamples(_ScanSamples):
    """Pairs of neighbouring scans, ``pairs_per_batch`` of the plan, else ``max(1, batch_size // 2)``."""

    pairs = True


class LabelledPairSamples(_ScanSamples):
    """``batch_size`` patches of labelled scans, and pairs of neighbouring scans as :class:`PairSamples`."""

    labelled = pairs = True


def label_sizes(plans: Plans, configuration: str) -> list[tuple[int, ...]]:
    """Return the shape of a sample's labels at each scale of deep supervision.

    :returns: (1 or regions, *spatial) of each scale, finest first.
    """
    plan = plans.configuration(configuration)
    manager = label_manager(plans.labels, plans.regions_class_order)
    maps = len(structures(plans.labels)) if manager.has_regions else 1
    sizes, divisor = [], [1] * len(plan.patch_size)
    for stride in plan.network.strides[:-1]:
        divisor = [whole * step for whole, step in zip(divisor, stride, strict=True)]
        sizes.append((maps, *(size // step for size, step in zip(plan.patch_size, divisor, strict=True))))
    return sizes


def warn_of_absent_structures(cohort: Cohort, scans: list[tuple[str, int]], plans: Plans) -> None:
    """Warn of structures that no labelled scan has: they cannot be learnt.

    :param cohort: the subjects.
    :param scans: the labelled scans (subject, position).
    :param plans: with the labels.
    """
    absent = structures(plans.labels)
    for subject, scan in scans:
        here = label_positions(load_prepared(cohort.folder, subject), scan)
        absent = {name: values for name, values in absent.items() if not any(len(here.get(v, ())) for v in values)}
        if not absent:
            return
    logger.warning(
        "None of the %d labelled training scans has %s: the network will not learn to find it. Look at labelsTr and "
        "the labels in dataset.json, or train on more labelled subjects.",
        len(scans),
        first_few(absent),
    )


def warn_of_mirrored_sides(plans: Plans, configuration: str) -> None:
    """Warn of left and right structures while patches are mirrored, which makes an image of one side that of the other.

    :param plans: with the labels.
    :param configuration: name of the configuration that is trained.
    """
    pairs, axes = sides(plans.labels), plans.configuration(configuration).mirrored
    if pairs and axes:
        logger.warning(
            "Training mirrors patches along the axes %s, as nnU-Net does, but %s are on different sides of the body. A "
            "mirrored left structure keeps the label 'left', though it looks like the right one. Where they mirror "
            'each other, set "mirror_axes" of %s in the plans to the other axes (0 is the first of patch_size; for '
            "axial scans, left to right is the last: %s), then train again.",
            *(list(axes), first_few(f"'{left}' and '{right}'" for left, right in pairs), configuration),
            list(range(len(plans.configuration(configuration).patch_size) - 1)),
        )


def subjects_with_pairs(cohort: Cohort) -> list[str]:
    """List the subjects with at least two scans.

    :param cohort: the subjects.
    :returns: names of subjects.
    :raises DataError: there is none.
    """
    subjects = [subject for subject, cases in cohort.scans.items() if len(cases) > 1]
    if not subjects:
        raise DataError(
            f"None of the {len(cohort.scans)} subjects has two scans, but this method learns from pairs of scans of "
            "one subject. Is the column 'subject' of scans.csv the same for all scans of a patient? For single scans "
            "there is the method 'unet'."
        )
    if alone := sorted(set(cohort.scans) - set(subjects)):
        logger.info("%d subjects with one scan are excluded from the pairs (%s).", len(alone), first_few(alone))
    return subjects


def patch_places(plan: ConfigurationPlan, read_size: tuple[int, ...], manager: LabelManager | None) -> PatchPlaces:
    """Make nnU-Net's rule for the positions of patches, and for those to centre on a structure.

    :param plan: with batch and patch size.
    :param read_size: voxels of the patch that is read, along (z,) y, x.
    :param manager: of the labels; None: positions do not depend on labels.
    :returns: the rule.
    """
    return PatchPlaces(plan.batch_size, read_size, plan.patch_size, manager, FOREGROUND_SHARE)


def class_locations(series: PreparedSeries, scan: int, manager: LabelManager) -> dict[LabelKey, np.ndarray]:
    """Return the positions of each class by nnU-Net's keys: label, region, or all annotated voxels (ignore label).

    Positions are stored of each label separately, at most as many as nnU-Net keeps of a class. In a region, small
    labels are therefore drawn more often than by nnU-Net, which draws among all voxels of the region.

    :param series: with the scan.
    :param scan: its position.
    :param manager: of the labels.
    :returns: (n, 4) positions: 0 (nnU-Net's channel), z, y, x.
    """
    by_label = label_positions(series, scan)
    classes = list(manager.foreground_regions if manager.has_regions else manager.foreground_labels)
    if manager.has_ignore_label:
        classes.append(annotated_key(manager))
    locations = {}
    for key in classes:
        values = key if isinstance(key, tuple) else (key,)
        found = np.concatenate([by_label.get(int(value), np.empty((0, 3), dtype=int)) for value in values])
        locations[key] = np.pad(found, ((0, 0), (1, 0)))
    return locations


def label_positions(series: PreparedSeries, scan: int) -> dict[int, np.ndarray]:
    """Return positions of each label value of a scan, as preprocessing stored them or from the segmentation.

    :param series: with the scan.
    :param scan: its position.
    :returns: (n, 3) positions z, y, x, by label value.
    """
    stored = getattr(series, "class_locations", None)
    if stored and scan in stored:
        return stored[scan]
    segmentation = np.asarray(series.segmentations[scan])
    return {int(value): np.argwhere(segmentation == value) for value in np.unique(segmentation)}


def read_scans(series: PreparedSeries, first: int, last: int, box: list[tuple[int, int]]) -> Tensor:
    """Read a patch of the scans ``first`` to ``last - 1``.

    :param series: with the scans.
    :param first: position of the first scan.
    :param last: position after the last scan.
    :param box: [start, stop) voxels along z, y, x.
    :returns: (scans, channels, z, y, x), float32, 0 outside the image.
    """
    channels = [0, series.images.shape[1]]
    patch = crop_and_pad_nd(series.images, [[first, last], channels, *map(list, box)], 0)
    return torch.from_numpy(np.array(patch, dtype=np.float32))


def read_segmentation(series: PreparedSeries, scan: int, box: list[tuple[int, int]]) -> Tensor:
    """Read a patch of a segmentation.

    :param series: with the scan.
    :param scan: its position.
    :param box: [start, stop) voxels along z, y, x.
    :returns: (1, z, y, x), int16, -1 outside the image.
    """
    patch = crop_and_pad_nd(series.segmentations, [[scan, scan + 1], *map(list, box)], -1)
    return torch.from_numpy(np.array(patch, dtype=np.int16))
