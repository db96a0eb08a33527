"""The lesions of all subjects of a folder of label maps, followed through their visits."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.coarse import SHIFT, block_means, coarse_block, shift_between
from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry, by_axis, read_geometry, read_scan
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.evaluation.references import Files, Library, dataset_folders, peak_bytes
from longflow.files import write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.tasks.segment.label_maps import (
    LABEL_FOLDERS,
    LabelPrediction,
    Structures,
    find_label_maps,
    read_label_maps,
    read_labels,
)
from longflow.tasks.segment.lesion_changes import (
    MERGED,
    SPLIT,
    Call,
    ChangeRule,
    Lesions,
    Visit,
    find_lesions,
    follow,
    index_of,
    point_of,
)
from longflow.tasks.segment.lesion_comparison import CHANGE_DEFINITIONS, count_calls, summarise_calls
from longflow.tasks.segment.lesions import LesionCounts

logger = logging.getLogger(__name__)

LESIONS_CSV = "lesions.csv"
COLUMNS = (
    *("subject", "lesion", "case", "time", "ml", "before_ml", "change", "with"),
    *("x_mm", "y_mm", "z_mm"),
)

#: volumes of 4 bytes per voxel that a subject takes at its peak: two visits of two label maps, masks, distances
_VOLUMES_AT_PEAK = 20


@dataclass(frozen=True)
class LesionJob:
    """A folder of label maps and the structure whose components are lesions.

    :param folder: of the label maps.
    :param structure: its name in dataset.json.
    :param raw: folder of the raw dataset.
    :param rule: of changes.
    :param references: folders with reference label maps or acquired scans, searched before those of the dataset.
    :param output: the table to write; None: ``lesions.csv`` in the folder.
    :param processes: worker processes; None: one for each core, as far as memory allows.
    """

    folder: Path
    structure: str
    raw: Path
    description: DatasetDescription
    rule: ChangeRule = field(default_factory=ChangeRule)
    references: tuple[Path, ...] = ()
    output: Path | None = None
    processes: int | None = None

    @property
    def structures(self) -> Structures:
        """The structures of the dataset.

        :raises ConfigurationError: it has none of this name.
        """
        known = Structures.of(self.description)
        if self.structure not in known.values:
            raise ConfigurationError(
                f"There is no structure '{self.structure}' in {self.raw / 'dataset.json'}. Expected one of: "
                f"{', '.join(known.values)}."
            )
        return known

    def maps(self) -> dict[str, list[LabelPrediction]]:
        """List the label maps of each subject by time."""
        folders = [*self.references, *dataset_folders(self.raw, LABEL_FOLDERS)]
        found: dict[str, list[LabelPrediction]] = {}
        for one in find_label_maps(self.folder, folders, self.raw, self.description):
            found.setdefault(one.subject, []).append(one)
        return found


@dataclass
class SubjectLesions:
    """What was found in one subject.

    :param rows: of the table, by lesion and time.
    :param reference: the same of the reference label maps; empty where a visit has none.
    :param counts: of changes that were called right, between consecutive visits.
    :param other_grid: why lesions could not be followed; empty where they could.
    :param shifted: pairs of scans that look shifted.
    :param unchecked: pairs whose scans were not found.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    reference: list[dict[str, Any]] = field(default_factory=list)
    counts: list[dict[str, LesionCounts]] = field(default_factory=list)
    other_grid: str = ""
    shifted: list[str] = field(default_factory=list)
    unchecked: int = 0


