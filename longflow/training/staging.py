"""Copy the prepared subjects of a fold to a disk of the machine, once for all processes that train there."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from longflow.errors import ConfigurationError, DataError, first_few
from longflow.files import atomic_write, awaited_lock, file_digest, wait_for_files
from longflow.job import FoldJob
from longflow.paths import lock_in, path_in
from longflow.preprocessing.store import files_of_subject
from longflow.training.splits import Cohort

logger = logging.getLogger(__name__)

#: share of the free space that stays free
LEFT_FREE = 0.02


def stage(job: FoldJob, *cohorts: Cohort) -> tuple[Cohort, ...]:
    """Copy the subjects of cohorts to the scratch folder of the settings; subjects that are there stay.

    The first process on a machine copies, the others wait for its lock. Where the file system of the scratch folder has
    no locks, each process copies, and whole files replace whole files.

    :param job: the fold; ``settings.scratch`` is set.
    :param cohorts: with the folder of the prepared subjects.
    :returns: the same cohorts in the scratch folder.
    :raises ConfigurationError: a variable in the name is not set, the folder cannot be used, or has too little space.
    :raises DataError: a file has left the source, or a copy differs from it.
    """
    source = cohorts[0].folder
    target = folder_for(source, scratch_folder(job.settings.scratch))
    subjects = sorted({subject for cohort in cohorts for subject in cohort.scans})
    with awaited_lock(lock_in(target), f"{source} is being copied to {target}"):
        _copy_missing(source, target, subjects)
    return tuple(replace(cohort, folder=target) for cohort in cohorts)


def scratch_folder(setting: str) -> Path:
    """Replace the variables in the name of a scratch folder.

    :param setting: as "$SLURM_TMPDIR" or "~/scratch".
    :returns: the folder.
    :raises ConfigurationError: a variable is not set, or there is no such folder.
    """
    name = os.path.expanduser(os.path.expandvars(setting))
    if "$" in name:
        raise ConfigurationError(
            f"--scratch {setting}: the variable is not set on this machine (found {name}). Give a folder that exists, "
            "or leave --scratch away."
        )
    if not Path(name).is_dir() or not os.access(name, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"--scratch {setting}: {name} is no folder that can be written to. Give a folder on a disk of this "
            "machine, or leave --scratch away."
        )
    return Path(name)


def folder_for(source: Path, scratch: Path) -> Path:
    """Return the folder of the copies, which nobody else can write to; it is made.

    Anyone may write to many scratch folders, and a folder of that name could be someone else's.

    :param source: folder of the prepared subjects.
    :param scratch: an existing folder.
    :returns: the folder.
    :raises ConfigurationError: it belongs to another user.
    """
    own = scratch / f"longflow-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    state = own.lstat()
    if state.st_uid != os.getuid() or own.is_symlink() or state.st_mode & 0o022:
        raise ConfigurationError(
            f"{own} is not a folder of yours alone. Delete it, or give another folder with --scratch."
        )
    place = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
    target = path_in(own, f"{source.parent.name}_{source.name}_{place}")
    target.mkdir(exist_ok=True)
    return target


def _copy_missing(source: Path, target: Path, subjects: Iterable[str]) -> None:
    """Copy the subjects that are not in the target, each with its properties last."""
    missing = [subject for subject in subjects if not _is_staged(source, target, subject)]
    if not missing:
        return
    files = {subject: files_of_subject(source, subject) for subject in missing}
    if lost := wait_for_files(file for of_subject in files.values() for file in of_subject):
        raise DataError(f"{first_few(lost)} left the preprocessed data. Run longflow_preprocess -d again.")
    needed = sum(file.stat().st_size for of_subject in files.values() for file in of_subject)
    free = int((1 - LEFT_FREE) * shutil.disk_usage(target).free)
    if needed > free:
        raise ConfigurationError(
            f"The prepared subjects need {needed / 1e9:.2f} GB, {target} has {free / 1e9:.2f} GB free. Give another "
            "folder with --scratch, or leave it away."
        )
    logger.info("Copying %d subjects (%.2f GB) to %s.", len(missing), needed / 1e9, target)
    for of_subject in files.values():
        (target / of_subject[-1].name).unlink(missing_ok=True)  # unfinished from here on
        for file in of_subject:
            _copy(file, target / file.name)


def _is_staged(source: Path, target: Path, subject: str) -> bool:
    """Tell whether the target has a subject with the same properties (their digest included) and sizes of files."""
    files = files_of_subject(source, subject)
    copies = [target / file.name for file in files]
    return all(map(_same_size, files, copies)) and files[-1].read_bytes() == copies[-1].read_bytes()


def _same_size(file: Path, copy: Path) -> bool:
    return file.is_file() and copy.is_file() and file.stat().st_size == copy.stat().st_size


def _copy(file: Path, copy: Path) -> None:
    """Copy a file, and read the copy to compare it."""
    with atomic_write(copy) as temporary:
        shutil.copyfile(file, temporary)
        if file_digest(temporary) != file_digest(file):
            raise DataError(f"The copy of {file} in {copy.parent} differs from it. Give another folder with --scratch.")
