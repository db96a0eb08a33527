"""Find the DICOM files of an export by their content, and read their headers on several processes."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from longflow.dicom.headers import Frame, Instance, read_file
from longflow.dicom.libraries import require_dicom
from longflow.errors import DataError
from longflow.parallel import Progress, for_each_subject

#: files that a worker reads at a time
AT_A_TIME = 250


@dataclass(frozen=True)
class Export:
    """The content of an export.

    :param instances: of every DICOM file, each once.
    :param frames: the slices of all images.
    :param others: number of files that are no DICOM, or a DICOMDIR.
    :param copies: number of files that hold an instance which another file holds too.
    """

    instances: Sequence[Instance]
    frames: Sequence[Frame]
    others: int = 0
    copies: int = 0


def read_export(source: Path, processes: int | None = None, progress: Progress | None = None) -> Export:
    """Read the headers of all DICOM files below a folder; names of files and folders mean nothing.

    :param source: the folder, or one file; it is only read.
    :param processes: number of worker processes; None: all available cores.
    :param progress: called with (parts done, all parts, name).
    :returns: its content.
    :raises ConfigurationError: the extra ``dicom`` is not installed.
    :raises DataError: the folder does not exist, is empty, or holds no DICOM.
    """
    require_dicom()
    paths = sorted(_paths(source))
    if not paths:
        found = "is empty" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {found}. Expected a folder with DICOM files, as a PACS exports them.")
    parts = {
        f"{min(start + AT_A_TIME, len(paths))} of {len(paths)} files": paths[start : start + AT_A_TIME]
        for start in range(0, len(paths), AT_A_TIME)
    }
    by_part = dict(for_each_subject(_read_part, parts, processes, progress))
    instances: dict[str, Instance] = {}
    frames: list[Frame] = []
    copies = 0
    for part in parts:  # in the order of the paths, whichever worker was faster
        for instance, of_instance in by_part[part]:
            key = instance.sop_uid or str(instance.path)
            if key in instances:
                copies += 1
                continue
            instances[key] = instance
            frames += of_instance
    if not instances:
        raise DataError(
            f"{source} has {len(paths)} files, and none of them is DICOM (for example {paths[0].name}). Give the "
            "folder that the PACS exported. For NIfTI files, see: longflow_import --help"
        )
    read = sum(len(part) for part in by_part.values())
    known, frames = _with_issuers(list(instances.values()), frames)
    return Export(known, frames, others=len(paths) - read, copies=copies)


def _with_issuers(instances: list[Instance], frames: list[Frame]) -> tuple[list[Instance], list[Frame]]:
    """Complete the issuer of a PatientID where other files of its study name one, and only one.

    Programs that draw labels often omit it; the patient is the same.
    """
    issuers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in instances:
        issuers[one.patient_id, one.study_uid].add(one.issuer)
    missing = {key: next(iter(of - {""})) for key, of in issuers.items() if all(key) and "" in of and len(of) == 2}

    def completed(one: Instance) -> Instance:
        issuer = missing.get((one.patient_id, one.study_uid))
        return replace(one, issuer=issuer) if issuer and not one.issuer else one

    if not missing:
        return instances, frames
    by_path = {one.path: completed(one) for one in instances}
    return list(by_path.values()), [replace(frame, instance=by_path[frame.instance.path]) for frame in frames]


def _paths(source: Path) -> Iterator[Path]:
    """Return all files below a folder; links to folders are not followed."""
    if source.is_file():
        yield source
    for folder, _, names in os.walk(source):
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _read_part(paths: Sequence[Path]) -> list[tuple[Instance, list[Frame]]]:
    """Read some files; those that are no DICOM are missing in the answer."""
    require_dicom()  # in a worker
    return [found for path in paths if (found := read_file(path)) is not None]
