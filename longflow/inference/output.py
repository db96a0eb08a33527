"""The files of an output folder: the sidecar of each prediction, and the tables that make it a valid input."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    parse_time,
    read_rows,
    sidecar_path,
    write_description,
    write_scans,
)
from longflow.errors import DataError
from longflow.files import write_json
from longflow.inference.requests import Request
from longflow.reading import read_json
from longflow.task import get_task
from longflow.version import __version__

#: stands in every sidecar
INTENDED_USE = "research only, not for clinical decisions"


def sidecar_of(item: Request, folder: Path) -> Path:
    """Return ``{case}.json``, next to the images of a prediction."""
    return sidecar_path(folder, item.target.case)


def read_sidecar(item: Request, folder: Path) -> dict[str, Any]:
    """Read the sidecar of a prediction; empty where there is none, or none that can be read."""
    try:
        content = read_json(sidecar_of(item, folder))
    except DataError:
        return {}
    return content if isinstance(content, dict) else {}


def write_sidecar(item: Request, folder: Path, content: Mapping[str, Any]) -> None:
    """Write the sidecar of a prediction, after its images: provenance, the given fields, intended use and versions."""
    fields = dict(content)
    sidecar = {
        **item.provenance(),
        "intended_use": INTENDED_USE,
        "warnings": [*fields.pop("warnings", []), *fields.pop("warnings_of_input", [])],
        **fields,
        "longflow_version": __version__,
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "torchdiffeq", "SimpleITK")},
    }
    write_json(sidecar, sidecar_of(item, folder))


def write_table(done: Sequence[Request], folder: Path, description: DatasetDescription) -> None:
    """Write the scans.csv and dataset.json that make the output a valid input folder.

    Rows of earlier commands are kept, unless they name the same case or the same scan.
    """
    columns = get_task(description.task).apart_by

    def moment(subject: str, time: float | None, covariates: Mapping[str, str]) -> tuple:
        # as in `series_of_folder`: two phases of one time are two scans only where the task tells them apart
        return subject, time, *(covariates.get(column, "") for column in columns)

    scans = [item.target for item in done]
    cases = {scan.case for scan in scans}
    moments = {moment(scan.subject, scan.time, scan.covariates) for scan in scans}
    table = folder / "scans.csv"
    for row in read_rows(table) if table.is_file() else []:
        time = parse_time(row.time)
        taken = row.case in cases or moment(row.subject, time, row.covariates) in moments
        if time is not None and not taken and sidecar_path(folder, row.case).is_file():
            scans.append(Scan(row.case, row.subject, time, (), covariates=row.covariates))
    write_scans(scans, table)
    write_description(description, folder / "dataset.json")
