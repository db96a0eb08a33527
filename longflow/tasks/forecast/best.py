"""Choose the model to forecast with, on the cross-validation: among all trained models and ensembles of two.

Every candidate is also shrunk towards the last context image (LCI): LCI + s (prediction - LCI) with s in [0, 1]. Its
squared error is quadratic in s, so three sums over the voxels of a target hold all that is needed:

    |r - s d|^2 = s^2 d.d - 2 s d.r + r.r        d = prediction - LCI,  r = target - LCI

and those of an ensemble, d = (d_i + d_j) / 2, follow from the products d_i.d_j. So each volume is read once, whatever
the number of candidates. The mean over subjects of NRMSE, a sum of square roots of such quadratics, is then evaluated
on a grid of s. LCI itself (s = 0) and every other rung of the ladder (``ladder.py``; ``motion`` with every step) are
candidates, so none of them has a lower error than the choice on the cross-validation.

A candidate and an s that were chosen on the same targets they are judged on look slightly better than they are. So the
whole choice is repeated without each fold in turn and judged on that fold: the ``nested`` figures. What they do not
undo: each fold's checkpoint was the best of its training on that fold's own targets.

Errors are those in the units in which a forecast is judged (:mod:`longflow.tasks.forecast.units`), as in validation.

All these forecasts are of single folds, but predictions average them all. So at last s is corrected for that
(:mod:`longflow.tasks.forecast.shrinkage`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from longflow.data.dataset import DatasetDescription, read_description
from longflow.errors import DataError, first_few
from longflow.evaluation.advantage import advantage
from longflow.evaluation.best import check_references, check_same_cases, comparable_models, member, record_best
from longflow.evaluation.ensembles import first_minimum, means_of_two, nested_choice, subject_weights
from longflow.evaluation.references import Files, peak_bytes, read_like
from longflow.files import write_json
from longflow.parallel import Progress, for_each_subject, processes_that_fit
from longflow.paths import DatasetPaths, ModelPaths
from longflow.reading import read_json
from longflow.tasks.forecast.folds import report_folds
from longflow.tasks.forecast.ladder import CONTEXT_MEAN, LCI, MOTION, read_given, rung_names, rungs
from longflow.tasks.forecast.metrics import value_range
from longflow.tasks.forecast.pairs import OWN_GRID, ForecastPrediction, find_pairs, forecasts_of_folder
from longflow.tasks.forecast.units import read_reference, with_units

#: the reduction of the baselines, which have only one
BASELINE_REDUCTION = "forecast"

#: the steps of ``motion`` that are tried, by candidate
MOTION_STEPS = {f"{MOTION},step={step:g}": step for step in (0.25, 0.5, 0.75, 1.0)}

#: the shrinkages that are tried
SHRINKAGES = np.round(np.linspace(0, 1, 101), 2)

_VOXELS_AT_A_TIME = 250_000

#: a validation target: the prediction of the first source with its reference, and the files of every source
Target = tuple[ForecastPrediction, tuple[Files, ...]]


@dataclass(frozen=True)
class Source:
    """One reduction of one trained model: what its folds predicted for their validation targets."""

    model: ModelPaths
    reduction: str

    @property
    def name(self) -> str:
        return f"{self.model.folder.name} ({self.reduction})"


@dataclass(frozen=True)
class Candidate:
    """A mean of sources.

    :param members: positions of sources; the rungs of the ladder come after the last source, LCI has none.
    :param rung: that is among the members; empty where there is none.
    """

    name: str
    members: tuple[int, ...]
    rung: str = ""


@dataclass(frozen=True)
class Sums:
    """Sums over the voxels of one target, for each channel, with d_i = prediction i - LCI and r = target - LCI.

    :param dd: (channels, predictions, predictions), d_i.d_j.
    :param dr: (channels, predictions), d_i.r.
    :param rr: (channels,), r.r.
    :param ranges: (channels,), ranges of the target.
    :param voxels: number in one channel.
    :param folded: largest share of voxels at which ``motion`` folds with one of its steps.
    """

    dd: np.ndarray
    dr: np.ndarray
    rr: np.ndarray
    ranges: np.ndarray
    voxels: int
    folded: float = 0.0

    def nrmse(
        self, members: Sequence[int], shrinkages: np.ndarray = SHRINKAGES, of_average: float = 1.0
    ) -> np.ndarray | None:
        """Compute the NRMSE of LCI + s (mean of the members - LCI).

        :param members: positions of predictions; none: LCI itself.
        :param shrinkages: (shrinkages,), the values of s.
        :param of_average: share of d.d that is left where forecasts of several folds are averaged.
        :returns: (shrinkages,), mean over channels; None for a constant target.
        """
        weights = np.zeros(self.dr.shape[1])
        weights[list(members)] = 1 / max(1, len(members))
        s = shrinkages[:, None]
        squared = s**2 * of_average * (self.dd @ weights @ weights) - 2 * s * (self.dr @ weights) + self.rr
        defined = self.ranges > 0
        if not defined.any():
            return None
        rmse = np.sqrt(np.maximum(squared[:, defined], 0) / self.voxels)
        return (rmse / self.ranges[defined]).mean(axis=1)


def find_best(
    dataset: DatasetPaths, processes: int | None = None, progress: Progress | None = None, ensembles: bool = True
) -> dict[str, Any]:
    """Choose model or ensemble, reduction and shrinkage; write best.json and best.csv.

    :param ensembles: whether means of two models are candidates, too; those of a model and a rung always are.
    :returns: content of best.json: candidate, members (method, plans_name, configuration, folds), reduction,
        shrinkage, average_of_folds, nrmse (of single folds), lci_nrmse, context_mean_nrmse, best_rung, best_rung_nrmse,
        motion_step, nested, advantage (over the best rung, :func:`longflow.evaluation.advantage.advantage`), table (a
        row for each candidate, best first).
    :raises NotFoundError: nothing is trained yet.
    :raises DataError: validation predictions are missing or differ between models in targets or context.
    """
    models, folds = comparable_models(dataset, dataset.models())
    description = read_description(dataset.raw / "dataset.json")
    sources, targets = collect_targets(models, folds, dataset, description)
    ladder = rung_names([pair for pair, _ in targets], MOTION_STEPS)
    candidates = all_candidates(sources, ladder, ensembles)
    sums = sum_targets(targets, ladder, processes, progress)
    report_folds([(pair.subject, one.folded) for (pair, _), one in zip(targets, sums, strict=True)])
    curves, kept = nrmse_curves(candidates, sums, [pair.subject for pair, _ in targets])
    subjects = [targets[index][0].subject for index in kept]
    of_fold = np.array([targets[index][0].fold for index in kept])

    means = curves.transpose(0, 2, 1) @ subject_weights(subjects)
    position, shrinkage = first_minimum(means)
    # whatever is shrunk to nothing is LCI
    chosen = candidates[position] if SHRINKAGES[shrinkage] > 0 else candidates[0]
    unshrunk = {rung: float(means[place, -1]) for place, rung in enumerate(ladder)}
    best_rung = min(ladder, key=lambda rung: unshrunk[rung])
    best = {
        "dataset": dataset.name,
        "candidate": chosen.name,
        **_record(chosen, sources, dataset, folds),
        "shrinkage": float(SHRINKAGES[shrinkage]),
        "average_of_folds": None,
        "nrmse": float(means[position, shrinkage]),
        "lci_nrmse": float(means[0, 0]),
        "context_mean_nrmse": unshrunk[CONTEXT_MEAN],
        "best_rung": best_rung,
        "best_rung_nrmse": unshrunk[best_rung],
        "motion_step": MOTION_STEPS[min(MOTION_STEPS, key=lambda rung: unshrunk[rung])],
        "nested": nested_estimate(curves, candidates, subjects, of_fold),
        "advantage": advantage_over_ladder(curves, subjects, ladder, best_rung),
        "folds": folds,
        "subjects": len(set(subjects)),
        "targets": len(kept),
        "undefined_targets": len(sums) - len(kept),
        "table": _table(candidates, means),
    }
    best = record_best(dataset, best)
    if len(folds) > 1 and chosen.name != chosen.rung:
        kept_targets = [(sums[index], targets[index][0]) for index in kept]
        best = record_best(dataset, correct_shrinkage(dataset, best, chosen, kept_targets, progress))
    return best


def correct_shrinkage(
    dataset: DatasetPaths,
    best: dict[str, Any],
    chosen: Candidate,
    targets: Sequence[tuple[Sums, ForecastPrediction]],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the shrinkage to the average of all folds, which predictions are, in place of single folds.

    :param best: content of best.json, as recorded.
    :param chosen: the candidate that it names.
    :param targets: sums of the validation targets, and the targets.
    :returns: the content with another ``shrinkage`` and ``average_of_folds``: shrinkage_of_a_fold, own_share,
        measured_on, forecasts, and nrmse, an estimate; None where the share of a fold cannot be measured.
    """
    # these import torch, which the workers do not need
    from longflow.inference.selection import recorded_best
    from longflow.tasks.forecast.shrinkage import measure_fold_share

    share = measure_fold_share(recorded_best(dataset), [pair for _, pair in targets], progress)
    if share is None:
        return best
    left = share.of_average(len(best["folds"]))
    curves = np.array([sums.nrmse(chosen.members, of_average=left) for sums, _ in targets])
    means = subject_weights([pair.subject for _, pair in targets]) @ curves
    found = {
        "shrinkage_of_a_fold": best["shrinkage"],
        "own_share": share.share,
        "measured_on": share.measured_on,
        "forecasts": share.forecasts,
        "nrmse": float(means.min()),
    }
    return {**best, "shrinkage": float(SHRINKAGES[means.argmin()]), "average_of_folds": found}


