"""The scans that an importer finds: where they come from, and what they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from longflow.errors import ConfigurationError
from longflow.task import DEFAULT_TASK

if TYPE_CHECKING:
    import numpy as np

    from longflow.data.images import Geometry
    from longflow.parallel import Progress

#: the grid of the scans, where a source offers two: each scan's own, or one that all scans of a subject share
Space = Literal["native", "registered"]


class Blend(NamedTuple):
    """A volume between the frames of a 4D file: a weighted sum of them.

    :param frames: numbers of the frames, from 0.
    :param weights: of each.
    """

    frames: tuple[int, ...]
    weights: tuple[float, ...]


def resampled(frames: Sequence[int], number: int) -> list[Blend]:
    """Return volumes that are evenly spaced from the first of some frames to the last; those two are frames themselves.

    They lie on cubic splines through the frames, as in the released code of TFM and CRONOS (``scipy.ndimage.zoom``).

    :param frames: numbers of the frames, in order of time.
    :param number: of volumes.
    """
    # the help of longflow_import does not wait for these
    import numpy as np
    from scipy.ndimage import zoom

    weights = zoom(np.eye(len(frames)), (number / len(frames), 1))
    blends = []
    for row in weights.round(9):
        used = np.flatnonzero(row)
        blends.append(Blend(tuple(frames[place] for place in used), tuple(row[used].tolist())))
    return blends


class ManyFiles(Protocol):
    """A volume that is not one file, as a DICOM series: it is read as a whole, and its files are not named in records.

    :cvar files: its files.
    :cvar name: what messages call it.
    """

    @property
    def files(self) -> Sequence[Path]: ...

    @property
    def name(self) -> str: ...

    def read(self) -> "tuple[np.ndarray, Geometry]":
        """Return the voxels, (z, y, x), and their grid."""


@dataclass(frozen=True)
class ImportedScan:
    """Where a scan comes from and what it becomes.

    :param case: file prefix in the dataset.
    :param subject: name of the patient.
    :param time: in the dataset's time unit.
    :param image: 3D file, or 4D file of which ``frame`` is taken, or a volume in many files (then ``label``, too).
    :param frame: number of the frame, from 0, or a sum of frames; None: the file is 3D.
    :param label: 3D or 4D label file, or None; a label without any structure is not written.
    :param label_frame: as ``frame``, for the label file.
    :param part: "training", "context" (imagesTs) or "target" (in the table of imagesTs, its image in targetsTs).
    :param same_voxels: the label was drawn on these voxels; where the geometries differ, the image's counts.
    :param covariates: further columns of scans.csv.
    :param further_channels: files of the channels after the first.
    :param kept_ending: file ending of scans whose files are kept as they are; empty: voxels are written as .nii.gz.
    """

    case: str
    subject: str
    time: float
    image: Path | ManyFiles
    frame: int | Blend | None = None
    label: Path | ManyFiles | None = None
    label_frame: int | None = None
    part: str = "training"
    same_voxels: bool = False
    covariates: dict[str, str] = field(default_factory=dict, hash=False)
    further_channels: tuple[Path, ...] = ()
    kept_ending: str = ""


@dataclass(frozen=True)
class ImportedDataset:
    """The content of a dataset that an importer has read, before any voxel is read.

    :param scans: of all subjects.
    :param time_unit: of their times.
    :param channel: name of the first channel.
    :param settings: how the scans were selected; ``import.json`` keeps them, and a second import compares them.
    :param label_names: names of the labels 1, 2, ...; labels without a name are called ``label_1`` ...
    :param about: further keys of dataset.json (licence, reference ...); they replace those made of other fields.
    :param excluded: parts of the source that are not imported, each with its reason.
    :param test_subjects: subjects that the source itself reserves for tests.
    :param task: that the source itself is for; empty: the user chooses.
    """

    scans: Sequence[ImportedScan]
    time_unit: str
    channel: str
    settings: Mapping[str, Any]
    label_names: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    test_subjects: Sequence[str] = ()
    task: str = ""


@dataclass(frozen=True)
class Proposal:
    """What a first step found, before a person has decided.

    :param dataset: that would be imported now.
    :param files: tables and pages for the person.
    :param questions: number of rows that need a decision.
    """

    dataset: ImportedDataset
    files: Sequence[Path]
    questions: int


@dataclass(frozen=True)
class HeldOut:
    """The subjects that are not trained on.

    :param subjects: their names.
    :param targets: number of last scans of each that are targets.
    """

    subjects: Sequence[str] = ()
    targets: int = 1


@dataclass(frozen=True)
class Destination:
    """The dataset to write, and how.

    :param raw: its folder, ``.../Dataset101_Name``.
    :param task: the task that the dataset is for.
    :param overwrite: replace a dataset at ``raw``.
    :param processes: number of worker processes; None: all available cores.
    :param progress: called with (subjects done, all subjects, name).
    """

    raw: Path
    task: str = DEFAULT_TASK
    overwrite: bool = False
    processes: int | None = None
    progress: "Progress | None" = None


def last_scans_as_targets(scans: Sequence[ImportedScan], targets: int) -> list[ImportedScan]:
    """Make the last scans of a test subject targets, and the others context.

    :param scans: of the subject.
    :param targets: number of targets.
    :returns: the scans in their order.
    :raises ConfigurationError: no scan would be context, or none a target.
    """
    times = sorted(scan.time for scan in scans)
    if not 1 <= targets < len(times):
        raise ConfigurationError(
            f"--test_targets {targets}: subject {scans[0].subject} has {len(times)} scans, of which at least one "
            "must be context and at least one a target."
        )
    return [replace(scan, part="context" if scan.time < times[-targets] else "target") for scan in scans]


def all_scans_as_context(scans: Sequence[ImportedScan], targets: int) -> list[ImportedScan]:
    """Make all scans of a test subject context, as where a prediction is made from every scan.

    :param scans: of the subject.
    :param targets: not used.
    :returns: the scans in their order.
    """
    return [replace(scan, part="context") for scan in scans]


def times_of_scans(scans: Sequence[ImportedScan]) -> dict[str, list[float]]:
    """Collect the times of each subject, for ``settings``: an import with other times is another import."""
    found: dict[str, list[float]] = {}
    for scan in scans:
        found.setdefault(scan.subject, []).append(scan.time)
    return found
