"""Trained models on a device: plans, folds and methods of what was selected."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from longflow.data.dataset import DatasetDescription, read_description
from longflow.errors import ConfigurationError, unknown_name
from longflow.files import file_digest
from longflow.inference.selection import Member, Selection
from longflow.inference.windows import WindowSettings
from longflow.methods.method import Method
from longflow.methods.registry import build_method, method_class
from longflow.methods.weights import load_method
from longflow.networks.precision import default_device
from longflow.plans import Plans, Solver, read_plans


@dataclass(frozen=True)
class PredictionSettings:
    """How predictions are made; a value of None is found elsewhere.

    :param device: "cpu", "cuda", "cuda:1", "mps"; None: a GPU where there is one.
    :param solver: of a flow; None: the selection's, else the plans'.
    :param steps: of the solver; None: the selection's, else the number that the training recorded with the weights,
        else the plans'. Steps that were chosen for one solver are not used for another.
    :param mirror: average over mirrored inputs; None: as the method has it.
    """

    device: torch.device | str | None = None
    solver: str | None = None
    steps: int | None = None
    mirror: bool | None = None


@dataclass(frozen=True)
class LoadedMember:
    """A model of the ensemble, in memory.

    :param member: the model's folder and its folds.
    :param methods: one for each fold, in evaluation mode; on the device where it is the only member, else while it is
        its turn (:meth:`Models.in_turn`).
    :param weights: digest of the weights of each fold; empty for a method without weights.
    """

    member: Member
    plans: Plans
    methods: list[Method]
    weights: tuple[str, ...] = ()

    @property
    def configuration(self) -> str:
        """Return the name of the configuration."""
        return self.member.model.configuration


@dataclass
class Models:
    """The models that make a prediction.

    :param selection: which models and folds, and why these.
    :param members: the same models, loaded.
    :param mirror: average over mirrored inputs.
    """

    selection: Selection
    device: torch.device
    members: list[LoadedMember]
    mirror: bool

    @property
    def plans(self) -> Plans:
        """Return the plans of the first member: all members share task, channels and time unit."""
        return self.members[0].plans

    @property
    def description(self) -> DatasetDescription:
        """Read the dataset.json of the training."""
        return read_description(self.members[0].member.model.dataset_json)

    @property
    def candidate(self) -> str:
        """Return the name by which ``longflow_find_best`` calls the models."""
        return " + ".join(member.member.model.folder.name for member in self.members)

    @property
    def weights(self) -> list[str]:
        """Return the digests of the weights of all members and folds."""
        return [digest for member in self.members for digest in member.weights]

    def in_turn(self, members: Sequence[LoadedMember] | None = None) -> Iterator[LoadedMember]:
        """Yield the members one after the other, each on the device; of several, only one at a time is there.

        :param members: some of them, or some of their networks; None: all.
        """
        for member in self.members if members is None else members:
            for method in member.methods:
                method.to(self.device)
            yield member
            for method in member.methods if len(self.members) > 1 else []:
                method.to("cpu")

    def windows(self, member: LoadedMember) -> WindowSettings:
        """Return how a member predicts a volume from tiles."""
        return WindowSettings(self.device, member.plans.inference.tile_step_size, self.mirror)

    def of_folds(self, folds: Collection[int]) -> "Models":
        """Return the same models with these folds alone; a member that has none of them keeps all of its folds."""
        return replace(self, members=[_of_folds(member, folds) for member in self.members])

    def digests(self) -> dict[str, Any]:
        """Return the digests of plans and weights, for sidecars: another digest means another prediction."""
        return {
            "plans": [file_digest(member.member.model.plans) for member in self.members],
            "weights": [list(member.weights) for member in self.members],
        }

    def settings(self) -> dict[str, Any]:
        """Return what a prediction of any task depends on apart from its scans, for sidecars."""
        options = [dict(member.member.options) for member in self.members]
        return {
            "dataset": self.selection.dataset.name,
            "method": [member.member.model.method for member in self.members],
            "configuration": [member.configuration for member in self.members],
            "plans": [member.member.model.plans_name for member in self.members],
            "plan_identity": [member.plans.identity(member.configuration) for member in self.members],
            "folds": [list(member.member.folds) for member in self.members],
            "mirror": self.mirror,
            **({"options": options} if any(options) else {}),
        }


def _of_folds(loaded: LoadedMember, folds: Collection[int]) -> LoadedMember:
    kept = [place for place, fold in enumerate(loaded.member.folds) if fold in folds]
    if not kept:
        return loaded
    member = replace(loaded.member, folds=tuple(loaded.member.folds[place] for place in kept))
    weights = tuple(loaded.weights[place] for place in kept) if loaded.weights else ()
    return replace(loaded, member=member, methods=[loaded.methods[place] for place in kept], weights=weights)


def solver_settings(method: Method) -> dict[str, Any]:
    """Return how a flow is integrated, for sidecars; every value is None for other methods.

    dopri5 chooses its number of function evaluations itself.
    """
    if not method.integrates:
        return {"solver": None, "steps": None, "function_evaluations": None}
    from longflow.flow.solvers import ORDERS, count_evaluations  # imports scipy's solvers: a segmentation needs none

    evaluations = count_evaluations(method.solver, method.steps) if method.solver in ORDERS else None
    return {"solver": method.solver, "steps": method.steps, "function_evaluations": evaluations}


def task_of(selection: Selection) -> str:
    """Return the name of the task that the selected model was planned for."""
    return read_plans(selection.members[0].model.plans).task


def load_models(selection: Selection, task: str, settings: PredictionSettings | None = None) -> Models:
    """Load the selected models.

    :param task: name of the task that the models must be for.
    :param settings: how predictions are made.
    :raises LongflowError: the models are for another task, their weights do not fit their plans, or a solver is given
        and none of them integrates a flow.
    """
    settings = settings or PredictionSettings()
    if settings.solver is not None and settings.solver not in get_args(Solver):
        raise unknown_name("solver", settings.solver, get_args(Solver))
    planned = task_of(selection)
    if planned != task:
        raise ConfigurationError(
            f"{selection.members[0].model.folder.name} of {selection.dataset.name} is a model for the task "
            f"'{planned}', not for '{task}'."
        )
    integrates = any(method_class(member.model.method).integrates for member in selection.members)
    if (settings.solver is not None or settings.steps is not None) and not integrates:
        raise ConfigurationError(
            f"{selection.members[0].model.folder.name} integrates no flow and needs no solver. "
            "Remove --solver and --steps."
        )
    if settings.solver is None:
        settings = replace(settings, solver=selection.solver, steps=settings.steps or selection.steps)
    device = torch.device(settings.device) if settings.device else default_device()
    place = device if len(selection.members) == 1 else torch.device("cpu")
    members = [_load(member, place, settings) for member in selection.members]
    mirror = members[0].methods[0].mirrors if settings.mirror is None else settings.mirror
    return Models(selection, device, members, mirror)


def _load(member: Member, device: torch.device, settings: PredictionSettings) -> LoadedMember:
    """Load the methods of a member: one for each fold, or one without weights where there is nothing to train."""
    model = member.model
    plans = read_plans(model.plans)
    files = []
    if method_class(model.method).trains:
        files = [model.fold(fold).final for fold in member.folds]
        methods = [load_method(file, model.method, plans, model.configuration) for file in files]
    else:
        methods = [build_method(model.method, plans, model.configuration, dict(member.options)).eval()]
    # one number for all folds; those that were measured are for the planned solver alone
    measured = max(method.steps for method in methods)
    steps = measured if settings.solver in (None, plans.inference.solver) else plans.inference.steps
    # one reduction for all folds, too: the one that chose most of them
    chosen = [method.reduction for method in methods]
    reduction = max(methods[0].reductions, key=chosen.count)
    for method in methods:
        method.reduction = reduction
        method.to(device)
        method.solver = settings.solver or method.solver
        method.steps = settings.steps or steps
    return LoadedMember(member, plans, methods, tuple(file_digest(file) for file in files))
