"""The steps of a study, as data: commands, dependencies, and whether their results exist.

What is done is read from the results on disk, so that steps that a user typed by hand count, too. Nothing here imports
torch: ``longflow_status`` lists a thousand steps in a second.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal, get_args

from longflow.cluster.request import StudyData, StudyRequest
from longflow.commands import Command
from longflow.data.dataset import rows_of_folder
from longflow.errors import ConfigurationError
from longflow.paths import METRICS_JSON, RESERVED_NAMES, DatasetPaths, FoldPaths, folders_with_results, results_root
from longflow.plans import Plans, read_plans
from longflow.reading import read_json
from longflow.training.measured import read_measured

#: kinds of steps, in order; the settings of a cluster name them
StepKind = Literal["prepare", "preprocess", "measure", "train", "find_best", "predict", "evaluate", "report", "compare"]
KINDS: tuple[StepKind, ...] = get_args(StepKind)


@dataclass(frozen=True)
class Step:
    """A step of a study.

    :param name: unique in the study, as "train cronos 3d_fullres fold 0".
    :param kind: decides its resources on a cluster.
    :param commands: run one after the other.
    :param depends_on: names of the steps that must be done before.
    :param done: reads from the disk whether the results exist.
    :param serves: whether the step only serves others: it is not run where all of these are done.
    :param fold: that it trains; None for other steps.
    :param model: method and configuration of a training.
    :param results: folder of results of its commands; None: the usual one.
    """

    name: str
    kind: StepKind
    commands: tuple[Command, ...]
    depends_on: tuple[str, ...]
    done: Callable[[], bool]
    serves: bool = False
    fold: FoldPaths | None = None
    model: tuple[str, str] | None = None
    results: Path | None = None


def study_steps(request: StudyRequest, data: StudyData, parts: int = 1) -> list[Step]:
    """List the steps of a study; a step stands after those that it depends on.

    :param request: resolved.
    :param data: tables of the dataset.
    :param parts: steps in which the subjects are prepared.
    """
    prepare = _prepare(request)
    preprocess = [_preprocess(request, data, part, parts) for part in range(1, parts + 1)]
    names = tuple(step.name for step in preprocess)
    if request.measures:
        return [prepare, *preprocess, *_measurements(request, names)]
    pretrain = []
    if request.pretrained:
        pretrain = _trainings(request, (request.pretrained,), names, request.pretrained not in request.methods)
    train = _trainings(request, [one for one in request.methods if one != request.pretrained], names)
    steps = [prepare, *preprocess, *pretrain, *train]
    if request.predicts:
        steps.append(_find_best(request, [step for step in train if step.results is None]))
        if data.requested:
            steps.append(_predict(request, data))
            if data.has_references:
                steps.append(_evaluate(request))
        steps.append(_report(request, data, steps[-1]))
    return steps


def unfinished(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that have to be run, in their order.

    A result outlives what served to make it: a finished fold needs no prepared subjects any more.
    """
    done: dict[str, bool] = {}
    serving = {step.name for step in steps if step.serves}
    for step in steps:
        counting = [name for name in step.depends_on if step.serves or name not in serving]
        done[step.name] = step.done() and all(done[name] for name in counting)
    needed: set[str] = set()
    for step in reversed(steps):
        if not done[step.name] and (not step.serves or step.name in needed):
            needed |= {step.name, *(name for name in step.depends_on if not done[name])}
    return [step for step in steps if step.name in needed and not done[step.name]]


def depths(steps: Collection[Step]) -> Mapping[str, int]:
    """Return the number of steps that stand before each step in the longest chain of dependencies."""
    found: dict[str, int] = {}
    for step in steps:
        found[step.name] = 1 + max((found[name] for name in step.depends_on if name in found), default=-1)
    return found


def folders_of(step: Step) -> dict[str, str]:
    """Return the variables with the folders of data for the commands of a step."""
    return folders_with_results(step.results or results_root())


def _typed(name: str, *arguments: object) -> Command:
    return Command(name, tuple(map(str, arguments)))


def _processes(request: StudyRequest) -> tuple[str, ...]:
    return () if request.processes is None else ("-np", str(request.processes))


def _device(request: StudyRequest) -> tuple[str, ...]:
    return () if request.device is None else ("--device", request.device)


