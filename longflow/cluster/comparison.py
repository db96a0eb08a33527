"""A comparison as a study: one step for each training, and a last one that is ``longflow_compare`` itself.

Trainings take days, and each is a job of its own. Forecasts, metrics and tables take minutes, and are made by the very
command that the user typed: it finds all trainings done. So a comparison on a cluster has the results of one on this
machine, and either continues the other.

Nothing here imports torch, for ``longflow_status``.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from longflow.cluster.steps import Step, newest
from longflow.cluster.study import Study
from longflow.commands import Command
from longflow.paths import ComparisonPaths, DatasetPaths
from longflow.plans import validated
from longflow.reading import read_json

if TYPE_CHECKING:
    from longflow.compare.comparison import Comparison
    from longflow.compare.request import ComparisonRequest


class ComparedTraining(BaseModel):
    """A training of a comparison; variants that only predict differently share it.

    :param training: name of method and options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: str
    method: str
    fold: int
    seed: int
    arguments: tuple[str, ...] = Field(description="of longflow_train")


class ComparisonStudy(BaseModel):
    """A comparison that was submitted: what ``longflow_status`` needs to list its steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="full name, as Dataset101_Cine")
    name: str = Field(description="of the comparison's folder")
    plans: str
    plan_identity: str
    configuration: str
    budget: str = Field(description="name of the budget, which is part of the folder of the trainings")
    length: tuple[str, str] = Field(description="flag of the budget and its value")
    max_time: float | None = Field(description="seconds of every training")
    trainings: tuple[ComparedTraining, ...] = Field(description="apart from reused models")
    variants: tuple[str, ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    targets: tuple[Path, ...] = Field(description="tables of the requested scans")
    arguments: tuple[str, ...] = Field(description="of longflow_compare")

    @property
    def paths(self) -> ComparisonPaths:
        return DatasetPaths(self.dataset).comparison(self.name)


def study_record(comparison: "Comparison", request: "ComparisonRequest") -> ComparisonStudy:
    """Record the trainings of a comparison, and the command that compares.

    :param request: from which the comparison was made.
    """
    trainings = {}
    for run in comparison.runs:
        if run.variant.trains and comparison.model(run) == comparison.own_model(run):
            trainings[run.variant.training, run.fold, run.seed] = ComparedTraining(
                training=run.variant.training,
                method=run.variant.method,
                fold=run.fold,
                seed=run.seed,
                arguments=comparison.training_of(run).arguments,
            )
    return ComparisonStudy(
        dataset=comparison.dataset.name,
        name=comparison.paths.folder.name,
        plans=comparison.plans.plans_name,
        plan_identity=comparison.plans.identity(comparison.configuration),
        configuration=comparison.configuration,
        budget=comparison.budget.name,
        length=comparison.budget.arguments,
        max_time=comparison.budget.max_time,
        trainings=tuple(trainings.values()),
        variants=tuple(variant.name for variant in comparison.variants),
        folds=comparison.folds,
        seeds=comparison.seeds,
        targets=tuple(dict.fromkeys(one.folder.resolve() / "scans.csv" for one in comparison.targets.values())),
        arguments=request.arguments,
    )


def read_study_record(paths: ComparisonPaths) -> ComparisonStudy:
    """Read the record of a comparison that was submitted."""
    return validated(ComparisonStudy, read_json(paths.study.request), paths.study.request)


def study_of_comparison(record: ComparisonStudy, measured: bool = True) -> Study:
    """Make the study of a comparison.

    :param measured: whether every run has its metrics, as far as the caller knows; else the last step is not done.
    """
    dataset = DatasetPaths(record.dataset)
    train = [_train(record, training, dataset) for training in record.trainings]
    weights = [step.fold.final for step in train if step.fold]
    compare = Step(
        name="compare",
        kind="compare",
        commands=(Command("compare", record.arguments),),
        depends_on=tuple(step.name for step in train),
        done=partial(_is_compared, record, weights) if measured else lambda: False,
    )
    return Study(
        dataset=dataset,
        files=record.paths.study,
        steps=(*train, compare),
        plans_file=dataset.plans(record.plans),
        flags=record.length,
        max_time=record.max_time,
    )


def _train(record: ComparisonStudy, training: ComparedTraining, dataset: DatasetPaths) -> Step:
    results = dataset.trained_to_compare(record.budget, training.training, training.seed)
    fold = dataset.model(training.method, record.plans, record.configuration, results).fold(training.fold)
    return Step(
        name=f"train {training.training} fold {training.fold} seed {training.seed}",
        kind="train",
        commands=(Command("train", training.arguments),),
        depends_on=(),
        done=fold.final.is_file,
        fold=fold,
        model=(training.method, record.configuration),
        results=results,
    )


def _is_compared(record: ComparisonStudy, weights: Sequence[Path]) -> bool:
    """Return whether the table is that of the record, complete, and not older than weights and targets."""
    table = record.paths.table_json
    if not table.is_file():
        return False
    found = read_json(table, dict)
    same = (
        found.get("plan_identity") == record.plan_identity
        and found.get("folds") == list(record.folds)
        and found.get("seeds") == list(record.seeds)
        and {line["variant"] for line in found.get("table", [])} == set(record.variants)
    )
    return same and not found.get("failures") and newest([*weights, *record.targets]) <= table.stat().st_mtime
