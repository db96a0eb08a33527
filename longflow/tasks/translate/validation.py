"""Validation of translations: both ways between the phases of the validation pairs, beside the untranslated scans."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from longflow.data.dataset import DatasetDescription, Scan, read_description, training_series
from longflow.data.images import Volume, read_scan
from longflow.errors import DataError, first_few
from longflow.inference.models import LoadedMember, solver_settings
from longflow.inference.predictor import write_sidecar, write_table
from longflow.inference.selection import Member
from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.paths import DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import Plans
from longflow.preprocessing.normal_form import from_normal
from longflow.preprocessing.series import PreparedSeries, load_prepared
from longflow.tasks.translate.evaluation import body_of
from longflow.tasks.translate.metrics import body_mae
from longflow.tasks.translate.predictor import files_of_translation, translate_scan, write_translation
from longflow.tasks.translate.requests import TranslationRequest
from longflow.tasks.translate.samples import pairs_of_cohort
from longflow.tasks.translate.windows import predict_translation
from longflow.training.splits import Cohort
from longflow.training.validation import Score, settings_of_fold

logger = logging.getLogger(__name__)

#: pairs that are scored during training, by tiles that do not overlap; a 2D network translates so many slices of each
#: scan. At the end all are translated as users would
MOST_PAIRS, TILE_STEP, SLICES = 8, 1.0, 12


@dataclass(frozen=True)
class Error:
    """Mean absolute errors of a translation inside the body, in the files' units; None where no body is found.

    :param phase: the wanted one. :param mae: of the translation. :param untranslated: of the scan as it was.
    """

    subject: str
    phase: str
    mae: float | None
    untranslated: float | None


class PhaseValidation:
    """Mean absolute error inside the body, as a share of that of the untranslated scans.

    :raises DataError: no validation subject has a pair.
    """

    def __init__(
        self,
        method: type[Method],
        dataset: DatasetPaths,
        plans: Plans,
        configuration: str,
        fold: int,
        cohort: Cohort,
        device: torch.device,
    ):
        self.dataset, self.plans, self.configuration, self.device = dataset, plans, configuration, device
        self.fold, self.folder = fold, cohort.folder
        self.ct = read_description(dataset.raw / "dataset.json").is_ct
        found = pairs_of_cohort(cohort, plans, f"that validate fold {fold}")
        self.all_pairs = [(subject, pair) for subject, pairs in found.items() for pair in pairs]
        chosen = np.linspace(0, len(self.all_pairs) - 1, min(MOST_PAIRS, len(self.all_pairs))).round().astype(int)
        self.pairs = [self.all_pairs[index] for index in chosen]
        #: looked for once
        self.body = lru_cache(maxsize=None)(self._find_body)

    def score(self, method: Method) -> Score:
        """:func:`summarised` errors on the prepared grid of the same scans every time; quickly, without overlap."""
        errors = []
        for subject, (first, second) in self.pairs:
            series = load_prepared(self.folder, subject)
            errors += [self._error(method, series, first, second, 0), self._error(method, series, second, first, 1)]
        columns = summarised(errors, self.plans.phases)
        if "ratio" not in columns:
            subjects = dict.fromkeys(subject for subject, _ in self.pairs)
            raise DataError(
                f"There is nothing to score: the scans that validate fold {self.fold} ({first_few(subjects)}) show no "
                f"body, "
                "or those of each pair are the same. Look at the images (longflow_verify), or give other subjects in "
                "splits_final.json."
            )
        return Score(columns["ratio"], columns, f"MAE {columns['ratio']:.2f} of the input's")

    def finish(self, method: Method, paths: FoldPaths) -> None:
        """Write the translations of all validation pairs both ways, as ``longflow_predict`` would, and log the MAE."""
        description, all_series = training_series(self.dataset.raw)
        scans = {scan.case: scan for series in all_series for scan in series.scans}
        folder = paths.validation("translation")
        errors, written = [], []
        for subject, pair in self.all_pairs:
            cases = load_prepared(self.folder, subject).properties.cases
            for source, truth in (pair, pair[::-1]):
                item = TranslationRequest.of(scans[cases[source]], scans[cases[truth]].phase)
                errors.append(self._write(method, item, scans[cases[truth]], paths, description))
                written.append(item)
                number = f"{len(written)} of {2 * len(self.all_pairs)}"
                logger.debug("Out-of-fold translation %s: %s", number, item.target.case)
        write_table(written, folder, description)
        found = summarised(errors, self.plans.phases)
        listed = ", ".join(
            f"{found[f'mae_to_{phase}']:.4g} to {phase} (untranslated {found[f'input_mae_to_{phase}']:.4g})"
            for phase in self.plans.phases
            if f"mae_to_{phase}" in found
        )
        logger.info("MAE inside the body of %d out-of-fold translations: %s; %s", len(written), listed, folder)

    def _error(self, method: Method, series: PreparedSeries, source: int, truth: int, source_phase: int) -> Error:
        """Of one translation on the prepared grid."""
        properties, slices = series.properties, self._slices(series)
        image = read_slices(series, source, slices)
        found = predict_translation([method], image, source_phase, WindowSettings(self.device, TILE_STEP))
        found, scan, wanted = (
            from_normal(volume, properties.offset[index], properties.scale[index])
            for volume, index in ((found, source), (image, source), (read_slices(series, truth, slices), truth))
        )
        body = self.body(properties.subject, truth)
        mae, untranslated = (body_mae(volume, wanted, body, self.ct) for volume in (found, scan))
        return Error(properties.subject, properties.phases[truth], mae, untranslated)

    def _slices(self, series: PreparedSeries) -> list[int]:
        """Those that are scored: all for a 3D network, for a 2D one the middles of ``SLICES`` equal parts."""
        count = series.images.shape[2]
        if len(self.plans.configuration(self.configuration).patch_size) == 3:
            return list(range(count))
        return sorted({int((part + 0.5) * count / SLICES) for part in range(SLICES)})

    def _find_body(self, subject: str, scan: int) -> np.ndarray:
        """In the slices of a prepared scan that are scored; it is found in all slices."""
        series = load_prepared(self.folder, subject)
        properties = series.properties
        whole = from_normal(np.asarray(series.images[scan]), properties.offset[scan], properties.scale[scan])
        return body_of(whole, self.ct)[self._slices(series)]

    def _write(
        self, method: Method, item: TranslationRequest, truth: Scan, paths: FoldPaths, description: DatasetDescription
    ) -> Error:
        """Write an out-of-fold translation; its error on the files' grid."""
        plans, configuration, folder = self.plans, self.configuration, paths.validation("translation")
        phase, case = plans.phases.index(item.source.phase), item.source.case
        member = LoadedMember(Member(ModelPaths(paths.folder.parent), (self.fold,)), plans, [method])
        windows = WindowSettings(self.device, plans.inference.tile_step_size, method.mirrors)

        def translate_volume(volume: Volume) -> np.ndarray:
            return translate_scan(member, volume, phase, windows, case)

        content = write_translation(item, translate_volume, plans, folder, description)
        files = tuple(files_of_translation(item, folder, description))
        found, scan, wanted = (read_scan(images).array for images in (files, item.source.images, truth.images))
        body = body_of(wanted, self.ct)
        mae, untranslated = (body_mae(volume, wanted, body, self.ct) for volume in (found, scan))
        settings = settings_of_fold(method, paths, self.dataset, plans, configuration, self.fold)
        of_method = {"phases": plans.phases, **solver_settings(method)}
        errors = {"body_mae": mae, "input_body_mae": untranslated}
        write_sidecar(item, folder, settings | of_method | content | errors)
        return Error(truth.subject, truth.phase, mae, untranslated)