def collect_targets(
    models: Sequence[ModelPaths], folds: Sequence[int], dataset: DatasetPaths, description: DatasetDescription
) -> tuple[list[Source], list[Target]]:
    """Collect every reduction that the models' folds wrote, and the validation targets with all predictions.

    :raises DataError: a fold has no validation predictions, or models differ in targets or context scans.
    """
    sources = [Source(model, reduction) for model in models for reduction in written_reductions(model, folds)]
    forecasts = {source.name: forecasts_of_source(source, folds, description) for source in sources}
    check_same_cases(
        {
            name: {one.label: frozenset(one.context) for one in of_source.values()}
            for name, of_source in forecasts.items()
        }
    )
    first = forecasts[sources[0].name]
    pairs, without = find_pairs(list(first.values()), [dataset.raw / "imagesTr"], description)
    check_references(without, dataset.raw / "imagesTr")
    pairs = with_units(pairs, models, dataset)
    files = [tuple(of_source[pair.label].images for of_source in forecasts.values()) for pair in pairs]
    return sources, list(zip(pairs, files, strict=True))


def forecasts_of_source(
    source: Source, folds: Sequence[int], description: DatasetDescription
) -> dict[str, ForecastPrediction]:
    """List the out-of-fold forecasts of a source by their labels, fold by fold.

    :param source: a reduction of a model.
    :param folds: of the model.
    :param description: of the dataset.
    :returns: by case and fold.
    """
    forecasts = [
        replace(one, fold=fold)
        for fold in folds
        for one in forecasts_of_folder(source.model.fold(fold).validation(source.reduction), description)
    ]
    return {one.label: one for one in forecasts}


