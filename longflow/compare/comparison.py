"""A comparison: its variants, budget, folds and seeds, and its folders.

Every variant is trained for every fold and seed with one budget. These models have a folder of results that all
comparisons of the dataset share. A model of ``longflow_train`` or ``longflow_run`` with exactly the same training is
reused. All variants then predict the same targets from the same context scans.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longflow.commands import Command
from longflow.compare.targets import Targets
from longflow.compare.variants import Variant
from longflow.files import exclusive_lock, link_or_copy, write_json
from longflow.methods.registry import method_class
from longflow.paths import ComparisonPaths, DatasetPaths, FoldPaths, ModelPaths
from longflow.plans import Plans, TrainingPlan, read_plans
from longflow.reading import read_json


@dataclass(frozen=True)
class Budget:
    """The length of every training; one of the three is set.

    :param max_time: seconds of training and validating.
    :param iterations: steps.
    :param epochs: of the planned number of iterations.
    """

    max_time: float | None = None
    iterations: int | None = None
    epochs: int | None = None

    @property
    def arguments(self) -> tuple[str, str]:
        """Return the flag and its value for ``longflow_train``.

        >>> Budget(max_time=90).arguments
        ('--max_time', '90s')
        """
        name, value = next((name, value) for name, value in asdict(self).items() if value is not None)
        return f"--{name}", f"{value:g}s" if name == "max_time" else str(value)

    @property
    def name(self) -> str:
        """Return the part of a folder's name.

        >>> Budget(max_time=90).name, Budget(iterations=500).name
        ('90s', '500_iterations')
        """
        flag, value = self.arguments
        return value if self.max_time else f"{value}_{flag.removeprefix('--')}"

    @property
    def text(self) -> str:
        """Return the budget for messages."""
        return f"{self.name.replace('_', ' ')}" + (" of training and validating" if self.max_time else "")

    def is_that_of(self, settings: dict[str, Any], training: TrainingPlan) -> bool:
        """Return whether a training had this budget.

        :param settings: of its run.json.
        :param training: of its plans.
        """
        theirs = Budget(settings.get("max_time"), settings.get("iterations"), settings.get("epochs"))
        if self.max_time or theirs.max_time:
            return self.max_time == theirs.max_time
        return self._steps(training) == theirs._steps(training)

    def _steps(self, training: TrainingPlan) -> int:
        return self.iterations or (self.epochs or training.epochs) * training.iterations_per_epoch


@dataclass(frozen=True)
class Run:
    """A variant with one fold and one seed."""

    variant: Variant
    fold: int
    seed: int

    @property
    def label(self) -> str:
        return f"{self.variant.name}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Comparison:
    """A comparison, checked; made by :func:`longflow.compare.request.resolve`.

    :param targets: of each fold.
    :param device: kind and number, as ``longflow_train --device`` takes it.
    :param workers: of ``longflow_train -np``.
    """

    dataset: DatasetPaths
    paths: ComparisonPaths
    plans: Plans
    configuration: str
    variants: tuple[Variant, ...]
    budget: Budget
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    targets: dict[int, Targets]
    device: str
    workers: int | None = None

    @property
    def runs(self) -> list[Run]:
        """List all runs, seed by seed and fold by fold, so that every variant has early results.

        A variant without training has one run for each set of targets.
        """
        found: dict[tuple, Run] = {}
        for seed in self.seeds:
            for fold in self.folds:
                for variant in self.variants:
                    key = (fold, seed) if variant.trains else (self.targets[fold].folder,)
                    found.setdefault((variant.name, *key), Run(variant, fold, seed))
        return list(found.values())

    def model(self, run: Run) -> ModelPaths:
        """Return the model of a run: one of ``longflow_run`` with the same training, else the comparisons' own."""
        standard = (self._model_below(results, run) for results in (None, self.dataset.of_seed(run.seed)))
        return next((model for model in standard if self.is_trained(model, run)), self.own_model(run))

    def own_model(self, run: Run) -> ModelPaths:
        """Return the model that the comparisons train for a run."""
        return self._model_below(self.own_results(run), run)

    def own_results(self, run: Run) -> Path:
        """Return the folder of results in which the comparisons train this run."""
        return self.dataset.trained_to_compare(self.budget.name, run.variant.training, run.seed)

    def _model_below(self, results: Path | None, run: Run) -> ModelPaths:
        return self.dataset.model(run.variant.method, self.plans.plans_name, self.configuration, results)

    def is_trained(self, model: ModelPaths, run: Run) -> bool:
        """Return whether the fold is finished with the same plan, options, budget, seed and kind of device."""
        fold = model.fold(run.fold)
        if not (fold.final.is_file() and fold.run.is_file() and model.plans.is_file()):
            return False
        theirs, record = read_plans(model.plans), read_json(fold.run, dict)
        settings, defaults = record.get("settings", {}), method_class(run.variant.method).options
        identity = self.plans.identity(self.configuration)
        return (
            self._has_plan(theirs)
            and record.get("plan_identity", identity) == identity  # the plans of the folder are those of its last fold
            and {**defaults, **record.get("options", {})} == {**defaults, **run.variant.options}
            and self.budget.is_that_of(settings, theirs.training)
            and settings.get("seed") == run.seed
            and _kind(settings.get("device", "")) == _kind(self.device)
            and not any(settings.get(name) for name in ("learning_rate", "pretrained", "labelled_subjects"))
        )

    def _has_plan(self, theirs: Plans) -> bool:
        """Return whether other plans give the same networks and the same training."""
        same = theirs.configurations.get(self.configuration) is not None
        return same and (theirs.identity(self.configuration), theirs.training) == (
            self.plans.identity(self.configuration),
            self.plans.training,
        )

    def training(self, run: Run) -> Command | None:
        """Return the training that a run lacks; None where it needs none."""
        if not self.lacks_training(run):
            return None
        return self.training_of(run, *(["--overwrite"] if self.is_outdated(run) else []))

    def lacks_training(self, run: Run) -> bool:
        """Return whether the model of a run has to be trained."""
        return run.variant.trains and not self.is_trained(self.model(run), run)

    def is_outdated(self, run: Run) -> bool:
        """Return whether the comparisons' own folder has a training that none can use: by older plans, for example.

        :param run: that lacks its training.
        """
        model, fold = self.own_model(run), self.own_model(run).fold(run.fold)
        identity = self.plans.identity(self.configuration)
        begun = read_json(fold.run, dict).get("plan_identity", identity) if fold.run.is_file() else identity
        of_another_plan = model.plans.is_file() and not self._has_plan(read_plans(model.plans))
        return of_another_plan or begun != identity or fold.final.is_file()

    def delete_outdated(self) -> list[str]:
        """Delete the trainings of the comparisons' own folders that none can use; this one makes them again.

        :returns: the runs.
        :raises InUseError: another process trains one of them.
        """
        deleted = []
        for run in self.runs:
            model, fold = self.own_model(run), self.own_model(run).fold(run.fold)
            if self.lacks_training(run) and self.is_outdated(run) and fold.folder.is_dir():
                with exclusive_lock(fold.lock, f"Fold {run.fold} of {model.folder.name} is being trained"):
                    shutil.rmtree(fold.folder)
                deleted.append(run.label)
        return deleted

    def training_of(self, run: Run, *further: str) -> Command:
        """Return the training of a run, whether or not it is done. :param further: flags."""
        settings = [f"--set={name}={value}" for name, value in run.variant.options.items()]
        workers = () if self.workers is None else ("-np", str(self.workers))
        return Command(
            "train",
            (
                *(self.dataset.name, self.configuration, str(run.fold), "-m", run.variant.method),
                *("-p", self.plans.plans_name, *self.budget.arguments, "--seed", str(run.seed)),
                *("--device", self.device, *workers, *settings, *further),
            ),
        )

    def prediction(self, run: Run) -> Command:
        """Return the command for the forecasts of a run, by the only model of its folder (:meth:`write_model`)."""
        hidden = () if run.variant.hidden is None else ("--hide_context", run.variant.hidden)
        return Command(
            "predict",
            (
                *("-d", self.dataset.name, "-i", str(self.targets[run.fold].folder)),
                *("-o", str(self.predictions(run)), "--device", self.device, *hidden),
            ),
        )

    def made_from(self, run: Run) -> dict[str, Any]:
        """Return everything that the forecasts of a run depend on, except the times of files."""
        return {
            "plans": self.plans.plans_name,
            "plan_identity": self.plans.identity(self.configuration),
            "configuration": self.configuration,
            "budget": self.budget.name,
            "device": self.device,
            "targets": str(self.targets[run.fold].folder.resolve()),
            **run.variant.settings,
        }

    def predictions(self, run: Run) -> Path:
        """Return the folder of the forecasts of a run."""
        return self.paths.predictions(run.variant.folder, run.fold, run.seed)

    def write_model(self, run: Run) -> Path:
        """Write a folder of results with one model and, like longflow_find_best, how it predicts.

        :returns: the folder. Its weights are links to the trained ones.
        """
        results = self.paths.model(run.variant.folder, run.fold, run.seed)
        copy = self._model_below(results, run)
        if run.variant.trains:
            model = self.model(run)
            link_or_copy(model.fold(run.fold).final, copy.fold(run.fold).final)
            plans, description = model.plans, model.dataset_json
        else:
            plans, description = self.dataset.plans(self.plans.plans_name), self.dataset.raw / "dataset.json"
        for source, target in ((plans, copy.plans), (description, copy.dataset_json)):
            write_json(read_json(source), target)
        record = {
            "members": [
                {
                    "method": copy.method,
                    "plans_name": copy.plans_name,
                    "configuration": copy.configuration,
                    "folds": [run.fold] if run.variant.trains else [],
                    **({} if run.variant.trains else {"options": run.variant.options}),
                }
            ],
            "reduction": run.variant.reduction,
            "shrinkage": 1.0,
            "solver": run.variant.solver,
            "steps": run.variant.steps,
        }
        write_json(record, results / self.dataset.name / "best.json")
        return results

    def cost(self, run: Run) -> dict[str, Any]:
        """Return the cost of the training; empty where it was not recorded or nothing is trained."""
        return read_json(self.fold(run).run, dict).get("cost", {}) if run.variant.trains else {}

    def fold(self, run: Run) -> FoldPaths:
        """Return the folder of the training of a run."""
        return self.model(run).fold(run.fold)


def _kind(device: str) -> str:
    return device.split(":")[0]


def reused(comparison: Comparison, runs: Sequence[Run]) -> list[Run]:
    """List the runs whose model is one of the standard results, or of a further seed of ``longflow_run``."""
    return [run for run in runs if run.variant.trains and comparison.model(run) != comparison.own_model(run)]
