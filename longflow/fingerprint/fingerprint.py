"""``dataset_fingerprint.json``: the measured properties of a dataset. Written once, validated whenever it is read."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longflow.data.covariates import covariates_of, covariates_used
from longflow.data.dataset import DatasetDescription, Series, training_series
from longflow.errors import DataError, LongflowError
from longflow.files import file_digest, write_json
from longflow.fingerprint.covariates import CovariateFingerprint, covariate_fingerprints
from longflow.fingerprint.intensities import IntensityMaps, combine_maps
from longflow.fingerprint.phases import PhaseFingerprint, paired_series
from longflow.fingerprint.recurrence import RecurrenceFingerprint, find_recurrence
from longflow.fingerprint.spatial import Foreground, SpatialFingerprint, combine, examine_subject, samples_of_scan
from longflow.fingerprint.temporal import TemporalFingerprint, temporal_fingerprint
from longflow.fitness.looks import Look
from longflow.fitness.reference import learn_reference
from longflow.fitness.series import Observed, observe_scans, observe_series
from longflow.fitness.stored import FitnessReference
from longflow.parallel import Progress, for_each_subject
from longflow.paths import DatasetPaths
from longflow.plans import IntensityRange, TrainingData
from longflow.reading import read_json
from longflow.schema import validated
from longflow.task import get_task

FINGERPRINT_VERSION = "2"


class Fingerprint(BaseModel):
    """The measured properties of a raw dataset; lists with one entry per subject are in the order of ``subjects``."""

    model_config = ConfigDict(extra="forbid")

    version: Literal["2"] = FINGERPRINT_VERSION
    dataset_name: str
    raw_digest: str
    subjects: list[str]
    spatial: SpatialFingerprint
    temporal: TemporalFingerprint
    phases: PhaseFingerprint | None = None
    intensity_maps: dict[str, IntensityMaps] | None = Field(
        default=None,
        description="between neighbouring scans, by channel number; null: no subject has two scans, or the task does "
        "not compare the intensities of scans",
    )
    recurrence: RecurrenceFingerprint | None = Field(
        default=None, description="null: no subject has four scans, or the task does not compare scans"
    )
    covariates: list[CovariateFingerprint] = []
    fitness: FitnessReference | None = Field(default=None, description="null: too few subjects")

    @model_validator(mode="after")
    def _one_entry_per_subject(self) -> "Fingerprint":
        lengths = {
            "spacings": len(self.spatial.spacings),
            "shapes_after_crop": len(self.spatial.shapes_after_crop),
            "times": len(self.temporal.times),
        }
        for name, length in lengths.items():
            if length != len(self.subjects):
                raise ValueError(f"{name} has {length} entries, but there are {len(self.subjects)} subjects")
        return self

    def training_data(self) -> TrainingData:
        """Return the ranges of the data, for plans: they go with a model, and so name no subject."""
        spacings = np.asarray(self.spatial.spacings)
        fields_of_view = spacings * self.spatial.shapes_before_crop
        channels = self.spatial.foreground_intensity_properties_per_channel
        return TrainingData(
            spacing=list(zip(spacings.min(0).tolist(), spacings.max(0).tolist(), strict=True)),
            field_of_view=list(zip(fields_of_view.min(0).tolist(), fields_of_view.max(0).tolist(), strict=True)),
            intensities=[
                IntensityRange.model_validate(channels[str(index)].model_dump(include=set(IntensityRange.model_fields)))
                for index in range(len(channels))
            ],
            foreground=self.spatial.foreground,
            shortest_interval=self.temporal.intervals.minimum,
            fitness=self.fitness,
        )


def extract_fingerprint(
    dataset_name: str, processes: int | None = None, overwrite: bool = False, progress: Progress | None = None
) -> Fingerprint:
    """Read every training scan of a dataset and write its fingerprint. For tasks that use phases, read every pair.

    :param dataset_name: full name, as Dataset101_Cine.
    :param processes: number of worker processes; None: all available cores.
    :param overwrite: make the fingerprint from scratch, although it is up to date.
    :param progress: called with (subjects done, all subjects, name).
    :returns: the fingerprint.
    :raises DataError: the raw dataset is missing or invalid.
    """
    paths = DatasetPaths(dataset_name)
    description, series = training_series(paths.raw)
    series = _with_images(series)
    if not series:
        raise DataError(
            f"None of the images of {paths.raw / 'imagesTr'} exists. longflow_verify lists the missing files."
        )
    digest = raw_digest(description, series)
    phases = None
    if get_task(description.task).uses_phases:
        phases, series = paired_series(description, series)
    if paths.fingerprint.is_file() and not overwrite:
        try:
            known = read_fingerprint(paths.fingerprint)
        except LongflowError:  # written by another version, or by hand: made from scratch
            known = None
        if known and known.raw_digest == digest:
            return known

    samples = samples_of_scan(sum(len(one.scans) for one in series))
    foreground = _foreground(description, series)
    compares = _compares_scans(description)
    work = {one.subject: (one, samples, foreground, compares) for one in series}
    found = dict(for_each_subject(examine_subject, work, processes, progress))
    in_order = [found[one.subject] for one in series]
    if phases and description.phase_channels:
        for phase in phases.names:
            of_phase = {one.subject: (_in_phase(one, phase), samples, foreground, False) for one in series}
            measured = dict(for_each_subject(examine_subject, of_phase, processes, progress))
            combined = combine([measured[one.subject] for one in series], foreground)
            phases.intensities[phase] = combined.foreground_intensity_properties_per_channel
    temporal = temporal_fingerprint(series, description.time_unit)
    fingerprint = Fingerprint(
        dataset_name=dataset_name,
        raw_digest=digest,
        subjects=[one.subject for one in series],
        spatial=combine(in_order, foreground),
        temporal=temporal,
        phases=phases,
        intensity_maps=combine_maps([one.maps for one in in_order]) if compares else None,
        recurrence=find_recurrence(temporal.times, [one.similarity for one in in_order]) if compares else None,
        covariates=covariate_fingerprints(series, covariates_used(description)),
        fitness=learn_reference(
            [_observed(one, some.looks, description) for one, some in zip(series, in_order, strict=True)]
        ),
    )
    write_json(fingerprint.model_dump(mode="json"), paths.fingerprint)
    return fingerprint


def _in_phase(series: Series, phase: str) -> Series:
    return Series(series.subject, tuple(scan for scan in series.scans if scan.phase == phase))


def raw_digest(description: DatasetDescription, series: list[Series]) -> str:
    """Hash the table, the channels and the files of a raw dataset.

    :param description: dataset.json.
    :param series: the scans that have images.
    :returns: 16 hexadecimal digits; another hash means other data.
    """
    content: dict[str, Any] = {
        "channels": description.channels,
        "time_unit": description.time_unit,
        "fitness": True,
        "scans": [
            [scan.case, scan.subject, scan.time, [file_digest(path) for path in scan.images if path.is_file()]]
            for one in series
            for scan in one.scans
        ],
    }
    if get_task(description.task).uses_phases:
        content["phases"] = [description.phases, [scan.phase for one in series for scan in one.scans]]
    if description.phase_channels:
        content["phase_channels"] = description.phase_channels
    if columns := covariates_used(description):
        values = [covariates_of(scan, columns) for one in series for scan in one.scans]
        content["covariates"] = [columns, values]
    if _foreground(description, series) == "labels":
        labels = [scan.label for one in series for scan in one.scans if scan.label is not None]
        content["labels"] = [[path.name, file_digest(path)] for path in labels if path.is_file()]
    if _compares_scans(description):
        content["intensity_maps"] = content["recurrence"] = True
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _foreground(description: DatasetDescription, series: list[Series]) -> Foreground:
    """Return "labels" where the task uses labels and a scan has one: intensities are then those of nnU-Net."""
    labelled = any(scan.label is not None and scan.label.is_file() for one in series for scan in one.scans)
    return "labels" if get_task(description.task).uses_labels and labelled else "bodies"


def _observed(series: Series, looks: Sequence[Look], description: DatasetDescription) -> Observed:
    """Return what the fitness gate compares of a training subject.

    :param looks: of its scans that have images.
    """
    scans = series.with_images().scans
    if _compares_scans(description):
        return observe_series(looks, [scan.time for scan in scans])
    return observe_scans(looks, [scan.phase for scan in scans] if get_task(description.task).uses_phases else [])


def _compares_scans(description: DatasetDescription) -> bool:
    """Return whether the task sees the scans of a subject together, so that their units and repetition matter."""
    return not get_task(description.task).sees_single_scans


def read_fingerprint(path: Path) -> Fingerprint:
    """Read and validate a fingerprint.

    :param path: the file.
    :returns: its content.
    :raises DataError: the file is missing, not JSON, or of another version of longflow.
    :raises ConfigurationError: a key is unknown, missing or out of its range; all problems are listed.
    """
    content = read_json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, str) and version != FINGERPRINT_VERSION:
        raise DataError(
            f"{path} was made by another version of longflow (version {version[:20]} of the file, expected "
            f"{FINGERPRINT_VERSION}). Make it again: longflow_extract_fingerprint -d {path.parent.name}"
        )
    return validated(Fingerprint, content, path)


def current_fingerprint(dataset_name: str) -> tuple[Fingerprint, DatasetDescription]:
    """Read the fingerprint of a dataset and its dataset.json, and check that they describe the present raw data.

    :param dataset_name: full name, as Dataset101_Cine.
    :returns: both.
    :raises DataError: there is no fingerprint, or the raw data have changed since it was made.
    """
    paths = DatasetPaths(dataset_name)
    description, series = training_series(paths.raw)
    if not paths.fingerprint.is_file():
        raise DataError(
            f"{dataset_name} has no fingerprint ({paths.fingerprint}). Make it first: "
            f"longflow_extract_fingerprint -d {dataset_name}"
        )
    fingerprint = read_fingerprint(paths.fingerprint)
    if fingerprint.raw_digest != raw_digest(description, _with_images(series)):
        raise DataError(
            f"The raw data of {dataset_name} have changed since {paths.fingerprint} was made. Make it again: "
            f"longflow_extract_fingerprint -d {dataset_name}"
        )
    return fingerprint, description


def _with_images(series: list[Series]) -> list[Series]:
    """Keep the scans that have images, and the subjects that have such scans."""
    return [found for one in series if (found := one.with_images()).scans]
