"""The volumes of a subject's page: which are shown, with which levels, and how large."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Volume, read_array, read_geometry, read_scan
from longflow.errors import DataError
from longflow.report.timeline import Moment, Predicted, Subject
from longflow.report.volumes import Levels, Shown, affine_of, bounds, factors_of, shrunk
from longflow.spread import evenly_spaced

#: bytes of all volumes of a page, compressed: with base64, strips and the viewer, a page stays under 25 MB
MOST_BYTES = 14_000_000
#: scans of a page; of more, as many are shown, evenly spaced, and every prediction with what it is compared with
MOST_SCANS = 60
#: name and bounds of the windows of CT, HU
CT_WINDOWS = (("soft tissue", -160, 240), ("brain", 0, 80), ("lung", -1350, 150), ("bone", -500, 1300))
#: of differences: blue is lower than the reference, red is higher
DIFFERENCE_COLOURS = "RdBu_r"
#: colours of labels, which colour-blind readers tell apart (Okabe and Ito); further labels begin again with the first
#: one. The viewer tints the background where it is given more than 64 colours
LABEL_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

Frame = dict[str, Any]
#: of frames, by kind and case: a prediction and the scan acquired at its time can have one name
Ids = dict[tuple[str, str], int]


@dataclass
class Content:
    """The volumes of a page.

    :param frames: one of each scan, prediction and difference: id, kind, case, time, phase, and the names of its files:
        volumes and strips (one for each channel), labels.
    :param targets: of each predicted scan, the ids of the frames forecast, reference, last and difference, or None.
    :param windows: of each channel, in order: name, low, high (input units).
    :param files: base64 text of every volume and strip, by name.
    :param notes: sentences on what is shown in other form than in the files.
    :param warnings: sentences about files that could not be shown.
    """

    frames: list[Frame] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    windows: list[list[dict[str, Any]]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> str:
        """Add a file of the page; return its name."""
        self.files[name] = base64.b64encode(content).decode("ascii")
        return name


def content_of(subject: Subject, description: DatasetDescription, most_bytes: int = MOST_BYTES) -> Content:
    """Read the volumes of a subject, one after the other, and make them as small as a page needs them.

    :param most_bytes: of all volumes, compressed.
    """
    content = Content()
    chosen = _chosen(subject, content)
    readable, levels = _measured(chosen, content)
    if not readable:
        return content
    coarsest = _coarsest(readable, levels, most_bytes)
    content.notes += _notes(levels, coarsest, description)
    content.windows = [_windows(one, ct) for one, ct in zip(levels, description.is_ct, strict=True)]
    ids: Ids = {}
    for number, one in enumerate(readable):
        ids[one.kind, one.case] = number
        content.frames.append(_frame(one, number, levels, coarsest, content))
    for one in readable:
        if isinstance(one, Predicted) and one.kind == "prediction":
            content.targets.append(_target(one, ids, coarsest, content))
    return content


def _chosen(subject: Subject, content: Content) -> list[Moment]:
    """Choose the scans that are shown, in order of time. Label maps alone are shown on the scan of their case."""
    labelled = {one.case: one.label for one in subject.predicted if one.label and not one.images}
    acquired = [one.with_label(labelled.get(one.case)) for one in subject.acquired]
    predicted = [one for one in subject.predicted if one.images]
    needed = {other.case for one in predicted for other in (one.reference, one.last) if other}
    needed |= set(labelled)
    kept = {acquired[index].case for index in evenly_spaced(len(acquired), MOST_SCANS)} if acquired else set()
    if len(kept) < len(acquired):
        content.notes.append(
            f"The viewer shows {len(kept | needed)} of {len(acquired)} scans, evenly spaced in their order, and every "
            "prediction. The time axis has all of them."
        )
    shown = [one for one in acquired if one.case in kept | needed]
    return sorted([*shown, *predicted], key=lambda one: (one.time, one.kind != "acquired"))


def _measured(chosen: Sequence[Moment], content: Content) -> tuple[list[Moment], list[Levels]]:
    """Read every volume once; return those that can be read, and the levels of each channel over all of them."""
    readable, found = [], []
    for one in chosen:
        try:
            found.append([bounds(channel) for channel in read_scan(one.images).array])
        except DataError as error:
            content.warnings.append(f"{one.case} is not shown. {error}")
            continue
        readable.append(one)
    by_channel = zip(*found, strict=True)
    return readable, [
        Levels.between(min(low for low, _ in some), max(high for _, high in some)) for some in map(list, by_channel)
    ]


def _coarsest(readable: Sequence[Moment], levels: Sequence[Levels], most_bytes: int) -> float:
    """Find the voxel size with which all volumes fit, from the size of one of them; 0: as in the files, mm."""
    sample = readable[len(readable) // 2]
    volume, geometry = read_scan(sample.images), read_geometry(sample.images[0])
    differences = sum(isinstance(one, Predicted) and one.reference is not None for one in readable)
    number = (len(readable) + differences) * len(levels)
    coarsest = 0.0
    while True:
        factors = factors_of(geometry, coarsest)
        size = len(_shown(volume.array[0], volume, levels[0], coarsest).nifti)
        blocks = [math.ceil(count / factor) for count, factor in zip(geometry.size[::-1], factors, strict=True)]
        if number * size <= most_bytes or max(blocks) <= 16:
            return coarsest
        spacings = [spacing * factor for spacing, factor in zip(geometry.array_spacing, factors, strict=True)]
        coarsest = 2 * min(spacings)


def _notes(levels: Sequence[Levels], coarsest: float, description: DatasetDescription) -> list[str]:
    """Say how the volumes of the page differ from the files."""
    ranges = "; ".join(
        f"{name}: steps of {one.step:.3g} from {one.low:.4g} to {one.high:.4g}"
        for name, one in zip(description.channels, levels, strict=True)
    )
    notes = [f"Values are shown in 256 levels ({ranges}). The files have all values."]
    if coarsest:
        notes.append(
            f"Voxels smaller than {coarsest:.3g} mm are averaged to about this size, so that the page can be sent. The "
            "files have all voxels."
        )
    return notes


def _windows(levels: Levels, is_ct: bool) -> list[dict[str, Any]]:
    """List the windows of a channel; the first one is shown."""
    middle = (levels.low + levels.high) / 2
    further = CT_WINDOWS if is_ct else (("dark half", levels.low, middle), ("bright half", middle, levels.high))
    full = ("full range", levels.low, levels.high)
    ordered = (*further, full) if is_ct else (full, *further)
    return [{"name": name, "low": low, "high": high} for name, low, high in ordered]


def _shown(array: np.ndarray, volume: Volume, levels: Levels, coarsest: float) -> Shown:
    """Make a channel as small as needed. :param array: (z, y, x)."""
    small, affine = shrunk(array, affine_of(volume.geometry), factors_of(volume.geometry, coarsest))
    return Shown(levels.of(small), affine, levels)


def _frame(one: Moment, number: int, levels: Sequence[Levels], coarsest: float, content: Content) -> Frame:
    """Add the files of a scan or a prediction; return its frame."""
    volume, volumes, strips = read_scan(one.images), [], []
    for channel, (array, its_levels) in enumerate(zip(volume.array, levels, strict=True)):
        shown = _shown(array, volume, its_levels, coarsest)
        window = content.windows[channel][0]
        volumes.append(content.add(f"volume-{number}-{channel}", shown.nifti))
        strips.append(content.add(f"strip-{number}-{channel}", shown.strip(window["low"], window["high"])))
    return {
        "id": number,
        "kind": one.kind,
        "case": one.case,
        "time": one.time,
        "phase": one.phase,
        "volumes": volumes,
        "strips": strips,
        "labels": _labels(one, number, coarsest, content),
    }


def _labels(one: Moment, number: int, coarsest: float, content: Content) -> str | None:
    """Add the label map of a scan; return its name, or None where there is none that can be shown."""
    if one.label is None:
        return None
    try:
        labels, geometry = read_array(one.label)
    except DataError as error:
        content.warnings.append(f"The label map of {one.case} is not shown. {error}")
        return None
    if labels.min() < 0:
        content.warnings.append(f"The label map of {one.case} is not shown: it has values below 0.")
        return None
    coloured = np.where(labels > 0, (labels.astype(np.int64) - 1) % len(LABEL_COLOURS) + 1, 0).astype(np.uint8)
    small, affine = shrunk(coloured, affine_of(geometry), factors_of(geometry, coarsest), labels=True)
    return content.add(f"labels-{number}", Shown(small, affine).nifti)


def _target(one: Predicted, ids: Ids, coarsest: float, content: Content) -> dict[str, Any]:
    """Add the difference of a prediction to its reference; return the frames that are compared."""
    reference, last = (ids.get((other.kind, other.case)) if other else None for other in (one.reference, one.last))
    return {
        "case": one.case,
        "time": one.time,
        "forecast": ids[one.kind, one.case],
        "reference": reference,
        "last": last,
        "difference": None if reference is None else _difference(one, coarsest, content),
    }


def _difference(one: Predicted, coarsest: float, content: Content) -> int | None:
    """Add prediction minus reference; return the id of its frame, or None where the grids differ."""
    assert one.reference is not None  # the caller has found it
    predicted, acquired = read_scan(one.images), read_scan(one.reference.images)
    if predicted.geometry.differences(acquired.geometry):
        content.warnings.append(f"{one.case} and {one.reference.case} are on different grids: no difference is shown.")
        return None
    number, volumes, strips, ranges = len(content.frames), [], [], []
    for channel, difference in enumerate(predicted.array - acquired.array):
        low, high = bounds(difference)
        levels = Levels.around_zero(max(abs(low), abs(high)))
        shown = _shown(difference, predicted, levels, coarsest)
        volumes.append(content.add(f"volume-{number}-{channel}", shown.nifti))
        strips.append(
            content.add(f"strip-{number}-{channel}", shown.strip(levels.low, -levels.low, DIFFERENCE_COLOURS))
        )
        ranges.append(-levels.low)
    content.frames.append(
        {"id": number, "kind": "difference", "case": one.case, "time": one.time, "phase": one.phase}
        | {"volumes": volumes, "strips": strips, "labels": None, "ranges": ranges}
    )
    return number
