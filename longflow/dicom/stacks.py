"""Sort the slices of an export into stacks: volumes on one grid, of one time or several.

Files are grouped by headers. Slices are sorted along their normal by position; the number of an instance is not
trusted. Where a series holds a position several times, the first element of :data:`TELLS_APART` that makes whole stacks
of it tells times, echoes or phases apart.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np

from longflow.data.images import Geometry
from longflow.dicom.headers import Frame, Instance

#: mm; positions nearer to each other than this are one position
SAME_POSITION = 0.01
#: directions of two slices of a stack differ by less, per cosine
SAME_DIRECTION = 1e-3
#: share of the distance of slices by which a distance may differ: positions are rounded
UNEVEN = 0.05
#: share of a pixel by which the last slice may be shifted in its plane before the stack counts as tilted
SHIFTED = 0.1
#: fewest time points of a series over time; fewer are separate acquisitions, as contrast phases
FEWEST_TIMES = 5
#: s; longest median step of perfusion. ms; longest time after the R wave of a cine
LONGEST_STEP, LONGEST_BEAT = 60.0, 5000.0

#: element, and how it reads; the first that makes whole stacks of a series counts
TELLS_APART: tuple[tuple[str, Callable[[Frame], float | None]], ...] = (
    ("TemporalPositionIdentifier", lambda frame: frame.temporal_position),
    ("AcquisitionNumber", lambda frame: frame.acquisition),
    ("TriggerTime", lambda frame: frame.trigger_time),
    ("AcquisitionTime", lambda frame: frame.acquired),
    ("ContentTime", lambda frame: frame.content),
)
BY_NUMBER_ALONE = "times are in the order of InstanceNumber alone, which is not always right"


@dataclass(frozen=True)
class Stack:
    """Slices on one grid, of one time or several.

    :param points: the slices of each time point, sorted along their normal.
    :param times: of each point: ms in a cine, s in perfusion; (0.0,) for a single volume.
    :param unit: "ms", "s" or "days": the last for a single volume, which counts by the date of its visit.
    :param period: R-R interval of a cine, ms; None: unknown.
    :param acquired: of the first point, s as in :mod:`longflow.dicom.moments`; None: unknown.
    :param told_apart: the element that tells it from other stacks of its series; empty where it is the only one.
    :param problem: why it cannot be read as a volume; empty where it can.
    :param remarks: what a person should know.
    """

    points: tuple[tuple[Frame, ...], ...]
    times: tuple[float, ...] = (0.0,)
    unit: str = "days"
    period: float | None = None
    acquired: float | None = None
    told_apart: str = ""
    problem: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def instance(self) -> Instance:
        """Return the file of its first slice, for what all share."""
        return self.points[0][0].instance

    @property
    def id(self) -> str:
        """Return a name for the stack, the same whenever the export is read: a digest of its slices."""
        frames = sorted(f"{frame.instance.sop_uid} {frame.index} {frame.tile}" for frame in chain(*self.points))
        return hashlib.sha256("\n".join(frames).encode()).hexdigest()[:10]


def stacks_of(frames: Iterable[Frame]) -> list[Stack]:
    """Sort slices into stacks.

    :param frames: of any number of patients and series.
    :returns: the stacks in order of their first slice's patient, study, series and time.
    """
    groups, joined = _with_slices_joined(_groups(frames))
    found = list(chain.from_iterable(_stacks_of_group(group) for group in groups))
    for group, series in joined:
        remark = f"joined from {series} series, one for each position"
        found += [replace(stack, remarks=(*stack.remarks, remark)) for stack in _stacks_of_group(group)]
    return sorted(found, key=_order)


def _order(stack: Stack) -> tuple:
    one = stack.instance
    number = int(one.series_number) if one.series_number.isdecimal() else 0
    return (one.patient_id, one.issuer, one.study_date, one.study_uid, number, one.series_uid, stack.acquired or 0.0)


def _groups(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Group slices by what all slices of a stack share.

    The frame of reference is not asked: programs that remove identities give every file one of its own.
    """
    by_key: dict[tuple, list[Frame]] = defaultdict(list)
    for frame in frames:
        one = frame.instance
        key = (
            *(one.patient_id, one.issuer, one.patient_name, one.study_uid, one.series_uid, one.sop_class),
            *(frame.size, tuple(round(value, 4) for value in frame.spacing), frame.image_type),
            *(frame.echo_time, frame.b_value),
        )
        by_key[key].append(frame)
    return [group for together in by_key.values() for group in _by_direction(together)]


def words_of(description: str) -> str:
    """Return the words of a description without its numbers, which differ between slices, visits and scanners.

    >>> words_of("Cine_SA 3 (b0)")
    'cine sa b'
    """
    return re.sub(r"[\d\W_]+", " ", description.casefold()).strip()


