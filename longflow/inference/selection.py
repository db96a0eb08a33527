"""Select the trained model of a command: by its flags, by the record of longflow_find_best, or as the only one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from longflow.data.dataset import is_name
from longflow.errors import ConfigurationError, NotFoundError, first_few, unknown_name
from longflow.methods.registry import known_methods, method_class
from longflow.paths import DatasetPaths, ModelPaths, known_datasets, resolve_dataset_name
from longflow.plans import Solver
from longflow.reading import read_json

#: most folds that are averaged: each is a network in memory
MOST_FOLDS = 100


@dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    :param folds: folds to average; empty for a method that has nothing to train.
    :param options: of such a method, where they differ from its defaults; those of a trained one are with its weights.
    :raises ConfigurationError: there are too many folds.
    """

    model: ModelPaths
    folds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        if len(self.folds) > MOST_FOLDS:
            raise ConfigurationError(
                f"{self.model.folder} has {len(self.folds)} folds, expected at most {MOST_FOLDS}: each is a network in "
                "memory. Choose some with -f."
            )


@dataclass(frozen=True)
class Selection:
    """The models to predict with.

    :param members: models whose predictions are averaged.
    :param reduction: name of the volume to use; None: the one that chose the weights, else the method's default.
    :param shrinkage: s in LCI + s (forecast - LCI); 1 keeps the forecast, 0 gives the LCI.
    :param solver: of a flow, where ``longflow_find_best`` chose it; None: the plans' solver.
    :param steps: of the solver; None: those recorded with the weights, or the plans'.
    :param context_rule: of forecasts: which of the given scans are taken, where ``longflow_find_best`` chose it.
    :param origin: why these were selected, human-readable.
    """

    dataset: DatasetPaths
    members: tuple[Member, ...]
    reduction: str | None = None
    shrinkage: float = 1.0
    solver: Solver | None = None
    steps: int | None = None
    context_rule: str | None = None
    origin: str = field(default="", compare=False)


def select(
    dataset: str | None = None,
    configuration: str | None = None,
    method: str | None = None,
    folds: tuple[int, ...] | None = None,
) -> Selection:
    """Select the model that the flags name, or the only one that fits them.

    Without ``configuration``, ``method`` and ``folds`` the record of ``longflow_find_best`` is used, where there is
    one. Otherwise exactly one trained model must fit the flags. Pretraining predicts nothing and is never selected.

    :param dataset: 101 or Dataset101_Name; None: the only one with a trained model.
    :param configuration: as "3d_fullres".
    :param method: as "cronos".
    :param folds: folds to average; None: all that are trained.
    :returns: the selection.
    :raises NotFoundError: nothing trained fits, or pretraining alone.
    :raises ConfigurationError: several models fit (they are listed), or pretraining is requested.
    """
    names = [resolve_dataset_name(dataset)] if dataset is not None else known_datasets()
    if method is not None:
        _check_predicts(method)
    by_flags = (configuration, method, folds) != (None, None, None)
    # a record may name only a method that has nothing to train
    trained = [
        paths
        for paths in map(DatasetPaths, names)
        if _predicting_models(paths) or (not by_flags and dataset is not None and paths.best.is_file())
    ]
    pretrained = [model for name in names for model in DatasetPaths(name).models()]
    if not trained and pretrained:
        raise NotFoundError(
            f"Only pretraining is finished: {first_few(model.folder.name for model in pretrained)}. It predicts "
            "nothing. Train a model that starts from it: longflow_train DATASET CONFIGURATION FOLD --pretrained "
            f"{pretrained[0].method}"
        )
    if not trained:
        where = f"for {names[0]}" if dataset is not None else "yet"
        raise NotFoundError(
            f"No model has been trained {where}. Train one first: longflow_train DATASET CONFIGURATION FOLD"
        )
    if len(trained) > 1:
        raise ConfigurationError(
            "Models of several datasets exist: " + ", ".join(paths.name for paths in trained) + ". Say which with -d."
        )
    paths = trained[0]
    if not by_flags and paths.best.is_file():
        return recorded_best(paths)
    return _the_only_model(paths, configuration, method, folds)


def _predicts(method: str) -> bool:
    """Return False for pretraining; a method that is not installed is reported when it is loaded."""
    return method not in known_methods() or method_class(method).predicts