def _prepare(request: StudyRequest) -> Step:
    """Verify, take the fingerprint, plan."""
    common = ("-d", request.dataset, *_processes(request))
    commands = (
        _typed("verify", *common),
        _typed("extract_fingerprint", *common),
        _typed("plan", "-d", request.dataset, "-p", request.plans, *request.planning),
    )
    return Step("prepare", "prepare", commands, (), partial(_is_planned, request), serves=True)


def _is_planned(request: StudyRequest) -> bool:
    """Return whether the plans exist, and are not older than the tables that they were made of."""
    paths = request.paths
    plans = paths.plans(request.plans_name)
    if not plans.is_file() or not paths.fingerprint.is_file():
        return False
    tables = [paths.raw / name for name in ("dataset.json", "scans.csv")]
    return newest(tables) <= plans.stat().st_mtime and _planned_as_requested(request, read_plans(plans))


def _planned_as_requested(request: StudyRequest, plans: Plans) -> bool:
    given = dict(zip(request.planning[::2], request.planning[1::2], strict=True))
    memory = given.get("--gpu_memory")
    return given.get("--preset", plans.preset) == plans.preset and (memory is None or float(memory) == plans.gpu_memory)


def _preprocess(request: StudyRequest, data: StudyData, part: int, parts: int) -> Step:
    name = "preprocess" if parts == 1 else f"preprocess part {part} of {parts}"
    only = () if parts == 1 else ("--part", f"{part}/{parts}")
    flags = ("-d", request.dataset, "-p", request.plans_name, "-c", *request.configurations, *only)
    subjects = sorted(data.subjects)[part - 1 :: parts]
    command = _typed("preprocess", *flags, *_processes(request))
    done = partial(_are_prepared, request, data, subjects)
    return Step(name, "preprocess", (command,), ("prepare",), done, serves=True)


def _are_prepared(request: StudyRequest, data: StudyData, subjects: Sequence[str]) -> bool:
    """Return whether these subjects are prepared with the scans of the table."""
    paths = request.paths
    file = paths.plans(request.plans_name)
    if not file.is_file():
        return False
    plans = read_plans(file)
    caches = {
        paths.cache(request.plans_name, plans.configuration(name).data_identifier) for name in request.configurations
    }
    return all(_cases(cache / f"{subject}.json") == data.subjects[subject] for cache in caches for subject in subjects)


def _cases(properties: Path) -> list[str]:
    return read_json(properties, dict).get("cases", []) if properties.is_file() else []


def _trainings(
    request: StudyRequest, methods: Sequence[str], before: tuple[str, ...], serves: bool = False
) -> list[Step]:
    """List the trainings of some methods: of each seed, method, configuration and fold.

    Where pretraining is requested, that of the same fold and seed comes before.
    """
    steps = []
    for seed, method, configuration, fold in product(request.seeds, methods, request.configurations, request.folds):
        results = request.results_of(seed)
        further = "" if results is None else f" seed {seed}"
        begins = () if request.pretrained in (None, method) else ("--pretrained", request.pretrained)
        depends_on = (f"train {request.pretrained} {configuration} fold {fold}{further}",) if begins else before
        command = _train(request, seed, method, configuration, fold, *begins)
        paths = request.paths.model(method, request.plans_name, configuration, results).fold(fold)
        steps.append(
            Step(
                name=f"train {method} {configuration} fold {fold}{further}",
                kind="train",
                commands=(command,),
                depends_on=depends_on,
                done=partial(_is_trained, paths, seed, begins),
                serves=serves,
                fold=paths,
                model=(method, configuration),
                results=results,
            )
        )
    return steps


def _train(request: StudyRequest, seed: int, method: str, configuration: str, fold: int, *further: str) -> Command:
    """Return the command of a training."""
    flags = ("-m", method, "-p", request.plans_name, "--seed", seed, *request.training, *further)
    return _typed("train", request.dataset, configuration, fold, *flags, *_device(request))


def _measurements(request: StudyRequest, before: tuple[str, ...]) -> list[Step]:
    """List the measurements: one of each method and configuration, on the first fold."""
    methods = dict.fromkeys([*((request.pretrained,) if request.pretrained else ()), *request.methods])
    return [
        Step(
            name=f"measure {method} {configuration}",
            kind="measure",
            commands=(_train(request, request.seeds[0], method, configuration, request.folds[0], "--measure"),),
            depends_on=before,
            done=partial(_is_measured, request, method, configuration),
            model=(method, configuration),
        )
        for method, configuration in product(methods, request.configurations)
    ]


