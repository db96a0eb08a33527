"""The request of a study: what is trained, on which folds, and how it is planned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from longflow.data.dataset import DatasetDescription, Series, rows_of_folder, series_of_folder, training_series
from longflow.errors import ConfigurationError, NotFoundError
from longflow.fingerprint.phases import paired_series
from longflow.paths import PLANS_NAME, DatasetPaths, name_of_plans
from longflow.plans import read_plans, validated
from longflow.reading import read_json
from longflow.task import Task, get_task

#: subjects that a job prepares, and most jobs that prepare
SUBJECTS_OF_A_PART, MOST_PARTS = 16, 64
#: folds of a dataset with enough subjects
FOLDS = 5


class StudyRequest(BaseModel):
    """A study.

    Flags are those of the commands, as typed.

    The first seed makes the study's models: they are in the usual results, and the best of them predicts. Each further
    seed has a folder of results of its own (:meth:`longflow.paths.DatasetPaths.of_seed`), because a folder of results
    has one training of a fold, whatever its seed is. ``longflow_compare --seeds`` reuses these trainings, and every
    command works in such a folder: set ``longflow_results`` to it. An ensemble over seeds is not made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="full name, as Dataset101_Cine")
    methods: tuple[str, ...]
    configurations: tuple[str, ...]
    folds: tuple[int, ...]
    plans: str = Field(default=PLANS_NAME, description="name, or file of a reference plan")
    planning: tuple[str, ...] = Field(default=(), description="further flags of longflow_plan")
    training: tuple[str, ...] = Field(default=(), description="flags of every longflow_train")
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    max_time: float | None = Field(default=None, description="seconds of every training")
    pretrained: str | None = Field(default=None, description="method whose folds the others begin with")
    device: str | None = None
    processes: int | None = Field(default=None, description="of commands that work subject by subject")
    measures: int = Field(
        default=0, ge=0, description="processes of a training, where trainings are measured only; 0: all is done"
    )
    predicts: bool = Field(default=True, description="whether a method predicts, and is not pretraining alone")

    @property
    def paths(self) -> DatasetPaths:
        return DatasetPaths(self.dataset)

    @property
    def plans_name(self) -> str:
        return name_of_plans(self.plans)

    def results_of(self, seed: int) -> Path | None:
        """Return the folder of results of a seed; None: the usual one."""
        return None if seed == self.seeds[0] else self.paths.of_seed(seed)


@dataclass(frozen=True)
class StudyData:
    """What the tables of a raw dataset say of a study; no image is opened.

    :param subjects: training subjects that are prepared, with the cases of each, in order.
    :param test: series of ``imagesTs`` with images; empty where there is no such folder.
    :param requested: number of predictions that ``imagesTs`` requests.
    :param has_references: whether these predictions can be evaluated.
    :param prediction_flags: of ``longflow_predict``, for the task.
    """

    description: DatasetDescription
    subjects: dict[str, list[str]]
    test: Sequence[Series] = ()
    requested: int = 0
    has_references: bool = False
    prediction_flags: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        return get_task(self.description.task)

    @property
    def parts(self) -> int:
        """Number of parts in which the subjects are prepared on a cluster."""
        return max(1, min(MOST_PARTS, math.ceil(len(self.subjects) / SUBJECTS_OF_A_PART)))


def read_study_data(dataset: DatasetPaths) -> StudyData:
    """Read the tables of a raw dataset.

    :raises LongflowError: a table is missing or invalid; ``longflow_verify`` shows all problems.
    """
    description, series = training_series(dataset.raw)
    task = get_task(description.task)
    series = [found for one in series if (found := one.with_images()).scans]
    if task.uses_phases:
        _, series = paired_series(description, series)
    subjects = {one.subject: [scan.case for scan in one.scans] for one in series}
    images = dataset.raw / "imagesTs"
    if not images.is_dir():
        return StudyData(description, subjects)
    every = series_of_folder(images, description)
    test = [found for one in every if (found := one.with_images()).scans]
    flags = task.prediction_flags(description, test)
    if task.predicts_new_scans:
        cases = {scan.case for one in test for scan in one.scans}
        requested = sum(row.case not in cases for row in rows_of_folder(images))
        references = (dataset.raw / "targetsTs").is_dir()
    else:
        requested = sum(scan.phase not in flags for one in test for scan in one.scans)
        references = bool(flags) if task.uses_phases else (dataset.raw / "labelsTs").is_dir()
    return StudyData(description, subjects, test, requested, references, flags)


