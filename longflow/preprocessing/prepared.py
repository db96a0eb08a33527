"""A series before and after preprocessing: its arrays, and everything needed to go back to the files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import blosc2
import numpy as np

from longflow.data.box import Box
from longflow.data.covariates import Covariates
from longflow.data.images import Geometry, Volume
from longflow.errors import DataError
from longflow.preprocessing.class_locations import ClassLocations


@dataclass(frozen=True)
class RawSeries:
    """A subject's scans as read from their files, on one grid.

    :param subject: the subject's name.
    :param cases: the case of each scan, in order of time.
    :param times: time of each scan, ascending, in the dataset's time unit.
    :param volumes: (channels, z, y, x) each, on the same grid.
    :param labels: (z, y, x) integers per scan, None where a scan has none; empty: no scan has one.
    :param sources: the name of each scan in an error; empty: its case.
    :param phases: the contrast phase of each scan, for tasks that use phases; empty otherwise.
    :param period: after which its scans repeat, in the dataset's time unit; None: not known.
    :param covariates: of each scan, by name, None where a value is not known; empty: the plans have none.
    """

    subject: str
    cases: Sequence[str]
    times: Sequence[float]
    volumes: Sequence[Volume]
    labels: Sequence[np.ndarray | None] = ()
    sources: Sequence[str] = ()
    phases: Sequence[str] = ()
    period: float | None = None
    covariates: Sequence[Covariates] = ()

    @classmethod
    def of_scan(cls, case: str, volume: Volume, phase: str = "") -> "RawSeries":
        """Return a single scan, to be prepared without the others of its subject.

        :param case: its name in an error.
        :param volume: (channels, z, y, x).
        :param phase: of the scan, for tasks that use phases.
        :returns: a series of one scan at time 0.
        """
        return cls(case, [case], [0.0], [volume], phases=[phase] if phase else ())

    @property
    def names(self) -> list[str]:
        """The name of each scan in an error."""
        return list(self.sources) or [f"Scan {case}" for case in self.cases]

    @property
    def labelled(self) -> list[bool]:
        """Whether each scan has a label."""
        return [label is not None for label in self.labels] or [False] * len(self.cases)


@dataclass
class SeriesProperties:
    """Where a prepared series comes from and how to go back.

    :param subject: the subject's name.
    :param cases: the case of each scan, in order of time.
    :param times: time of each scan, in the dataset's time unit.
    :param labelled: whether each scan has a label.
    :param offset: per scan and channel; normal = (raw - offset) / scale.
    :param scale: per scan and channel; never 0.
    :param data_type: NumPy name of a type that holds every scan's values, per channel; exports are written in it.
    :param geometry: the grid of the files.
    :param crop: [start, stop] for z, y, x of the files: the union of all scans.
    :param shape_before_crop: voxels along z, y, x of the files.
    :param shape_after_crop: voxels along z, y, x of the crop.
    :param transpose: ``plans.transpose_forward``: the files' axis that becomes each prepared axis.
    :param shape: voxels along the prepared axes.
    :param spacing: mm along the prepared axes.
    :param phases: the contrast phase of each scan, for tasks that use phases; empty otherwise.
    :param period: after which the subject's scans repeat, in the dataset's time unit; None: not known.
    :param covariates: of each scan, by name, None where a value is not known; empty: the plans have none.
    :param digest: hash of the files and settings that the result depends on; empty if prepared in memory.
    """

    subject: str
    cases: list[str]
    times: list[float]
    labelled: list[bool]
    offset: list[list[float]]
    scale: list[list[float]]
    data_type: list[str]
    geometry: Geometry
    crop: Box
    shape_before_crop: list[int]
    shape_after_crop: list[int]
    transpose: list[int]
    shape: list[int]
    spacing: list[float]
    phases: list[str] = field(default_factory=list)
    period: float | None = None
    covariates: list[Covariates] = field(default_factory=list)
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold; it has the grid alone, without the header that it was read from."""
        content = asdict(self)
        del content["geometry"]["nifti"]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SeriesProperties":
        """Undo :meth:`to_json`.

        :param content: of the JSON file.
        :returns: the properties.
        :raises DataError: a key is missing or unknown.
        """
        further = {"covariates", "digest", "period", "phases"}
        expected = {entry.name for entry in fields(cls)} - further
        if not isinstance(content, dict) or not expected <= set(content) <= expected | further:
            found = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise DataError(f"Properties of a prepared series hold {found}, expected {sorted(expected)}.")
        geometry = {key: tuple(value) for key, value in content["geometry"].items()}
        return cls(**{**content, "geometry": Geometry(**geometry)})

    def pairs(self, phases: Sequence[str]) -> list[tuple[int, int]]:
        """List the pairs: two scans of one time, one in each phase.

        :param phases: ``plans.phases``; the scan in the first of them is the first of each pair.
        :returns: positions of both scans of each pair, in order of time.
        """
        scans = list(enumerate(zip(self.times, self.phases, strict=True)))
        first, second = ({time: scan for scan, (time, phase) in scans if phase == name} for name in phases)
        return [(scan, second[time]) for time, scan in sorted(first.items()) if time in second]

    @property
    def scans_with_label(self) -> list[int]:
        """Positions of the scans that have a label."""
        return [scan for scan, labelled in enumerate(self.labelled) if labelled]

    @property
    def transposed_spacing(self) -> list[float]:
        """Spacing of the files along the prepared axes, mm."""
        return [self.geometry.array_spacing[axis] for axis in self.transpose]

    @property
    def transposed_crop_shape(self) -> list[int]:
        """Voxels of the crop along the prepared axes, before resampling."""
        return [self.shape_after_crop[axis] for axis in self.transpose]


@dataclass
class PreparedSeries:
    """A subject's scans on the plan's grid, in the normal form.

    :param properties: where the series comes from and how to go back.
    :param images: (scans, channels, z, y, x), float32; in memory, or a handle that reads what is indexed.
    :param segmentations: (scans, z, y, x), int16, -1 where a scan has no label; None if no scan has one.
    :param coarse: (scans, channels, z', y', x'), float32, means of ``images`` over blocks.
    :param coarse_block: voxels per block along z, y, x.
    :param class_locations: where labelled scans have each label, for tasks that use labels; None without labels.
    """

    properties: SeriesProperties
    images: np.ndarray | blosc2.NDArray
    segmentations: np.ndarray | blosc2.NDArray | None
    coarse: np.ndarray
    coarse_block: tuple[int, int, int] = field(default=(1, 1, 1))
    class_locations: ClassLocations | None = None
