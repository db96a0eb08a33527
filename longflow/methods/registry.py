"""Find methods by name: longflow's own and those of installed packages, with their networks and options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longflow.errors import ConfigurationError, unknown_name
from longflow.methods.method import Method, Options
from longflow.plans import Plans
from longflow.registry import Registry, modules_of
from longflow.task import all_tasks, get_task

#: folders of longflow's own methods; a method is a module, named as on the command line, whose attribute ``METHOD`` is
#: its class
_FAMILIES = ("forecasting", "translation", "segmentation", "pretraining")


def _own_methods() -> dict[str, str]:
    package = "longflow.methods"
    folders = ((family, Path(__file__).parent / family) for family in _FAMILIES)
    return {
        name: place
        for family, folder in folders
        for name, place in modules_of(folder, f"{package}.{family}", "METHOD").items()
    }


METHODS = Registry(
    "method",
    "longflow.methods",
    _own_methods,
    lambda found: isinstance(found, type) and issubclass(found, Method),
    "a subclass of longflow.methods.Method",
)


def _own_samples() -> dict[str, str]:
    """Kinds of training samples that the tasks bring; of two with one name longflow's own counts."""
    return {name: place for task in reversed(all_tasks()) for name, place in task.samples.items()}


def _own_validations() -> dict[str, str]:
    """Kinds of validation that the tasks bring, and the one that serves every task."""
    brought = {name: place for task in reversed(all_tasks()) for name, place in task.validations.items()}
    return {**brought, "loss": "longflow.training.loss_validation:LossValidation"}


#: a class is made of (cohort, plans, configuration, seed, augmented), gives the batch of every number by ``[number]``,
#: and has ``largest_batch(plans, configuration, batch_size)``, on which the memory of a training step is estimated
SAMPLES = Registry("kind of samples", "longflow.samples", _own_samples)
VALIDATIONS = Registry("kind of validation", "longflow.validations", _own_validations)


def samples_of(method: Method | type[Method]) -> type:
    """Import the class that draws a method's training samples.

    :returns: the class of the kind that ``method.samples`` names, else of the first kind of the method's task.
    :raises NotFoundError: there is no such kind.
    :raises ConfigurationError: the task brings none.
    """
    kind = method.samples or _first_kind(method, "samples", get_task(method.task).samples)
    return SAMPLES.get(kind, hint="(The attribute 'samples' of a method.)")


def validation_class_of(method: Method | type[Method]) -> type:
    """Import the class that validates a method.

    :returns: the class of the kind that ``method.validation`` names, else of the first kind of the method's task.
    :raises NotFoundError: there is no such kind.
    :raises ConfigurationError: the task brings none.
    """
    kind = method.validation or _first_kind(method, "validation", get_task(method.task).validations)
    return VALIDATIONS.get(kind, hint="(The attribute 'validation' of a method.)")


def _first_kind(method: Method | type[Method], attribute: str, brought: Mapping[str, str]) -> str:
    if not brought:
        kind = method if isinstance(method, type) else type(method)
        raise ConfigurationError(
            f"The method '{kind.__name__}' has no attribute '{attribute}', and its task '{method.task}' has no "
            f"default. Name a kind in the attribute '{attribute}'."
        )
    return next(iter(brought))


def known_methods() -> list[str]:
    """List the names of all methods: longflow's own and those of installed packages."""
    return METHODS.names()


def method_class(name: str) -> type[Method]:
    """Find the class of a method by its name on the command line, with or without a network (``mfm-segresnet``).

    :param name: of the method.
    :returns: the class.
    :raises NotFoundError: there is no such method, or it has no such network; the nearest name is in the message.
    :raises ConfigurationError: an installed package announces it, but it cannot be loaded or is not a Method.
    """
    method, network = network_of(name)
    kind = METHODS.get(method)
    if network and network not in kind.networks:
        if not kind.networks:
            raise ConfigurationError(f"The method '{method}' has one network: leave --network away.")
        raise unknown_name("network", network, kind.networks, hint=f"(Networks of the method '{method}'.)")
    return kind


def network_of(name: str) -> tuple[str, str]:
    """Split a name into method and network; the network is empty where the name has none.

    >>> network_of("mfm-segresnet")
    ('mfm', 'segresnet')
    """
    if name in known_methods():
        return name, ""
    method, _, network = name.partition("-")
    return (method, network) if method in known_methods() else (name, "")


def named_with_network(method: str, network: str | None) -> str:
    """Name a method trained with a network. The default network is not named, so that a model has one name.

    >>> named_with_network("mfm", "segresnet"), named_with_network("mfm-timeresnet", None)
    ('mfm-segresnet', 'mfm')

    :param network: None: the one that ``method`` names, or the default.
    :param method: with or without a network.
    :returns: the name.
    :raises NotFoundError, ConfigurationError: as :func:`method_class`; also where both name a network.
    """
    method, named = network_of(method)
    if named and network:
        raise ConfigurationError(f"'{method}-{named}' names a network already: leave --network {network} away.")
    network = network or named
    kind = method_class(f"{method}-{network}" if network else method)
    return method if not network or network == kind.networks[0] else f"{method}-{network}"


def build_method(name: str, plans: Plans, configuration: str, options: Options | None = None) -> Method:
    """Build a fresh method for a plan.

    :param options: those of the method's ``options`` that differ from its defaults.
    :param name: on the command line.
    :param configuration: name of one of the plan's configurations.
    :returns: the method, in training mode.
    :raises ConfigurationError: the method serves another task than the plan, or has no such option.
    """
    kind = method_class_for(name, plans)
    network = network_of(name)[1]
    further: dict[str, Any] = {"network": network} if network else {}
    if options:
        return kind(plans, configuration, checked_options(name, options), **further)
    return kind(plans, configuration, **further)


def method_class_for(name: str, plans: Plans) -> type[Method]:
    """Find the class of a method that serves the task of a plan.

    :param name: on the command line.
    :returns: the class.
    :raises ConfigurationError: the method serves another task.
    """
    kind = method_class(name)
    if kind.task != plans.task:
        raise ConfigurationError(
            f"The method '{name}' is for the task '{kind.task}', but {plans.dataset_name} is planned for "
            f"'{plans.task}'. Name a method for that ('{get_task(plans.task).default_method}' is the usual one), "
            f'or set "task": "{kind.task}" in dataset.json and plan again.'
        )
    return kind


def checked_options(name: str, options: Mapping[str, Any]) -> Options:
    """Convert options of a method, given as values or as text, to the types of its defaults.

    :param name: of the method.
    :param options: name to value.
    :returns: the converted options.
    :raises NotFoundError: the method has no such option, or an option of text is not one of its words.
    :raises ConfigurationError: a value is not of its type.
    """
    known, choices = method_class(name).options, method_class(name).choices
    checked: Options = {}
    for option, value in options.items():
        if option not in known:
            raise unknown_name("option", option, known, hint=f"(Options of the method '{name}'.)")
        kind = type(known[option])
        words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
        try:
            checked[option] = words[str(value).lower()] if kind is bool else kind(value)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            expected = {bool: "on or off", int: "a whole number", float: "a number", str: "a word"}[kind]
            raise ConfigurationError(
                f"The option '{option}' of the method '{name}' is '{str(value)[:100]}', expected {expected}."
            ) from error
        if option in choices and checked[option] not in choices[option]:
            raise unknown_name(option, str(checked[option]), choices[option], hint=f"(Option of the method '{name}'.)")
    return checked
