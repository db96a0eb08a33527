"""Find things by name: longflow's own, and those of installed packages (entry points); imported when first used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from longflow.errors import ConfigurationError, unknown_name


@dataclass(frozen=True)
class Registry:
    """One kind of thing that has a name: tasks, methods, metrics, ...

    A package brings its own by an entry point of the group. Longflow's own names cannot be replaced.

    :param kind: singular noun for messages, as "metric".
    :param group: of entry points, as "longflow.metrics".
    :param own: returns longflow's own things: name to "module:attribute". Nothing is imported for it.
    :param fits: whether a loaded thing is of this kind.
    :param expected: what it has to be, for messages.
    """

    kind: str
    group: str
    own: Callable[[], Mapping[str, str]]
    fits: Callable[[Any], bool] = lambda thing: True
    expected: str = ""

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self.own(), *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str, hint: str = "") -> Any:
        """Import the thing of a name.

        :param hint: sentence at the end of the message for an unknown name.
        :raises NotFoundError: no such name; the nearest one is in the message.
        :raises ConfigurationError: an installed package announces it, but it cannot be loaded or is of another kind.
        """
        own = self.own()
        if name in own:
            module, _, attribute = own[name].partition(":")
            return getattr(import_module(module), attribute)
        points = [point for point in entry_points(group=self.group) if point.name == name]
        if not points:
            raise unknown_name(self.kind, name, self.names(), hint)
        try:
            found = points[0].load()
        except Exception as error:
            raise ConfigurationError(
                f"The {self.kind} '{name}' of {points[0].value} cannot be loaded: {error}"
            ) from error
        if not self.fits(found):
            raise ConfigurationError(f"The {self.kind} '{name}' ({points[0].value}) is not {self.expected}.")
        return found


def modules_of(folder: Path, package: str, attribute: str) -> dict[str, str]:
    """List the public modules of a folder as entries of a registry, without importing any.

    :param package: dotted name of the folder.
    :param attribute: that each module offers, as "METHOD".
    :returns: module name to "package.module:attribute".
    """
    return {
        module.name: f"{package}.{module.name}:{attribute}"
        for module in iter_modules([str(folder)])
        if not module.name.startswith("_")
    }
