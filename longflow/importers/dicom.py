"""DICOM, as a PACS exports it: a heap of files, sorted by their headers.

The first step writes ``series.csv`` and a contact sheet for a person, and no image. The second, with ``--accept``,
writes the dataset as the table says. Names and dates of patients stay in the folder of the table.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longflow.data.dataset import PHASE
from longflow.data.phases import native_first
from longflow.errors import DataError, first_few
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import Destination, ImportedDataset, ImportedScan, Proposal
from longflow.paths import review_folder
from longflow.task import get_task

if TYPE_CHECKING:
    from longflow.dicom.labels import DicomLabels
    from longflow.dicom.survey import Finding, Survey
    from longflow.dicom.table import ReviewPaths

#: (id of a stack, place of the time point)
Point = tuple[str, int]


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param accept: import as the table says; without it, only the table is written.
    :param review: folder of the table; None: ``review_Dataset101_Name`` next to the dataset.
    :param series: text that the description of a series must contain; empty: every series counts.
    """

    accept: bool = field(
        default=False,
        metadata=flag(
            "import as series.csv says; without it, only series.csv is written", action="store_true", default=None
        ),
    )
    review: Path | None = field(
        default=None,
        metadata=flag(
            "folder for series.csv, contact sheet and key (default: review_Dataset101_Name next to the dataset)",
            type=Path,
            metavar="FOLDER",
        ),
    )
    series: str = field(
        default="", metadata=flag("use only series whose description contains this text", metavar="TEXT")
    )


def propose(source: Path, options: Options, to: Destination) -> Proposal:
    """Read all headers; write ``series.csv``, the contact sheet and the key.

    :param source: folder of the export; it is only read.
    :param options: flags of the layout.
    :param to: the dataset that the second step writes.
    :returns: what would be imported now.
    :raises DataError: there is no DICOM, or a table that was edited.
    """
    from longflow.dicom.choice import choose
    from longflow.dicom.contact_sheet import contact_sheet
    from longflow.dicom.survey import ASK
    from longflow.dicom.table import write_review
    from longflow.files import write_text

    survey, paths = _survey(source, options, to)
    findings = choose(survey.findings, get_task(to.task).uses_phases, options.series)
    survey = replace(survey, findings=findings)
    write_review(survey, paths, to.overwrite)
    title = f"{to.raw.name}: series of the export"
    write_text(contact_sheet(findings, title, to.processes, to.progress), paths.contact_sheet)
    questions = sum(finding.use == ASK for finding in findings)
    return Proposal(dataset_of(findings, to.task), [paths.table, paths.contact_sheet, paths.key], questions)


def read(source: Path, options: Options, to: Destination) -> ImportedDataset:
    """Find the scans that ``series.csv`` says.

    :param source: folder of the export, unchanged since the table was written.
    :param options: flags of the layout.
    :param to: the dataset to write.
    :returns: the dataset; its volumes are read when they are written.
    :raises DataError: the table is missing, invalid or undecided, or two scans of a subject have one time.
    """
    from longflow.dicom.table import read_decisions

    survey, paths = _survey(source, options, to)
    findings = read_decisions(survey, paths).findings
    dataset = dataset_of(findings, to.task)
    if not dataset.scans:
        raise DataError(f"{paths.table} has no series with use = yes. Write yes in the rows to import.")
    _check(dataset, findings, to.task, paths)
    _write_sources(dataset.scans, paths.folder)
    return dataset


def _write_sources(scans: Sequence[ImportedScan], folder: Path) -> None:
    """Write from which DICOM instances each image is made, for ``longflow_export_dicom``.

    UIDs identify: the file is with the key, not in the dataset.
    """
    from longflow.dicom.sources import source_of, write_sources

    found = {f"{scan.case}_0000": source_of(scan.image.frames) for scan in scans}
    write_sources(folder, {name: source for name, source in found.items() if source})


def _survey(source: Path, options: Options, to: Destination) -> "tuple[Survey, ReviewPaths]":
    """Read all headers of the export; patients keep the names of an earlier survey."""
    from longflow.dicom.files import read_export
    from longflow.dicom.survey import survey_export
    from longflow.dicom.table import ReviewPaths, known_subjects

    paths = ReviewPaths(options.review or review_folder(to.raw))
    export = read_export(source, to.processes, to.progress)
    return survey_export(export, known_subjects(paths)), paths


