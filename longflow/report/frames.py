"""The volumes of a subject's page: which are shown, with which levels, and how large."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Volume, read_array, read_geometry, read_scan
from longflow.errors import DataError
from longflow.report.timeline import Moment, Predicted, Subject
from longflow.report.volumes import CLIPPED, WINDOW, Levels, Shown, affine_of, bounds, factors_of, shrunk
from longflow.spread import evenly_spaced

#: bytes of all volumes of a page, compressed: with base64, strips and the viewer, a page stays under 25 MB
MOST_BYTES = 14_000_000
#: scans of a page; of more, as many are shown, evenly spaced, and every prediction with what it is compared with
MOST_SCANS = 60
#: name and bounds of the windows of CT, HU
CT_WINDOWS = (("soft tissue", -160, 240), ("brain", 0, 80), ("lung", -1350, 150), ("bone", -500, 1300))
#: HU; a CT without any air is in other units, or cut, and no window of CT fits it for certain
HIGHEST_AIR = -200
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

#: levels of each channel, by phase where phases are different modalities, else by ""
ByPhase = dict[str, list[Levels]]
Frame = dict[str, Any]
#: of frames, by kind and case: a prediction and the scan acquired at its time can have one name
Ids = dict[tuple[str, str], int]


@dataclass
class Content:
    """The volumes of a page.

    :param frames: one of each scan, prediction and difference: id, kind, case, time, phase, modality, and the names of
        its files: volumes and strips (one for each channel), labels and their strip.
    :param targets: of each predicted scan or label map, the ids of the frames forecast, reference, last and difference,
        or None.
    :param windows: by modality, of each channel, the one that is shown first first: name, low, high (input units).
    :param levels: by modality, the values (low, high) that strips of each channel show in black and in white.
    :param labels: value, name and colour of each label that a scan has.
    :param files: base64 text of every volume and strip, by name.
    :param notes: sentences on what is shown in other form than in the files.
    :param warnings: sentences about files that could not be shown.
    """

    frames: list[Frame] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    windows: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    levels: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    labels: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, content: bytes) -> str:
        """Add a file of the page; return its name."""
        self.files[name] = base64.b64encode(content).decode("ascii")
        return name


def content_of(
    subject: Subject,
    description: DatasetDescription,
    label_names: Mapping[int, str] = MappingProxyType({}),
    most_bytes: int = MOST_BYTES,
) -> Content:
    """Read the volumes of a subject, one after the other, and make them as small as a page needs them.

    :param label_names: of the values of label maps.
    :param most_bytes: of all volumes, compressed.
    """
    content = Content()
    chosen = _chosen(subject, content)
    readable, levels = _measured(chosen, description, content)
    if not readable:
        return content
    coarsest = _coarsest(readable, levels, most_bytes, description)
    content.notes += _notes(levels, coarsest, description)
    ids: Ids = {}
    for number, one in enumerate(readable):
        ids[one.kind, one.case] = number
        content.frames.append(_frame(one, number, levels[_modality(one, description)], coarsest, content))
        content.frames[-1]["modality"] = _modality(one, description)
    for one in readable:
        if isinstance(one, Predicted) and one.kind == "prediction":
            content.targets.append(_target(one, ids, coarsest, content))
    for one in (other for other in subject.predicted if other.kind == "label map"):
        if ("acquired", one.case) in ids:
            _compare_labels(one, ids["acquired", one.case], coarsest, content)
    content.labels = {
        value: {
            "name": label_names.get(value, f"label {value}"),
            "colour": "#{:02x}{:02x}{:02x}".format(*LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)]),
        }
        for value in sorted(content.labels)
    }
    return content


def _modality(one: Moment, description: DatasetDescription) -> str:
    """Return the phase of a scan where phases are different modalities: they share no units."""
    return one.phase if description.phase_channels else ""


def _chosen(subject: Subject, content: Content) -> list[Moment]:
    """Choose the scans that are shown, in order of time, among them those of which only a label map is predicted."""
    labelled = {one.case for one in subject.predicted if not one.images}
    acquired = subject.acquired
    predicted = [one for one in subject.predicted if one.images]
    needed = {other.case for one in predicted for other in (one.reference, one.last) if other}
    needed |= labelled
    kept = {acquired[index].case for index in evenly_spaced(len(acquired), MOST_SCANS)} if acquired else set()
    if len(kept) < len(acquired):
        content.notes.append(
            f"The viewer shows {len(kept | needed)} of {len(acquired)} scans, evenly spaced in their order, and every "
            "prediction. The time axis has all of them."
        )
    shown = [one for one in acquired if one.case in kept | needed]
    return sorted([*shown, *predicted], key=lambda one: (one.time, one.kind != "acquired"))


def _measured(
    chosen: Sequence[Moment], description: DatasetDescription, content: Content
) -> tuple[list[Moment], ByPhase]:
    """Read every volume once; return those that can be read, and the levels of each channel over all of them."""
    readable: list[Moment] = []
    found: dict[str, list[list[tuple[float, ...]]]] = {}
    for one in chosen:
        try:
            channels = read_scan(one.images).array
        except DataError as error:
            content.warnings.append(f"{one.case} is not shown. {error}")
            continue
        readable.append(one)
        values = [(*bounds(channel, CLIPPED), *bounds(channel, WINDOW)) for channel in channels]
        found.setdefault(_modality(one, description), []).append(values)
    levels: ByPhase = {}
    for phase, scans in found.items():
        extremes = [_extremes(channel) for channel in zip(*scans, strict=True)]
        levels[phase] = [Levels.between(low, high) for low, high, *_ in extremes]
        content.levels[phase] = [{"low": one.low, "high": one.high} for one in levels[phase]]
        content.windows[phase] = [
            _windows(*one, ct) for one, ct in zip(extremes, description.is_ct_of(phase), strict=True)
        ]
    return readable, levels


def _extremes(scans: Sequence[tuple[float, ...]]) -> tuple[float, float, float, float]:
    """Return the lowest and the highest bounds over scans: of all values, and of the window."""
    lows, highs, window_lows, window_highs = zip(*scans, strict=True)
    return min(lows), max(highs), min(window_lows), max(window_highs)


def _windows(low: float, high: float, window_low: float, window_high: float, is_ct: bool) -> list[dict[str, Any]]:
    """List the windows of a channel; the first one is shown: of CT in Hounsfield units, that of soft tissue."""
    automatic = ("automatic", window_low, window_high if window_high > window_low else window_low + 1)
    full = ("full range", low, high if high > low else low + 1)
    further = CT_WINDOWS if is_ct else ()
    ordered = (*further, automatic, full) if low < HIGHEST_AIR else (automatic, *further, full)
    return [{"name": name, "low": low, "high": high} for name, low, high in ordered]


def _coarsest(readable: Sequence[Moment], levels: ByPhase, most_bytes: int, description: DatasetDescription) -> float:
    """Find the voxel size with which all volumes fit, from the size of one of them; 0: as in the files, mm."""
    sample = readable[len(readable) // 2]
    volume, geometry = read_scan(sample.images), read_geometry(sample.images[0])
    differences = sum(isinstance(one, Predicted) and one.reference is not None for one in readable)
    of_sample = levels[_modality(sample, description)]
    number = (len(readable) + differences) * len(of_sample)
    coarsest = 0.0
    while True:
        factors = factors_of(geometry, coarsest)
        size = len(_shown(volume.array[0], volume, of_sample[0], coarsest).nifti)
        blocks = [math.ceil(count / factor) for count, factor in zip(geometry.size[::-1], factors, strict=True)]
        if number * size <= most_bytes or max(blocks) <= 16:
            return coarsest
        spacings = [spacing * factor for spacing, factor in zip(geometry.array_spacing, factors, strict=True)]
        coarsest = 2 * min(spacings)


def _notes(levels: ByPhase, coarsest: float, description: DatasetDescription) -> list[str]:
    """Say how the volumes of the page differ from the files."""
    ranges = "; ".join(
        f"{name}: steps of {one.step:.3g} from {one.low:.4g} to {one.high:.4g}"
        for phase, some in levels.items()
        for name, one in zip(description.channels_of(phase), some, strict=True)
    )
    notes = [f"Values are shown in 256 levels ({ranges}). The files have all values."]
    if coarsest:
        notes.append(
            f"Voxels smaller than {coarsest:.3g} mm are averaged to about this size, so that the page can be sent. The "
            "files have all voxels."
        )
    return notes


def _shown(array: np.ndarray, volume: Volume, levels: Levels, coarsest: float) -> Shown:
    """Make a channel as small as needed. :param array: (z, y, x)."""
    small, affine = shrunk(array, affine_of(volume.geometry), factors_of(volume.geometry, coarsest))
    return Shown(levels.of(small), affine, levels)


def _frame(one: Moment, number: int, levels: Sequence[Levels], coarsest: float, content: Content) -> Frame:
    """Add the files of a scan or a prediction; return its frame."""
    volume, volumes, strips = read_scan(one.images), [], []
    for channel, (array, its_levels) in enumerate(zip(volume.array, levels, strict=True)):
        shown = _shown(array, volume, its_levels, coarsest)
        volumes.append(content.add(f"volume-{number}-{channel}", shown.nifti))
        strips.append(content.add(f"strip-{number}-{channel}", shown.strip()))
    labels = _labels(one, number, coarsest, content)
    return {
        "id": number,
        "kind": one.kind,
        "case": one.case,
        "time": one.time,
        "phase": one.phase,
        "volumes": volumes,
        "strips": strips,
        "labels": labels,
        "label_strip": labels and labels.replace("labels", "label-strip"),
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
    whole = labels.astype(np.int64)
    content.labels |= {value: {} for value in _values_of(whole)}
    coloured = np.where(whole > 0, (whole - 1) % len(LABEL_COLOURS) + 1, 0).astype(np.uint8)
    small, affine = shrunk(coloured, affine_of(geometry), factors_of(geometry, coarsest), labels=True)
    shown = Shown(small, affine)
    content.add(f"label-strip-{number}", shown.label_strip(LABEL_COLOURS))
    return content.add(f"labels-{number}", shown.nifti)


def _values_of(labels: np.ndarray) -> list[int]:
    """List the values above 0 of a label map. Counting is faster than sorting, and needs memory for each value."""
    values = np.flatnonzero(np.bincount(labels.ravel())) if labels.max() < 2**16 else np.unique(labels)
    return [int(value) for value in values if value > 0]


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


def _compare_labels(one: Predicted, acquired: int, coarsest: float, content: Content) -> None:
    """Add a predicted label map: a frame with the volumes of its scan, compared with the rater's labels of it."""
    scan = content.frames[acquired]
    number = len(content.frames)
    if (labels := _labels(one, number, coarsest, content)) is None:
        return
    strip = labels.replace("labels", "label-strip")
    content.frames.append(scan | {"id": number, "kind": one.kind, "labels": labels, "label_strip": strip})
    compared = {"reference": None if scan["labels"] is None else acquired, "last": None, "difference": None}
    content.targets.append({"case": one.case, "time": one.time, "forecast": number, **compared})


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
        strips.append(content.add(f"strip-{number}-{channel}", shown.strip(DIFFERENCE_COLOURS)))
        ranges.append(-levels.low)
    content.frames.append(
        {"id": number, "kind": "difference", "case": one.case, "time": one.time, "phase": one.phase}
        | {"volumes": volumes, "strips": strips, "labels": None, "label_strip": None, "ranges": ranges}
    )
    return number
