"""Preprocess a whole dataset: subjects in parallel, and only those that are missing or out of date."""

import logging
import math
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from longflow.data.dataset import DatasetDescription, Series, training_series
from longflow.data.images import read_geometry
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.files import exclusive_lock
from longflow.fingerprint.phases import paired_series
from longflow.nnunet import RESAMPLING_MODULE
from longflow.parallel import Progress, for_each_subject, processes_that_fit, worker_context
from longflow.paths import PLANS_NAME, DatasetPaths, lock_in
from longflow.plans import Plans, read_plans
from longflow.preprocessing.grid import check_grid, resampled_shape
from longflow.preprocessing.series import existing_scans, prepare_series, prepares_labels, series_digest
from longflow.preprocessing.store import (
    prepared_subjects,
    read_properties,
    remove_prepared,
    save_prepared,
    size_on_disk,
)
from longflow.task import get_task

logger = logging.getLogger(__name__)

#: bytes on disk for each byte of float32, at most: 0.6 to 0.83 was measured on cine MR (benchmarks/preprocessing.py)
COMPRESSION = 0.9

#: bytes that a worker takes before its first scan (measured: torch and SciPy, which nnU-Net's resampling imports)
WORKER_BYTES = 720 * 2**20


@dataclass(frozen=True)
class Output:
    """Where the subjects of one resolution are stored.

    :param configuration: name of one that has this resolution.
    :param folder: of the prepared subjects.
    :param patch_size: voxels along (z,) y, x; shapes the chunks.
    """

    configuration: str
    folder: Path
    patch_size: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A subject to be prepared, for some outputs."""

    series: Series
    plans: Plans
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Summary:
    """What :func:`preprocess_dataset` did.

    :param folders: one per resolution.
    :param prepared: number of subjects that were prepared now.
    :param kept: number of subjects that were up to date in all folders.
    :param size: bytes of all folders.
    """

    folders: tuple[Path, ...]
    prepared: int
    kept: int
    size: int


def preprocess_dataset(
    dataset_name: str,
    plans_name: str = PLANS_NAME,
    configurations: list[str] | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    part: tuple[int, int] = (1, 1),
) -> Summary:
    """Prepare the training series of a dataset for some or all configurations of its plans.

    Configurations that share a ``data_identifier`` are prepared once. A finished subject is kept if its files and
    settings have not changed. A subject that has left the dataset is removed from the cache, so that nothing trains
    on it. After an interruption, the same call continues with the unfinished subjects.

    :param dataset_name: full name, as ``Dataset101_Cine``.
    :param plans_name: name of the dataset's plans.
    :param configurations: names; None: all.
    :param processes: None: all cores, or as few as memory allows.
    :param overwrite: prepare finished subjects again.
    :param progress: called with (finished, all, name) after each subject.
    :param part: (2, 4) prepares the second of four parts of the subjects; other processes may prepare the others at
        the same time, on other machines too.
    :returns: numbers of subjects, and the folders.
    :raises NotFoundError: no such plans or configuration.
    :raises DataError: a scan cannot be prepared, or the disk has not enough space; subject and cause are named.
    :raises WorkerError: a worker was ended by the system; finished subjects are kept.
    :raises InUseError: another process prepares the same part of the same configurations.
    """
    paths = DatasetPaths(dataset_name)
    plans = _read_plans_of(paths, plans_name)
    outputs = _outputs(plans, paths, plans_name, configurations)
    with ExitStack() as locks:
        for output in outputs:
            doing = f"{output.configuration} of {dataset_name} is being preprocessed"
            lock = lock_in(output.folder)
            if part != (1, 1):
                lock, doing = lock.with_name(f"{lock.name}_{part[0]}_of_{part[1]}"), f"Part {part[0]} of {doing}"
            locks.enter_context(exclusive_lock(lock, doing))
        series = _usable_series(plans, paths)
        _remove_strangers(outputs, series)
        series = part_of(series, part)

        jobs = _jobs(series, plans, outputs, overwrite)
        sizes = {subject: _estimated_bytes(job) for subject, job in jobs.items()}
        _check_disk(paths.preprocessed, sum(disk for disk, _ in sizes.values()))
        processes = processes_that_fit(processes, [memory for _, memory in sizes.values()])
        if prepares_labels(plans):
            worker_context(RESAMPLING_MODULE)  # imported once for all workers
        for _ in for_each_subject(_prepare, jobs, processes, progress):
            pass
    return Summary(
        folders=tuple(output.folder for output in outputs),
        prepared=len(jobs),
        kept=len(series) - len(jobs),
        size=sum(size_on_disk(output.folder) for output in outputs),
    )


def part_of(series: list[Series], part: tuple[int, int]) -> list[Series]:
    """Return the subjects of a part: every n-th one, so that the parts are of one size.

    :param part: number of the part, from 1, and number of parts.
    """
    number, parts = part
    return sorted(series, key=lambda one: one.subject)[number - 1 :: parts]


def _jobs(series: list[Series], plans: Plans, outputs: list[Output], overwrite: bool) -> dict[str, Job]:
    """List the subjects that are missing or out of date in some output, or all to overwrite them."""
    jobs = {}
    for one in series:
        if stale := tuple(output for output in outputs if overwrite or not _up_to_date(one, plans, output)):
            jobs[one.subject] = Job(one, plans, stale)
    return jobs


def _prepare(job: Job) -> None:
    """Prepare and store one subject; runs in a worker."""
    for output in job.outputs:
        prepared = prepare_series(job.series, job.plans, output.configuration)
        save_prepared(prepared, output.folder, output.patch_size)


def _read_plans_of(paths: DatasetPaths, plans_name: str) -> Plans:
    path = paths.plans(plans_name)
    if not path.is_file():
        others = sorted(other.stem for other in paths.preprocessed.glob("*Plans*.json"))
        found = f" Found there: {', '.join(others)}." if others else ""
        raise NotFoundError(f"{path} does not exist.{found} Run: longflow_plan -d {paths.id}")
    return read_plans(path)


def _outputs(plans: Plans, paths: DatasetPaths, plans_name: str, configurations: list[str] | None) -> list[Output]:
    """List one output for each resolution; where 2d and 3d share one, the 3d patch shapes the chunks."""
    chosen: dict[str, str] = {}
    for name in configurations or plans.configurations:
        plan = plans.configuration(name)
        other = chosen.setdefault(plan.data_identifier, name)
        spacings = ["own grid" if one.own_grid else one.spacing for one in (plans.configuration(other), plan)]
        if spacings[0] != spacings[1]:
            raise ConfigurationError(
                f"The configurations {other} and {name} share the data_identifier '{plan.data_identifier}', not the "
                f"spacing: {spacings[0]} and {spacings[1]}. Give them different identifiers."
            )
        if len(plan.patch_size) > len(plans.configuration(other).patch_size):
            chosen[plan.data_identifier] = name
    return [
        Output(name, paths.cache(plans_name, identifier), tuple(plans.configuration(name).patch_size))
        for identifier, name in chosen.items()
    ]


def _usable_series(plans: Plans, paths: DatasetPaths) -> list[Series]:
    """List the scans to prepare: those with images; where the task uses phases, those of pairs."""
    description, all_series = training_series(paths.raw)
    planned = {phase: [channel.name for channel in channels] for phase, channels in plans.phase_channels.items()}
    named = {phase: description.channels_of(phase) for phase in description.phase_channels}
    if description.channels != plans.channel_names or named != planned:
        raise ConfigurationError(
            f"{paths.plans(plans.plans_name)} was made for the channels {planned or plans.channel_names}, but "
            f"dataset.json names {named or description.channels}. Run longflow_plan -d {paths.name} again."
        )
    series = _with_images(all_series)
    return _with_pairs(description, series, plans, paths) if get_task(plans.task).uses_phases else series


def _with_images(all_series: list[Series]) -> list[Series]:
    """List the subjects with at least one scan that has images; warn of the others."""
    series = [one for one in all_series if existing_scans(one)]
    without = sorted({one.subject for one in all_series} - {one.subject for one in series})
    if without:
        logger.warning("%d subjects have no images and are excluded: %s", len(without), ", ".join(without))
    if not series:
        raise DataError("No row of scans.csv has its images in imagesTr. longflow_verify shows what is missing.")
    return series


def _with_pairs(
    description: DatasetDescription, series: list[Series], plans: Plans, paths: DatasetPaths
) -> list[Series]:
    """List the scans that have a counterpart in the other phase at their time; warn of the others."""
    phases, paired = paired_series(description, [one.with_images() for one in series])
    if phases.names != plans.phases:
        raise ConfigurationError(
            f"{paths.plans(plans.plans_name)} was made for the phases {', '.join(plans.phases)}, but {paths.raw} has "
            f"{', '.join(phases.names)}. Run longflow_plan_and_preprocess -d {paths.id} again."
        )
    for part in phases.excluded():
        logger.warning("Excluded: %s", part)
    return paired


def _remove_strangers(outputs: list[Output], series: list[Series]) -> None:
    """Remove cached subjects that are no longer in the dataset."""
    known = {one.subject for one in series}
    for output in outputs:
        for subject in sorted(set(prepared_subjects(output.folder)) - known):
            logger.info("%s is no longer in the dataset: removed from %s", subject, output.folder)
            remove_prepared(output.folder, subject)


def _up_to_date(series: Series, plans: Plans, output: Output) -> bool:
    try:
        found = read_properties(output.folder, series.subject)
    except DataError:  # missing, damaged or of an older form
        return False
    return found.digest == series_digest(series, plans, output.configuration)


def _estimated_bytes(job: Job) -> tuple[int, int]:
    """Estimate bytes on disk and peak bytes of memory, at most, from the header of the subject's first scan."""
    scans = existing_scans(job.series)
    geometry = read_geometry(scans[0].images[0])
    shape, spacing = list(reversed(geometry.size)), geometry.array_spacing
    order, channels = job.plans.transpose_forward, len(job.plans.channels)
    labelled = any(scan.label is not None for scan in scans)
    disk, memory = 0, 0
    for output in job.outputs:
        plan = job.plans.configuration(output.configuration)
        target = [spacing[axis] for axis in order] if plan.own_grid else plan.spacing
        prepared = resampled_shape([shape[axis] for axis in order], [spacing[axis] for axis in order], target)
        check_grid(prepared, len(scans) * channels, scans[0].images[0], geometry)
        before, after = math.prod(shape), math.prod(prepared)
        disk += int(len(scans) * after * (4 * channels * COMPRESSION + 0.2 * labelled))
        # all scans before and after, one scan in float64, and the coordinates by which nnU-Net resamples one channel
        whole = len(scans) * (before + after) * (4 * channels + 2 * labelled)
        memory = max(memory, WORKER_BYTES + int(1.1 * (whole + 8 * channels * (before + after) + 80 * after)))
    return disk, memory


def _check_disk(folder: Path, needed: int) -> None:
    """Raise an error before any work if the disk cannot hold the result."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"The preprocessed data need up to {needed / 1e9:.2f} GB, but {existing} has {free / 1e9:.2f} GB free. "
            "Free some space, preprocess fewer configurations (-c), or set longflow_preprocessed to another disk."
        )
