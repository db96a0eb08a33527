"""An export of a PACS as the input folder of ``longflow_predict``, without a table for a person in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longflow.data.dataset import PHASE, DatasetDescription, Scan, image_path, write_description, write_scans
from longflow.data.images import write_volume
from longflow.dicom.choice import choose
from longflow.dicom.sources import read_sources, source_of, write_sources
from longflow.dicom.survey import ASK, PERIOD, YES, survey_export, time_points
from longflow.dicom.volume import read_volume
from longflow.errors import ConfigurationError, DataError
from longflow.parallel import Progress
from longflow.task import get_task

if TYPE_CHECKING:
    from longflow.dicom.files import Export
    from longflow.dicom.survey import Finding, TimePoint

#: by which a time is divided, from the unit of the headers to that of the model
CONVERSIONS = {
    **{("days", unit): days for unit, days in (("days", 1), ("weeks", 7), ("months", 30.4375), ("years", 365.25))},
    **{("ms", unit): ms for unit, ms in (("ms", 1), ("s", 1000))},
    **{("s", unit): s for unit, s in (("s", 1), ("ms", 0.001))},
}


def write_input(
    export: "Export", folder: Path, description: DatasetDescription, progress: Progress = lambda *_: None
) -> int:
    """Write the scans of an export as input of ``longflow_predict``, with the sources of their images.

    Images of the same slices that are there already are kept, so that predictions from them count as finished.

    :param export: headers of the DICOM files.
    :param folder: for images, ``scans.csv``, ``dataset.json`` and ``dicom_sources.json``; nothing else is in it.
    :param description: of the model.
    :param progress: called with (finished, all, case).
    :returns: the number of scans.
    :raises DataError: no series can be used, or it is not clear which ones.
    :raises ConfigurationError: the model takes several channels, or has a unit of time that headers do not have.
    """
    if len(description.channels) != 1:
        raise ConfigurationError(
            f"The model takes {len(description.channels)} channels ({', '.join(description.channels)}). Which DICOM "
            "series is which channel cannot be decided without a person: import the scans first."
        )
    by_phase = get_task(description.task).uses_phases
    findings = choose(survey_export(export).findings, by_phase)
    _check_decided(findings)
    scans, known = [], read_sources(folder)
    used = [
        (finding, point)
        for finding in findings
        if finding.use == YES and finding.stack
        for point in time_points(finding, by_phase)
    ]
    for number, (finding, point) in enumerate(used):
        scan = _scan(finding, point, folder, description)
        name, source = f"{scan.case}_0000", source_of(point.frames)
        progress(number, len(used), scan.case)
        scans.append(scan)
        if source is not None and known.get(name) == source and scan.exists:
            continue
        array, geometry = read_volume(point.frames)
        write_volume(array, geometry, array.dtype.name, scan.images[0])
        write_sources(folder, {name: source} if source else {})
    progress(len(used), len(used), "")
    write_scans(scans, folder / "scans.csv")
    write_description(description, folder / "dataset.json")
    return len(scans)


def _check_decided(findings: "Sequence[Finding]") -> None:
    """Refuse an export in which a person must decide, or that has no usable series."""
    import_first = "Import the export, and decide in its table: longflow_import dicom"
    if questions := [one for one in findings if one.use == ASK]:
        lines = [f"  {one.instance.description or one.id} ({one.subject}): {one.reason}" for one in questions]
        raise DataError(
            f"{len(questions)} series of the export can be used, or not, and a person must say so. {import_first}.\n"
            + "\n".join(lines[:20])
        )
    if not any(one.use == YES and one.stack for one in findings):
        lines = [f"  {one.instance.description or one.id}: {one.reason}" for one in findings]
        raise DataError("No series of the export can be used:\n" + "\n".join(lines[:20]))


def _scan(finding: "Finding", point: "TimePoint", folder: Path, description: DatasetDescription) -> Scan:
    """Return the scan of a time point of a finding, in the unit of the model."""
    divisor = CONVERSIONS.get((finding.unit, description.time_unit))
    if divisor is None:
        raise ConfigurationError(
            f"The model counts time in {description.time_unit}, the headers of '{finding.instance.description}' in "
            f"{finding.unit}. Expected one of: {', '.join(to for unit, to in CONVERSIONS if unit == finding.unit)}."
        )
    phase, period = finding.phase.phase, finding.stack.period
    covariates = {PHASE: phase} if phase else {}
    if description.period == PERIOD and period is not None:
        covariates[PERIOD] = repr(period / divisor)
    images = (image_path(folder, point.case, 0, description),)
    return Scan(point.case, finding.subject, point.time / divisor, images, covariates=covariates)
