"""Lesions over time: which lesion of a visit is which lesion of the next one, and how it changed.

A lesion is a connected component, as in :mod:`longflow.tasks.segment.lesions`. Visits are aligned. Between two visits,

- lesions are *linked* where they share at least a tenth of the voxels of the smaller one;
- lesions of both visits that then have no link are linked in pairs, the nearest first, where the gap between them is at
  most a few mm. This stands for the dilation of lesions in the literature (Santoro-Fernandes et al., Phys. Med. Biol.
  66, 2021: registration leaves 2 to 3 mm), but two lesions that are close to each other in both visits are not
  confused.

A lesion of the later visit without a link is new, with several it is merged. It is split where its only link leads to a
lesion that has several. Else its volume decides. A lesion of the earlier visit without a link is gone. A lesion keeps
its name: that of the linked lesion with which it shares most voxels.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects
from skimage.measure import label

from longflow.data.images import FLIP, Geometry

#: in the order of tables
CHANGES = ("first visit", "new", "gone", "grown", "shrunk", "stable", "merged", "split")
FIRST, NEW, GONE, GROWN, SHRUNK, STABLE, MERGED, SPLIT = CHANGES

#: least share of the smaller lesion's voxels that linked lesions have in common
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class ChangeRule:
    """What counts as a lesion and as a change.

    A lesion has grown or shrunk where its volume changed by both ``relative`` and ``absolute_ml``. 25 % is the change
    of a lung nodule's volume that counts as growth, because smaller ones are within the error of measurement (Callister
    et al., British Thoracic Society, Thorax 70, 2015). 0.1 ml is a ball of 6 mm: smaller changes are a few voxels of
    the border. A ball of 3 mm, 0.014 ml, is the smallest lesion of multiple sclerosis (Filippi et al., Brain 142,
    2019).

    :param relative: share of the volume at the earlier visit.
    :param absolute_ml: ml.
    :param smallest_ml: smaller components are no lesions.
    :param gap: mm; largest gap between lesions of two visits that are linked without common voxels.
    """

    relative: float = 0.25
    absolute_ml: float = 0.1
    smallest_ml: float = 0.014
    gap: float = 3.0

    def change(self, before: float, after: float) -> str:
        """Name the change of a volume, ml.

        >>> rule = ChangeRule()
        >>> rule.change(4, 5), rule.change(4, 4.9), rule.change(4, 3), rule.change(0.1, 0.19)
        ('grown', 'stable', 'shrunk', 'stable')
        """
        change = after - before
        if abs(change) < max(self.absolute_ml, self.relative * before):
            return STABLE
        return GROWN if change > 0 else SHRUNK


@dataclass(frozen=True)
class Lesions:
    """The lesions of a structure in one scan, the largest first.

    :param labels: (z, y, x), int32; 0 around lesions, then their numbers from 1.
    :param ml: volume of each.
    :param centres: (lesions, 3), centre of mass, mm in NIfTI's coordinates: x right, y front, z head (RAS).
    :param geometry: grid.
    """

    labels: np.ndarray
    ml: np.ndarray
    centres: np.ndarray
    geometry: Geometry

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.ml)


def find_lesions(mask: np.ndarray, geometry: Geometry, smallest_ml: float = ChangeRule.smallest_ml) -> Lesions:
    """Find the lesions of a mask.

    :param mask: (z, y, x), bool.
    :param geometry: its grid.
    :param smallest_ml: smaller components are excluded.
    :returns: the lesions.
    """
    components, number = label(mask, return_num=True, connectivity=mask.ndim)
    voxel_ml = float(np.prod(geometry.array_spacing)) / 1000
    ml = np.bincount(components.ravel(), minlength=number + 1)[1:] * voxel_ml
    # the tolerance: a component of exactly this volume is a lesion
    kept = [one for one in np.argsort(-ml, kind="stable") if ml[one] >= smallest_ml * (1 - 1e-9)]
    numbers = np.zeros(number + 1, np.int32)
    numbers[[one + 1 for one in kept]] = np.arange(1, len(kept) + 1)
    labels = numbers[components]
    positions = np.argwhere(labels)
    of = labels[labels > 0] - 1
    counts = np.maximum(np.bincount(of, minlength=len(kept)), 1)
    means = [np.bincount(of, weights=positions[:, axis], minlength=len(kept)) / counts for axis in (2, 1, 0)]
    return Lesions(labels, ml[kept], point_of(np.stack(means, axis=1), geometry), geometry)


def point_of(index: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the place of voxels.

    :param index: (..., 3), x, y, z along the file's axes.
    :param geometry: their grid.
    :returns: (..., 3), mm, RAS.
    """
    direction = np.reshape(geometry.direction, (3, 3))
    return (np.asarray(index) * geometry.spacing @ direction.T + geometry.origin) * FLIP