def _check_predicts(method: str) -> None:
    if not _predicts(method):
        raise ConfigurationError(
            f"'{method}' is pretraining: it gives weights to start from and predicts nothing. Train a model with these "
            f"weights (longflow_train ... --pretrained {method}) and predict with that model."
        )


def _predicting_models(paths: DatasetPaths) -> list[ModelPaths]:
    return [model for model in paths.models() if _predicts(model.method)]


def recorded_best(paths: DatasetPaths) -> Selection:
    """Read what ``longflow_find_best`` chose.

    :raises ConfigurationError: the record was edited or comes from elsewhere, and lacks or has wrong fields.
    :raises NotFoundError: a fold that it names does not exist.
    """
    best = read_json(paths.best)
    if not _is_record(best):
        raise ConfigurationError(
            f"{paths.best} is not what longflow_find_best writes. Run it again, or give -m and -c."
        )
    members = tuple(
        Member(
            paths.model(entry["method"], entry["plans_name"], entry["configuration"]),
            tuple(entry["folds"]),
            entry.get("options", {}),
        )
        for entry in best["members"]
    )
    for member in members:
        _check_predicts(member.model.method)
        missing = set(member.folds) - set(member.model.finished_folds())
        if missing:
            raise NotFoundError(
                f"{paths.best} names fold {min(missing)} of {member.model.folder.name}, which does not exist any more. "
                "Run longflow_find_best again."
            )
    origin = f"as recorded in {paths.best}"
    solver, steps = best.get("solver"), best.get("steps")
    rule = best.get("context_rule")
    return Selection(paths, members, best["reduction"], best["shrinkage"], solver, steps, rule, origin)


def _is_record(best: Any) -> bool:
    """Check that best.json has all fields, names nothing twice, and that no name in it leads to another folder."""
    try:
        members = [(entry["method"], entry["plans_name"], entry["configuration"]) for entry in best["members"]]
        twice = len(set(members)) < len(members) or any(
            len(set(entry["folds"])) < len(entry["folds"]) for entry in best["members"]
        )
        names = [entry[key] for entry in best["members"] for key in ("method", "plans_name", "configuration")]
        folds = [fold for entry in best["members"] for fold in entry["folds"]]
        shrinkage, reduction = best["shrinkage"], best["reduction"]
        solver, steps = best.get("solver"), best.get("steps")
    except (KeyError, TypeError):
        return False
    return (
        bool(names)
        and not twice
        and all(isinstance(name, str) and is_name(name) for name in names)
        and isinstance(reduction, str | None)
        and isinstance(best.get("context_rule"), str | None)
        and all(isinstance(fold, int) for fold in folds)
        and all(isinstance(entry.get("options", {}), dict) for entry in best["members"])
        and isinstance(shrinkage, int | float)
        and 0 <= shrinkage <= 1
        and solver in (None, *get_args(Solver))
        and (steps is None if solver is None else isinstance(steps, int) and 0 < steps <= 10_000)
    )


def _the_only_model(
    paths: DatasetPaths, configuration: str | None, method: str | None, folds: tuple[int, ...] | None
) -> Selection:
    models = _predicting_models(paths)
    for kind, name, flag in (("configuration", configuration, "-c"), ("method", method, "-m")):
        known = {getattr(model, kind) for model in models}
        if name is not None and name not in known:
            raise unknown_name(f"trained {kind}", name, known, hint=f"({flag}, of {paths.name})")
        models = [model for model in models if name is None or getattr(model, kind) == name]
    if not models:
        raise NotFoundError(f"No model of {paths.name} has both configuration {configuration} and method {method}.")
    if len(models) > 1:
        listed = "\n".join(
            f"  -m {model.method} -c {model.configuration}  (plans {model.plans_name})" for model in models
        )
        raise ConfigurationError(
            f"Several models of {paths.name} fit:\n{listed}\n"
            f"Say which with -m and -c, or let longflow_find_best -d {paths.name} choose."
        )
    model, finished = models[0], models[0].finished_folds()
    if folds is not None and (missing := sorted(set(folds) - set(finished))):
        raise NotFoundError(
            f"Fold {missing[0]} of {model.folder.name} is not trained. Trained: {', '.join(map(str, finished))}."
        )
    return Selection(paths, (Member(model, folds or tuple(finished)),), origin="the only trained model that fits")
