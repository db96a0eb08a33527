"""BIDS with sessions, as OASIS-3 (LaMontagne et al., 2019): one scan for each session.

    sub-OAS30001/ses-d0129/anat/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz
    sub-OAS30001/sub-OAS30001_sessions.tsv      session_id, acq_time or another time; or sessions.tsv for all subjects

The time of a session is looked for in this order: the column ``acq_time`` of the table of sessions (dates, which become
days since the subject's first one); a column named as a unit, as ``days``; ``age`` (years, as in BIDS); the names of
the sessions, where they are numbers with a unit: ``ses-d0129`` of OASIS-3 is 129 days since entry, ``ses-M012`` (ADNI,
by Clinica) the twelfth month; the dates of the images in ``sub-X_ses-Y_scans.tsv``.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar, get_args

from longflow.data.dataset import parse_time
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.importers.patterns import filled
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan, times_of_scans
from longflow.plans import TimeUnit
from longflow.reading import Line, read_table

logger = logging.getLogger(__name__)

DATES, LABELS = "acq_time", "labels"
#: columns of a table of sessions that are used by default, the first that exists, and their unit
COLUMNS: dict[str, TimeUnit] = {
    DATES: "days",
    "days": "days",
    "weeks": "weeks",
    "months": "months",
    "years": "years",
    "age": "years",
}
#: unit of a letter before the number of a session
LETTERS: dict[str, TimeUnit] = {"d": "days", "M": "months"}
SESSION = re.compile(r"ses-([A-Za-z]*)([0-9]+)")
SECONDS_OF_DAY = 86400

Key = TypeVar("Key", str, tuple[str, str])
#: (subject, session) -> time
Times = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param modality: how names of images end, as T1w, FLAIR, ce-gd_T1w. A session without one is excluded; of several
        (runs), the first by name is imported.
    :param times: a column of the tables of sessions, or "labels" for the numbers in the names of the sessions (None: in
        the order given at the top of this module).
    :param time_unit: of such a column, or of names without a known letter.
    :param labels: path of label masks below the source with ``{subject}`` and ``{session}`` in it, on the images' grid.
    :param label_names: names of the labels 1, 2, ...
    """

    modality: str = field(default="T1w", metadata=flag("how names of images end (default: T1w)"))
    times: str | None = field(
        default=None,
        metadata=flag(
            "a column of the tables of sessions, or labels for the numbers in the names of "
            "sessions (default: the first "
            "one that exists)",
            metavar="WHERE",
        ),
    )
    time_unit: TimeUnit | None = field(default=None, metadata=flag("unit of the times", choices=get_args(TimeUnit)))
    labels: str | None = field(
        default=None, metadata=flag("names of the label masks, with {subject} and {session}", metavar="PATTERN")
    )
    label_names: Sequence[str] = field(
        default=(), metadata=flag("names of the labels 1, 2, ...", nargs="+", metavar="NAME")
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the scans of one modality; sessions become cases ``sub-OAS30001_ses-d0129``.

    :param source: the folder of the subjects.
    :param options: flags of the layout.
    :returns: the dataset.
    :raises DataError: the layout is another one, or sessions have no times.
    """
    labels = options.labels
    images, excluded = images_of_folder(source, options.modality)
    unit, known, origin = times_of_sessions(source, images, options.times, options.time_unit)
    logger.info("Times of the sessions: %s, %s.", origin, unit)
    scans = []
    for (subject, session), path in images.items():
        if (subject, session) not in known:
            excluded.append(f"{subject}/{session}: no time in {origin}")
            continue
        mask = source / filled(labels, {"subject": subject, "session": session}) if labels else None
        label = mask if mask and mask.is_file() else None
        scans.append(ImportedScan(f"{subject}_{session}", subject, known[subject, session], path, label=label))
    _check_distinct(scans, origin)
    if labels and not any(scan.label for scan in scans):
        raise DataError(
            f"No file of {source} has a name as --labels {labels}, with {{subject}} and {{session}} filled."
        )
    return ImportedDataset(
        scans,
        time_unit=unit,
        channel=options.modality,
        label_names=options.label_names,
        settings={
            "modality": options.modality,
            "time_unit": unit,
            "times": times_of_scans(scans),
            "times_from": origin,
            "labels": labels,
            "label_names": list(options.label_names),
        },
        excluded=excluded,
    )


def images_of_folder(source: Path, modality: str) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Find the image of each subject and session.

    :param source: the folder of the subjects.
    :param modality: how names of images end.
    :returns: file by subject and session, sorted; excluded sessions and files, each with its reason.
    :raises DataError: there are no sessions, or none has the modality.
    """
    sessions = sorted(path for path in source.glob("sub-*/ses-*") if path.is_dir())
    if not sessions:
        present = sorted(path.name for path in source.iterdir()) if source.is_dir() else ["no such folder"]
        found = f"Found: {first_few(present)}."
        if any(source.glob("sub-*/anat")):
            found = "Its subjects have one session each, so nothing can be learned over time."
        raise DataError(f"{source} has no sessions. Expected folders as sub-OAS30001/ses-d0129/anat. {found}")
    images: dict[tuple[str, str], Path] = {}
    excluded = []
    for folder in sessions:
        subject, session = folder.parent.name, folder.name
        found = sorted(
            (path for path in folder.glob("anat/*") if path.name.endswith((f"_{modality}.nii.gz", f"_{modality}.nii"))),
            key=lambda path: ("_ce-" in path.name.removesuffix(f"_{modality}.nii.gz"), path.name),
        )
        if not found:
            excluded.append(f"{subject}/{session}: no anat/*_{modality}.nii.gz")
            continue
        images[subject, session] = found[0]
        excluded += [f"{subject}/{session}: {other.name}, next to {found[0].name}" for other in found[1:]]
    if not images:
        names = {path.name.split("_")[-1].split(".")[0] for path in source.glob("sub-*/ses-*/anat/*.nii*")}
        raise DataError(
            f"No session of {source} has an image anat/*_{modality}.nii.gz. Found there: "
            f"{first_few(sorted(names)) or 'no images'}. Name one with --modality."
        )
    return images, excluded


def times_of_sessions(
    source: Path, images: Mapping[tuple[str, str], Path], times: str | None, unit: TimeUnit | None
) -> tuple[TimeUnit, Times, str]:
    """Find the times of the sessions.

    :param source: the folder of the subjects.
    :param images: file by subject and session.
    :param times: column, "labels" or None, as in :class:`Options`.
    :param unit: of the times; None: that of the column or names.
    :returns: the time unit; times of the sessions that have one; their origin for messages.
    :raises DataError: no session has a time.
    """
    sessions = list(images)
    table = {} if times == LABELS else tables_of_sessions(source, {subject for subject, _ in sessions})
    columns = {column for row in table.values() for column in row}
    column = times if times != LABELS else None
    if column is None and times is None:
        column = next((name for name in COLUMNS if name in columns), None)
    by_names = times == LABELS or (times is None and (unit is not None or _are_numbers(sessions)))
    elsewhere = by_names or column in columns or column not in (None, DATES)
    if dates := {} if elsewhere else _days_since_first(tables_of_images(images), sessions, unit):
        return "days", dates, f"the column {DATES} of the *_scans.tsv"
    if column is None:
        return times_of_names(source, sessions, unit)
    if column not in columns:
        found = f"with the columns {first_few(sorted(columns))}" if table else "no *_sessions.tsv"
        raise DataError(f"--times {column}: {source} has {found}. Name one of them, or give --times {LABELS}.")
    unit = unit or COLUMNS.get(column)
    if unit is None:
        raise ConfigurationError(f"--times {column}: give the unit of these times, as in --time_unit days.")
    if column == DATES:
        found = _days_since_first(table, sessions, unit)
    else:
        values = {key: parse_time(table.get(key, {}).get(column, "")) for key in sessions}
        found = {key: value for key, value in values.items() if value is not None}
    if not found:
        raise DataError(
            f"No session of {source} has a usable value in the column '{column}' of its table of sessions. "
            f"Found: {first_few((repr(row.get(column, '')) for row in table.values()), most=3)}. Expected numbers with "
            "a point as decimal sign, or dates as 2009-06-15T13:45:30 in acq_time (not 15.06.2009); session_id as the "
            "folders are named (ses-01). Correct the table, or name another column with --times."
        )
    return unit, found, f"the column {column} of the tables of sessions"


def times_of_names(
    source: Path, sessions: Sequence[tuple[str, str]], unit: TimeUnit | None
) -> tuple[TimeUnit, Times, str]:
    """Read times from the names of sessions: ``ses-d0129`` is 129 days.

    :param source: the folder of the subjects, for messages.
    :param sessions: (subject, session) of each.
    :param unit: of names without a letter for a unit.
    :returns: the time unit; times of the sessions; their origin for messages.
    :raises DataError: names are not such numbers, or their letters differ.
    """
    matches = {key: SESSION.fullmatch(key[1]) for key in sessions}
    letters = {match[1] if match else None for match in matches.values()}
    strange = sorted({session for (_, session), match in matches.items() if not match})
    letter = letters.pop() if len(letters) == 1 else None
    unit = unit or LETTERS.get(letter or "")
    if strange or letter is None or unit is None:
        raise DataError(
            f"Nothing says when the sessions of {source} were "
            f"({first_few(sorted({session for _, session in sessions}))}). "
            "Expected: sub-X/sub-X_sessions.tsv (or sessions.tsv) with the columns session_id and acq_time, days or "
            "age; sub-X_ses-Y_scans.tsv with the columns filename and acq_time (dates as 2009-06-15); or names as "
            "ses-d0129 (days) or ses-M012 (months). Where names are numbers in another unit: "
            f"--times {LABELS} --time_unit weeks."
        )
    found = {key: float(match[2]) for key, match in matches.items()}
    return unit, found, "the numbers in the sessions' names"


def _are_numbers(sessions: Sequence[tuple[str, str]]) -> bool:
    """Tell whether the names of all sessions are numbers of one known unit, as ses-d0129."""
    letters = {match[1] if (match := SESSION.fullmatch(session)) else "" for _, session in sessions}
    return len(letters) == 1 and letters <= set(LETTERS)


def tables_of_sessions(source: Path, subjects: set[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Read all tables of sessions.

    :param source: the folder of the subjects.
    :param subjects: whose tables are read.
    :returns: rows by subject and session.
    :raises DataError: a table has no column session_id, has a session twice, or cannot be read.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    common = source / "sessions.tsv"
    if common.is_file():
        lines = read_table(common, "participant_id", "session_id", separator="\t")
        rows |= _rows_once(common, lines, lambda cells: _session(cells["participant_id"], cells["session_id"]))
    for subject in sorted(subjects):
        path = source / subject / f"{subject}_sessions.tsv"
        if path.is_file():
            lines = read_table(path, "session_id", separator="\t")
            rows |= _rows_once(path, lines, lambda cells, subject=subject: _session(subject, cells["session_id"]))
    return rows


def tables_of_images(images: Mapping[tuple[str, str], Path]) -> dict[tuple[str, str], dict[str, str]]:
    """Read ``sub-X_ses-Y_scans.tsv`` of each session, where it is, for the line of its image.

    :param images: file by subject and session.
    :returns: rows with a column acq_time, by subject and session.
    :raises DataError: a table has no column filename, has the image twice, or cannot be read.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (subject, session), image in images.items():
        folder = image.parents[1]
        for path in (folder / f"{subject}_{session}_scans.tsv", folder.parent / f"{subject}_scans.tsv"):
            if not path.is_file():
                continue
            lines = read_table(path, "filename", separator="\t")
            found = _rows_once(path, lines, lambda cells: PurePosixPath(cells["filename"]).name)
            if found.get(image.name, {}).get(DATES):
                rows[subject, session] = found[image.name]
                break
    return rows


def _rows_once(path: Path, lines: Sequence[Line], key_of: Callable[[dict[str, str]], Key]) -> dict[Key, dict[str, str]]:
    """Return the cells of lines by a key that no two lines may share."""
    known: dict[Key, Line] = {}
    for line in lines:
        key = key_of(line.cells)
        if (other := known.setdefault(key, line)) is not line:
            name = key if isinstance(key, str) else " ".join(key)
            raise DataError(f"{path} has {name} twice, in lines {other.number} and {line.number}. Keep one of them.")
    return {key: line.cells for key, line in known.items()}


def _session(subject: str, session: str) -> tuple[str, str]:
    """Return subject and session with their prefixes, which some tables omit."""
    return tuple(
        name if name.startswith(kind) else kind + name for kind, name in (("sub-", subject), ("ses-", session))
    )


def _days_since_first(
    rows: Mapping[tuple[str, str], dict[str, str]], sessions: Sequence[tuple[str, str]], unit: TimeUnit | None
) -> Times:
    """Convert dates to days since the subject's first date.

    :raises ConfigurationError: another unit is given.
    """
    if unit not in (None, "days"):
        raise ConfigurationError(f"--time_unit {unit}: dates ({DATES}) become days. Omit --time_unit.")
    dates: dict[tuple[str, str], datetime] = {}
    for key in sessions:
        try:
            # UTC or local time makes no difference between the visits of one subject
            dates[key] = datetime.fromisoformat(rows[key][DATES].removesuffix("Z")).replace(tzinfo=None)
        except (KeyError, ValueError):
            continue
    first: dict[str, datetime] = {}
    for (subject, _), date in dates.items():
        first[subject] = min(date, first.get(subject, date))
    return {key: round((date - first[key[0]]).total_seconds() / SECONDS_OF_DAY, 6) for key, date in dates.items()}


def _check_distinct(scans: Sequence[ImportedScan], origin: str) -> None:
    cases: dict[tuple[str, float], str] = {}
    for scan in scans:
        other = cases.setdefault((scan.subject, scan.time), scan.case)
        if other != scan.case:
            raise DataError(
                f"{other} and {scan.case} are both at time {scan.time:g} by {origin}. A subject needs different times: "
                "correct them, name another column with --times, or remove one of the sessions."
            )


IMPORTER = Importer("bids", read, Options, example="longflow_import bids OASIS3 -d 107 -n OASIS3 --modality T1w")
