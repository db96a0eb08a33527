"""Predicting a folder, whatever the task: what is wanted is made and written as a folder that is valid input again."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from longflow import __version__
from longflow.data.dataset import (
    PHASE,
    DatasetDescription,
    Scan,
    parse_time,
    read_description,
    read_rows,
    write_description,
    write_scans,
)
from longflow.errors import ConfigurationError, DataError, LongflowError
from longflow.files import read_json, write_json
from longflow.inference.models import Models, load_models
from longflow.inference.requests import Request
from longflow.inference.selection import Selection, select
from longflow.parallel import Progress

logger = logging.getLogger(__name__)

#: the folders of acquired scans and labels in a raw dataset
OF_RAW_DATASET = ("imagesTr", "labelsTr", "imagesTs", "targetsTs", "labelsTs")

#: stands in every sidecar
INTENDED_USE = "research only, not for clinical decisions"


@dataclass(frozen=True)
class Asked:
    """What is asked of every subject of a folder, beside what its table says.

    :param times: wanted times of forecasts, instead of the rows without an image. :param phase: wanted phase of
        translations; None: the other one. :param hidden: context scans that forecasts are not made from.
    """

    times: tuple[float, ...] = ()
    phase: str | None = None
    hidden: Any = None


NOTHING_ASKED = Asked()

OfTask = TypeVar("OfTask", bound="Predictor")


class Predictor(ABC):
    """What is special to a task: what a folder asks for, and how one of these is made.

    :cvar task: of the models it works with. :cvar noun: what it makes, one and several. :cvar doing: for progress bars.
    """

    task: ClassVar[str]
    noun: ClassVar[tuple[str, str]]
    doing: ClassVar[str]
    models: Models

    def __init__(self, models: Models):
        self.models = models

    @classmethod
    def load(
        cls: type[OfTask],
        dataset: str | int | None = None,
        configuration: str | None = None,
        method: str | None = None,
        folds: Sequence[int] | None = None,
        device: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        mirror: bool | None = None,
    ) -> OfTask:
        """Load a trained model; what is not given is found as ``longflow_predict`` finds it.

        :param device: "cpu", "cuda", "cuda:1", "mps"; by default a GPU where there is one.
        :param solver: of a flow; by default the plan's. :param steps: of the solver.
        :param mirror: average over mirrored inputs; by default as the method has it.
        :raises LongflowError: nothing trained fits, or several models do, or the task does not know a setting.
        """
        name = None if dataset is None else str(dataset)
        chosen = select(name, configuration, method, None if folds is None else tuple(folds))
        return cls.of(chosen, device, mirror, solver, steps)

    @classmethod
    def of(
        cls: type[OfTask],
        selection: Selection,
        device: torch.device | str | None = None,
        mirror: bool | None = None,
        solver: str | None = None,
        steps: int | None = None,
    ) -> OfTask:
        """Load what was selected.

        :param device: by default a GPU where there is one. :param mirror: by default as the method has it.
        :param solver, steps: by default as the plans have them.
        :raises LongflowError: the models cannot be loaded, or the task does not know one of the settings.
        """
        return cls(load_models(selection, cls.task, device, mirror, solver, steps))

    @abstractmethod
    def requests(self, folder: Path, description: DatasetDescription, asked: Asked) -> list[Request]:
        """What a folder asks for; files are not opened.

        :param asked: of every subject, by the command line.
        :raises LongflowError: nothing is wanted, or something that cannot be made; all problems at once.
        """

    @abstractmethod
    def files(self, item: Request, folder: Path, description: DatasetDescription) -> list[Path]:
        """The images of an item in the output folder."""

    @abstractmethod
    def make(self, item: Request, folder: Path, description: DatasetDescription) -> dict[str, Any]:
        """Make an item and write its files.

        :returns: what of it belongs into its sidecar; ``warnings``, a list of sentences, are logged too.
        :raises LongflowError: its scans cannot be used.
        """

    def settings(self) -> dict[str, Any]:
        """All that a prediction depends on beside its scans; those of one folder share it."""
        return self.models.settings()

    def finish(self, folder: Path) -> None:  # noqa: B027 - most tasks have no further tables
        """Write further tables of an output folder, from its scans.csv and sidecars."""


def predict_folder(
    predictor: Predictor,
    input_folder: Path,
    output_folder: Path,
    asked: Asked = NOTHING_ASKED,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> list[Request]:
    """Make everything that a folder asks for; what is finished is skipped.

    What can be checked without reading voxels is checked for all subjects first. A subject whose images turn out to be
    unusable is reported at the end; the others are done all the same.

    :param asked: of every subject: times of forecasts and what is hidden from them, the phase of translations.
    :param progress: called with (finished, all, case) as items are made.
    :returns: what the folder asked for, made now or before.
    :raises ConfigurationError: what is asked is for models of another task.
    :raises DataError: nothing is wanted, or some of it could not be made (said for each).
    """
    if output_folder.resolve() == input_folder.resolve():
        raise ConfigurationError(
            f"Input and output are the same folder; {predictor.noun[1]} would stand among the scans."
        )
    _check_asked(asked, predictor)
    description = predictor.models.description
    _check_input_description(input_folder, description)
    wanted = predictor.requests(input_folder, description, asked)
    _check_output(output_folder, wanted, predictor.noun)
    if not overwrite:
        hiding = {"hide_context": str(asked.hidden) if asked.hidden else None}
        _check_settings({**predictor.settings(), **hiding}, wanted, output_folder)
    todo = [item for item in wanted if overwrite or not is_finished(predictor, item, output_folder, description)]
    if len(todo) < len(wanted):
        logger.info("%d of %d %s are finished and kept.", len(wanted) - len(todo), len(wanted), predictor.noun[1])
    failures = []
    for number, item in enumerate(todo):
        progress(number, len(todo), item.target.case)
        try:
            make_item(predictor, item, output_folder, description)
        except LongflowError as error:
            failures.append(f"  {item.target.case}: {error}")
    progress(len(todo), len(todo), "")
    done = [item for item in wanted if is_finished(predictor, item, output_folder, description)]
    if done:
        write_table(done, output_folder, description)
        predictor.finish(output_folder)
    if failures:
        raise DataError(
            f"{len(failures)} of {len(wanted)} {predictor.noun[1]} could not be made, the others are in "
            f"{output_folder}:\n" + "\n".join(failures)
        )
    return wanted


def _check_asked(asked: Asked, predictor: Predictor) -> None:
    """Times and hidden scans are asked of models that forecast, a phase of models that translate."""
    for given, what, flag, task in (
        (asked.times, "Times (-t) are for forecasts", "-t", "forecast"),
        (asked.hidden, "Hidden context scans (--hide_context) are for forecasts", "--hide_context", "forecast"),
        (asked.phase, "A phase (--to) is for translations", "--to", "translate"),
    ):
        if given and predictor.task != task:
            model = predictor.models.members[0].member.model.folder.name
            raise ConfigurationError(
                f"{what}, but {model} {predictor.task}s. Leave {flag} away, or choose a model that {task}s with -d "
                "and -m."
            )


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


def is_finished(predictor: Predictor, item: Request, folder: Path, description: DatasetDescription) -> bool:
    """Whether an item was made before; the sidecar is written last, and names what it was made from."""
    sidecar = folder / f"{item.target.case}.json"
    if not sidecar.is_file():
        return False
    content, expected = read_json(sidecar), item.provenance()
    return {key: content.get(key) for key in expected} == expected and all(
        path.is_file() for path in predictor.files(item, folder, description)
    )


def _check_output(folder: Path, wanted: list[Request], noun: tuple[str, str]) -> None:
    """Predictions are never written among acquired scans, nor their table over another one.

    :raises ConfigurationError: the folder is a raw dataset or one of its folders, or has a table of other scans.
    :raises DataError: the folder cannot be made or written to.
    """
    one, several = noun
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot be written to" if existing.is_dir() else "is a file"
        raise DataError(f"{existing} {what}. Give another folder for the {several} with -o.")
    of_raw = folder.resolve().name in OF_RAW_DATASET and (folder.resolve().parent / "dataset.json").is_file()
    if of_raw or any((folder / name).is_dir() for name in OF_RAW_DATASET):
        raise ConfigurationError(
            f"{folder} belongs to a raw dataset. {several.capitalize()} would stand among its acquired scans; give "
            "another folder with -o."
        )
    table = folder / "scans.csv"
    known = {item.target.case for item in wanted}
    for row in read_rows(table) if table.is_file() else []:
        if row.case not in known and not (folder / f"{row.case}.json").is_file():
            raise ConfigurationError(
                f"{table} names {row.case}, which is no {one} (there is no {row.case}.json). "
                f"{several.capitalize()} are not written over a table of other scans; give another folder with -o."
            )


def _check_settings(settings: dict[str, Any], wanted: list[Request], folder: Path) -> None:
    """Predictions of different models do not belong into one folder: they would be evaluated as one."""
    for item in wanted:
        sidecar = folder / f"{item.target.case}.json"
        content = read_json(sidecar) if sidecar.is_file() else {}
        for key, value in settings.items():
            if content.get(key, value) != value:
                raise ConfigurationError(
                    f"{sidecar} was made with {key} {content[key]}, this command has {value}. Give another folder "
                    "with -o, or make everything anew with --overwrite."
                )


def make_item(
    predictor: Predictor, item: Request, folder: Path, description: DatasetDescription, **further: Any
) -> None:
    """Make an item; its sidecar says what a reader must know about it, and that it is finished.

    :param further: what else belongs into the sidecar.
    """
    # an older prediction is not to pass for this one if this one fails
    sidecar_of(item, folder).unlink(missing_ok=True)
    found = predictor.make(item, folder, description)
    for warning in found.get("warnings", []):
        logger.warning("%s: %s", item.target.case, warning)
    time_unit = predictor.models.plans.temporal.time_unit
    write_sidecar(item, folder, {"time_unit": time_unit, **predictor.settings(), **found, **further})


def sidecar_of(item: Request, folder: Path) -> Path:
    """``{case}.json`` beside the images of an item."""
    return folder / f"{item.target.case}.json"


def write_sidecar(item: Request, folder: Path, content: dict[str, Any]) -> None:
    """The sidecar of an item, written last: what was made from what, the given content, and what all have in common."""
    sidecar = {
        **item.provenance(),
        "warnings": [],
        "intended_use": INTENDED_USE,
        **content,
        "longflow_version": __version__,
        "versions": {name: version(name) for name in ("torch", "nnunetv2", "torchdiffeq", "SimpleITK")},
    }
    write_json(sidecar, sidecar_of(item, folder))


def write_table(done: Sequence[Request], folder: Path, description: DatasetDescription) -> None:
    """The table and description that make the output a valid input folder; rows of earlier commands are kept."""

    def moment(subject: str, time: float | None, covariates: dict[str, str]) -> tuple:
        # as in `series_of_folder`: two phases of one time are two scans only where they are translated
        return subject, time, covariates.get(PHASE, "") if description.task == "translate" else ""

    scans = [item.target for item in done]
    cases, moments = set(), set()
    for scan in scans:
        cases.add(scan.case)
        moments.add(moment(scan.subject, scan.time, scan.covariates))
    table = folder / "scans.csv"
    for row in read_rows(table) if table.is_file() else []:
        time = parse_time(row.time)
        taken = row.case in cases or moment(row.subject, time, row.covariates) in moments
        if not taken and (folder / f"{row.case}.json").is_file():
            scans.append(Scan(row.case, row.subject, time, (), covariates=row.covariates))
    write_scans(scans, table)
    write_description(description, folder / "dataset.json")
