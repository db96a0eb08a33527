"""The other scans of the subject whose scan is segmented: which there are, and how they are prepared with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longflow.data.coarse import SHIFT, shift_between
from longflow.data.dataset import Scan
from longflow.data.images import Volume, check_same_grid, read_scan
from longflow.errors import DataError
from longflow.integrity.problems import REGISTER
from longflow.methods.method import Method
from longflow.plans import Plans
from longflow.preprocessing.prepared import PreparedSeries, RawSeries
from longflow.preprocessing.series import prepare_volumes


@dataclass(frozen=True)
class OtherScans:
    """Other scans of a subject, on the prepared grid of the one that is segmented.

    :param cases: their names.
    :param images: (scans, channels, z, y, x), in the normal form.
    :param times: (scans,), since the scan that is segmented, in units of the plan's time scale.
    :param aligned: (scans,), False where a scan looks shifted.
    """

    cases: Sequence[str]
    images: np.ndarray
    times: np.ndarray
    aligned: np.ndarray


@dataclass(frozen=True)
class ScanWithOthers:
    """A scan that was prepared with the other scans of its subject, or alone.

    :param prepared: all of them; its properties lead back to the files' grid.
    :param place: of the scan in the series.
    :param others: None for methods that look at single scans.
    :param warnings: of scans that are not looked at, or look shifted.
    """

    prepared: PreparedSeries
    place: int
    others: OtherScans | None
    warnings: list[str]

    @classmethod
    def alone(cls, prepared: PreparedSeries) -> "ScanWithOthers":
        """Return a scan that was prepared without others."""
        return cls(prepared, 0, None, [])

    @property
    def image(self) -> np.ndarray:
        """The scan, (channels, z, y, x), float32."""
        return np.asarray(self.prepared.images[self.place], dtype=np.float32)

    @property
    def cases(self) -> list[str]:
        """The names of the other scans."""
        return list(self.others.cases) if self.others else []


def candidates(scan: Scan, scans: Sequence[Scan], method: Method) -> tuple[Scan, ...]:
    """List the scans of the subject that a method looks at when it segments one of them.

    :param scan: that is segmented.
    :param scans: of the input, of this subject and of others.
    :param method: that segments.
    :returns: those with images, by time; none for a method of single scans.
    """
    if not method.uses_other_scans:
        return ()
    others = [one for one in scans if one.subject == scan.subject and one.case != scan.case and one.exists]
    if method.options["only_earlier"]:
        others = [one for one in others if one.time < scan.time]
    return tuple(sorted(others, key=lambda one: (one.time, one.case)))


def prepare_with_others(
    scan: Scan, volume: Volume, others: Sequence[Scan], method: Method, plans: Plans, configuration: str
) -> ScanWithOthers:
    """Prepare a scan for a method, with the other scans that share its grid.

    :param scan: that is segmented.
    :param volume: of it, as read.
    :param others: of the subject (:func:`candidates`); they are read.
    :param method: that segments.
    :param plans: of the method.
    :param configuration: name of one of its configurations.
    :returns: the prepared scan.
    :raises DataError: voxels are not finite numbers, or a channel is missing; the file is named.
    """
    if not method.uses_other_scans:
        return ScanWithOthers.alone(prepare_volumes(RawSeries.of_scan(scan.case, volume), plans, configuration))
    members, warnings = [(scan, volume)], []
    for other in others:
        read = read_scan(other.images)
        try:
            check_same_grid(read.geometry, other.images[0], volume.geometry, scan.images[0], REGISTER)
            members.append((other, read))
        except DataError as error:
            warnings.append(f"{scan.case} is segmented without {other.case}, which is on another grid. {error}")
    members.sort(key=lambda member: (member[0].time, member[0].case))
    scans = [member for member, _ in members]
    raw = RawSeries(
        subject=scan.subject,
        cases=[one.case for one in scans],
        times=[one.time for one in scans],
        volumes=[read for _, read in members],
        sources=[str(one.images[0]) for one in scans],
    )
    prepared, place = prepare_volumes(raw, plans, configuration), scans.index(scan)
    found = others_of(prepared, place, plans)
    return ScanWithOthers(prepared, place, found, [*warnings, *_of_unregistered(scan.case, found, method)])


def _of_unregistered(case: str, others: OtherScans, method: Method) -> list[str]:
    shifted = [other for other, aligned in zip(others.cases, others.aligned, strict=True) if not aligned]
    done = (
        "It is looked at, because the model was trained with unregistered=on."
        if method.options["unregistered"]
        else "It is not looked at. Register the scans of the subject first: longflow_register"
    )
    return [f"{other} looks shifted against {case}. {done}" for other in shifted]


def others_of(series: PreparedSeries, place: int, plans: Plans, chosen: Sequence[int] | None = None) -> OtherScans:
    """Return the other scans of a prepared series.

    :param series: of a subject.
    :param place: of the scan that is segmented.
    :param plans: with the time scale.
    :param chosen: places of the others; None: all.
    :returns: in the order of the series.
    """
    cases, times = series.properties.cases, series.properties.times
    if chosen is None:
        chosen = [one for one in range(len(cases)) if one != place]
    images = [np.asarray(series.images[one], dtype=np.float32) for one in chosen]
    return OtherScans(
        cases=[cases[one] for one in chosen],
        images=np.stack(images) if images else np.zeros((0, *series.images.shape[1:]), np.float32),
        times=np.array([(times[one] - times[place]) / plans.temporal.time_scale for one in chosen], np.float32),
        aligned=np.array([is_aligned(series, place, one) for one in chosen], bool),
    )


def is_aligned(series: PreparedSeries, place: int, other: int) -> bool:
    """Check that two scans of a series are not shifted by centimetres; they may still be rotated or deformed."""
    shift = shift_between(np.asarray(series.coarse[place]), np.asarray(series.coarse[other]))
    return bool(np.abs(shift).max() < SHIFT)
