"""Translations: a scan in one contrast phase in, the same in the other out, in memory and for folders.

What a translation is beside its voxels, its files and its sidecar, is written here too: for folders of users, for the
out-of-fold translations of a training and for translated datasets alike.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from longflow.data.dataset import DatasetDescription, Scan, image_path
from longflow.data.hounsfield import is_ct
from longflow.data.images import Volume, as_type, read_scan, write_volume
from longflow.errors import unknown_name
from longflow.files import read_json
from longflow.inference.in_memory import image_like, volume_of
from longflow.inference.models import solver_settings
from longflow.inference.predictor import INTENDED_USE, Asked, Predictor
from longflow.inference.windows import predict_translation
from longflow.integrity.hounsfield import HOUNSFIELD_UNITS, hounsfield_doubt
from longflow.methods.method import Method
from longflow.nnunet import nonzero_mask
from longflow.plans import Plans
from longflow.preprocessing.series import export_forecast, prepare_volumes
from longflow.tasks.translate.requests import TranslationRequest, translation_requests

#: MFM section 4.6
CAUTION = "no clinical conclusions from synthesised images alone"


class Translator(Predictor):
    """A trained model, ready to translate in both directions.

    >>> translator = Translator.load(dataset=104)               # doctest: +SKIP
    >>> native = translator.predict(image, phase="arterial")    # doctest: +SKIP
    """

    task = "translate"
    noun = ("translation", "translations")
    doing = "Translating"

    def predict(
        self, image: np.ndarray | sitk.Image, phase: str, spacing: Sequence[float] | None = None
    ) -> np.ndarray | sitk.Image:
        """The scan in the other phase.

        :param image: a SimpleITK image, or an array (z, y, x) or, with several channels, (channels, z, y, x).
        :param phase: in which the image was acquired, one of the two that the model was trained with.
        :param spacing: mm, (z, y, x); needed for arrays, taken from the image otherwise.
        :returns: an image or array like the given one, in its units.
        :raises NotFoundError: the model does not know the phase.
        :raises DataError: the scan has other channels than the model, or voxels that are no numbers.
        """
        volume = volume_of(image, spacing)
        translation = as_type(self.translate(volume, phase), volume.data_type)
        if isinstance(image, sitk.Image):
            return image_like(translation, image)
        return translation.reshape(np.shape(image))

    def translate(self, volume: Volume, phase: str, case: str = "scan") -> np.ndarray:
        """The scan in the other phase, (channels, z, y, x), float32, on its grid and in its units.

        :param phase: of the scan. :param case: what to call it in an error.
        """
        phases = self.models.plans.phases
        if phase not in phases:
            raise unknown_name("phase", phase, phases, hint="(The phase of the scan.)")
        total = np.zeros_like(volume.array, dtype=np.float32)
        for member in self.models.members:
            total += translate(
                member.methods,
                volume,
                phases.index(phase),
                member.plans,
                member.configuration,
                self.models.device,
                self.models.mirror,
                case,
            )
        return total / len(self.models.members)

    def requests(self, folder: Path, description: DatasetDescription, asked: Asked) -> list[TranslationRequest]:
        """The scans of the folder that are not in the phase that is asked for."""
        return translation_requests(folder, description, self.models.plans.phases, asked.phase)

    def files(self, item: TranslationRequest, folder: Path, description: DatasetDescription) -> list[Path]:
        """``{case}_{channel:04d}{file_ending}``, as every scan."""
        return files_of_translation(item, folder, description)

    def make(self, item: TranslationRequest, folder: Path, description: DatasetDescription) -> dict[str, Any]:
        """Write the translation, on the grid and in the units of its source."""

        def of_source(volume: Volume) -> np.ndarray:
            return self.translate(volume, item.source.phase, item.source.case)

        return write_translation(item, of_source, self.models.plans, folder, description)

    def settings(self) -> dict[str, Any]:
        """All that a translation depends on beside its scan."""
        method = self.models.members[0].methods[0]
        return {**super().settings(), "phases": self.models.plans.phases, **solver_settings(method)}


def translate(
    methods: Sequence[Method],
    volume: Volume,
    source_phase: int,
    plans: Plans,
    configuration: str,
    device: torch.device | str,
    mirror: bool = False,
    case: str = "scan",
) -> np.ndarray:
    """A scan in the other phase, with the mean of several folds of one method.

    It is prepared alone, so that only its own statistics decide its normal form. The predicted change is added to the
    scan as it is in its file: what does not change is as sharp as the input, also beyond the limits that the plan clips
    to. Where the scan is empty (zero around the body, as after skull-stripping) it stays so: what zero is in the normal
    form differs from scan to scan, so that a network learns to change it.

    :param methods: in evaluation mode on ``device``. :param source_phase: 0 or 1, its position in ``plans.phases``.
    :param case: what to call the scan in an error.
    :returns: (channels, z, y, x), float32, on the scan's grid and in its units.
    :raises DataError: the scan has other channels than the plan, or voxels that are no numbers.
    """
    prepared = prepare_volumes(case, [case], [0.0], [volume], plans, configuration)
    image = np.asarray(prepared.images[0], dtype=np.float32)
    translation = predict_translation(methods, image, source_phase, device, plans.inference.tile_step_size, mirror)
    translated = export_forecast(translation, image, volume.array, prepared.properties, 0)
    return np.where(nonzero_mask(volume.array), translated, volume.array.astype(np.float32, copy=False))


def files_of_translation(item: TranslationRequest, folder: Path, description: DatasetDescription) -> list[Path]:
    """The images of a translation in its folder, in order of channels."""
    channels = range(len(description.channels))
    return [image_path(folder, item.target.case, channel, description) for channel in channels]


def write_translation(
    item: TranslationRequest,
    translate_volume: Callable[[Volume], np.ndarray],
    plans: Plans,
    folder: Path,
    description: DatasetDescription,
) -> dict[str, Any]:
    """Translate a scan from its files and write the images.

    :param translate_volume: the source to the translation, (channels, z, y, x).
    :returns: what of it belongs into its sidecar (``predictor.write_sidecar``): ``round_trip``, true where the source
        is itself a translation from the wanted phase; ``seconds`` of preparing, translating and resampling back;
        ``slices``, how many it has along the axis that slices are stacked in; ``warnings``; ``intended_use``.
    :raises DataError: the files cannot be read or used.
    """
    volume = read_scan(item.source.images)
    begun = perf_counter()
    translation = translate_volume(volume)
    seconds = perf_counter() - begun
    for array, path in zip(translation, files_of_translation(item, folder, description), strict=True):
        write_volume(array, volume.geometry, volume.data_type, path)
    return {
        "round_trip": _translated_from(item.source) == item.target.phase,
        "seconds": round(seconds, 3),
        "slices": volume.array.shape[1 + plans.transpose_forward[0]],
        "warnings": doubts_of_units(volume.array, plans),
        "intended_use": f"{INTENDED_USE}; {CAUTION}",
    }


def _translated_from(scan: Scan) -> str | None:
    """The phase that a scan was translated from, as its sidecar says; None where it has none: it was acquired."""
    sidecar = scan.images[0].parent / f"{scan.case}.json"
    content = read_json(sidecar) if sidecar.is_file() else {}
    return content.get("source_phase") if isinstance(content, dict) else None


def doubts_of_units(scan: np.ndarray, plans: Plans) -> list[str]:
    """A sentence for each CT channel of (channels, z, y, x) whose values cannot be the HU that the model knows."""
    doubts = [
        (channel.name, hounsfield_doubt(values))
        for values, channel in zip(scan, plans.channels, strict=True)
        if is_ct(channel.name)
    ]
    return [
        f"{name} has {doubt.found}, expected {HOUNSFIELD_UNITS}. {doubt.advice}"
        for name, doubt in doubts
        if doubt is not None
    ]