def _is_measured(request: StudyRequest, method: str, configuration: str) -> bool:
    """Return whether a training with the present plan was measured with as many processes."""
    plans = request.paths.plans(request.plans_name)
    if not plans.is_file():
        return False
    model = request.paths.model(method, request.plans_name, configuration)
    return read_measured(model, request.measures, read_plans(plans)) is not None


def _is_trained(paths: FoldPaths, seed: int, begins: tuple[str, ...]) -> bool:
    """Return whether a fold is finished.

    :raises ConfigurationError: it was begun with another seed or other first weights.
    """
    settings = read_json(paths.run, dict).get("settings", {}) if paths.run.is_file() else {}
    given = {"seed": seed, "pretrained": begins[1] if begins else None}
    for name, value in given.items():
        if settings.get(name, value) != value:
            raise ConfigurationError(
                f"{paths.folder} was begun with {name} = {settings[name]}, this study has {value}. Give the same flags "
                "to continue, or set longflow_results to another folder to keep both."
            )
    return paths.final.is_file()


def _find_best(request: StudyRequest, train: Sequence[Step]) -> Step:
    command = _typed("find_best", "-d", request.dataset, *_processes(request))
    folds = [step.fold for step in train if step.fold]
    before = tuple(step.name for step in train)
    return Step("find best", "find_best", (command,), before, partial(_is_chosen, request.paths, folds))


def _is_chosen(paths: DatasetPaths, folds: Sequence[FoldPaths]) -> bool:
    """Return whether the choice is not older than the trainings that it chooses from."""
    return paths.best.is_file() and newest([fold.final for fold in folds]) <= paths.best.stat().st_mtime


def _predict(request: StudyRequest, data: StudyData) -> Step:
    paths = request.paths
    flags = ("-d", request.dataset, "-i", paths.raw.resolve() / "imagesTs", "-o", paths.predictions.resolve())
    command = _typed("predict", *flags, *data.prediction_flags, *_device(request))
    done = partial(_are_predicted, paths, data.requested)
    return Step("predict imagesTs", "predict", (command,), ("find best",), done)


def _are_predicted(paths: DatasetPaths, requested: int) -> bool:
    """Return whether every requested prediction has its sidecar, and none is older than choice and table."""
    table = paths.predictions / "scans.csv"
    if not (table.is_file() and paths.best.is_file()):
        return False
    sidecars = [path for path in paths.predictions.glob("*.json") if path.stem not in RESERVED_NAMES]
    oldest = newest([paths.best, paths.raw / "imagesTs" / "scans.csv"])
    return len(sidecars) >= max(requested, len(rows_of_folder(paths.predictions))) and oldest <= table.stat().st_mtime


def _evaluate(request: StudyRequest) -> Step:
    paths = request.paths
    command = _typed("evaluate", "-d", request.dataset, "-i", paths.predictions.resolve(), *_processes(request))
    return Step("evaluate", "evaluate", (command,), ("predict imagesTs",), partial(_is_evaluated, paths.predictions))


def _is_evaluated(predictions: Path) -> bool:
    metrics, table = predictions / METRICS_JSON, predictions / "scans.csv"
    return metrics.is_file() and table.is_file() and table.stat().st_mtime <= metrics.stat().st_mtime


def _report(request: StudyRequest, data: StudyData, last: Step) -> Step:
    """Return the step that draws the reports of the study and, where there are some, of its predictions."""
    paths = request.paths
    predictions = ("-i", paths.predictions.resolve()) if data.requested else ()
    command = _typed("report", "-d", request.dataset, *predictions)
    return Step("report", "report", (command,), (last.name,), partial(_is_reported, paths, data))


def _is_reported(paths: DatasetPaths, data: StudyData) -> bool:
    """Return whether the report is not older than what it shows."""
    shown = [paths.best]
    if data.requested:
        shown.append(paths.predictions / (METRICS_JSON if data.has_references else "dataset.json"))
    page = paths.report / "index.html"
    return page.is_file() and newest(shown) <= page.stat().st_mtime


def newest(files: Sequence[Path]) -> float:
    """Return when the newest of some files was written; infinity where one of those that must exist is missing."""
    return max((file.stat().st_mtime if file.is_file() else _missing(file) for file in files), default=0.0)


def _missing(file: Path) -> float:
    # a table may have another form (LongiSeg); results are missed
    return 0.0 if file.suffix == ".csv" else float("inf")
