"""Translate a scan into the other contrast phase: in memory (the Python interface) and for folders.

The files and the sidecar of a translation are written here too: for folders of users, for out-of-fold translations and
for translated datasets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk

from longflow.data.body import nonzero_mask
from longflow.data.dataset import DatasetDescription, Scan, image_path, sidecar_path
from longflow.data.images import Geometry, Volume, as_type, read_scan, write_volume
from longflow.errors import unknown_name
from longflow.fitness.verdict import Verdict
from longflow.inference.fitness import judge_scan
from longflow.inference.in_memory import image_like, volume_of
from longflow.inference.models import LoadedMember, solver_settings
from longflow.inference.output import INTENDED_USE
from longflow.inference.predictor import Predictor, input_warnings
from longflow.inference.windows import WindowSettings
from longflow.methods.translation._translation import check_source
from longflow.plans import ChannelPlan, Plans
from longflow.preprocessing.normal_form import clipped
from longflow.preprocessing.prepared import PreparedSeries, RawSeries, SeriesProperties
from longflow.preprocessing.restore import export_forecast, to_input_space
from longflow.preprocessing.series import prepare_volumes
from longflow.reading import read_json
from longflow.tasks.translate.requests import TranslationRequest, translation_requests
from longflow.tasks.translate.windows import predict_translation

#: MFM section 4.6
CAUTION = "no clinical conclusions from synthesised images alone"


@dataclass(frozen=True)
class Source:
    """A scan to translate, as read, and in the normal form of each model.

    :param warnings: of reading it.
    :param seconds: of preparing it.
    :param verdict: whether it is of the kind that was trained on.
    """

    volume: Volume
    prepared: list[PreparedSeries]
    warnings: list[str]
    seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class Translation:
    """A translation, to be written on the grid of its source.

    :param array: (channels, z, y, x), float32, in the units of the source.
    :param data_type: of the source.
    :param warnings: of reading the source.
    :param seconds: of preparing, translating and resampling back.
    """

    array: np.ndarray
    geometry: Geometry
    data_type: str
    warnings: list[str]
    seconds: float


class Translator(Predictor[TranslationRequest]):
    """A trained model, ready to translate in both directions.

    >>> translator = Translator.load(dataset=104)               # doctest: +SKIP
    >>> native = translator.predict(image, phase="arterial")    # doctest: +SKIP
    """

    task = "translate"

    def predict(
        self, image: np.ndarray | sitk.Image, phase: str, spacing: Sequence[float] | None = None
    ) -> np.ndarray | sitk.Image:
        """Translate a scan into the other phase.

        :param image: a SimpleITK image, or an array (z, y, x) or, with several channels, (channels, z, y, x).
        :param phase: phase of the image, one of the two that the model was trained with.
        :param spacing: (z, y, x), mm; needed for arrays, taken from the image otherwise.
        :returns: an image or array like the given one, in its units.
        :raises NotFoundError: the model does not know the phase.
        :raises DataError: the scan has other channels than the model, or voxels that are not numbers.
        """
        volume = volume_of(image, spacing)
        to = self._other(phase)
        translation = as_type(self.translate(volume, phase), written_type(self.models.plans, to, volume.data_type))
        if isinstance(image, sitk.Image):
            return image_like(translation, image)
        return translation.reshape(np.shape(image))

    def translate(self, volume: Volume, phase: str, case: str = "scan") -> np.ndarray:
        """Translate a volume into the other phase, with the mean of all models.

        :param phase: phase of the volume.
        :param case: name of the scan for messages.
        :returns: (channels, z, y, x), float32, on the grid of the volume and in its units; where the phases are
            different modalities, in those of the other phase.
        """
        self._other(phase)
        return self._translate(volume, self._prepare(volume, phase, case), phase)

    def _other(self, phase: str) -> str:
        """Return the phase that scans of a phase are translated to; refuse one that the model does not know."""
        phases = self.models.plans.phases
        if phase not in phases:
            raise unknown_name("phase", phase, phases, hint="(The phase of the scan.)")
        return phases[1 - phases.index(phase)]

    def _prepare(self, volume: Volume, phase: str, case: str) -> list[PreparedSeries]:
        return [prepare_scan(member, volume, phase, case) for member in self.models.members]

    def _translate(self, volume: Volume, prepared: Sequence[PreparedSeries], phase: str) -> np.ndarray:
        source_phase = self.models.plans.phases.index(phase)
        total = np.zeros_like(volume.array, dtype=np.float32)
        for member, scan in zip(self.models.in_turn(), prepared, strict=True):
            total += translate_prepared(member, scan, volume, source_phase, self.models.windows(member))
        total /= len(self.models.members)
        return total

    def requests(
        self, folder: Path, description: DatasetDescription, to: str | None = None
    ) -> list[TranslationRequest]:
        """List the scans of the folder that are not in the requested phase.

        :param to: requested phase; None: the other one, where all scans are in one phase.
        """
        requests = translation_requests(folder, description, self.models.plans.phases, to)
        for method in (member.methods[0] for member in self.models.members):
            check_source(method, self.models.plans.phases.index(requests[0].source.phase))
        return requests

    def files(self, item: TranslationRequest, folder: Path, description: DatasetDescription) -> list[Path]:
        """Return ``{case}_{channel:04d}{file_ending}`` of each channel, as for every scan."""
        return files_of_translation(item, folder, description)

    def inputs(self, item: TranslationRequest) -> Sequence[Path]:
        """Return the images of the source."""
        return item.source.images

    def read(self, item: TranslationRequest) -> Source:
        """Read and prepare the source."""
        volume = read_scan(item.source.images)
        warnings = input_warnings(volume, item.source, self.models.plans)
        begun = perf_counter()
        prepared = self._prepare(volume, item.source.phase, item.source.case)
        seconds = perf_counter() - begun
        verdict = judge_scan(volume, self.models.plans, item.source.case, item.source.phase)
        return Source(volume, prepared, warnings, seconds, verdict)

    def verdict(self, item: TranslationRequest, scans: Source) -> Verdict:
        """Return the verdict on the source."""
        return scans.verdict

    def make(self, item: TranslationRequest, scans: Source) -> Translation:
        """Translate the source, on its grid and in its units."""
        volume, begun = scans.volume, perf_counter()
        array = self._translate(volume, scans.prepared, item.source.phase)
        seconds = scans.seconds + perf_counter() - begun
        return Translation(array, volume.geometry, volume.data_type, scans.warnings, seconds)

    def write(
        self, item: TranslationRequest, made: Translation, folder: Path, description: DatasetDescription
    ) -> dict[str, Any]:
        """Write the images of the translation."""
        return write_images(item, made, self.models.plans, folder, description)

    def settings(self) -> dict[str, Any]:
        """Return what a translation depends on apart from its scan."""
        methods = [member.methods[0] for member in self.models.members]
        flow = next((method for method in methods if method.integrates), methods[0])
        return {**super().settings(), "phases": self.models.plans.phases, **solver_settings(flow)}


def translate_scan(
    member: LoadedMember, volume: Volume, source_phase: int, settings: WindowSettings, case: str = "scan"
) -> np.ndarray:
    """Translate a scan into the other phase, with the mean of several folds of one method.

    The scan is prepared alone, so that only its own statistics decide its normal form. The predicted change is added to
    the scan as read: unchanged parts are as sharp as the input, also beyond the limits that the plan clips to. Empty
    parts of the scan stay empty (:func:`keep_empty`). Where the phases are different modalities, nothing of the scan is
    kept (:func:`in_target_units`).

    :param member: one model, on ``settings.device``.
    :param volume: the scan.
    :param source_phase: 0 or 1, the position of the scan's phase in ``plans.phases``.
    :param settings: how the volume is cut and averaged.
    :param case: name of the scan for messages.
    :returns: (channels, z, y, x), float32, on the scan's grid and in its units.
    :raises DataError: the scan has other channels than the plan, or voxels that are not numbers.
    """
    phase = member.plans.phases[source_phase]
    return translate_prepared(member, prepare_scan(member, volume, phase, case), volume, source_phase, settings)


def prepare_scan(member: LoadedMember, volume: Volume, phase: str, case: str) -> PreparedSeries:
    """Prepare a scan of a phase alone; ``case`` is its name in messages."""
    return prepare_volumes(RawSeries.of_scan(case, volume, phase), member.plans, member.configuration)


def translate_prepared(
    member: LoadedMember, prepared: PreparedSeries, volume: Volume, source_phase: int, settings: WindowSettings
) -> np.ndarray:
    """Translate a scan as :func:`translate_scan`, after it was prepared.

    :param prepared: of :func:`prepare_scan`.
    :param volume: the scan as read.
    """
    image = np.asarray(prepared.images[0], dtype=np.float32)
    translation = predict_translation(member.methods, image, source_phase, settings)
    if member.plans.phase_channels:
        channels = member.plans.channels_of(member.plans.phases[1 - source_phase])
        return in_target_units(translation, prepared.properties, channels)
    translated = export_forecast(translation, image, volume.array, prepared.properties, 0)
    keep_empty(translated, volume.array, member.plans.channels)
    return translated


def in_target_units(
    translation: np.ndarray, properties: SeriesProperties, channels: Sequence[ChannelPlan]
) -> np.ndarray:
    """Map a translation into another modality to the files' grid and the units of that modality.

    :param translation: (channels, z, y, x), prepared, in the normal form.
    :param properties: of the prepared source.
    :param channels: of the requested phase.
    :returns: (channels, z, y, x), float32, limited to the channels' limits; where the source is cropped, since it is
        empty, the lower limit (air in CT), else 0.
    """
    numbers = {name: [[getattr(channel, name) for channel in channels]] for name in ("offset", "scale")}
    volume = to_input_space(translation, replace(properties, **numbers), 0)
    lowest = np.array([channel.clip[0] if channel.clip else 0.0 for channel in channels], dtype=np.float32)
    volume = np.where(np.isnan(volume), lowest[:, None, None, None], volume)
    return clipped(volume, channels).astype(np.float32)


def written_type(plans: Plans, phase: str, source: str) -> str:
    """Return the NumPy name of the type in which translations to a phase are written.

    That of the source, whose units they have. Where the phases are different modalities: int16 for CT, else float32.

    :param plans: of the model.
    :param phase: the requested one.
    :param source: type of the source.
    """
    if not plans.phase_channels:
        return source
    return "int16" if all(channel.normal_form == "absolute" for channel in plans.channels_of(phase)) else "float32"


def keep_empty(translated: np.ndarray, scan: np.ndarray, channels: Sequence[ChannelPlan]) -> None:
    """Set what is empty in a scan (zero around the body, as after skull-stripping) to zero in its translation.

    Zero has another value in the normal form of each scan, so a network learns to change it. Not so in ``absolute``
    channels: there zero is a value like any other (water, in HU), and is translated. Only a frame of zeros around the
    whole scan, in every channel, is cropped before.

    :param translated: (channels, z, y, x), changed in place.
    :param scan: likewise, as read.
    :param channels: of the plans.
    """
    own = [number for number, channel in enumerate(channels) if channel.normal_form != "absolute"]
    if own:
        translated[own] = np.where(nonzero_mask(scan[own]), translated[own], scan[own])


def files_of_translation(item: TranslationRequest, folder: Path, description: DatasetDescription) -> list[Path]:
    """Return the images of a translation in its folder, in order of channels."""
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

    :param translate_volume: turns the source into the translation, (channels, z, y, x).
    :param folder: for the images.
    :returns: as :func:`write_images`.
    :raises DataError: the files cannot be read or used.
    """
    volume = read_scan(item.source.images)
    warnings = input_warnings(volume, item.source, plans)
    begun = perf_counter()
    array = translate_volume(volume)
    made = Translation(array, volume.geometry, volume.data_type, warnings, perf_counter() - begun)
    return write_images(item, made, plans, folder, description)


