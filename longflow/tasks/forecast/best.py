"""Which model to use: chosen on the cross-validation among all trained models and ensembles of two.

Every candidate is also shrunk towards the last context image (LCI): LCI + s (prediction - LCI) with s in [0, 1]. Its
squared error is quadratic in s, so three sums over the voxels of a target hold all that is needed:

    |r - s d|^2 = s^2 d.d - 2 s d.r + r.r        d = prediction - LCI,  r = target - LCI

and those of an ensemble, d = (d_i + d_j) / 2, follow from the products d_i.d_j. So each volume is read once, whatever
the number of candidates. The mean over subjects of NRMSE, a sum of square roots of such quadratics, is then evaluated
on a grid of s. LCI itself (s = 0) is a candidate, so the choice is never worse than LCI on the cross-validation.

A candidate and an s that were chosen on the same targets they are judged on look slightly better than they are. So the
whole choice is repeated without each fold in turn and judged on that fold: the ``nested`` figures. What they do not
undo: each fold's checkpoint was the best of its training on that fold's own targets.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, read_description
from longflow.data.images import read_scan
from longflow.errors import DataError, NotFoundError, first_few
from longflow.evaluation.summary import CONTEXT_MEAN, LCI
from longflow.files import read_json, write_csv, write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.tasks.forecast.metrics import value_range
from longflow.tasks.forecast.pairs import (
    Files,
    Forecast,
    Pair,
    find_pairs,
    forecasts_of_folder,
    last_and_mean,
    peak_bytes,
    read_like,
)

logger = logging.getLogger(__name__)

#: the shrinkages that are tried
SHRINKAGES = np.round(np.linspace(0, 1, 101), 2)

_VOXELS_AT_A_TIME = 250_000


@dataclass(frozen=True)
class Source:
    """One reduction of one trained model: what its folds predicted for their validation targets."""

    model: ModelPaths
    reduction: str

    @property
    def name(self) -> str:
        return f"{self.model.folder.name} ({self.reduction})"

    def member(self, folds: Sequence[int]) -> dict[str, Any]:
        """As it stands in best.json."""
        return {
            "method": self.model.method,
            "plans_name": self.model.plans_name,
            "configuration": self.model.configuration,
            "folds": list(folds),
        }


@dataclass(frozen=True)
class Candidate:
    """A mean of sources, by their positions; the context mean has the position after the last source, LCI none."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A validation target with the prediction of every source."""

    fold: int
    pair: Pair
    predictions: tuple[Files, ...]


@dataclass(frozen=True)
class Sums:
    """Sums over the voxels of one target, for each channel, with d_i = prediction i - LCI and r = target - LCI.

    :param dd: d_i.d_j, (channels, predictions, predictions); :param dr: d_i.r, (channels, predictions).
    :param rr: r.r, (channels,); :param ranges: ranges of the target, (channels,); :param voxels: of one channel.
    """

    dd: np.ndarray
    dr: np.ndarray
    rr: np.ndarray
    ranges: np.ndarray
    voxels: int

    def nrmse(self, members: Sequence[int], shrinkages: np.ndarray = SHRINKAGES) -> np.ndarray | None:
        """NRMSE of LCI + s (mean of the members - LCI) for each s; None for a constant target."""
        weights = np.zeros(self.dr.shape[1])
        weights[list(members)] = 1 / max(1, len(members))
        s = shrinkages[:, None]
        squared = s**2 * (self.dd @ weights @ weights) - 2 * s * (self.dr @ weights) + self.rr
        defined = self.ranges > 0
        if not defined.any():
            return None
        rmse = np.sqrt(np.maximum(squared[:, defined], 0) / self.voxels)
        return (rmse / self.ranges[defined]).mean(axis=1)