def written_reductions(model: ModelPaths, folds: Sequence[int]) -> list[str]:
    """List the reductions under which every fold of a model wrote validation predictions.

    :raises DataError: a fold has none.
    """
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


def all_candidates(sources: Sequence[Source], ladder: Sequence[str], ensembles: bool = True) -> list[Candidate]:
    """List the rungs, every source, every mean of two models, and of a model and a rung; simpler ones first.

    Simpler ones win ties. Both models of an ensemble are reduced alike. The mean with a rung shrinks a forecast towards
    the rung, as s does towards LCI.

    :param ladder: the rungs, LCI first.
    :param ensembles: whether to list means of two models.
    """
    others = [Candidate(rung, (position,), rung) for position, rung in enumerate(ladder[1:], start=len(sources))]
    baselines = [Candidate(LCI, (), LCI), *others]
    singles = [Candidate(source.name, (index,)) for index, source in enumerate(sources)]
    means = means_of_two(
        [source.name for source in sources],
        lambda i, j: sources[i].model != sources[j].model and sources[i].reduction == sources[j].reduction,
    )
    of_two = [Candidate(name, members) for name, members in means.items()] if ensembles else []
    with_rungs = [
        Candidate(f"{single.name} + {rung.name}", (*single.members, *rung.members), rung.name)
        for single in singles
        for rung in others
    ]
    return [*baselines, *singles, *of_two, *with_rungs]


