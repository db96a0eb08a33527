"""Validate translations between the phases of the validation pairs, compared with the untranslated scans.

Both ways, or the one that a method learns (``--set direction``).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from longflow.data.body import body_of_scan
from longflow.data.dataset import DatasetDescription, Scan, read_description, training_series
from longflow.data.images import Volume, read_scan
from longflow.errors import DataError, first_few
from longflow.inference.models import LoadedMember, solver_settings
from longflow.inference.output import write_sidecar, write_table
from longflow.inference.selection import Member
from longflow.inference.windows import WindowSettings
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.methods.translation._translation import source_phases
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries, load_prepared, read_properties
from longflow.spread import evenly_spaced
from longflow.tasks.translate.metrics import body_mae, untranslated
from longflow.tasks.translate.predictor import files_of_translation, translate_scan, write_translation
from longflow.tasks.translate.requests import TranslationRequest
from longflow.tasks.translate.samples import pairs_of_cohort
from longflow.tasks.translate.windows import predict_translation
from longflow.training.clock import results_in_time, writes_tables
from longflow.training.progress import ProgressColumns
from longflow.training.splits import Cohort
from longflow.training.validation import (
    WITHOUT_OVERLAP,
    Score,
    finished_before,
    out_of_fold_digests,
    out_of_fold_settings,
    sampled,
)

logger = logging.getLogger(__name__)

#: pairs that are scored during training; a 2D network translates so many slices of each scan. At the end all pairs are
#: translated
MOST_PAIRS, SLICES = 8, 12


@dataclass(frozen=True)
class Error:
    """Mean absolute errors of a translation inside the body, in the files' units; None where no body is found.

    :param subject: the subject's name.
    :param phase: the requested one.
    :param mae: of the translation.
    :param untranslated: of the scan before translation.
    :param change: a sample of translation - scan, in the normal form; empty where it is not needed.
    """

    subject: str
    phase: str
    mae: float | None
    untranslated: float | None
    change: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)

    @property
    def ratio(self) -> float | None:
        """The error as a share of that of the untranslated scan; None where either is not defined."""
        return self.mae / self.untranslated if self.mae is not None and self.untranslated > 0 else None


class PhaseValidation:
    """Mean absolute error inside the body, as a share of that of the untranslated scans.

    :param job: the fold.
    :param cohort: the subjects that validate it.
    :param device: that the method works on.
    :raises DataError: no validation subject has a pair.
    """

    #: errors in the units of the files are not drawn: their ratios to the input's are
    progress = ProgressColumns("MAE, share of the input's", hidden=("mae_to_", "input_mae_to_"))

    def __init__(self, job: FoldJob, cohort: Cohort, device: torch.device):
        self.job, self.plans, self.folder, self.device = job, job.plans, cohort.folder, device
        self.description = read_description(job.dataset.raw / "dataset.json")
        found = pairs_of_cohort(cohort, job.plans, f"that validate fold {job.fold}")
        self.all_pairs = [(subject, pair) for subject, pairs in found.items() for pair in pairs]
        self.pairs = [self.all_pairs[index] for index in evenly_spaced(len(self.all_pairs), MOST_PAIRS)]
        #: each body is computed once
        self.body = lru_cache(maxsize=None)(self._find_body)

    def score(self, method: Method) -> Score:
        """Average errors (:func:`summarised`) on the prepared grid of the same scans every time, without overlap.

        :param method: in evaluation mode.
        :returns: the score, with the errors of each direction.
        """

        def learnt_ways(pair: tuple[str, tuple[int, int]]) -> list[Error]:
            subject, scans = pair
            series = load_prepared(self.folder, subject)
            return [self._error(method, series, scans[phase], scans[1 - phase]) for phase in source_phases(method)]

        errors = [error for ways in results_in_time(learnt_ways, self.pairs) for error in ways]
        columns = summarised(errors, self.plans.phases)
        if "ratio" not in columns:
            subjects = dict.fromkeys(subject for subject, _ in self.pairs)
            raise DataError(
                f"There is nothing to score: the scans that validate fold {self.job.fold} ({first_few(subjects)}) show "
                "no body, or those of each pair are equal. Look at the images (longflow_verify), or give other "
                "subjects in splits_final.json."
            )
        ratios = [[error.ratio] for error in errors if error.ratio is not None]
        note = f"MAE {columns['ratio']:.2f} of the input's"
        return Score(columns["ratio"], columns, note, 1.0, ratios, [error.change for error in errors])

    def finish(self, method: Method) -> None:
        """Write the translations of all validation pairs, as ``longflow_predict`` would, and log the MAE.

        :param method: in evaluation mode, with the weights that are kept.
        """
        description, all_series = training_series(self.job.dataset.raw)
        scans = {scan.case: scan for series in all_series for scan in series.scans}
        folder = self.job.paths.validation("translation")

        def written(pair: tuple[str, tuple[int, int]]) -> list[tuple[TranslationRequest, Error]]:
            subject, scan_pair = pair
            cases, both = read_properties(self.folder, subject).cases, []
            for source, target in (scan_pair[:: 1 - 2 * phase] for phase in source_phases(method)):
                reference = scans[cases[target]]
                item = TranslationRequest.of(scans[cases[source]], reference.phase)
                both.append((item, self._write(method, item, reference, description)))
                logger.debug("Out-of-fold translation: %s", item.target.case)
            return both

        made = [one for both in results_in_time(written, self.all_pairs) for one in both]
        if not writes_tables():
            return
        items, errors = [item for item, _ in made], [error for _, error in made]
        write_table(items, folder, description)
        means = summarised(errors, self.plans.phases)
        listed = ", ".join(
            f"{means[f'mae_to_{phase}']:.4g} to {phase} (untranslated {means[f'input_mae_to_{phase}']:.4g})"
            for phase in self.plans.phases
            if f"mae_to_{phase}" in means
        )
        logger.info("MAE inside the body of %d out-of-fold translations: %s; %s", len(items), listed, folder)

    def _error(self, method: Method, series: PreparedSeries, source: int, target: int) -> Error:
        """Compute the errors of one translation on the prepared grid."""
        properties, slices = series.properties, self._slices(series)
        image, phase = read_slices(series, source, slices), self.plans.phases.index(properties.phases[source])
        translation = predict_translation([method], image, phase, WindowSettings(self.device, WITHOUT_OVERLAP))
        change = sampled(translation - image)
        scan, reference = (
            from_normal(volume, properties.offset[index], properties.scale[index])
            for volume, index in ((image, source), (read_slices(series, target, slices), target))
        )
        target_phase = properties.phases[target]
        numbers = properties.offset[source], properties.scale[source]
        if self.plans.phase_channels:
            channels = self.plans.channels_of(target_phase)
            numbers = [channel.offset for channel in channels], [channel.scale for channel in channels]
        translation = from_normal(translation, *numbers)
        errors = self._errors(translation, scan, reference, self.body(properties.subject, target), target_phase)
        return Error(properties.subject, target_phase, *errors, change)

    def _errors(
        self, translation: np.ndarray, scan: np.ndarray, reference: np.ndarray, body: np.ndarray, phase: str
    ) -> list[float | None]:
        """Return the MAE in the body of a translation to a phase and of the untranslated scan."""
        volumes = translation, untranslated(scan, reference, body, self.description)
        return [body_mae(volume, reference, body, self.description.is_ct_of(phase)) for volume in volumes]

    def _slices(self, series: PreparedSeries) -> list[int]:
        """List the slices that are scored: all for a 3D network, for a 2D one the middles of ``SLICES`` equal parts."""
        count = series.images.shape[2]
        if len(self.job.plan.patch_size) == 3:
            return list(range(count))
        return sorted({int((part + 0.5) * count / SLICES) for part in range(SLICES)})

    def _find_body(self, subject: str, scan: int) -> np.ndarray:
        """Find the body of a prepared scan, in all slices; return the scored ones."""
        series = load_prepared(self.folder, subject)
        properties = series.properties
        whole = from_normal(np.asarray(series.images[scan]), properties.offset[scan], properties.scale[scan])
        return body_of_scan(whole, self.description.is_ct_of(properties.phases[scan]))[self._slices(series)]

    def _write(self, method: Method, item: TranslationRequest, target: Scan, description: DatasetDescription) -> Error:
        """Write an out-of-fold translation; return its errors on the files' grid."""
        plans, folder = self.plans, self.job.paths.validation("translation")
        phase, case = plans.phases.index(item.source.phase), item.source.case
        settings = {
            **out_of_fold_settings(self.job, method),
            "phases": plans.phases,
            **solver_settings(method),
            "digests": out_of_fold_digests(self.job, item.source.images),
        }
        files = tuple(files_of_translation(item, folder, description))
        if made := finished_before(item, folder, files, settings):
            return Error(target.subject, target.phase, made["body_mae"], made["input_body_mae"])
        member = LoadedMember(Member(self.job.model, (self.job.fold,)), plans, [method])
        windows = WindowSettings(self.device, plans.inference.tile_step_size, method.mirrors)

        def translate_volume(volume: Volume) -> np.ndarray:
            return translate_scan(member, volume, phase, windows, case)

        content = write_translation(item, translate_volume, plans, folder, description)
        translation, scan, reference = (
            read_scan(images).array for images in (files, item.source.images, target.images)
        )
        body = body_of_scan(reference, self.description.is_ct_of(target.phase))
        mae, was = self._errors(translation, scan, reference, body, target.phase)
        write_sidecar(item, folder, {**settings, **content, "body_mae": mae, "input_body_mae": was})
        return Error(target.subject, target.phase, mae, was)