def find_best(paths: DatasetPaths, processes: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Choose model or ensemble, reduction and shrinkage; write ``best.json`` and ``best.csv``.

    :returns: the content of best.json: candidate, members (method, plans_name, configuration, folds), reduction,
        shrinkage, nrmse, lci_nrmse, context_mean_nrmse, nested, table (a row for each candidate, best first).
    :raises NotFoundError: nothing is trained yet.
    :raises DataError: validation predictions are missing or differ between models in targets or context.
    """
    models, folds = comparable_models(paths, paths.models())
    description = read_description(paths.raw / "dataset.json")
    sources, targets = collect_targets(models, folds, paths, description)
    candidates = all_candidates(sources)
    sums = sum_targets(targets, processes, progress)
    curves, kept = nrmse_curves(candidates, sums, [target.pair.forecast.subject for target in targets])
    targets = [targets[index] for index in kept]
    subjects = [target.pair.forecast.subject for target in targets]
    of_fold = np.array([target.fold for target in targets])

    means = curves.transpose(0, 2, 1) @ subject_weights(subjects)
    chosen, position = first_minimum(means)
    table = _table(candidates, means)
    best = {
        "dataset": paths.name,
        "candidate": candidates[chosen].name,
        **_record(candidates[chosen], sources, paths, folds),
        "shrinkage": float(SHRINKAGES[position]),
        "nrmse": float(means[chosen, position]),
        "lci_nrmse": float(means[0, 0]),
        "context_mean_nrmse": float(means[1, -1]),
        "nested": nested_estimate(curves, candidates, subjects, of_fold),
        "folds": folds,
        "subjects": len(set(subjects)),
        "targets": len(targets),
        "undefined_targets": len(sums) - len(targets),
        "table": table,
    }
    write_csv(list(table[0]), table, paths.best_table)
    write_json(best, paths.best)
    return best


def comparable_models(paths: DatasetPaths, models: Sequence[ModelPaths]) -> tuple[list[ModelPaths], list[int]]:
    """Those of some models with the most finished folds, and those folds; others are left out with a warning.

    Models can only be compared on the same targets, hence on the same folds.
    """
    if not models:
        raise NotFoundError(
            f"No model of {paths.name} is trained to its end: nothing found in {paths.results.resolve()}. "
            f"First run, for example: longflow_train {paths.id} 3d_fullres 0"
        )
    folds = max((model.finished_folds() for model in models), key=len)
    for model in models:
        if (found := model.finished_folds()) != folds:
            logger.warning(
                "%s is left out: its finished folds are %s, those that are compared are %s.",
                *(model.folder.name, ", ".join(map(str, found)), ", ".join(map(str, folds))),
            )
    return [model for model in models if model.finished_folds() == folds], folds


def collect_targets(
    models: Sequence[ModelPaths], folds: Sequence[int], paths: DatasetPaths, description: DatasetDescription
) -> tuple[list[Source], list[Target]]:
    """Every reduction that the models' folds wrote, and the validation targets with all predictions.

    :raises DataError: a fold has no validation predictions, or models differ in targets or context scans.
    """
    sources = [Source(model, reduction) for model in models for reduction in _reductions(model, folds)]
    targets = []
    for fold in folds:
        of_source = [
            {
                one.case: one
                for one in forecasts_of_folder(source.model.fold(fold).validation(source.reduction), description)
            }
            for source in sources
        ]
        for source, forecasts in zip(sources[1:], of_source[1:], strict=True):
            _check_same_targets(of_source[0], forecasts, sources[0], source, fold)
        pairs, without_truth = find_pairs(list(of_source[0].values()), [paths.raw / "imagesTr"], description)
        if without_truth:
            raise DataError(f"{paths.raw / 'imagesTr'} lacks the validation targets {', '.join(without_truth)}.")
        targets += [
            Target(fold, pair, tuple(forecasts[pair.forecast.case].images for forecasts in of_source)) for pair in pairs
        ]
    return sources, targets


def _reductions(model: ModelPaths, folds: Sequence[int]) -> list[str]:
    """The reductions that every fold of a model wrote validation predictions for."""
    written = []
    for fold in folds:
        folder = model.fold(fold).validations
        names = {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
        if not names:
            raise DataError(
                f"{folder} has no validation predictions. longflow_train writes them when a fold ends: run it again "
                f"for {model.method}, {model.configuration}, fold {fold}."
            )
        written.append(names)
    return sorted(set.intersection(*written))


def _check_same_targets(
    expected: dict[str, Forecast], found: dict[str, Forecast], first: Source, other: Source, fold: int
) -> None:
    different = sorted(expected.keys() ^ found.keys()) or [
        case for case in expected if set(expected[case].context) != set(found[case].context)
    ]
    if different:
        raise DataError(
            f"In fold {fold}, {first.name} and {other.name} were not validated on the same targets and context scans "
            f"({first_few(different)}), so they cannot be compared. Were splits, times or targets changed "
            "between the two trainings? Then train the older one again. Do their plans differ in sequence_length? Then "
            "take the folder of one of them out of the results."
        )


def all_candidates(sources: Sequence[Source]) -> list[Candidate]:
    """LCI, the context mean, every source, and every mean of two models; simpler ones first, as they win ties.

    Both models of an ensemble are reduced alike.
    """
    baselines = [Candidate(LCI, ()), Candidate(CONTEXT_MEAN, (len(sources),))]
    singles = [Candidate(source.name, (index,)) for index, source in enumerate(sources)]
    ensembles = [
        Candidate(f"{one.name} + {two.name}", (i, j))
        for (i, one), (j, two) in combinations(enumerate(sources), 2)
        if one.model != two.model and one.reduction == two.reduction
    ]
    return [*baselines, *singles, *ensembles]


def sum_targets(
    targets: Sequence[Target], processes: int | None = None, progress: Progress | None = None
) -> list[Sums]:
    """The sums of every target, in parallel."""
    volumes_at_peak = len(targets[0].predictions) + 6  # measured: 5 beside the predictions
    fitting = processes_that_fit(processes, [peak_bytes(target.pair.target, volumes_at_peak) for target in targets])
    tasks = {f"{target.pair.forecast.case} (fold {target.fold})": target for target in targets}
    sums = dict(for_each_subject(sum_target, tasks, fitting, progress))
    return [sums[name] for name in tasks]


def sum_target(task: Target) -> Sums:
    """The sums of one target; its volumes are read once. The context mean is the last prediction."""
    target = read_scan(task.pair.target)
    lci, mean = last_and_mean(task.pair, target)
    predictions = [read_like(files, target, task.pair.target[0]) for files in task.predictions]
    channels = [
        _channel_sums([one.array[c] for one in [*predictions, mean]], target.array[c], lci.array[c])
        for c in range(len(target.array))
    ]
    dd, dr, rr = (np.stack(parts) for parts in zip(*channels, strict=True))
    return Sums(dd, dr, rr, np.array([value_range(channel) for channel in target.array]), target.array[0].size)


def _channel_sums(predictions: list[np.ndarray], target: np.ndarray, lci: np.ndarray) -> tuple[np.ndarray, ...]:
    """d_i.d_j, d_i.r and r.r of one channel, in float64, a portion of the voxels at a time."""
    count = len(predictions)
    products = np.zeros((count + 1, count + 1))
    flat = [volume.reshape(-1) for volume in (*predictions, target)]
    for start in range(0, target.size, _VOXELS_AT_A_TIME):
        portion = slice(start, start + _VOXELS_AT_A_TIME)
        differences = np.stack([volume[portion] for volume in flat]).astype(np.float64) - lci.reshape(-1)[portion]
        products += differences @ differences.T
    return products[:count, :count], products[:count, count], products[count, count]


def nrmse_curves(
    candidates: Sequence[Candidate], sums: Sequence[Sums], names: Sequence[str]
) -> tuple[np.ndarray, list[int]]:
    """NRMSE by (candidate, target, shrinkage), and the positions of the targets for which it is defined.

    :raises DataError: it is defined for none.
    """
    kept = [index for index, one in enumerate(sums) if (one.ranges > 0).any()]
    if not kept:
        raise DataError(f"All validation targets are constant images (subjects {first_few(sorted(set(names)))}).")
    return np.array([[sums[index].nrmse(candidate.members) for index in kept] for candidate in candidates]), kept


def subject_weights(subjects: Sequence[str]) -> np.ndarray:
    """Weights of targets whose weighted sum is the mean over subjects of the mean over each subject's targets."""
    number_of_targets = {subject: list(subjects).count(subject) for subject in set(subjects)}
    return np.array([1 / (len(number_of_targets) * number_of_targets[subject]) for subject in subjects])


def first_minimum(means: np.ndarray) -> tuple[int, int]:
    """(candidate, shrinkage) positions of the lowest mean; among equals the simplest candidate, the most shrunk."""
    candidate, shrinkage = np.unravel_index(np.argmin(means), means.shape)
    return int(candidate), int(shrinkage)


def nested_estimate(
    curves: np.ndarray, candidates: Sequence[Candidate], subjects: Sequence[str], of_fold: np.ndarray
) -> dict[str, Any] | None:
    """NRMSE when candidate and shrinkage are chosen without the fold they are judged on; None with a single fold."""
    folds = sorted(set(of_fold.tolist()))
    if len(folds) < 2:
        return None
    subjects = np.array(subjects)
    judged = np.empty(len(subjects))
    choices = []
    for fold in folds:
        others, own = of_fold != fold, of_fold == fold
        means = curves[:, others].transpose(0, 2, 1) @ subject_weights(subjects[others].tolist())
        chosen, position = first_minimum(means)
        judged[own] = curves[chosen, own, position]
        choices.append({"fold": fold, "candidate": candidates[chosen].name, "shrinkage": float(SHRINKAGES[position])})
    weights = subject_weights(subjects.tolist())
    return {
        "nrmse": float(judged @ weights),
        "lci_nrmse": float(curves[0, :, 0] @ weights),
        "choices": choices,
    }


def _record(
    candidate: Candidate, sources: Sequence[Source], paths: DatasetPaths, folds: Sequence[int]
) -> dict[str, Any]:
    """What to predict with, for best.json.

    LCI is the first model with shrinkage 0. The context mean has no folds; beside the trained models it gets a folder
    of its own with the plans and dataset.json of the first one, so that it is predicted with like any other.
    """
    if candidate.name == CONTEXT_MEAN:
        model = sources[0].model
        baseline = paths.model(CONTEXT_MEAN, model.plans_name, model.configuration)
        for source, copy in ((model.plans, baseline.plans), (model.dataset_json, baseline.dataset_json)):
            write_json(read_json(source), copy)
        return {"members": [Source(baseline, "forecast").member([])], "reduction": "forecast"}
    members = [sources[index] for index in candidate.members] or [sources[0]]
    return {"members": [source.member(folds) for source in members], "reduction": members[0].reduction}


def _table(candidates: Sequence[Candidate], means: np.ndarray) -> list[dict[str, Any]]:
    """A row for each candidate, best first."""
    rows = [
        {
            "candidate": candidate.name,
            "shrinkage": float(SHRINKAGES[curve.argmin()]),
            "nrmse": float(curve.min()),
            "relative_to_lci": float(curve.min() / means[0, 0]) if means[0, 0] > 0 else None,
            "nrmse_unshrunk": float(curve[-1]),
        }
        for candidate, curve in zip(candidates, means, strict=True)
    ]
    return sorted(rows, key=lambda row: row["nrmse"])