def default_folds(dataset: DatasetPaths, data: StudyData) -> tuple[int, ...]:
    """List all folds of a dataset: those of its splits, or those that they will have.

    :raises ConfigurationError: the splits are no list.
    """
    if dataset.splits.is_file():
        return tuple(range(len(read_json(dataset.splits, list))))
    enough = [subject for subject, cases in data.subjects.items() if len(cases) >= data.task.least_scans]
    labelled = _labelled(dataset, data, enough) if data.task.uses_labels else []
    subjects = labelled if len(labelled) > 1 else enough
    return tuple(range(min(FOLDS, len(subjects))))


def _labelled(dataset: DatasetPaths, data: StudyData, subjects: Sequence[str]) -> list[str]:
    """List the subjects that have a label file."""
    _, series = training_series(dataset.raw)
    with_labels = {one.subject for one in series for scan in one.scans if scan.label and scan.label.is_file()}
    return [subject for subject in subjects if subject in with_labels]


def resolve_request(request: StudyRequest, data: StudyData, networks: Sequence[str] = ()) -> StudyRequest:
    """Check methods and configurations, and fill in the defaults of the task.

    :param request: without methods, configurations or folds where they were not given.
    :param networks: with each of which every method is trained; empty: the one that its name has, or its default.
    :returns: the request; a method with another network than its default is named METHOD-NETWORK, as its folder.
    :raises LongflowError: a method, network or configuration does not exist, serves another task or has nothing to
        train.
    """
    from longflow.methods.registry import method_class, named_with_network

    task, paths = data.task, request.paths
    every = product(request.methods or (task.default_method,), networks or (None,))
    methods = tuple(dict.fromkeys(named_with_network(method, network) for method, network in every))
    pretrained = named_with_network(request.pretrained, None) if request.pretrained else None
    chain = [pretrained] if pretrained else []
    kinds = {name: method_class(name) for name in (*methods, *chain)}
    for name, kind in kinds.items():
        if kind.task != task.name:
            raise ConfigurationError(
                f"The method '{name}' is for the task '{kind.task}', but {request.dataset} has the task '{task.name}'."
            )
        if not kind.trains:
            raise ConfigurationError(
                f"The method '{name}' has nothing to train. Remove it from -m; longflow_evaluate compares it with the "
                "others anyway."
            )
    if pretrained in methods and len(methods) > 1:
        methods = tuple(name for name in methods if name != pretrained)  # a step of its own anyway
    folds = request.folds or default_folds(paths, data)
    if not folds:
        raise NotFoundError(
            f"{request.dataset} has no subject with {task.words.needs}. Run: longflow_verify -d {paths.id}"
        )
    configurations = request.configurations or (_default_configuration(paths, request.plans_name, task),)
    plans = paths.plans(request.plans_name)
    if plans.is_file():
        for configuration in configurations:
            read_plans(plans).configuration(configuration)
    return request.model_copy(
        update={
            "methods": methods,
            "pretrained": pretrained,
            "configurations": configurations,
            "folds": folds,
            "predicts": any(kinds[name].predicts for name in methods),
        }
    )


def _default_configuration(paths: DatasetPaths, plans_name: str, task: Task) -> str:
    """Return the usual configuration of the task, or the first one of the plans where they lack it."""
    usual = task.usual_configuration
    if not paths.plans(plans_name).is_file():
        return usual
    planned = read_plans(paths.plans(plans_name)).configurations
    return usual if usual in planned else next(iter(planned))


def read_request(dataset: DatasetPaths) -> StudyRequest:
    """Read the request of the last ``longflow_run`` of a dataset.

    :raises NotFoundError: there was none.
    """
    path = dataset.study.request
    if not path.is_file():
        raise NotFoundError(f"No study of {dataset.name} was started. Start one: longflow_run -d {dataset.id}")
    return validated(StudyRequest, read_json(path), path)