def _with_slices_joined(groups: Sequence[list[Frame]]) -> tuple[list[list[Frame]], list[tuple[list[Frame], int]]]:
    """Join the series of a cine that has one for each position of its slices, as some scanners write it.

    They are of one study and one kind (description without its numbers, direction, size of pixels), have equally many
    trigger times, and their positions are equally spaced.

    :returns: the other groups; those that were joined, each with its number of series.
    """
    others: list[list[Frame]] = []
    by_kind: dict[tuple, list[list[Frame]]] = defaultdict(list)
    for group in groups:
        one = group[0].instance
        triggers = [frame.trigger_time for frame in group]
        if len(group) >= FEWEST_TIMES and _are_distinct(triggers) and len(_positions(group)) == 1:
            key = (
                *(one.patient_id, one.issuer, one.patient_name, one.study_uid, one.sop_class),
                *(words_of(one.description), len(group)),
                *(group[0].size, tuple(round(value, 4) for value in group[0].spacing)),
            )
            by_kind[key].append(group)
        else:
            others.append(group)
    joined = []
    for together in by_kind.values():
        for frames in _by_direction(list(chain.from_iterable(together))):
            positions = _positions(frames)
            series = len({frame.instance.series_uid for frame in frames})
            if series == len(positions) > 1 and not problem_of([group[0] for group in positions]):
                joined.append((frames, series))
            else:
                others += [group for group in together if group[0] in frames]
    return others, joined