def write_images(
    item: TranslationRequest, made: Translation, plans: Plans, folder: Path, description: DatasetDescription
) -> dict[str, Any]:
    """Write the images of a translation.

    :param made: the translation.
    :param folder: for the images.
    :returns: fields of its sidecar (``write_sidecar``): ``round_trip``, true where the source is itself a
        translation from the requested phase; ``seconds`` of preparing, translating and resampling back; ``slices``,
        their number along the axis in which they are stacked; ``warnings``; ``intended_use``.
    """
    for array, path in zip(made.array, files_of_translation(item, folder, description), strict=True):
        write_volume(array, made.geometry, written_type(plans, item.target.phase, made.data_type), path)
    return {
        "round_trip": _translated_from(item.source) == item.target.phase,
        "seconds": round(made.seconds, 3),
        "slices": made.array.shape[1 + plans.transpose_forward[0]],
        "warnings_of_input": made.warnings,
        "intended_use": f"{INTENDED_USE}; {CAUTION}",
    }


def _translated_from(scan: Scan) -> str | None:
    """Read from a scan's sidecar the phase that it was translated from; None for an acquired scan."""
    sidecar = sidecar_path(scan.images[0].parent, scan.case)
    content = read_json(sidecar) if sidecar.is_file() else {}
    return content.get("source_phase") if isinstance(content, dict) else None
