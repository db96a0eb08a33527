"""De-identify an export: new files that can leave the hospital, and a key and a report that cannot.

A subject keeps name, shift of dates and UIDs as long as the key is used again, so that a later export fits an earlier
one. What this does not remove: faces that can be seen in a head scan, and text that is drawn into pixels.
"""

import logging
import os
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longflow.dicom.files import read_export
from longflow.dicom.headers import Instance
from longflow.dicom.libraries import require_dicom
from longflow.dicom.profile import Identity, deidentify
from longflow.dicom.survey import Patient, name_subjects, patient_of
from longflow.errors import ConfigurationError, DataError
from longflow.files import atomic_write, write_csv
from longflow.parallel import Progress, for_each_subject
from longflow.paths import is_name
from longflow.reading import read_table

logger = logging.getLogger(__name__)

KEY_COLUMNS = ("subject", "patient", "issuer", "name", "shift_days", "secret")
REPORT_COLUMNS = ("what", "action", "number", "reason")
#: days; most by which dates go back. They never go forward, so that no date lies in the future
MOST_DAYS = 3650
#: files that a worker writes at a time
AT_A_TIME = 100


@dataclass(frozen=True)
class Deidentified:
    """The result of a run.

    :param written: number of new files.
    :param subjects: number of patients.
    :param refused: number of files for each reason.
    :param report: the table of what was changed, next to the key.
    """

    written: int
    subjects: int
    refused: Mapping[str, int]
    report: Path


def deidentify_export(
    source: Path, target: Path, key: Path, processes: int | None = None, progress: Progress | None = None
) -> Deidentified:
    """De-identify all images, segmentations and structure sets of an export.

    :param source: the export; it is only read.
    :param target: folder for the new files, ``{subject}/{series}/{instance}.dcm`` with new UIDs.
    :param key: table of the patients; it is read where it exists, and new patients are added.
    :param processes: number of worker processes; None: all available cores.
    :param progress: called with (parts done, all parts, name).
    :returns: what was written and refused.
    :raises ConfigurationError: the key or the export is in the target, or the target in the export.
    :raises DataError: there is no DICOM, or the key is invalid.
    """
    require_dicom()
    _check_places(source, target, key)
    identities = read_key(key)
    export = read_export(source, processes, progress)
    refused: dict[Path, str] = {}
    usable: list[Instance] = []
    for instance in export.instances:
        if reason := refusal(instance):
            refused[instance.path] = reason
        else:
            usable.append(instance)
    patients = {patient_of(instance): instance.patient_name for instance in usable}
    identities = _with_new(identities, patients)
    write_key(key, identities, patients)  # before the first file: nothing is written that the key does not explain
    parts = {
        f"{min(start + AT_A_TIME, len(usable))} of {len(usable)} files written": [
            (instance, identities[patient_of(instance)], target) for instance in usable[start : start + AT_A_TIME]
        ]
        for start in range(0, len(usable), AT_A_TIME)
    }
    changes: Counter[tuple[str, str]] = Counter()
    for _, (of_part, failed) in for_each_subject(_write_part, parts, processes, progress) if parts else ():
        changes += of_part
        refused |= failed
    written = len(usable) - sum(instance.path in refused for instance in usable)
    report = key.with_name(f"{key.stem}_report.csv")
    _write_report(report, changes, refused)
    return Deidentified(written, len(patients), Counter(refused.values()), report)


def refusal(instance: Instance) -> str:
    """Tell why a file is not de-identified; empty where it is."""
    if instance.burned_in:
        return "text is burned into its pixels (BurnedInAnnotation = YES)"
    return instance.problem


def _check_places(source: Path, target: Path, key: Path) -> None:
    places = {"the export": source.resolve(), "the key": key.resolve().parent}
    safe = target.resolve()
    for name, place in places.items():
        if place == safe or safe in place.parents:
            raise ConfigurationError(f"{target} leaves the hospital, but {name} is in it. Choose another folder.")
    if source.resolve() in safe.parents:
        raise ConfigurationError(f"{target} is in the export, {source}. Choose a folder outside of it.")