def _by_direction(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if max(abs(a - b) for a, b in zip(frame.orientation, group[0].orientation, strict=True)) < SAME_DIRECTION:
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _stacks_of_group(frames: Sequence[Frame]) -> list[Stack]:
    """Tell times, or acquisitions, apart."""
    whole = _sorted(frames)
    if not problem_of(whole):
        return [_single(whole)]
    for element, read in TELLS_APART:
        parts = _parts(frames, read)
        if len(parts) > 1 and not any(problem_of(part) for part in parts):
            return _of_parts(parts, element)
    positions = _positions(frames)
    counts = {len(group) for group in positions}
    if counts != {1} and len(counts) == 1 and all(frame.instance_number is not None for frame in frames):
        parts = [_sorted(part) for part in zip(*(_in_order(group) for group in positions), strict=True)]
        if not any(problem_of(part) for part in parts):
            return [
                replace(stack, remarks=(*stack.remarks, BY_NUMBER_ALONE))
                for stack in _of_parts(parts, "InstanceNumber")
            ]
    # parts of which some are damaged are still told apart where they are as many as a position has slices
    for element, read in TELLS_APART:
        parts = _parts(frames, read)
        if len(parts) == max(counts) > 1 and all(len(part) > 1 for part in parts):
            return _of_parts(parts, element)
    return [replace(_single(whole), problem=problem_of(whole))]


def _in_order(frames: Sequence[Frame]) -> list[Frame]:
    return sorted(frames, key=lambda frame: frame.instance_number or 0.0)


def _sorted(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    return tuple(sorted(frames, key=lambda frame: frame.depth))


def _positions(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group slices by their position along the normal."""
    groups: list[list[Frame]] = []
    for frame in _sorted(frames):
        if groups and frame.depth - groups[-1][0].depth < SAME_POSITION:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def _parts(frames: Sequence[Frame], read: Callable[[Frame], float | None]) -> list[tuple[Frame, ...]]:
    """Divide slices by the values of an element, in order of the values.

    :returns: by equal values where each value has a slice at more than one position; else by the rank of the value at
        each position, as trigger times of a cine differ between slices. Empty: the element does not tell.
    """
    values = [read(frame) for frame in frames]
    if None in values or len(set(values)) == 1:
        return []
    by_value: dict[float, list[Frame]] = defaultdict(list)
    for value, frame in zip(values, frames, strict=True):
        by_value[value].append(frame)
    positions = _positions(frames)
    if len(positions) == 1 or all(len(part) > 1 for part in by_value.values()):
        parts = [_sorted(by_value[value]) for value in sorted(by_value)]
        if len(parts) <= max(map(len, positions)) or not any(problem_of(part) for part in parts):
            return parts
    if len({len(group) for group in positions}) > 1:
        return []
    ranked = [sorted(group, key=read) for group in positions]
    if any(read(before) == read(after) for group in ranked for before, after in pairwise(group)):
        return []
    return [_sorted(part) for part in zip(*ranked, strict=True)]


def problem_of(frames: Sequence[Frame]) -> str:
    """Tell why slices are no whole stack; empty where they are one.

    :param frames: sorted along the normal.
    :returns: the reason: doubled, missing, unequally spaced or shifted slices.
    """
    if len(frames) < 2:
        return ""
    steps = np.diff([frame.depth for frame in frames])
    if doubled := int((steps < SAME_POSITION).sum()):
        place = float(frames[int(np.argmin(steps))].depth)
        return f"doubled slices: {doubled} at the position of another (the first at {place:.1f} mm)"
    usual = float(np.median(steps))
    uneven = np.abs(steps - usual) > max(UNEVEN * usual, SAME_POSITION)
    if uneven.any():
        first = int(np.flatnonzero(uneven)[0])
        times = steps / usual
        gaps = np.rint(times[uneven])
        if (gaps >= 2).all() and (np.abs(times[uneven] - gaps) < UNEVEN).all():
            missing = int(gaps.sum() - len(gaps))
            return f"missing slices: {missing}, after the position {frames[first].depth:.1f} mm"
        return f"unequal distances of slices: {steps.min():.2f} to {steps.max():.2f} mm"
    positions = np.array([frame.position for frame in frames])
    line = np.linspace(positions[0], positions[-1], len(frames))
    farthest = float(np.linalg.norm(positions - line, axis=1).max())
    if farthest > max(SHIFTED * max(frames[0].spacing), UNEVEN * usual):
        return f"slices shifted in their plane: by up to {farthest:.1f} mm"
    return ""


def step_of(frames: Sequence[Frame]) -> np.ndarray:
    """Return the mean vector from slice to slice, mm; of one slice, its thickness along the normal."""
    if len(frames) > 1:
        return np.subtract(frames[-1].position, frames[0].position) / (len(frames) - 1)
    return frames[0].normal * (frames[0].thickness or 1.0)


def tilt_of(frames: Sequence[Frame]) -> np.ndarray:
    """Return the shift of each slice against the one before: (rows, columns), pixels; zeros without a gantry tilt."""
    across, down = np.reshape(frames[0].orientation, (2, 3))
    step = step_of(frames)
    shift = np.array([step @ down / frames[0].spacing[0], step @ across / frames[0].spacing[1]])
    return shift if np.abs(shift).max() * max(len(frames) - 1, 1) > SHIFTED else np.zeros(2)


def geometry_of(frames: Sequence[Frame]) -> Geometry:
    """Return the grid of a stack; of a tilted one, that of its first slice, continued along the normal.

    :param frames: sorted along the normal.
    """
    first = frames[0]
    across, down = np.reshape(first.orientation, (2, 3))
    axes = np.column_stack([across, down, first.normal])
    return Geometry(
        size=(first.size[1], first.size[0], len(frames)),
        spacing=(first.spacing[1], first.spacing[0], float(step_of(frames) @ first.normal)),
        origin=first.position,
        direction=tuple(axes.ravel().tolist()),
    )


def _single(frames: tuple[Frame, ...], told_apart: str = "") -> Stack:
    """Make a stack of one time point."""
    acquired = [frame.acquired for frame in frames if frame.acquired is not None]
    return Stack(
        (frames,),
        acquired=min(acquired, default=None),
        told_apart=told_apart,
        problem=problem_of(frames),
        remarks=_remarks(frames),
    )


def _remarks(frames: tuple[Frame, ...]) -> tuple[str, ...]:
    angle = _tilt_angle(frames)
    return (f"gantry tilt of {angle:.1f} degrees: slices are resampled to a straight grid",) if angle else ()


def _tilt_angle(frames: tuple[Frame, ...]) -> float:
    if not tilt_of(frames).any():
        return 0.0
    step = step_of(frames)
    return float(np.degrees(np.arccos(min(1.0, step @ frames[0].normal / np.linalg.norm(step)))))


def _of_parts(parts: Sequence[tuple[Frame, ...]], element: str) -> list[Stack]:
    """Make a series over time of the parts, or separate stacks where they are few or far apart."""
    unit, times = _times(parts)
    same_grid = len({(len(part), tuple(np.round(part[0].position, 2))) for part in parts}) == 1
    if unit == "days" or not same_grid:
        return [_single(part, element) for part in parts]
    order = np.argsort(times, kind="stable")
    parts = [parts[place] for place in order]
    problem = next((found for part in parts if (found := problem_of(part))), "")
    intervals = [frame.interval for frame in chain(*parts) if frame.interval]
    acquired = [frame.acquired for frame in parts[0] if frame.acquired is not None]
    return [
        Stack(
            points=tuple(parts),
            times=tuple(float(f"{times[place]:.10g}") for place in order),
            unit=unit,
            period=float(np.median(intervals)) if intervals and unit == "ms" else None,
            acquired=min(acquired, default=None),
            told_apart=element,
            problem=problem,
            remarks=_remarks(parts[0]),
        )
    ]


def _times(parts: Sequence[tuple[Frame, ...]]) -> tuple[str, list[float]]:
    """Return the unit and the time of each part: the mean of its slices; "days" where they are no series over time."""
    if len(parts) < FEWEST_TIMES:
        return "days", []
    triggers = [_mean(frame.trigger_time for frame in part) for part in parts]
    if _are_distinct(triggers) and max(triggers) - min(triggers) <= LONGEST_BEAT:
        return "ms", triggers
    if frame_times := [frame.frame_time for frame in chain(*parts) if frame.frame_time]:
        return "ms", [float(np.median(frame_times)) * place for place in range(len(parts))]
    for read in (lambda frame: frame.acquired, lambda frame: frame.content):
        moments = [_mean(map(read, part)) for part in parts]
        if _are_distinct(moments):
            seconds = [moment - min(moments) for moment in moments]
            if float(np.median(np.diff(sorted(seconds)))) <= LONGEST_STEP:
                return "s", seconds
    return "days", []


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else float(np.mean(known))


def _are_distinct(values: Sequence[float | None]) -> bool:
    return None not in values and max(Counter(values).values()) == 1
