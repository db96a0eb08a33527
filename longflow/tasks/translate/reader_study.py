"""Blinded images for readers who are to tell translations from acquired scans (MFM section 4.2).

The paper has two experiments: pairs of both images, and single images of which half are translations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry, as_type, read_scan, write_volume
from longflow.errors import DataError
from longflow.evaluation.references import dataset_folders, read_like
from longflow.files import write_csv, write_json
from longflow.tasks.translate.pairs import (
    ONE_GRID,
    TranslationPrediction,
    find_translation_pairs,
    translations_of_folder,
)

Design = Literal["pairs", "single"]

#: what the reader gets, and what the reader must not see
FOR_READERS, KEY = "for_readers", "key.csv"
SHEET = "sheet.csv"

REAL, SYNTHETIC = "real", "synthetic"

KEY_COLUMNS = ("item", "image", "is", "subject", "time", "source_phase", "target_phase", "case", "method")
#: the sheet: what is filled in before the reader starts, and what the reader fills in
SHEET_COLUMNS = {
    "pairs": ("item", "synthetic_image_A_or_B", "confidence_1_to_5", "seen_where", "remarks"),
    "single": ("item", "real_or_synthetic", "confidence_1_to_5", "seen_where", "remarks"),
}


@dataclass(frozen=True)
class ReaderStudy:
    """What is exported.

    :param translations: folder that longflow_predict wrote.
    :param output: new folder.
    :param raw: folder of the raw dataset.
    :param references: folders of the user with acquired scans, searched before those of the dataset.
    :param design: "pairs": both images of each scan; "single": one of them, half of all images are translations.
    :param items: most items; None: as many as there are translations.
    :param seed: of the draw.
    """

    translations: Path
    output: Path
    raw: Path
    description: DatasetDescription
    references: tuple[Path, ...] = ()
    design: Design = "pairs"
    items: int | None = None
    seed: int = 0


def export_reader_study(study: ReaderStudy) -> int:
    """Write blinded images and an empty sheet for readers, and the key apart from them.

    ``for_readers/`` has the images, ``item_001_A.nii`` and so on, and ``sheet.csv``; ``key.csv`` is next to it. Both
    kinds of images have the same type, grid, header and range of values and, as they are not compressed, one size.

    :param study: what is exported.
    :returns: number of items.
    :raises DataError: the output exists, there are no translations with a reference, or grids differ.
    """
    if study.output.exists() and any(study.output.iterdir()):
        raise DataError(
            f"{study.output} is not empty. Images of two draws must not be mixed, since a reader may have seen the key "
            "of one. Give another folder with -o."
        )
    folders = [*study.references, *dataset_folders(study.raw)]
    found = translations_of_folder(study.translations, study.description)
    pairs, _ = find_translation_pairs(found, folders, study.description)
    generator = np.random.default_rng(study.seed)
    order = generator.permutation(len(pairs))[: study.items]
    # of single images exactly half are translations, of an odd number one more is real
    halves = generator.permutation(np.arange(len(order)) < len(order) // 2)
    swapped = generator.random(len(order)) < 0.5
    key = []
    for number, place in enumerate(order):
        pair, item = pairs[place], f"item_{number + 1:03d}"
        letters: tuple[str, ...] = ("A", "B")
        kinds: tuple[str, ...] = (SYNTHETIC, REAL) if swapped[number] else (REAL, SYNTHETIC)
        if study.design == "single":
            letters, kinds = ("",), (SYNTHETIC,) if halves[number] else (REAL,)
        _write_images(pair, item, dict(zip(letters, kinds, strict=True)), study.output / FOR_READERS)
        key += [_key_row(pair, item, letter, kind) for letter, kind in zip(letters, kinds, strict=True)]
    columns = SHEET_COLUMNS[study.design]
    sheet = [{columns[0]: f"item_{number + 1:03d}"} for number in range(len(order))]
    write_csv(columns, [dict.fromkeys(columns, "") | row for row in sheet], study.output / FOR_READERS / SHEET)
    write_csv(KEY_COLUMNS, key, study.output / KEY)
    write_json(
        {"translations": str(study.translations), "design": study.design, "seed": study.seed, "items": len(order)},
        study.output / "reader_study.json",
    )
    return len(order)


def _write_images(pair: TranslationPrediction, item: str, kinds: dict[str, str], folder: Path) -> None:
    """Write the images of an item. :param kinds: real or synthetic, by letter."""
    real = read_scan(pair.reference)
    synthetic = read_like(pair.images, real, pair.reference[0], ONE_GRID)
    data_type = _common_type(real.array, real.data_type)
    for letter, kind in kinds.items():
        for channel, image in enumerate(_alike(real.array, synthetic.array, data_type)[kind]):
            further = f"_channel{channel}" if len(real.array) > 1 else ""
            name = "_".join(filter(None, (item, letter))) + further
            write_volume(image, _bare(real.geometry), data_type, folder / f"{name}.nii")


def _alike(real: np.ndarray, synthetic: np.ndarray, data_type: str) -> dict[str, np.ndarray]:
    """Bring both images to one type; values of the translation beyond those of the real image become its limits."""
    axes = (1, 2, 3)
    limited = np.clip(synthetic, real.min(axes, keepdims=True), real.max(axes, keepdims=True))
    return {
        kind: np.stack([as_type(channel, data_type) for channel in image])
        for kind, image in ((REAL, real), (SYNTHETIC, limited))
    }


def _common_type(real: np.ndarray, data_type: str) -> str:
    """Return the type of the files: whole numbers where the real image has no others, which a translation may have."""
    if np.dtype(data_type).kind in "iu":
        return data_type
    whole = np.array_equal(real, np.rint(real)) and np.abs(real).max() < np.iinfo(np.int16).max
    return "int16" if whole else "float32"


def _bare(geometry: Geometry) -> Geometry:
    """Return the grid without the header of the file that it was read from."""
    return Geometry(geometry.size, geometry.spacing, geometry.origin, geometry.direction)


def _key_row(pair: TranslationPrediction, item: str, letter: str, kind: str) -> dict[str, object]:
    return {"item": item, "image": letter, "is": kind, **{name: getattr(pair, name) for name in KEY_COLUMNS[3:]}}
