"""Write phantom subjects as a raw dataset; all demos share this."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_letters
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, Scan, image_path, label_path, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.errors import DataError
from longflow.files import write_csv
from longflow.reading import read_json

#: names of the targets of a held-out subject, by horizon
REACHES = ("near", "far")


@dataclass(frozen=True)
class PhantomScan:
    """A scan of a phantom subject, before it is written.

    :param scan: its row of the table, without images.
    :param image: int16 (z, y, x).
    :param geometry: of the image and the label.
    :param label: uint8 (z, y, x); None writes no label.
    :param is_target: the table requests the scan, and its image is written to ``targetsTs`` as the reference.
    """

    scan: Scan
    image: np.ndarray
    geometry: Geometry
    label: np.ndarray | None = None
    is_target: bool = False


def cohort_settings(
    subjects: int, test_subjects: int, seed: int, shape: tuple[int, int, int], **further: Any
) -> dict[str, Any]:
    """Return the settings of a cohort as dataset.json stores them.

    :param further: of this kind of cohort, JSON-ready.
    """
    return {"subjects": subjects, "test_subjects": test_subjects, "seed": seed, "shape": list(shape), **further}


def subject_seed(seed: int, number: int) -> int:
    """Return the seed of a subject. :param seed: of the cohort. :param number: of the subject."""
    return 1000 * seed + number


def stored_seed(folder: Path, name: str) -> int:
    """Return the seed of a subject of a written cohort. :param name: as in ``scans.csv``: letters and a number."""
    number = int(name.lstrip(ascii_letters))
    return subject_seed(read_json(folder / "dataset.json")["phantom"]["seed"], number)


def rows_of_subject(name: str, context: Sequence[float], targets: Sequence[float]) -> Iterator[tuple[Scan, bool]]:
    """Name the scans of a subject: ``name_00``, ``name_01`` ..., and of its targets ``name_near`` and ``name_far``.

    :param context: times of the scans.
    :param targets: times of the targets; none where the subject is for training.
    :returns: rows of the table, and whether each is a target.
    """
    for index, time in enumerate(context):
        yield Scan(f"{name}_{index:02d}", name, time, ()), False
    for time, reach in zip(targets, REACHES, strict=False):
        yield Scan(f"{name}_{reach}", name, time, ()), True


def write_cohort_dataset(
    folder: Path,
    description: DatasetDescription,
    settings: Mapping[str, Any],
    draw: Callable[[int], Iterable[PhantomScan]],
    tables: Mapping[str, list[dict[str, Any]]] | None = None,
) -> None:
    """Write a raw dataset of phantom subjects; keep a finished one.

    The first subjects are for training (``imagesTr``, ``labelsTr``), the others are held out (``imagesTs``,
    ``labelsTs``). ``dataset.json`` is written last: it marks a finished dataset.

    :param settings: of the cohort, stored in dataset.json; ``subjects`` and ``test_subjects`` are read here.
    :param draw: returns the scans of a subject by its number.
    :param tables: file name to rows; further tables, with numbers in closed form.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    if is_written(folder, settings):
        return
    parts: dict[str, list[Scan]] = {"Tr": [], "Ts": []}
    for number in range(settings["subjects"] + settings["test_subjects"]):
        part = "Tr" if number < settings["subjects"] else "Ts"
        parts[part] += [_write(one, folder, part, description) for one in draw(number)]
    write_scans(parts["Tr"], folder / "scans.csv")
    write_scans(parts["Ts"], folder / "imagesTs" / "scans.csv")
    for name, rows in (tables or {}).items():
        write_csv(list(rows[0]), rows, folder / name)
    write_description(description, folder / "dataset.json", numTraining=len(parts["Tr"]), phantom=dict(settings))


def _write(one: PhantomScan, folder: Path, part: str, description: DatasetDescription) -> Scan:
    """Write the image and the label of a scan; return its row, with the image where it is or would be."""
    case = one.scan.case
    image = image_path(folder / f"images{part}", case, 0, description)
    write_volume(one.image, one.geometry, "int16", folder / "targetsTs" / image.name if one.is_target else image)
    if one.label is not None:
        label = label_path(folder / f"labels{part}", case, description)
        write_volume(one.label, one.geometry, "uint8", label)
    return replace(one.scan, images=(image,))


def is_written(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a cohort is finished.

    :param settings: of the cohort, as in its dataset.json.
    :raises DataError: the folder holds a cohort drawn with other settings.
    """
    marker = folder / "dataset.json"
    if not marker.is_file():
        return False
    if (found := read_json(marker).get("phantom")) != settings:
        raise DataError(f"{folder} holds another dataset ({found}), expected {dict(settings)}. Give another folder.")
    return True


def centred_geometry(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    """Return an upright grid whose middle is the origin.

    :param shape: (z, y, x) voxels.
    :param spacing: (z, y, x) in mm.
    """
    size, spacing = tuple(reversed(shape)), tuple(reversed(spacing))
    return Geometry(
        size=size,
        spacing=spacing,
        origin=tuple(-(count - 1) / 2 * step for count, step in zip(size, spacing, strict=True)),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