def read_key(key: Path) -> dict[Patient, Identity]:
    """Read the key.

    :param key: the table.
    :returns: identity of each patient; empty where there is no key yet.
    :raises DataError: a line is invalid.
    """
    if not key.exists():
        return {}
    found: dict[Patient, Identity] = {}
    for line in read_table(key, *KEY_COLUMNS):
        cells = line.cells
        if (
            not is_name(cells["subject"])
            or not cells["shift_days"].removeprefix("-").isdecimal()
            or not cells["secret"]
        ):
            raise DataError(
                f"{key}, line {line.number}: expected a subject, the days of the shift and the secret, as longflow "
                "wrote them. Use the key as it was, or a new file."
            )
        identity = Identity(cells["subject"], int(cells["shift_days"]), cells["secret"])
        if identity.subject in {known.subject for known in found.values()}:
            raise DataError(f"{key}, line {line.number}: subject {identity.subject} has two lines, expected one.")
        found[cells["patient"], cells["issuer"]] = identity
    return found


def _with_new(known: Mapping[Patient, Identity], patients: Mapping[Patient, str]) -> dict[Patient, Identity]:
    """Add the patients that have no identity yet."""
    names = name_subjects(sorted(patients), {patient: identity.subject for patient, identity in known.items()})
    new = {
        patient: Identity(name, -1 - secrets.randbelow(MOST_DAYS), secrets.token_hex(16))
        for patient, name in names.items()
        if patient not in known
    }
    return {**known, **new}


def write_key(key: Path, identities: Mapping[Patient, Identity], names: Mapping[Patient, str]) -> None:
    """Write the key so that only its owner can read it; names of patients of earlier exports stay.

    :param key: the table.
    :param identities: of all patients.
    :param names: of the patients of this export.
    """
    earlier = {}
    if key.exists():
        earlier = {
            (row.cells["patient"], row.cells["issuer"]): row.cells["name"] for row in read_table(key, *KEY_COLUMNS)
        }
    rows: list[dict[str, Any]] = [
        {
            **{"subject": identity.subject, "patient": patient[0], "issuer": patient[1]},
            **{"name": names.get(patient, earlier.get(patient, ""))},
            **{"shift_days": identity.shift, "secret": identity.secret},
        }
        for patient, identity in identities.items()
    ]
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # atomic_write keeps permissions
    write_csv(KEY_COLUMNS, rows, key, exact=True)


def _write_part(
    work: Sequence[tuple[Instance, Identity, Path]],
) -> tuple[Counter[tuple[str, str]], dict[Path, str]]:
    """De-identify some files; return what was changed, and the files that could not be read."""
    require_dicom()  # in a worker
    changes: Counter[tuple[str, str]] = Counter()
    failed: dict[Path, str] = {}
    for instance, identity, target in work:
        try:
            changes += _write_file(instance, identity, target)
        except DataError:
            raise
        except Exception as error:  # pydicom raises many kinds for damaged files
            failed[instance.path] = f"it is damaged ({type(error).__name__})"
    return changes, failed


def _write_file(instance: Instance, identity: Identity, target: Path) -> Counter[tuple[str, str]]:
    import pydicom

    dataset = pydicom.dcmread(instance.path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a file without preamble
        implicit, little = dataset.original_encoding
        uids = pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uids[0] if implicit else uids[1] if little else uids[2]
    changes = deidentify(dataset, identity)
    series, name = (str(dataset.get(uid)) for uid in ("SeriesInstanceUID", "SOPInstanceUID"))
    path = target / identity.subject / series / f"{name}.dcm"
    with atomic_write(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return changes


def _write_report(report: Path, changes: Counter[tuple[str, str]], refused: Mapping[Path, str]) -> None:
    rows: list[dict[str, Any]] = [
        {"what": name, "action": action, "number": number} for (name, action), number in sorted(changes.items())
    ]
    rows += [{"what": path, "action": "refused", "reason": reason} for path, reason in sorted(refused.items())]
    write_csv(REPORT_COLUMNS, rows, report)
