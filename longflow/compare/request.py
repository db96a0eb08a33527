"""The request of a comparison, and its check: everything is found out before anything is trained."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from longflow.compare.comparison import Budget, Comparison
from longflow.compare.targets import Targets, targets_of_fold, targets_of_folder
from longflow.compare.variants import (
    EVALUATIONS,
    StudySettings,
    Variant,
    study_named,
    variants_of_methods,
    variants_of_study,
)
from longflow.data.dataset import is_name, read_description
from longflow.errors import ConfigurationError, NotFoundError
from longflow.evaluation.references import dataset_folders
from longflow.files import exclusive_lock
from longflow.methods.registry import method_class_for
from longflow.paths import PLANS_NAME, ComparisonPaths, DatasetPaths, lock_in, resolve_dataset_name
from longflow.plans import Plans, read_plans
from longflow.task import all_tasks, get_task


@dataclass(frozen=True)
class ComparisonRequest:
    """A comparison as a user requests it, with the names and defaults of the flags of ``longflow_compare``.

    :param dataset: 101 or Dataset101_Name.
    :param methods: to compare; for a study, those that it is done with.
    :param study: name in :data:`longflow.compare.variants.STUDIES`.
    :param budget: of every training; None: the epochs of the plans.
    :param configuration: None: the usual one of the task, or the only one that is planned.
    :param input: folder that requests targets, in place of the stored validation targets.
    :param references: folders with the acquired scans of ``input``, searched first.
    :param evaluations: numbers of function evaluations, for the study "nfe".
    :param name: of the folder of the comparison; None: made from the other settings.
    :param device: kind and number, as ``longflow_train --device`` takes it.
    :param workers: as ``longflow_train -np`` takes it.
    """

    dataset: str
    methods: tuple[str, ...] = ()
    study: str | None = None
    budget: Budget | None = None
    folds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    configuration: str | None = None
    plans: str = PLANS_NAME
    input: Path | None = None
    references: tuple[Path, ...] = ()
    evaluations: tuple[int, ...] = ()
    name: str | None = None
    device: str = "cpu"
    workers: int | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the flags of ``longflow_compare`` that request the same, wherever they are typed."""
        words: dict[str, Sequence[object]] = {
            "-d": [self.dataset],
            "-m": self.methods,
            "--study": [self.study] if self.study else [],
            "--evaluations": self.evaluations,
            "-f": self.folds,
            "--seeds": self.seeds,
            "-c": [self.configuration] if self.configuration else [],
            "-p": [self.plans],
            "-i": [self.input.resolve()] if self.input else [],
            "-r": [folder.resolve() for folder in self.references],
            "--name": [self.name] if self.name else [],
            "--device": [self.device],
            "-np": [] if self.workers is None else [self.workers],
        }
        typed = [word for flag, values in words.items() if values for word in (flag, *map(str, values))]
        return (*typed, *(self.budget.arguments if self.budget else ()))


def resolve(request: ComparisonRequest) -> Comparison:
    """Check a request, write the folders of its targets, and list its variants.

    :raises LongflowError: a requested thing does not exist, or cannot be done.
    """
    paths = paths_of(request)
    dataset = DatasetPaths(resolve_dataset_name(request.dataset))
    plans = read_plans(dataset.plans(request.plans))
    configuration = _configuration(request.configuration, plans)
    folds = tuple(dict.fromkeys(request.folds))
    if request.input:
        targets = dict.fromkeys(folds, _targets_of_user(request.input, request.references, dataset))
    else:
        hides = request.study is not None and study_named(request.study).hides
        with lock_of_comparison(paths):
            targets = {
                fold: targets_of_fold(dataset, plans, configuration, fold, paths.targets(fold), equal_context=hides)
                for fold in folds
            }
    return Comparison(
        dataset=dataset,
        paths=paths,
        plans=plans,
        configuration=configuration,
        variants=tuple(_variants(request, min(one.context_scans for one in targets.values()))),
        budget=_budget(request, plans),
        folds=folds,
        seeds=tuple(dict.fromkeys(request.seeds)),
        targets=targets,
        device=request.device,
        workers=request.workers,
    )