def follow_lesions(job: LesionJob, progress: Progress | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Follow the lesions of all subjects; write ``lesions.csv`` and ``lesions.json``.

    :param job: what is followed.
    :returns: content of lesions.json; rows of lesions.csv.
    :raises ConfigurationError: the structure does not exist.
    :raises DataError: no subject has two visits on one grid, or a file cannot be used; it is named.
    """
    structures, maps = job.structures, job.maps()
    if all(len(visits) == 1 for visits in maps.values()):
        raise DataError(
            f"Every subject in {job.folder} has one visit, so no lesion can be followed. Expected: two label maps of a "
            "subject at least. Volumes of single visits are in volumes.csv."
        )
    library = Library((*job.references, *dataset_folders(job.raw)), job.description)
    scans = {one.case: library.by_case(one.case) for visits in maps.values() for one in visits}
    needed = [peak_bytes(visits[0].images, _VOLUMES_AT_PEAK) for visits in maps.values()]
    work = partial(follow_subject, structures=structures, name=job.structure, rule=job.rule, scans=scans)
    found = dict(for_each_subject(work, maps, processes_that_fit(job.processes, needed), progress))
    found = {subject: found[subject] for subject in maps}
    other_grids = {subject: one.other_grid for subject, one in found.items() if one.other_grid}
    rows = [row for one in found.values() for row in one.rows]
    if not any(len(maps[subject]) > 1 for subject in maps if subject not in other_grids):
        raise DataError(
            f"No subject has two visits on one grid: {first_few(other_grids.values(), most=2)}. Lesions are followed "
            "in registered scans: longflow_register, then segment the registered scans."
        )
    compared = {subject: one.counts for subject, one in found.items() if one.counts}
    results = {
        "structure": job.structure,
        "time_unit": job.description.time_unit,
        "rule": asdict(job.rule),
        "subjects": len(maps),
        "subjects_with_one_visit": sorted(subject for subject, visits in maps.items() if len(visits) == 1),
        "other_grids": other_grids,
        "shifted": [pair for one in found.values() for pair in one.shifted],
        "pairs_not_checked": sum(one.unchecked for one in found.values()),
        "definitions": CHANGE_DEFINITIONS,
        "compared": summarise_calls(compared) if compared else None,
    }
    output = job.output or job.folder / LESIONS_CSV
    write_csv(COLUMNS, rows, output)
    if reference := [row for one in found.values() for row in one.reference]:
        write_csv(COLUMNS, reference, output.with_name(f"{output.stem}_reference.csv"))
    write_json(results, output.with_suffix(".json"))
    return results, rows


def follow_subject(
    visits: Sequence[LabelPrediction],
    structures: Structures,
    name: str,
    rule: ChangeRule,
    scans: Mapping[str, Files | None],
) -> SubjectLesions:
    """Follow the lesions of one subject, and those of its reference where all visits have one.

    :param visits: by time.
    :param name: of the structure.
    :param scans: files of the acquired scan of each case; None where it was not found.
    :returns: what was found.
    :raises DataError: a label map cannot be used; it is named.
    """
    found = SubjectLesions(other_grid=_other_grid(visits))
    if found.other_grid:
        return found
    with_reference = all(one.reference for one in visits)
    streams = [follow(_lesions(visits, structures, name, rule, reference=False), rule)]
    if with_reference:
        streams.append(follow(_lesions(visits, structures, name, rule, reference=True), rule))
    rows = found.rows, found.reference
    before: tuple[Visit, ...] = ()
    for one, now in zip(visits, zip(*streams, strict=True), strict=True):
        for into, visit in zip(rows, now, strict=False):
            into += [_row(one, call) for call in visit.calls]
        if with_reference and before:
            found.counts.append(count_calls((before[0], now[0]), (before[1], now[1])))
        before = now
    for into in rows:
        into.sort(key=lambda row: (row["lesion"], row["time"]))
    for one, other in pairwise(visits):
        first, second = scans[one.case], scans[other.case]
        if first is None or second is None:
            found.unchecked += 1
        elif _look_shifted(first, second):
            found.shifted.append(f"{one.case} and {other.case}")
    return found


def _other_grid(visits: Sequence[LabelPrediction]) -> str:
    """Say which visit is on another grid than the first; empty where none is."""
    first = read_geometry(visits[0].images[0])
    for one in visits[1:]:
        for what, here, there in first.differences(read_geometry(one.images[0])):
            return f"{visits[0].images[0]} and {one.images[0]} differ in {what} ({here} and {there})"
    return ""


def _lesions(
    visits: Sequence[LabelPrediction], structures: Structures, name: str, rule: ChangeRule, reference: bool
) -> Iterator[Lesions]:
    """Yield the lesions of each visit. :param reference: those of the reference, not of the prediction."""
    for one in visits:
        if one.reference:
            maps = read_label_maps(one, structures)
            masks, geometry = maps.masks(structures.values[name]), maps.geometry
            yield find_lesions(masks.reference if reference else masks.prediction, geometry, rule.smallest_ml)
        else:
            labels, geometry = read_labels(one.images[0], structures.known)
            yield find_lesions(np.isin(labels, structures.values[name]), geometry, rule.smallest_ml)


def _look_shifted(one: Files, other: Files) -> bool:
    """Whether two scans look shifted by centimetres; they may still be rotated or deformed where they do not."""
    volumes = [read_scan(files) for files in (one, other)]
    if volumes[0].geometry.differences(volumes[1].geometry):
        return True  # the label maps are on one grid, the scans are not
    block = coarse_block(volumes[0].geometry.array_spacing)
    return bool(np.abs(shift_between(*(block_means(volume.array, block) for volume in volumes))).max() >= SHIFT)


def _row(one: LabelPrediction, call: Call) -> dict[str, Any]:
    """A line of lesions.csv."""
    return {
        "subject": one.subject,
        "lesion": call.name,
        "case": one.case,
        "time": one.time,
        "ml": None if call.ml is None else round(call.ml, 6),
        "before_ml": None if call.before_ml is None else round(call.before_ml, 6),
        "change": call.change,
        "with": " ".join(map(str, call.others)),
        **{f"{axis}_mm": round(value, 1) + 0.0 for axis, value in zip("xyz", call.centre, strict=True)},
    }


def lesion_at(
    job: LesionJob, subject: str | None, point: Sequence[float], time: float | None = None
) -> tuple[str, int]:
    """Find the lesion at a place.

    :param subject: None: the only one.
    :param point: mm, RAS.
    :param time: of the visit; None: the first visit with a lesion at the place.
    :returns: subject and name of the lesion.
    :raises DataError: there is no such subject or visit, or no lesion at the place; the nearest one is named.
    """
    structures, maps = job.structures, job.maps()
    if subject is None and len(maps) == 1:
        (subject,) = maps
    if subject not in maps:
        given = "A place is in one subject" if subject is None else f"There is no subject {subject} in {job.folder}"
        raise DataError(f"{given}. Say which with --subject: {first_few(maps)}.")
    visits = maps[subject]
    if other := _other_grid(visits):
        raise DataError(f"{other}. Lesions are followed in registered scans: longflow_register.")
    times = [one.time for one in visits]
    if time is not None and time not in times:
        raise DataError(f"{subject} has no visit at time {time:g}. Expected: {', '.join(f'{one:g}' for one in times)}.")
    nearest: list[tuple[float, str]] = []
    followed = follow(_lesions(visits, structures, job.structure, job.rule, reference=False), job.rule)
    for one, visit in zip(visits, followed, strict=True):
        if time is not None and one.time != time:
            continue
        index = index_of(point, visit.lesions.geometry)
        if index is None:
            raise DataError(
                f"({_mm(point)}) is outside the field of view of {one.images[0]}: {_extent(visit.lesions.geometry)}. "
                "Coordinates are mm as NIfTI viewers show them (RAS). Those of DICOM viewers (LPS) have the other sign "
                "in x and y."
            )
        if number := visit.lesions.labels[index]:
            return subject, visit.names[number - 1]
        if visit.lesions.number:
            nearest.append(_nearest(point, visit, one.time))
    near = f"The nearest one: {min(nearest)[1]}" if nearest else f"{subject} has no lesion there at any place"
    raise DataError(
        f"There is no lesion of '{job.structure}' at ({_mm(point)}) in {subject}. {near}. Coordinates are mm as NIfTI "
        "viewers show them (RAS); those of DICOM viewers (LPS) have the other sign in x and y."
    )


def _nearest(point: Sequence[float], visit: Visit, time: float) -> tuple[float, str]:
    """Distance of the nearest lesion of a visit from a place, mm, and how to find it."""
    lesions = visit.lesions
    places = np.argwhere(lesions.labels)
    distances = np.linalg.norm(point_of(places[:, ::-1], lesions.geometry) - np.asarray(point), axis=1)
    number = lesions.labels[tuple(places[distances.argmin()])]
    distance = float(distances.min())
    centre = _mm(lesions.centres[number - 1])
    return distance, f"{distance:.1f} mm away at time {time:g}, lesion {visit.names[number - 1]} with centre ({centre})"


def _mm(point: Sequence[float]) -> str:
    return ", ".join(f"{round(float(value), 1) + 0.0:.1f}" for value in point)  # not -0.0


def _extent(geometry: Geometry) -> str:
    corners = point_of(np.array([(0, 0, 0), np.array(geometry.size) - 1]), geometry)
    low, high = corners.min(0), corners.max(0)
    return f"{by_axis(geometry.size)} voxels from ({_mm(low)}) to ({_mm(high)})"


def history(rows: Sequence[Mapping[str, Any]], subject: str, lesion: int) -> list[Mapping[str, Any]]:
    """Select the rows of a lesion and, from then on, of those that it merged with or split into.

    :param rows: of lesions.csv.
    :returns: by time.
    """
    names, found = {lesion}, []
    own = [row for row in rows if row["subject"] == subject]
    for time in sorted({row["time"] for row in own}):
        now = [row for row in own if row["time"] == time]
        related = {
            row["lesion"]
            for row in now
            if row["change"] in (MERGED, SPLIT) and names & {int(name) for name in row["with"].split()}
        }
        # a lesion that only merges in brings no history of its own; it is one with the others from now on
        names |= related
        found += [row for row in now if row["lesion"] in names]
    return found