def read_slices(series: PreparedSeries, scan: int, slices: Sequence[int]) -> np.ndarray:
    """Read slices of a prepared scan.

    :param series: with the scan.
    :param scan: its position.
    :param slices: positions along the first axis.
    :returns: (channels, slices, y, x), in the normal form.
    """
    if len(slices) == series.images.shape[2]:
        return np.asarray(series.images[scan])
    return np.stack([series.images[scan, :, one] for one in slices], axis=1)


def summarised(errors: Sequence[Error], phases: Sequence[str]) -> dict[str, float]:
    """Average errors over a subject's translations, then subjects, then directions; undefined ones are excluded.

    :param errors: of all translations.
    :param phases: of the plans.
    :returns: ``ratio``, of the error to that of the untranslated scan; of each direction ``ratio_to_{phase}``,
        ``mae_to_{phase}`` and ``input_mae_to_{phase}``.
    """
    means: dict[str, float] = {}
    for phase in phases:
        defined = [error for error in errors if error.phase == phase and error.mae is not None]
        for name, values in (
            ("ratio", [(error.subject, error.ratio) for error in defined if error.ratio is not None]),
            ("mae", [(error.subject, error.mae) for error in defined]),
            ("input_mae", [(error.subject, error.untranslated) for error in defined]),
        ):
            if values:
                means[f"{name}_to_{phase}"] = mean_over_subjects(values)
    ratios = [value for name, value in means.items() if name.startswith("ratio_to_")]
    return {"ratio": float(np.mean(ratios)), **means} if ratios else means


def mean_over_subjects(values: Sequence[tuple[str, float]]) -> float:
    """Average the means of the subjects.

    :param values: (subject, value).
    :returns: the mean.

    >>> mean_over_subjects([("a", 1.0), ("a", 3.0), ("b", 6.0)])
    4.0
    """
    of_subject: dict[str, list[float]] = {}
    for subject, value in values:
        of_subject.setdefault(subject, []).append(value)
    return float(np.mean([np.mean(one) for one in of_subject.values()]))