def read_slices(series: PreparedSeries, scan: int, slices: Sequence[int]) -> np.ndarray:
    """(channels, slices, y, x) of a prepared scan, in the normal form."""
    if len(slices) == series.images.shape[2]:
        return np.asarray(series.images[scan])
    return np.stack([series.images[scan, :, one] for one in slices], axis=1)


def summarised(errors: Sequence[Error], phases: Sequence[str]) -> dict[str, float]:
    """Means over a subject's translations, then subjects, then directions; what is not defined is left out.

    :returns: ``ratio``, of the error to that of the untranslated scan; of each direction ``ratio_to_{phase}``,
        ``mae_to_{phase}`` and ``input_mae_to_{phase}``.
    """
    found: dict[str, float] = {}
    for phase in phases:
        defined = [error for error in errors if error.phase == phase and error.mae is not None]
        changing = [error for error in defined if error.untranslated > 0]
        for name, values in (
            ("ratio", [(error.subject, error.mae / error.untranslated) for error in changing]),
            ("mae", [(error.subject, error.mae) for error in defined]),
            ("input_mae", [(error.subject, error.untranslated) for error in defined]),
        ):
            if values:
                found[f"{name}_to_{phase}"] = mean_over_subjects(values)
    ratios = [value for name, value in found.items() if name.startswith("ratio_to_")]
    return {"ratio": float(np.mean(ratios)), **found} if ratios else found


def mean_over_subjects(values: Sequence[tuple[str, float]]) -> float:
    """The mean of each subject's mean. :param values: with their subjects.

    >>> mean_over_subjects([("a", 1.0), ("a", 3.0), ("b", 6.0)])
    4.0
    """
    of_subject: dict[str, list[float]] = {}
    for subject, value in values:
        of_subject.setdefault(subject, []).append(value)
    return float(np.mean([np.mean(one) for one in of_subject.values()]))
