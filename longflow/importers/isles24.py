"""ISLES 2024 (Riedel et al., arXiv:2408.11142): CT perfusion of stroke patients, from the official layout.

    raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_ctp.nii.gz                   4D, on its own grid
    derivatives/sub-stroke0001/ses-01/sub-stroke0001_ses-01_space-ncct_ctp.nii.gz     4D, on that of the native CT

Some releases write ``sub-strokecase0001`` and ``ses-0001``. The forecast is that of CRONOS (section 4.1) and TFM
(section 3.1): later volumes of the perfusion series from earlier ones, while contrast arrives. Everything else there is
no scan of that series, so it stays where it is: native CT, CT angiography, perfusion maps, and the follow-up MRI with
its infarct mask, which is days and a therapy later and in other units.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from longflow.errors import ConfigurationError, DataError, first_few
from longflow.importers.nifti4d import frames_of_header, has_times, times_of_headers
from longflow.importers.writing import ImportedScan, Space, import_dataset, moments, with_test_subjects
from longflow.parallel import Progress

logger = logging.getLogger(__name__)

REFERENCE = "Riedel et al., ISLES'24: a real-world longitudinal multimodal stroke dataset, arXiv:2408.11142, 2024"

#: folder of the series, and the end of their names, for each space
SERIES: dict[Space, tuple[str, str]] = {
    "native": ("raw_data", "_ctp.nii.gz"),
    "registered": ("derivatives", "_space-ncct_ctp.nii.gz"),
}

#: the released series were resampled to one volume a second; a header that says otherwise has the last word
SECONDS_BETWEEN_VOLUMES = 1.0


def import_isles24(
    source: Path,
    raw: Path,
    *,
    space: Space = "native",
    every: int = 1,
    test: Sequence[str] = (),
    test_targets: int = 1,
    processes: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Import the perfusion series; volumes count from 0 and become cases ``sub-stroke0001_frame000`` ...

    :param source: the folder of ``raw_data`` and ``derivatives``, or the one above.
    :param raw: the dataset's folder.
    :param space: "native": the series as acquired (thick slices); "registered": on the grid of the native CT.
    :param every: 2 keeps every other volume, as TFM (section 3.1) did.
    :param test: subjects that go to imagesTs, their last ``test_targets`` volumes as targets.
    :returns: False where everything was there already.
    :raises DataError: the layout is another one, or a file cannot be used.
    """
    if every < 1:
        raise ConfigurationError(f"--every {every}: expected 1 (all volumes), 2 (every other one), ...")
    files, left_out = series_of_folder(source, space)
    scans: list[ImportedScan] = []
    assumed = []
    for subject, path in files.items():
        count = frames_of_header(path)
        if len(range(0, count, every)) < 2:
            left_out.append(f"{subject}: {path.name} has {count} volumes, of which fewer than two would be kept")
            continue
        if has_times(path):
            times = times_of_headers({subject: path}, {subject: count}, "s")[1][subject]
        else:
            times = [SECONDS_BETWEEN_VOLUMES * frame for frame in range(count)]
            assumed.append(subject)
        scans += [
            ImportedScan(f"{subject}_frame{frame:03d}", subject, times[frame], path, frame)
            for frame in range(0, count, every)
        ]
    if not scans:
        raise DataError(f"No perfusion series of {source} has two volumes to keep: {first_few(left_out)}.")
    if assumed:
        logger.warning(
            "The headers of %d series give no time between volumes (%s): %g s is taken, as the dataset's paper has it.",
            len(assumed),
            first_few(assumed),
            SECONDS_BETWEEN_VOLUMES,
        )
    return import_dataset(
        with_test_subjects(scans, test, test_targets),
        raw,
        time_unit="s",
        channel="CTP",
        settings={
            "importer": "isles24",
            "source": str(source.resolve()),
            "space": space,
            "every": every,
            "times": moments(scans),
            "test": sorted(test),
            "test_targets": test_targets,
        },
        about={"reference": REFERENCE, "licence": "CC BY-NC-SA 4.0"},
        left_out=left_out,
        processes=processes,
        overwrite=overwrite,
        progress=progress,
    )


def series_of_folder(source: Path, space: Space) -> tuple[dict[str, Path], list[str]]:
    """The perfusion series of each subject, sorted, and the subjects without one.

    :raises DataError: there is none at all, or a subject has two.
    """
    folder, ending = SERIES[space]
    roots = [path for path in (source / folder, *sorted(source.glob(f"*/{folder}"))) if path.is_dir()]
    if not roots:
        raise DataError(
            f"{source} has no folder {folder}, so it is not ISLES 2024 as it is released. Expected: "
            f"{folder}/sub-stroke0001/ses-01/sub-stroke0001_ses-01{ending}. Name the folder that holds {folder}."
        )
    files: dict[str, Path] = {}
    left_out = []
    for subject in sorted(path for root in roots for path in root.glob("sub-*") if path.is_dir()):
        found = sorted(subject.glob(f"ses-*/*{ending}"))
        if len(found) > 1 or (found and subject.name in files):
            others = [path for path in (files.get(subject.name), *found) if path]
            raise DataError(f"{subject.name} has two perfusion series: {others[0]} and {others[1]}. Keep one.")
        if found:
            files[subject.name] = found[0]
        else:
            left_out.append(f"{subject.name}: no CT perfusion series (ses-*/*{ending})")
    if not files:
        raise DataError(
            f"{roots[0]} has no CT perfusion series. Expected sub-stroke0001/ses-01/sub-stroke0001_ses-01{ending}; "
            f"found: {first_few(sorted(path.name for path in roots[0].iterdir())) or 'nothing'}."
        )
    return files, left_out
