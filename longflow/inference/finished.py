"""Which predictions of a folder are finished, by their sidecars, and whether a folder may be predicted into."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longflow.data.dataset import DatasetDescription, read_rows, sidecar_path
from longflow.errors import ConfigurationError, DataError, first_few
from longflow.files import file_digest
from longflow.inference.output import read_sidecar, sidecar_of
from longflow.inference.requests import Request
from longflow.task import Words

if TYPE_CHECKING:
    from longflow.inference.predictor import Predictor

logger = logging.getLogger(__name__)

#: the folders of acquired scans and labels in a raw dataset
OF_RAW_DATASET = ("imagesTr", "labelsTr", "imagesTs", "targetsTs", "labelsTs")

OfRequest = TypeVar("OfRequest", bound=Request)


def unfinished_of(
    predictor: "Predictor[OfRequest]", items: Sequence[OfRequest], folder: Path, description: DatasetDescription
) -> list[OfRequest]:
    """Return the predictions to make, and say why finished ones are made again."""
    reasons = [why_unfinished(predictor, item, folder, description) for item in items]
    for reason in dict.fromkeys(reason for reason in reasons if reason):
        cases = [item.target.case for item, other in zip(items, reasons, strict=True) if other == reason]
        logger.info("Made again, because %s: %s.", reason, first_few(cases))
    todo = [item for item, reason in zip(items, reasons, strict=True) if reason is not None]
    if len(todo) < len(items):
        logger.info("%d of %d %s are finished and kept.", len(items) - len(todo), len(items), predictor.words.several)
    return todo


def is_unfit(item: Request, folder: Path) -> bool:
    """Tell whether a prediction was made from scans that are unfit, by its sidecar."""
    fitness = read_sidecar(item, folder).get("fitness")
    return isinstance(fitness, dict) and fitness.get("verdict") == "unfit"


def is_predicted(predictor: "Predictor", item: Request, folder: Path, description: DatasetDescription) -> bool:
    """Check whether a prediction was made before, of the same scans, weights and plans."""
    return why_unfinished(predictor, item, folder, description) is None


def why_unfinished(predictor: "Predictor", item: Request, folder: Path, description: DatasetDescription) -> str | None:
    """Compare a prediction with its sidecar, which is written last.

    :returns: None: it is finished; "": it was not made, or not completely; else why it is to be made again, as a
        clause.
    """
    made = read_sidecar(item, folder)
    if not made or not all(path.is_file() for path in predictor.files(item, folder, description)):
        return ""
    for name, value in item.provenance().items():
        if made.get(name) != value:
            return f"{name} was {made.get(name)} and is {value}"
    known = made.get("digests")
    if not isinstance(known, dict):
        return "an earlier version of longflow did not note what they were made from"
    try:
        expected = digests_of(predictor, item)
    except DataError:
        return ""  # the scan cannot be read: said where it is predicted from
    if (inputs := known.get("inputs")) != expected["inputs"]:
        changed = dict(expected["inputs"].items() - inputs.items()) if isinstance(inputs, dict) else {}
        return f"{first_few(sorted(changed)) or 'the set of files'} changed"
    for name in ("weights", "plans"):
        if known.get(name) != expected[name]:
            return f"the {name} of the model changed"
    return None


def digests_of(predictor: "Predictor", item: Request) -> dict[str, Any]:
    """Return the digests of everything that a prediction is made from, for its sidecar."""
    return {"inputs": {path.name: file_digest(path) for path in predictor.inputs(item)}, **predictor.models.digests()}


def check_output(folder: Path, items: Sequence[Request], words: Words) -> None:
    """Refuse to write predictions among acquired scans, or their table over another one.

    :raises ConfigurationError: the folder is a raw dataset or one of its folders, or has a table of other scans.
    :raises DataError: the folder cannot be made or written to.
    """
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "cannot be written to" if existing.is_dir() else "is a file"
        raise DataError(f"{existing} {problem}. Give another folder for the {words.several} with -o.")
    of_raw = folder.resolve().name in OF_RAW_DATASET and (folder.resolve().parent / "dataset.json").is_file()
    if of_raw or any((folder / name).is_dir() for name in OF_RAW_DATASET):
        raise ConfigurationError(
            f"{folder} belongs to a raw dataset. {words.several.capitalize()} would stand among its acquired scans. "
            "Give another folder with -o."
        )
    table = folder / "scans.csv"
    known = {item.target.case for item in items}
    for row in read_rows(table) if table.is_file() else []:
        if row.case not in known and not sidecar_path(folder, row.case).is_file():
            raise ConfigurationError(
                f"{table} names {row.case}, which is no {words.one} (there is no {row.case}.json). "
                f"{words.several.capitalize()} are not written over a table of other scans. "
                "Give another folder with -o."
            )


def check_settings(predictor: "Predictor", items: Sequence[Request], folder: Path) -> None:
    """Refuse to mix predictions of different models in one folder: they would be evaluated as one."""
    common = predictor.settings()
    for item in items:
        sidecar, content = sidecar_of(item, folder), read_sidecar(item, folder)
        for key, value in {**common, **predictor.conditions(item)}.items():
            if content.get(key, value) != value:
                raise ConfigurationError(
                    f"{sidecar} was made with {key} {content[key]}, this command has {value}. Give another folder "
                    "with -o, or make all predictions again with --overwrite."
                )
