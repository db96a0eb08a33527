"""The variants of a comparison: methods with their defaults, or studies that vary one setting, as in the papers.

The help of ``longflow_compare`` reads the studies, so methods are imported when they are used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from longflow.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from longflow.compare.comparison import Comparison, Run
    from longflow.methods.method import Method, Options
    from longflow.plans import Solver

#: function evaluations of CRONOS table 6
EVALUATIONS = (1, 5, 10, 100, 200)
#: standard deviations of CRONOS table 7, in units of the normal form
NOISES = (0.0, 0.01, 0.025, 0.05, 0.1, 0.3)
#: features of the first stage in CRONOS table 5
FEATURES = (8, 16, 32, 64)


@dataclass(frozen=True)
class Variant:
    """One row of a comparison: a training, and how its model predicts.

    :param name: for tables and figures.
    :param method: name as on the command line.
    :param options: of the method that differ from its defaults (``longflow_train --set``).
    :param solver: of predictions; None: that of the plans.
    :param steps: of the solver; None: those that training recorded with the weights, or the plans'.
    :param reduction: of predictions; None: that of the method.
    :param hidden: context scans to hide in predictions (``longflow_predict --hide_context``), as "first:2".
    :param lines: of the study's figure that the variant belongs to.
    :param x: its value on the horizontal axis of that figure.
    """

    name: str
    method: str
    options: "Options" = field(default_factory=dict)
    solver: "Solver | None" = None
    steps: int | None = None
    reduction: str | None = None
    hidden: str | None = None
    lines: tuple[str, ...] = ()
    x: float | None = None

    @property
    def training(self) -> str:
        """Return the folder name of the training; variants that only predict differently share it.

        >>> Variant("", "cronos", {"noise": 0.1}, steps=5).training
        'cronos,noise=0.1'
        """
        return ",".join([self.method, *(f"{name}={value}" for name, value in sorted(self.options.items()))])

    @property
    def trains(self) -> bool:
        """Whether the method learns; False for LCI and the other baselines."""
        return _method(self.method).trains

    @property
    def settings(self) -> dict[str, Any]:
        """Return everything except name and figure; JSON-ready."""
        return {
            "method": self.method,
            "options": self.options,
            "solver": self.solver,
            "steps": self.steps,
            "reduction": self.reduction,
            "hide_context": self.hidden,
        }

    @property
    def folder(self) -> str:
        """Return the name of its folder.

        >>> Variant("cronos, first 2 hidden", "cronos").folder
        'cronos_first_2_hidden'
        """
        return re.sub(r"[^\w.=-]+", "_", self.name)


@dataclass(frozen=True)
class StudySettings:
    """Settings of studies, apart from the method.

    :param context_scans: that every target has.
    :param evaluations: numbers of function evaluations.
    """

    context_scans: int = 1
    evaluations: tuple[int, ...] = EVALUATIONS


@dataclass(frozen=True)
class Study:
    """A study: one setting of a method is varied.

    :param title: the setting, for help and figures.
    :param source: table or figure of the papers.
    :param methods: that it is done with, unless others are named.
    :param variants: lists the variants of a method.
    :param axis: name of ``Variant.x``; empty where the study has no figure.
    :param hides: whether it hides context scans; all targets then need the same number of them.
    :param logarithmic: whether the axis is.
    :param draw: draws figures of finished runs; returns the names of the files. None where ``axis`` says it all.
    """

    title: str
    source: str
    methods: tuple[str, ...]
    variants: Callable[[str, StudySettings], list[Variant]]
    axis: str = ""
    hides: bool = False
    logarithmic: bool = False
    draw: "Callable[[Comparison, Sequence[Run]], list[str]] | None" = None


def _masking(method: str, settings: StudySettings) -> list[Variant]:
    """Hide the first or the last k context scans of one trained model."""
    lines = {"first": f"{method}, earliest hidden", "last": f"{method}, latest hidden"}
    return [Variant(method, method, lines=tuple(lines.values()), x=0)] + [
        Variant(f"{method}, {which} {count} hidden", method, hidden=f"{which}:{count}", lines=(line,), x=count)
        for which, line in lines.items()
        for count in range(1, settings.context_scans)
    ]


def _evaluations(method: str, settings: StudySettings) -> list[Variant]:
    """Vary the Euler steps of one trained model; each step evaluates the network once."""
    if not _method(method).integrates:
        raise ConfigurationError(f"The method '{method}' integrates no flow: it has no function evaluations to vary.")
    return [
        Variant(f"{method}, NFE {steps}", method, solver="euler", steps=steps, lines=(method,), x=steps)
        for steps in settings.evaluations
    ]


def _noise(method: str, settings: StudySettings) -> list[Variant]:
    """Vary the noise of training; the first variant is the method with its defaults."""
    return [
        Variant(f"{method}, noise {noise:g}", method, _but_defaults(method, {"noise": noise}), lines=(method,), x=noise)
        for noise in NOISES
    ]


def _features(method: str, settings: StudySettings) -> list[Variant]:
    """Vary the features of the network."""
    return [
        Variant(
            f"{method}, {features} features",
            method,
            _but_defaults(method, {"features": features}),
            lines=(method,),
            x=features,
        )
        for features in FEATURES
    ]


def _reduction(method: str, settings: StudySettings) -> list[Variant]:
    """Compare the reductions of one trained model."""
    names = _method(method).reductions
    if len(names) < 2:
        raise ConfigurationError(f"The method '{method}' makes one volume: there are no reductions to compare.")
    return [Variant(f"{method}, {name}", method, reduction=name) for name in names]


def _filling(method: str, settings: StudySettings) -> list[Variant]:
    """Vary the filling of empty slots of the grid."""
    return [
        Variant(f"{method}, {filling}", method, _but_defaults(method, {"filling": filling}))
        for filling in ("locf", "masking", "none")
    ]


def _context(method: str, settings: StudySettings) -> list[Variant]:
    """Use all context scans, or only the last one."""
    return [
        Variant(f"{method}, {context} context", method, _but_defaults(method, {"context": context}))
        for context in ("all", "last")
    ]


def _time(method: str, settings: StudySettings) -> list[Variant]:
    """Compare the ways in which time enters, each switched off, and the method on the grid."""
    switched_off = {
        "no W X_0": ("mixing",),
        "no target code": ("target_code",),
        "no expected scan": ("recurrence",),
        "as printed": ("mixing", "target_code", "recurrence"),
        "no explicit time": ("explicit_time",),
    }
    return [
        Variant(method, method),
        *(
            Variant(f"{method}, {name}", method, _but_defaults(method, dict.fromkeys(options, False)))
            for name, options in switched_off.items()
        ),
        Variant("cronos_discrete", "cronos_discrete"),
    ]


def _change(method: str, settings: StudySettings) -> list[Variant]:
    """Take the method as it is; what it forecasts is looked at."""
    return [Variant(method, method)]


def _velocity(method: str, settings: StudySettings) -> list[Variant]:
    """Take the method as it is; its velocity is looked at."""
    if not hasattr(_method(method), "path"):
        raise ConfigurationError(f"The method '{method}' transports no images: it has no velocity to show.")
    return [Variant(method, method)]


def _draw_changes(comparison: "Comparison", runs: "Sequence[Run]") -> list[str]:
    from longflow.compare.changes import draw_changes

    return draw_changes(comparison, runs)


def _draw_velocities(comparison: "Comparison", runs: "Sequence[Run]") -> list[str]:
    from longflow.compare.velocities import draw_velocities

    return draw_velocities(comparison, runs)


STUDIES: dict[str, Study] = {
    "masking": Study(
        title="hiding the earliest or the latest context scans",
        source="CRONOS figure 7",
        methods=("cronos",),
        variants=_masking,
        axis="hidden context scans",
        hides=True,
    ),
    "nfe": Study(
        title="number of function evaluations",
        source="CRONOS table 6, TFM table 4",
        methods=("cronos",),
        variants=_evaluations,
        axis="function evaluations",
        logarithmic=True,
    ),
    "noise": Study(
        title="training noise", source="CRONOS table 7", methods=("cronos",), variants=_noise, axis="training noise"
    ),
    "features": Study(
        title="features of the network's first stage",
        source="CRONOS table 5",
        methods=("cronos_discrete",),
        variants=_features,
        axis="features of the first stage",
        logarithmic=True,
    ),
    "reduction": Study(
        title="last place or mean of the transported stack",
        source="CRONOS table 4, TFM table 3",
        methods=("cronos_discrete",),
        variants=_reduction,
    ),
    "filling": Study(
        title="filling of empty slots of the grid",
        source="CRONOS table 4, TFM table 3",
        methods=("cronos_discrete",),
        variants=_filling,
    ),
    "context": Study(
        title="all context scans or only the last",
        source="TFM table 3 (LCI + FM); CRONOS table 3, section B.6.1",
        methods=("tfm",),
        variants=_context,
    ),
    "time": Study(
        title="ways in which time enters, each switched off",
        source="CRONOS table 9",
        methods=("cronos",),
        variants=_time,
    ),
    "change": Study(
        title="how much of an image changes until the target, and how much of it is forecast",
        source="TFM figure 7",
        methods=("cronos",),
        variants=_change,
        draw=_draw_changes,
    ),
    "velocity": Study(
        title="the learned velocity, drawn over the scans of a subject",
        source="CRONOS figure 5",
        methods=("cronos",),
        variants=_velocity,
        draw=_draw_velocities,
    ),
}


def variants_of_methods(methods: Sequence[str]) -> list[Variant]:
    """List methods with their defaults, each once, in the order given.

    :raises NotFoundError: no such method.
    :raises ConfigurationError: it makes no predictions.
    """
    return [Variant(method, _predicts(method)) for method in dict.fromkeys(methods)]


def variants_of_study(name: str, methods: Sequence[str] = (), settings: StudySettings | None = None) -> list[Variant]:
    """List the variants of a study; LCI is the first.

    :param methods: to vary; empty: those of the study.
    :raises NotFoundError: no such study or method.
    :raises ConfigurationError: a method lacks the setting that is varied.
    """
    study, settings = study_named(name), settings or StudySettings()
    found = [Variant("lci", "lci")]
    for method in dict.fromkeys(methods or study.methods):
        found += [variant for variant in study.variants(_predicts(method), settings) if variant not in found]
    return found


def study_named(name: str) -> Study:
    """Return a study by its name. :raises NotFoundError: there is none of that name."""
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    return STUDIES[name]


def _method(name: str) -> "type[Method]":
    from longflow.methods.registry import method_class

    return method_class(name)


def _predicts(method: str) -> str:
    """Return the name of a method's models. :raises ConfigurationError: it is for pretraining and predicts nothing."""
    from longflow.methods.registry import named_with_network

    if not _method(method).predicts:
        raise ConfigurationError(f"The method '{method}' makes no predictions: it cannot be compared.")
    return named_with_network(method, None)


def _but_defaults(method: str, options: Mapping[str, bool | int | float | str]) -> "Options":
    """Keep the options that differ from the defaults, so that a method with its defaults has one name."""
    known = _method(method).options
    if missing := sorted(set(options) - set(known)):
        raise ConfigurationError(
            f"The method '{method}' has no option '{missing[0]}', which this study varies. It has: "
            f"{', '.join(known) or 'none'}."
        )
    return {name: value for name, value in options.items() if value != known[name]}
