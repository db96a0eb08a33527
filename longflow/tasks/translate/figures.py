"""The figure of evaluated translations: input, translation, reference and differences, in three planes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry, read_scan
from longflow.errors import DataError
from longflow.evaluation.references import read_like
from longflow.evaluation.summary import Row
from longflow.report.drawing import plt, save
from longflow.tasks.translate.evaluation import INPUT, TRANSLATION
from longflow.tasks.translate.metrics import untranslated
from longflow.tasks.translate.pairs import ONE_GRID, TranslationPrediction

MOST_SCANS = 4

#: the abdomen window, in which MFM shows its results (appendix C): width 400, level 40 HU
ABDOMEN_WINDOW = (-160.0, 240.0)

COLUMNS = ("input", "translation", "target", "translation − target", "input − target")
PLANES = ("axial", "coronal", "sagittal")

_SMALL = 8


@dataclass(frozen=True)
class TranslationPanel:
    """Three rows of the figure: one translated scan. Volumes are (z, y, x), one channel, in input units, in the
    standard orientation: z towards the head, y towards the back, x towards the left.

    :param spacing: mm, (z, y, x).
    :param window: lowest and highest value that is shown.
    :param unit: of the values.
    :param body_mae: of the translation; None where not defined.
    :param input_mae: likewise, of the input.
    :param body: (z, y, x), where the body is in the target: planes and colours are chosen by it; None: everywhere.
    """

    title: str
    input: np.ndarray
    translation: np.ndarray
    target: np.ndarray
    spacing: tuple[float, float, float]
    window: tuple[float, float]
    unit: str
    body_mae: float | None = None
    input_mae: float | None = None
    body: np.ndarray | None = None

    @property
    def change(self) -> np.ndarray:
        """How much the phases differ at each voxel, within the window; 0 around the body."""
        low, high = self.window
        change = np.abs(np.clip(self.input, low, high) - np.clip(self.target, low, high))
        return change if self.body is None else change * self.body


def draw_translations(
    rows: Sequence[Row],
    pairs: Sequence[TranslationPrediction],
    description: DatasetDescription,
    path: Path,
    most: int = MOST_SCANS,
) -> None:
    """Draw at most ``most`` scans of an evaluated folder: of each direction the subjects with the largest errors.

    :param rows: as :func:`longflow.tasks.translate.evaluation.evaluate_translation_pairs` returns them.
    """
    of_case = {pair.case: pair for pair in pairs}
    shown = worst_cases(rows)[:most]
    translation_figure([translation_panel(of_case[case], rows, description) for case in shown], path)


def worst_cases(rows: Sequence[Row]) -> list[str]:
    """List cases by their MAE in the body, the largest first; of each subject one, the worst, in each direction.

    Directions (requested phase, round trip or not) take turns.
    """
    directions: dict[tuple[str, bool], dict[str, Row]] = {}
    translations = [row for row in rows if row["image"] == TRANSLATION]
    for row in sorted(translations, key=lambda row: (-_error(row), row["case"])):
        direction = directions.setdefault((row["target_phase"], row["round_trip"]), {})
        direction.setdefault(row["subject"], row)
    turns = zip_longest(*(of_subject.values() for of_subject in directions.values()))
    return [row["case"] for row in chain.from_iterable(turns) if row is not None]


def _error(row: Row) -> float:
    """MAE in the body, or of the image where no body is found."""
    return row["mae"] if row["body_mae"] is None else row["body_mae"]


def translation_panel(
    pair: TranslationPrediction, rows: Sequence[Row], description: DatasetDescription
) -> TranslationPanel:
    """Read the volumes of a pair, first channel; errors are over all channels."""
    reference = read_scan(pair.reference)
    scans = [read_like(one, reference, pair.reference[0], ONE_GRID) for one in (pair.source_images, pair.images)]
    is_ct = description.is_ct_of(pair.target_phase)
    body = body_of_scan(reference.array, is_ct)
    shown = untranslated(scans[0].array, reference.array, body, description)
    arrays = [shown[0], scans[1].array[0], reference.array[0], body.astype(np.uint8)]
    (source, translation, target, body), spacing = in_standard_orientation(arrays, reference.geometry)
    of_case = {row["image"]: row["body_mae"] for row in rows if row["case"] == pair.case}
    return TranslationPanel(
        title=f"{pair.subject}: {pair.source_phase} → {pair.target_phase}{', back' if pair.round_trip else ''}",
        input=source,
        translation=translation,
        target=target,
        spacing=spacing,
        window=ABDOMEN_WINDOW if is_ct[0] else tuple(np.percentile(target, [0.5, 99.5]).tolist()),
        unit="HU" if is_ct[0] else "input units",
        body_mae=of_case[TRANSLATION],
        input_mae=of_case[INPUT],
        body=body if body.any() else None,
    )


def in_standard_orientation(
    arrays: Sequence[np.ndarray], geometry: Geometry
) -> tuple[list[np.ndarray], tuple[float, float, float]]:
    """Turn and flip the axes of volumes to DICOM's order (LPS).

    So a plane is what its name says, however the scan was acquired; oblique scans are not resampled.

    :param arrays: (z, y, x), on one grid.
    :returns: (z, y, x) each, and their spacing, mm.
    """
    turned = []
    for array in arrays:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(geometry.spacing)
        image.SetDirection(geometry.direction)
        image = sitk.DICOMOrient(image, "LPS")
        turned.append(sitk.GetArrayFromImage(image))
    return turned, Geometry.of(image).array_spacing


def translation_figure(panels: Sequence[TranslationPanel], path: Path) -> None:
    """Write a figure with three rows for each scan: axial, coronal and sagittal.

    Each plane is the one that changes most between the phases, in the body and within the window. The three images of a
    row share the window, both differences of a scan one colour scale: to the 99.5th percentile of |input − target| in
    the body.

    :raises DataError: there is nothing to show.
    """
    if not panels:
        raise DataError("There is no translation to show in a figure.")
    planes = [list(_planes(panel)) for panel in panels]
    heights = [2.6 * min(max(images[0].shape[0] * aspect / images[0].shape[1], 0.25), 1.6) for of_scan in planes
               for images, _, aspect in of_scan]  # fmt: skip
    figure, axes = plt.subplots(
        len(heights), 5, figsize=(13.5, sum(heights) + 0.1 * len(heights) + 0.5 * len(panels) + 0.7),
        squeeze=False, layout="constrained", gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for number, (panel, of_scan) in enumerate(zip(panels, planes, strict=True)):
        _draw_scan(figure, axes[3 * number : 3 * number + 3], panel, of_scan)
    figure.supxlabel(
        "Planes of largest change between the phases. Largest errors of each direction first. MAE: in the body, of the "
        "whole scan.\nTranslations are no acquired scans: no clinical conclusions from them alone.",
        fontsize=_SMALL,
    )
    save(figure, path)


def _planes(panel: TranslationPanel) -> Iterator[tuple[list[np.ndarray], str, float]]:
    """For each plane: its five images, upright; where it lies; height of a pixel over its width."""
    volumes = (panel.input, panel.translation, panel.target)
    for axis, name in enumerate(PLANES):
        others = tuple(other for other in range(3) if other != axis)
        index = int(panel.change.sum(axis=others).argmax())
        images = [volume.take(index, axis=axis) for volume in volumes]
        if axis > 0:
            images = [image[::-1] for image in images]  # the head is up
        source, translation, target = images
        aspect = panel.spacing[others[0]] / panel.spacing[others[1]]
        yield [*images, translation - target, source - target], f"{name}, {'zyx'[axis]} = {index}", aspect


def _draw_scan(figure, axes: np.ndarray, panel: TranslationPanel, planes) -> None:
    low, high = panel.window
    differences = np.abs(panel.input - panel.target)
    change = np.percentile(differences if panel.body is None else differences[panel.body > 0], 99.5)
    largest = max(float(change), 1e-3 * (high - low), np.finfo(np.float32).tiny)
    scales = [{"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6)}] * 3
    scales += [{"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}] * 2
    for row, (images, place, aspect) in zip(axes, planes, strict=True):
        for axis, image, scale in zip(row, images, scales, strict=True):
            shown = axis.imshow(image, aspect=aspect, interpolation="nearest", **scale)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(place, fontsize=_SMALL)
    bar = figure.colorbar(shown, ax=axes[:, 3:].ravel().tolist(), fraction=0.03, pad=0.02, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.set_label(f"difference [{panel.unit}]", fontsize=_SMALL)
    errors = [_mae(value, panel.unit) for value in (panel.body_mae, panel.input_mae)]
    captions = ("", "", f"{low:.4g} to {high:.4g} {panel.unit}", *errors)
    for axis, name, caption in zip(axes[0], COLUMNS, captions, strict=True):
        axis.set_title(f"{name}\n{caption}" if caption else name, fontsize=9)
    axes[0, 0].set_title(f"{panel.title}\n{COLUMNS[0]}", fontsize=9, loc="left", parse_math=False)
    axes[0, 0].set_title("")


def _mae(value: float | None, unit: str) -> str:
    return "MAE not defined" if value is None else f"MAE {value:.4g} {unit}"