def dataset_of(findings: "Sequence[Finding]", task: str) -> ImportedDataset:
    """Make the dataset of the findings with use = yes.

    :param findings: of a survey, decided.
    :param task: of the dataset.
    :returns: the dataset; its volumes are read when they are written.
    :raises DataError: a structure is in several label files of one scan.
    """
    from longflow.dicom.survey import PERIOD

    used = [one for one in findings if one.use == "yes" and one.stack]
    names, labels = _labels(findings, used)
    by_phase = get_task(task).uses_phases
    has_period = bool(used) and all(one.stack.period for one in used)
    scans = [scan for one in used for scan in _scans(one, labels, by_phase, has_period)]
    about: dict[str, Any] = {"period": PERIOD} if has_period else {}
    phases = native_first({one.phase.phase for one in used} - {""})
    if by_phase and len(phases) == 2:
        about["phases"] = phases
    modalities = sorted({one.instance.modality for one in used})
    return ImportedDataset(
        scans,
        time_unit=used[0].unit if used else "days",
        channel=modalities[0] if modalities and modalities[0] else "image",
        label_names=names,
        settings={"source": "a DICOM export", "label_names": names},  # the path of the export can hold names and dates
        about=about,
        excluded=_excluded(findings),
    )


def _scans(
    finding: "Finding", labels: "dict[Point, DicomLabels]", by_phase: bool, has_period: bool
) -> list[ImportedScan]:
    """Return the scans of a stack: one, or one for each time."""
    from longflow.dicom.survey import PERIOD, time_points
    from longflow.dicom.volume import DicomVolume

    phase = finding.phase.phase
    covariates = ({PHASE: phase} if phase else {}) | ({PERIOD: repr(finding.stack.period)} if has_period else {})
    return [
        ImportedScan(
            point.case,
            finding.subject,
            point.time,
            DicomVolume(point.frames),
            label=labels.get((finding.id, place)),
            covariates=covariates,
        )
        for place, point in enumerate(time_points(finding, by_phase))
    ]


def _labels(findings: "Sequence[Finding]", used: "Sequence[Finding]") -> "tuple[list[str], dict[Point, DicomLabels]]":
    """Return the names of all structures, and the labels of each time point that has some."""
    from longflow.dicom.labels import DicomLabels

    stacks = {one.id: one.stack for one in used}
    files: dict[Point, list[Finding]] = defaultdict(list)
    for one in findings:
        if one.use == "yes" and one.labels_of and one.labels_of[0] in stacks:
            files[one.labels_of].append(one)
    names = sorted({name for group in files.values() for one in group for name in one.structures})
    values = tuple((name, number) for number, name in enumerate(names, start=1))
    found = {}
    for (stack, place), group in files.items():
        doubled = [name for name, count in Counter(n for one in group for n in one.structures).items() if count > 1]
        if doubled:
            ids = first_few(one.id for one in group)
            raise DataError(f"'{doubled[0]}' is in several label files of one scan (rows {ids}). Use one of them.")
        found[stack, place] = DicomLabels(tuple(one.label for one in group), stacks[stack].points[place], values)
    return names, found


def _excluded(findings: "Sequence[Finding]") -> list[str]:
    """Count what is not imported by reason, without what a reason says of a patient."""
    reasons = Counter(
        re.split(r"['(:\d]", one.reason)[0].strip(" ,;") or "another series is used"
        for one in findings
        if one.use == "no"
    )
    return [f"{count} rows: {reason}" for reason, count in reasons.most_common()]


def _check(dataset: ImportedDataset, findings: "Sequence[Finding]", task: str, paths: "ReviewPaths") -> None:
    """Check that the rows with use = yes make one dataset."""
    used = [one for one in findings if one.use == "yes" and one.stack]
    for what, values in (
        ("units of time", {one.unit for one in used}),
        ("modalities", {one.instance.modality for one in used}),
    ):
        if len(values) > 1:
            raise DataError(
                f"{paths.table}: rows with use = yes have {len(values)} {what} ({', '.join(sorted(values))}), expected "
                "one. Write use = no in the others, or import them as another dataset."
            )
    by_phase = get_task(task).uses_phases
    if by_phase and (without := [one.id for one in used if not one.phase.phase]):
        raise DataError(f"{paths.table}: rows {first_few(without)} have no phase, which this task needs. Enter it.")
    moments: dict[tuple, str] = {}
    for scan in dataset.scans:
        moment = (scan.subject, scan.time, scan.covariates.get(PHASE) if by_phase else "")
        if moment in moments:
            raise DataError(
                f"{paths.table}: subject {scan.subject} has two scans at time {scan.time:g} with use = yes. Keep one "
                "of them (use = no in the other), or correct subject, time or phase."
            )
        moments[moment] = scan.case


IMPORTER = Importer(
    "dicom",
    read,
    Options,
    example="""
longflow_import dicom EXPORT -d 101 -n Liver
longflow_import dicom EXPORT -d 101 -n Liver --accept
""",
    serves=lambda task: True,
    propose=propose,
)