def index_of(point: Sequence[float], geometry: Geometry) -> tuple[int, int, int] | None:
    """Return the voxel at a place.

    :param point: mm, RAS.
    :param geometry: grid.
    :returns: (z, y, x); None outside the field of view.
    """
    direction = np.reshape(geometry.direction, (3, 3))
    index = np.rint((np.asarray(point) * FLIP - geometry.origin) @ direction / geometry.spacing).astype(int)
    inside = (index >= 0).all() and (index < geometry.size).all()
    return tuple(index[::-1].tolist()) if inside else None


def shared_voxels(one: Lesions, other: Lesions) -> np.ndarray:
    """Count the common voxels of any two lesions of two label images on one grid.

    :param one: lesions.
    :param other: lesions.
    :returns: (lesions of one, lesions of other).
    """
    shared = np.zeros((one.number, other.number))
    both = (one.labels > 0) & (other.labels > 0)
    np.add.at(shared, (one.labels[both] - 1, other.labels[both] - 1), 1)
    return shared


@dataclass(frozen=True)
class Links:
    """Which lesions of two visits belong together.

    :param linked: (earlier, later), bool.
    :param shared: (earlier, later), common voxels.
    """

    linked: np.ndarray
    shared: np.ndarray


def link(earlier: Lesions, later: Lesions, gap: float = ChangeRule.gap) -> Links:
    """Link the lesions of two visits.

    :param earlier: on the grid of ``later``.
    :param later: the next visit.
    :param gap: mm, between the nearest voxels of two lesions without common voxels.
    :returns: the links.
    """
    shared = shared_voxels(earlier, later)
    voxels = (np.bincount(one.labels.ravel(), minlength=one.number + 1)[1:] for one in (earlier, later))
    linked = (shared > 0) & (shared >= LEAST_SHARE * np.minimum.outer(*voxels))
    left, right = (np.flatnonzero(~linked.any(axis)) for axis in (1, 0))
    for distance, one, other in sorted(_gaps(earlier, later, left, right, gap)):
        if distance <= gap and not linked[one].any() and not linked[:, other].any():
            linked[one, other] = True
    return Links(linked, shared)


def _gaps(
    earlier: Lesions, later: Lesions, left: np.ndarray, right: np.ndarray, most: float
) -> Iterator[tuple[float, int, int]]:
    """Yield the gap between the surfaces of lesions, mm, and their places; of touching ones 0.

    :param left: places of the earlier lesions.
    :param right: places of the later ones.
    :param most: mm; some larger gaps are yielded, too.
    """
    spacing = earlier.geometry.array_spacing
    # one voxel more, because touching voxels are one spacing apart
    margins = [math.ceil(most / step) + 1 for step in spacing]
    boxes = find_objects(earlier.labels) if len(right) else []
    for one in left if len(right) else ():
        box = tuple(
            slice(max(side.start - margin, 0), side.stop + margin)
            for side, margin in zip(boxes[one], margins, strict=True)
        )
        nearby = later.labels[box]
        others = np.intersect1d(nearby, right + 1)
        if not len(others):
            continue
        # after a dilation by one voxel, distances between centres are gaps between surfaces
        reached = binary_dilation(earlier.labels[box] == one + 1, np.ones((3, 3, 3), bool))
        distance = distance_transform_edt(~reached, sampling=spacing)
        for other in others:
            yield float(distance[nearby == other].min()), int(one), int(other) - 1