def paths_of(request: ComparisonRequest) -> ComparisonPaths:
    """Return the folder of a comparison, after a check of its flags and methods; nothing is written.

    :raises LongflowError: a requested thing does not exist, or cannot be done.
    """
    _check_flags(request)
    dataset = DatasetPaths(resolve_dataset_name(request.dataset))
    plans = read_plans(dataset.plans(request.plans))
    _check_methods(request, plans)
    configuration, usual = _configuration(request.configuration, plans), get_task(plans.task).usual_configuration
    name = request.name or _usual_name(request, _budget(request, plans), configuration, usual)
    if not is_name(name):
        raise ConfigurationError(f"--name {name}: '{name}' cannot be the name of a folder.")
    return dataset.comparison(name)


def _budget(request: ComparisonRequest, plans: Plans) -> Budget:
    return request.budget or Budget(epochs=plans.training.epochs)


def lock_of_comparison(paths: ComparisonPaths) -> AbstractContextManager[None]:
    """Return the lock that is held while a comparison is performed.

    :param paths: of the comparison.
    :raises InUseError: on entering it, where another process holds it.
    """
    return exclusive_lock(lock_in(paths.folder), f"The comparison {paths.folder.name} is being performed")


def _check_flags(request: ComparisonRequest) -> None:
    """Check the flags that make no sense together.

    :raises LongflowError: two flags contradict each other, or a folder does not exist.
    """
    if not request.methods and not request.study:
        raise ConfigurationError("Nothing to compare: name methods with -m, or a study with --study.")
    if request.evaluations and request.study != "nfe":
        raise ConfigurationError("--evaluations is for --study nfe.")
    if request.references and not request.input:
        raise ConfigurationError("-r names the folder with the references of -i. Give -i, or omit -r.")
    if missing := [str(folder) for folder in request.references if not folder.is_dir()]:
        raise NotFoundError(f"The folder of -r does not exist: {', '.join(missing)}.")


def _check_methods(request: ComparisonRequest, plans: Plans) -> None:
    """Check that the plans are for a task whose methods are compared, and that the methods do it.

    :raises ConfigurationError: they are for another task.
    """
    if not get_task(plans.task).compares_methods:
        able = ", ".join(f"'{task.name}'" for task in all_tasks() if task.compares_methods)
        raise ConfigurationError(
            f"{plans.dataset_name} is planned for the task '{plans.task}'. Only methods of these "
            f"tasks are compared: {able}."
        )
    for method in request.methods:
        method_class_for(method, plans)


def _configuration(requested: str | None, plans: Plans) -> str:
    """Return the requested configuration, or the usual one."""
    known, usual = list(plans.configurations), get_task(plans.task).usual_configuration
    chosen = requested or (usual if usual in known or len(known) > 1 else known[0])
    plans.configuration(chosen)
    return chosen


def _usual_name(request: ComparisonRequest, budget: Budget, configuration: str, usual: str) -> str:
    """Name the folder of a comparison; settings that cannot share a table give different names."""
    parts = [request.study or "methods", budget.name]
    parts += [request.plans] if request.plans != PLANS_NAME else []
    parts += [configuration] if configuration != usual else []
    parts += [request.input.resolve().name] if request.input else []
    return "_".join(parts)


def _targets_of_user(folder: Path, references: Sequence[Path], dataset: DatasetPaths) -> Targets:
    """Return the targets that the folder of ``-i`` requests."""
    description = read_description(dataset.raw / "dataset.json")
    searched = [*references, *dataset_folders(dataset.raw)]
    return targets_of_folder(folder, searched, description)


def _variants(request: ComparisonRequest, context_scans: int) -> list[Variant]:
    """List the variants of the methods or of the study.

    :param context_scans: that every target has.
    :raises ConfigurationError: the study hides context scans, and a target has only one.
    """
    if not request.study:
        return variants_of_methods(request.methods)
    if study_named(request.study).hides and context_scans < 2:
        raise ConfigurationError(
            "A target has one context scan: there is none to hide. Remove such targets from the folder of -i."
        )
    settings = StudySettings(context_scans, request.evaluations or EVALUATIONS)
    return variants_of_study(request.study, request.methods, settings)
