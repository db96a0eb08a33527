"""Forecasting a folder: the wanted targets, written as a folder that is valid input again."""

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from longflow import __version__
from longflow.data.dataset import (
    DatasetDescription,
    Scan,
    image_path,
    parse_time,
    read_description,
    read_rows,
    write_description,
    write_scans,
)
from longflow.data.images import check_same_grid, read_scan, write_volume
from longflow.data.problems import REGISTER
from longflow.errors import ConfigurationError, DataError, LongflowError
from longflow.files import read_json, write_json
from longflow.flow.solvers import ORDERS, count_evaluations
from longflow.inference.forecaster import Forecaster
from longflow.inference.wanted import Wanted, wanted_forecasts
from longflow.parallel import Progress

logger = logging.getLogger(__name__)

#: the folders of acquired scans and labels in a raw dataset
OF_RAW_DATASET = ("imagesTr", "labelsTr", "imagesTs", "targetsTs", "labelsTs")


def predict_folder(
    forecaster: Forecaster,
    input_folder: Path,
    output_folder: Path,
    times: Sequence[float] = (),
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> list[Wanted]:
    """Make every wanted forecast of a folder; finished ones are skipped.

    What can be checked without reading voxels is checked for all subjects first. A subject whose images turn out to be
    unusable is reported at the end; the others are done all the same.

    :param times: wanted times for every subject, instead of the rows without an image.
    :param progress: called with (finished, all, case) as forecasts are made.
    :returns: the forecasts of this folder, made now or before.
    :raises DataError: nothing is wanted, or some of the subjects could not be forecast (said for each).
    """
    description = model_description(forecaster)
    _check_input_description(input_folder, description)
    wanted = wanted_forecasts(input_folder, description, times, forecaster.context_length())
    _check_output(output_folder, wanted)
    if not overwrite:
        _check_settings(forecaster, wanted, output_folder)
    failures = []
    todo = [item for item in wanted if overwrite or not is_finished(item, output_folder, description)]
    if len(todo) < len(wanted):
        logger.info("%d of %d forecasts are finished and kept.", len(wanted) - len(todo), len(wanted))
    for number, item in enumerate(todo):
        progress(number, len(todo), item.target.case)
        try:
            _make(forecaster, item, output_folder, description)
        except LongflowError as error:
            failures.append(f"  {item.target.case}: {error}")
    progress(len(todo), len(todo), "")
    done = [item for item in wanted if is_finished(item, output_folder, description)]
    _write_table(done, output_folder, description)
    if failures:
        raise DataError(
            f"{len(failures)} of {len(wanted)} forecasts could not be made, the others are in {output_folder}:\n"
            + "\n".join(failures)
        )
    return wanted


def model_description(forecaster: Forecaster) -> DatasetDescription:
    """The dataset.json that the model was trained on."""
    return read_description(forecaster.members[0].member.model.dataset_json)


def _check_input_description(folder: Path, description: DatasetDescription) -> None:
    """Where the input has a dataset.json (``imagesTs`` has that of its dataset), it must fit the model's."""
    places = [folder, folder.resolve().parent] if folder.name.startswith("images") else [folder]
    path = next((place / "dataset.json" for place in places if (place / "dataset.json").is_file()), None)
    if path is None:
        return
    given = read_description(path)
    for name in ("time_unit", "channels", "file_ending"):
        found, expected = getattr(given, name), getattr(description, name)
        if found != expected:
            raise DataError(
                f"{path}: {name} is {found}, but the model was trained with {expected}. Convert the input first."
            )


def is_finished(item: Wanted, folder: Path, description: DatasetDescription) -> bool:
    """Whether a forecast was made before; the sidecar is written last, and names what it was made from."""
    sidecar = folder / f"{item.target.case}.json"
    if not sidecar.is_file():
        return False
    content, expected = read_json(sidecar), item.described()
    return {key: content.get(key) for key in expected} == expected and all(
        image_path(folder, item.target.case, channel, description).is_file()
        for channel in range(len(description.channels))
    )


def _check_output(folder: Path, wanted: list[Wanted]) -> None:
    """Forecasts are never written among acquired scans, nor their table over another one.

    :raises ConfigurationError: the folder is a raw dataset or one of its folders, or has a table of other scans.
    :raises DataError: the folder cannot be made or written to.
    """
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot be written to" if existing.is_dir() else "is a file"
        raise DataError(f"{existing} {what}. Give another folder for the forecasts with -o.")
    of_raw = folder.resolve().name in OF_RAW_DATASET and (folder.resolve().parent / "dataset.json").is_file()
    if of_raw or any((folder / name).is_dir() for name in OF_RAW_DATASET):
        raise ConfigurationError(
            f"{folder} belongs to a raw dataset. Forecasts would stand among its acquired scans; give another folder "
            "with -o."
        )
    table = folder / "scans.csv"
    known = {item.target.case for item in wanted}
    for row in read_rows(table) if table.is_file() else []:
        if row.case not in known and not (folder / f"{row.case}.json").is_file():
            raise ConfigurationError(
                f"{table} names {row.case}, which is no forecast (there is no {row.case}.json). Forecasts are not "
                "written over a table of other scans; give another folder with -o."
            )


def _check_settings(forecaster: Forecaster, wanted: list[Wanted], folder: Path) -> None:
    """Forecasts of different models do not belong into one folder: they would be evaluated as one."""
    settings = _settings(forecaster)
    for item in wanted:
        sidecar = folder / f"{item.target.case}.json"
        content = read_json(sidecar) if sidecar.is_file() else {}
        for key, value in settings.items():
            if content.get(key, value) != value:
                raise ConfigurationError(
                    f"{sidecar} was made with {key} {content[key]}, this command has {value}. Give another folder "
                    "with -o, or make the forecasts anew with --overwrite."
                )


def _make(forecaster: Forecaster, item: Wanted, folder: Path, description: DatasetDescription) -> None:
    volumes = []
    for scan in item.context:
        volumes.append(read_scan(scan.images))
        first = f"{item.context[0].images[0]} of the same subject"
        check_same_grid(volumes[-1].geometry, scan.images[0], volumes[0].geometry, first, REGISTER)
    forecast = forecaster.forecast(item.target.subject, [scan.time for scan in item.context], volumes, item.target.time)
    last = volumes[-1]
    for channel, array in enumerate(forecast):
        write_volume(array, last.geometry, last.data_type, image_path(folder, item.target.case, channel, description))
    write_json(sidecar_content(forecaster, item), folder / f"{item.target.case}.json")


def sidecar_content(forecaster: Forecaster, item: Wanted) -> dict[str, Any]:
    """What a reader of a forecast must know about it."""
    plans = forecaster.plans
    longest = plans.temporal.longest_horizon
    outside = item.horizon > longest
    warnings = []
    if outside:
        warnings.append(
            f"The horizon of {item.horizon:g} {plans.temporal.time_unit} is longer than any that the model was trained "
            f"on ({longest:g}): an extrapolation."
        )
        logger.warning("%s: %s", item.target.case, warnings[-1])
    return {
        **item.described(),
        "time_unit": plans.temporal.time_unit,
        "horizon_outside_training": outside,
        **_settings(forecaster),
        "warnings": warnings,
        "intended_use": "research only, not for clinical decisions",
        "longflow_version": __version__,
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "torchdiffeq", "SimpleITK")},
    }