@dataclass(frozen=True)
class Call:
    """What is said of a lesion at a visit.

    :param name: number of the lesion in its subject, from 1.
    :param change: one of :data:`CHANGES`.
    :param ml: volume; 0 of one that is gone, None of one that is now part of another.
    :param before_ml: volume, at the visit before, of all lesions that it came from; None at the first visit.
    :param others: names of the lesions that it merged with or split from.
    :param centre: mm, RAS; where it was last seen.
    :param place: number in the labels of this visit; of the visit before if it is in this visit no more.
    """

    name: int
    change: str
    ml: float | None
    before_ml: float | None
    others: tuple[int, ...]
    centre: tuple[float, float, float]
    place: int

    @property
    def is_present(self) -> bool:
        """Whether the lesion is in the labels of this visit."""
        return bool(self.ml)


@dataclass(frozen=True)
class Visit:
    """The lesions of a visit with their names.

    :param names: of each lesion, in their order.
    :param calls: of the lesions, then of those of the visit before that are not present any more.
    """

    lesions: Lesions
    names: tuple[int, ...]
    calls: tuple[Call, ...]


def follow(scans: Iterable[Lesions], rule: ChangeRule) -> Iterator[Visit]:
    """Name the lesions of consecutive visits and call their changes; two visits are in memory at a time.

    :param scans: lesions of each visit, on one grid, by time.
    :param rule: of changes.
    :returns: yields the visits.
    """
    before: Visit | None = None
    named = 0
    for lesions in scans:
        if before is None:
            names = tuple(range(1, lesions.number + 1))
            calls = [_call(lesions, place, name, FIRST, None) for place, name in enumerate(names)]
            visit = Visit(lesions, names, tuple(calls))
        else:
            links = link(before.lesions, lesions, rule.gap)
            names = _names(before.names, links, named)
            visit = Visit(
                lesions, names, (*_present(before, lesions, names, links, rule), *_absent(before, names, links))
            )
        named = max(named, *names, 0)
        yield visit
        before = visit


def _names(before: Sequence[int], links: Links, named: int) -> tuple[int, ...]:
    """Hand names on along the links, those with most common voxels first; the others get new ones.

    :param named: largest name that was given in this subject.
    """
    found: dict[int, int] = {}
    for one, other in sorted(zip(*np.nonzero(links.linked), strict=True), key=lambda pair: -links.shared[pair]):
        if other not in found and before[one] not in found.values():
            found[other] = before[one]
    for place in range(links.linked.shape[1]):
        if place not in found:
            named += 1
            found[place] = named
    return tuple(found[place] for place in range(len(found)))


def _present(before: Visit, lesions: Lesions, names: Sequence[int], links: Links, rule: ChangeRule) -> Iterator[Call]:
    """Call the changes of the lesions of the later visit."""
    for place, name in enumerate(names):
        parents = np.flatnonzero(links.linked[:, place])
        ml = float(before.lesions.ml[parents].sum())
        siblings = np.flatnonzero(links.linked[parents].any(0))
        if not len(parents):
            yield _call(lesions, place, name, NEW, 0.0)
        elif len(parents) > 1:
            others = tuple(before.names[one] for one in parents if before.names[one] != name)
            yield _call(lesions, place, name, MERGED, ml, others)
        elif len(siblings) > 1:
            yield _call(lesions, place, name, SPLIT, ml, tuple(names[one] for one in siblings if one != place))
        else:
            yield _call(lesions, place, name, rule.change(ml, float(lesions.ml[place])), ml)


def _absent(before: Visit, names: Sequence[int], links: Links) -> Iterator[Call]:
    """Call the lesions of the earlier visit whose name is not in the later one: gone, or part of another."""
    for place, name in enumerate(before.names):
        if name in names:
            continue
        children = np.flatnonzero(links.linked[place])
        ml, centre = float(before.lesions.ml[place]), tuple(before.lesions.centres[place].tolist())
        if len(children):
            into = names[max(children, key=lambda child: links.shared[place, child])]
            yield Call(name, MERGED, None, ml, (into,), centre, place + 1)
        else:
            yield Call(name, GONE, 0.0, ml, (), centre, place + 1)


def _call(
    lesions: Lesions, place: int, name: int, change: str, before_ml: float | None, others: tuple[int, ...] = ()
) -> Call:
    centre = tuple(lesions.centres[place].tolist())
    return Call(name, change, float(lesions.ml[place]), before_ml, others, centre, place + 1)