def sum_targets(
    targets: Sequence[Target],
    ladder: Sequence[str],
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[Sums]:
    """Sum the voxels of every target, in parallel."""
    volumes_at_peak = len(targets[0][1]) + len(ladder) + 48  # the vectors of a motion are the most of it
    fitting = processes_that_fit(processes, [peak_bytes(pair.reference, volumes_at_peak) for pair, _ in targets])
    tasks = {target[0].label: target for target in targets}
    sums = dict(for_each_subject(partial(sum_target, ladder=tuple(ladder)), tasks, fitting, progress))
    return [sums[name] for name in tasks]


def sum_target(target: Target, ladder: Sequence[str]) -> Sums:
    """Sum the voxels of one target; its volumes are read once. The rungs but LCI are the last predictions."""
    pair, files_of_sources = target
    reference, folded = read_reference(pair), 0.0
    of_rungs: dict[str, np.ndarray] = {}
    for rung in rungs(read_given(pair, reference), MOTION_STEPS):
        of_rungs[rung.name], folded = rung.forecast, max(folded, rung.folded)
    lci = of_rungs[LCI]
    predictions = [read_like(files, reference, pair.reference[0], OWN_GRID).array for files in files_of_sources]
    predictions += [of_rungs[rung] for rung in ladder[1:]]
    channels = [
        _channel_sums([one[c] for one in predictions], reference.array[c], lci[c]) for c in range(len(reference.array))
    ]
    dd, dr, rr = (np.stack(parts) for parts in zip(*channels, strict=True))
    ranges = np.array([value_range(channel) for channel in reference.array])
    return Sums(dd, dr, rr, ranges, reference.array[0].size, folded)


def _channel_sums(predictions: list[np.ndarray], target: np.ndarray, lci: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute d_i.d_j, d_i.r and r.r of one channel, in float64, a portion of the voxels at a time."""
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
    """Compute the NRMSE of every candidate, target and shrinkage.

    :param names: of the subjects, for the message.
    :returns: (candidates, targets, shrinkages), and the positions of the targets for which it is defined.
    :raises DataError: it is defined for none.
    """
    kept = [index for index, one in enumerate(sums) if (one.ranges > 0).any()]
    if not kept:
        raise DataError(f"All validation targets are constant images (subjects {first_few(sorted(set(names)))}).")
    return np.array([[sums[index].nrmse(candidate.members) for index in kept] for candidate in candidates]), kept


def nested_estimate(
    curves: np.ndarray, candidates: Sequence[Candidate], subjects: Sequence[str], of_fold: np.ndarray
) -> dict[str, Any] | None:
    """Estimate the NRMSE when candidate and shrinkage are chosen without the subjects they are judged on.

    :param curves: (candidates, targets, shrinkages), NRMSE.
    :param subjects: of each target.
    :param of_fold: (targets,), the fold of each target.
    :returns: nrmse, lci_nrmse, optimism (nrmse minus the lowest one where choice and judgement share all targets) and
        the choices; None where a fold has all subjects, as with a single fold.
    """
    found = nested_choice(curves, subjects, of_fold)
    if found is None:
        return None
    return {
        "nrmse": found.error,
        "lci_nrmse": float(curves[0, :, 0] @ subject_weights(subjects)),
        "optimism": found.optimism,
        "choices": [
            {"fold": fold, "candidate": candidates[chosen].name, "shrinkage": float(SHRINKAGES[shrinkage])}
            for fold, chosen, shrinkage in found.choices
        ],
    }


def advantage_over_ladder(
    curves: np.ndarray, subjects: Sequence[str], ladder: Sequence[str], best_rung: str
) -> dict[str, Any]:
    """Estimate with which probability the choice (candidate and shrinkage) is better than the best rung.

    :param curves: (candidates, targets, shrinkages), NRMSE; the rungs come first, in the order of the ladder.
    :param subjects: of each target.
    :param best_rung: name of the rung that is the best as it is.
    """
    names, of_target = np.unique(subjects, return_inverse=True)
    shares = np.eye(len(names))[of_target]  # (targets, subjects)
    of_subjects = curves.transpose(0, 2, 1) @ (shares / shares.sum(axis=0))
    variants = of_subjects.reshape(-1, len(names))
    as_they_are = [(place + 1) * len(SHRINKAGES) - 1 for place in range(len(ladder))]
    return advantage(variants, as_they_are, best_rung)


def _record(
    candidate: Candidate, sources: Sequence[Source], dataset: DatasetPaths, folds: Sequence[int]
) -> dict[str, Any]:
    """What to predict with, for best.json."""
    trained = [sources[index] for index in candidate.members if index < len(sources)]
    members = [member(source.model, folds) for source in trained]
    if candidate.rung:
        members.append(_rung_as_member(candidate.rung, sources[0].model, dataset))
    return {"members": members, "reduction": trained[0].reduction if trained else BASELINE_REDUCTION}


def _rung_as_member(rung: str, model: ModelPaths, dataset: DatasetPaths) -> dict[str, Any]:
    """Make a rung of the ladder a member of best.json, so that it is predicted with like any other.

    It has no folds. It gets a folder next to the trained models, with the plans and dataset.json of one of them.
    """
    step = MOTION_STEPS.get(rung)
    baseline = dataset.model(MOTION if step else rung, model.plans_name, model.configuration)
    for source, copy in ((model.plans, baseline.plans), (model.dataset_json, baseline.dataset_json)):
        write_json(read_json(source), copy)
    return member(baseline, [], {"step": step} if step else None)


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