def _settings(forecaster: Forecaster) -> dict[str, Any]:
    """All that a forecast depends on beside its scans."""
    members, method = forecaster.members, forecaster.members[0].methods[0]
    return {
        "dataset": forecaster.selection.dataset.name,
        "method": [member.member.model.method for member in members],
        "configuration": [member.configuration for member in members],
        "plans": [member.member.model.plans_name for member in members],
        "plan_identity": [member.plans.identity(member.configuration) for member in members],
        "folds": [list(member.member.folds) for member in members],
        "reduction": forecaster.selection.reduction or method.reductions[0],
        "shrinkage": forecaster.selection.shrinkage,
        "solver": method.solver,
        "steps": method.steps,
        "function_evaluations": count_evaluations(method.solver, method.steps) if method.solver in ORDERS else None,
        "mirror": forecaster.mirror,
    }


def _write_table(done: list[Wanted], folder: Path, description: DatasetDescription) -> None:
    """The table and description that make the output a valid input folder; rows of earlier commands are kept."""
    if not done:
        return
    scans = [item.target for item in done]
    taken = {(scan.subject, scan.time) for scan in scans} | {scan.case for scan in scans}
    table = folder / "scans.csv"
    for row in read_rows(table) if table.is_file() else []:
        time = parse_time(row.time)
        if row.case not in taken and (row.subject, time) not in taken and (folder / f"{row.case}.json").is_file():
            scans.append(Scan(row.case, row.subject, time, ()))
    write_scans(scans, table)
    write_description(description, folder / "dataset.json")
