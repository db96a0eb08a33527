"""What ``longflow_compare`` compares: methods as they are, or one thing of a method varied, as the papers do."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from longflow.errors import ConfigurationError, unknown_name
from longflow.methods.method import Options
from longflow.methods.registry import method_class

#: function evaluations of CRONOS table 6
EVALUATIONS = (1, 5, 10, 100, 200)
#: standard deviations of CRONOS table 7, in units of the normal form
NOISES = (0.0, 0.01, 0.025, 0.05, 0.1, 0.3)


@dataclass(frozen=True)
class Variant:
    """One row of a comparison: what is trained, and how it predicts.

    :param name: as it is shown. :param options: of the method that differ from its defaults (``longflow_train --set``).
    :param solver, steps, reduction: of predictions; None: as the plan and the method have them.
    :param hidden: context scans that predictions are not given (``longflow_predict --hide_context``): "first:2".
    :param lines, x: where it stands in the study's figure: on which lines, at which value.
    """

    name: str
    method: str
    options: Options = field(default_factory=dict)
    solver: str | None = None
    steps: int | None = None
    reduction: str | None = None
    hidden: str | None = None
    lines: tuple[str, ...] = ()
    x: float | None = None

    @property
    def training(self) -> str:
        """What is trained, as the name of a folder; variants that predict differently share it.

        >>> Variant("", "cronos", {"noise": 0.1}, steps=5).training
        'cronos,noise=0.1'
        """
        return ",".join([self.method, *(f"{name}={value}" for name, value in sorted(self.options.items()))])

    @property
    def trains(self) -> bool:
        """False for LCI and the like."""
        return method_class(self.method).trains

    @property
    def settings(self) -> dict[str, Any]:
        """What it is, beside its name; JSON-ready."""
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
        """Its name as the name of a folder.

        >>> Variant("cronos, first 2 hidden", "cronos").folder
        'cronos_first_2_hidden'
        """
        return re.sub(r"[^\w.=-]+", "_", self.name)


@dataclass(frozen=True)
class Asked:
    """What studies depend on beside the method.

    :param context_scans: that every target has. :param evaluations: numbers of function evaluations.
    """

    context_scans: int = 1
    evaluations: tuple[int, ...] = EVALUATIONS


NOTHING_SPECIAL = Asked()


@dataclass(frozen=True)
class Study:
    """One thing of a method, varied.

    :param source: table or figure of the papers. :param methods: that it is done with, unless others are named.
    :param axis: what ``Variant.x`` is; empty where the study has no figure of its own.
    :param hides: whether it hides context scans, so that all targets need equally many. :param logarithmic: the axis.
    """

    title: str
    source: str
    methods: tuple[str, ...]
    variants: Callable[[str, Asked], list[Variant]]
    axis: str = ""
    hides: bool = False
    logarithmic: bool = False


def _masking(method: str, asked: Asked) -> list[Variant]:
    """The first or the last k context scans hidden, one trained model."""
    lines = {"first": f"{method}, earliest hidden", "last": f"{method}, latest hidden"}
    return [Variant(method, method, lines=tuple(lines.values()), x=0)] + [
        Variant(f"{method}, {which} {count} hidden", method, hidden=f"{which}:{count}", lines=(line,), x=count)
        for which, line in lines.items()
        for count in range(1, asked.context_scans)
    ]


def _evaluations(method: str, asked: Asked) -> list[Variant]:
    """Euler steps, each of which evaluates the network once; one trained model."""
    if not method_class(method).integrates:
        raise ConfigurationError(f"The method '{method}' integrates no flow: it has no function evaluations to vary.")
    return [
        Variant(f"{method}, NFE {steps}", method, solver="euler", steps=steps, lines=(method,), x=steps)
        for steps in asked.evaluations
    ]


def _noise(method: str, asked: Asked) -> list[Variant]:
    """Noise in training; the first is the method as it is."""
    return [
        Variant(f"{method}, noise {noise:g}", method, _but_defaults(method, {"noise": noise}), lines=(method,), x=noise)
        for noise in NOISES
    ]


def _reduction(method: str, asked: Asked) -> list[Variant]:
    """Both reductions of one trained model."""
    names = method_class(method).reductions
    if len(names) < 2:
        raise ConfigurationError(f"The method '{method}' makes one volume, so that there is nothing to reduce.")
    return [Variant(f"{method}, {name}", method, reduction=name) for name in names]


def _filling(method: str, asked: Asked) -> list[Variant]:
    """What the empty slots of the grid hold."""
    return [
        Variant(f"{method}, {filling}", method, _but_defaults(method, {"filling": filling}))
        for filling in ("locf", "masking", "none")
    ]


def _context(method: str, asked: Asked) -> list[Variant]:
    """All context scans, or the last one alone."""
    return [
        Variant(f"{method}, {context} context", method, _but_defaults(method, {"context": context}))
        for context in ("all", "last")
    ]


def _time(method: str, asked: Asked) -> list[Variant]:
    """With and without explicit time, and on the grid."""
    return [
        Variant(method, method),
        Variant(f"{method}, no explicit time", method, _but_defaults(method, {"explicit_time": False})),
        Variant("cronos_discrete", "cronos_discrete"),
    ]


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
    "reduction": Study(
        title="last place or mean of the transported stack",
        source="CRONOS table 4, TFM table 3",
        methods=("cronos_discrete",),
        variants=_reduction,
    ),
    "filling": Study(
        title="what empty slots of the grid hold",
        source="CRONOS table 4, TFM table 3",
        methods=("cronos_discrete",),
        variants=_filling,
    ),
    "context": Study(
        title="all context scans or the last alone",
        source="TFM table 3 (LCI + FM); CRONOS table 3, section B.6.1",
        methods=("tfm",),
        variants=_context,
    ),
    "time": Study(title="explicit time or none", source="CRONOS table 9", methods=("cronos",), variants=_time),
}


def variants_of_methods(methods: Sequence[str]) -> list[Variant]:
    """Methods as they are, each once, in the order given.

    :raises NotFoundError: no such method. :raises ConfigurationError: it does not forecast.
    """
    return [Variant(method, _forecasts(method)) for method in dict.fromkeys(methods)]


def variants_of_study(name: str, methods: Sequence[str] = (), asked: Asked = NOTHING_SPECIAL) -> list[Variant]:
    """The variants of a study, of its own methods or of others; LCI stands first.

    :raises NotFoundError: no such study or method. :raises ConfigurationError: a method does not have what is varied.
    """
    study = study_named(name)
    found = [Variant("lci", "lci")]
    for method in dict.fromkeys(methods or study.methods):
        found += [variant for variant in study.variants(_forecasts(method), asked) if variant not in found]
    return found


def study_named(name: str) -> Study:
    """:raises NotFoundError: there is none of that name."""
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    return STUDIES[name]


def _forecasts(method: str) -> str:
    kind = method_class(method)
    if kind.task != "forecast" or not kind.predicts:
        raise ConfigurationError(f"The method '{method}' does not forecast ({kind.task}): it cannot be compared here.")
    return method


def _but_defaults(method: str, options: Mapping[str, bool | int | float | str]) -> Options:
    """Options that differ from the method's defaults, so that the method as it is has one name only."""
    known = method_class(method).options
    if missing := sorted(set(options) - set(known)):
        raise ConfigurationError(
            f"The method '{method}' has no option '{missing[0]}', which this study varies. It has: "
            f"{', '.join(known) or 'none'}."
        )
    return {name: value for name, value in options.items() if value != known[name]}
