"""ISLES 2024 (Riedel et al., arXiv:2408.11142): CT perfusion of stroke patients in the official layout.

    raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_ctp.nii.gz                   4D, on its own grid
    derivatives/sub-stroke0001/ses-01/sub-stroke0001_ses-01_space-ncct_ctp.nii.gz     4D, on the grid of the native CT

Some releases write ``sub-strokecase0001`` and ``ses-0001``. The forecast is that of CRONOS (section 4.1) and TFM
(section 3.1): later volumes of the perfusion series from earlier ones, while contrast arrives. Everything else is no
scan of that series and is not imported: native CT, CT angiography, perfusion maps, and the follow-up MRI with its
infarct mask, which is days and a therapy later and in other units.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from longflow.errors import ConfigurationError, DataError, first_few
from longflow.importers.nifti4d import frames_of_header, has_times, times_of_headers
from longflow.importers.registry import Importer, flag
from longflow.importers.scans import ImportedDataset, ImportedScan, Space, resampled, times_of_scans

logger = logging.getLogger(__name__)

REFERENCE = "Riedel et al., ISLES'24: a real-world longitudinal multimodal stroke dataset, arXiv:2408.11142, 2024"

#: folder of the series and end of their names, for each space
SERIES: dict[Space, tuple[str, str]] = {
    "native": ("raw_data", "_ctp.nii.gz"),
    "registered": ("derivatives", "_space-ncct_ctp.nii.gz"),
}

#: seconds; the released series were resampled to one volume a second. A time in the header counts first
SECONDS_BETWEEN_VOLUMES = 1.0


@dataclass(frozen=True)
class Options:
    """Flags of the layout.

    :param space: "native": the series as acquired (thick slices); "registered": on the grid of the native CT.
    :param every: 2 keeps every other volume, as TFM (section 3.1) did.
    :param volumes: to which each series is resampled in time, as the released code of both does (32); 0: as acquired.
    """

    space: Space = field(
        default="native",
        metadata=flag(
            "scans on their own grid (default), or on the grid of the native CT", choices=["native", "registered"]
        ),
    )
    every: int = field(default=1, metadata=flag("keep every N-th volume (default: 1; TFM: 2)", type=int, metavar="N"))
    volumes: int = field(
        default=0,
        metadata=flag(
            "resample each series to N volumes, as the released code of CRONOS and TFM does (32); default: as acquired",
            type=int,
            metavar="N",
        ),
    )


def read(source: Path, options: Options) -> ImportedDataset:
    """Find the perfusion series; volumes count from 0 and become cases ``sub-stroke0001_frame000`` ...

    :param source: the folder of ``raw_data`` and ``derivatives``, or the one above.
    :param options: flags of the layout.
    :returns: the dataset.
    :raises DataError: the layout is another one, or a file cannot be used.
    """
    if options.every < 1:
        raise ConfigurationError(f"--every {options.every}: expected 1 (all volumes), 2 (every other one), ...")
    if options.volumes and (options.volumes < 2 or options.every > 1):
        raise ConfigurationError(
            f"--volumes {options.volumes} --every {options.every}: expected --volumes of 2 or more, without --every."
        )
    files, excluded = series_of_folder(source, options.space)
    scans: list[ImportedScan] = []
    assumed = []
    for subject, path in files.items():
        count = frames_of_header(path)
        if len(range(0, count, options.every)) < 2:
            excluded.append(f"{subject}: {path.name} has {count} volumes, of which fewer than two would be kept")
            continue
        if has_times(path):
            times = times_of_headers({subject: path}, {subject: count}, "s")[1][subject]
        else:
            times = [SECONDS_BETWEEN_VOLUMES * frame for frame in range(count)]
            assumed.append(subject)
        scans += scans_of_series(subject, path, times, options)
    if not scans:
        raise DataError(f"No perfusion series of {source} has two volumes to keep: {first_few(excluded)}.")
    if assumed:
        logger.warning(
            "The headers of %d series give no time between volumes (%s). %g s is used, as in the paper of the dataset.",
            len(assumed),
            first_few(assumed),
            SECONDS_BETWEEN_VOLUMES,
        )
    return ImportedDataset(
        scans,
        time_unit="s",
        channel="CTP",
        settings={
            "space": options.space,
            "every": options.every,
            **({"volumes": options.volumes} if options.volumes else {}),
            "times": times_of_scans(scans),
        },
        about={"reference": REFERENCE, "licence": "CC BY-NC-SA 4.0"},
        excluded=excluded,
    )


def scans_of_series(subject: str, path: Path, times: Sequence[float], options: Options) -> list[ImportedScan]:
    """List the scans of a series: its volumes, every N-th of them, or those that it is resampled to.

    The released code resamples in time by cubic splines (``scipy.ndimage.zoom``), from the first volume to the last.

    :param times: of the volumes, in seconds.
    :returns: in order of time; resampled ones are ``{subject}_step00`` ...
    """
    if not options.volumes:
        return [
            ImportedScan(f"{subject}_frame{frame:03d}", subject, times[frame], path, frame)
            for frame in range(0, len(times), options.every)
        ]
    import numpy as np  # the help of longflow_import does not wait for it

    blends = resampled(range(len(times)), options.volumes)
    places = np.linspace(0, len(times) - 1, options.volumes)
    of_steps = np.interp(places, range(len(times)), times).round(6).tolist()
    return [
        ImportedScan(f"{subject}_step{step:02d}", subject, time, path, blend)
        for step, (time, blend) in enumerate(zip(of_steps, blends, strict=True))
    ]


def series_of_folder(source: Path, space: Space) -> tuple[dict[str, Path], list[str]]:
    """Find the perfusion series of each subject.

    :param source: the folder of ``raw_data`` and ``derivatives``, or the one above.
    :param space: which series.
    :returns: file of each subject, sorted; subjects without a series.
    :raises DataError: there is none at all, or a subject has two.
    """
    folder, ending = SERIES[space]
    roots = [path for path in (source / folder, *sorted(source.glob(f"*/{folder}"))) if path.is_dir()]
    if not roots:
        raise DataError(
            f"{source} has no folder {folder}, so it is not ISLES 2024 as released. Expected: "
            f"{folder}/sub-stroke0001/ses-01/sub-stroke0001_ses-01{ending}. Name the folder that holds {folder}."
        )
    files: dict[str, Path] = {}
    excluded = []
    for subject in sorted(path for root in roots for path in root.glob("sub-*") if path.is_dir()):
        found = sorted(subject.glob(f"ses-*/*{ending}"))
        if len(found) > 1 or (found and subject.name in files):
            others = [path for path in (files.get(subject.name), *found) if path]
            raise DataError(f"{subject.name} has two perfusion series: {others[0]} and {others[1]}. Keep one.")
        if found:
            files[subject.name] = found[0]
        else:
            excluded.append(f"{subject.name}: no CT perfusion series (ses-*/*{ending})")
    if not files:
        raise DataError(
            f"{roots[0]} has no CT perfusion series. Expected sub-stroke0001/ses-01/sub-stroke0001_ses-01{ending}; "
            f"found: {first_few(sorted(path.name for path in roots[0].iterdir())) or 'nothing'}."
        )
    return files, excluded


IMPORTER = Importer(
    "isles24",
    read,
    Options,
    example="longflow_import isles24 ISLES24 -d 105 --every 2",
    dataset_name="ISLES24",
    serves=lambda task: not task.uses_phases and not task.uses_labels,  # the series has no labels
    chooses_task=False,
)
