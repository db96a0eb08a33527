"""Layouts that can be imported, by name.

A new importer is one module with the attribute ``IMPORTER``, an instance of :class:`Importer`: here, or in an installed
package that names it in an entry point of the group ``longflow.importers``.

Modules of importers are light: ``longflow_import --help`` imports them all. Import NumPy, SimpleITK or nibabel inside
functions.
"""

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from longflow.errors import ConfigurationError, unknown_name
from longflow.importers.scans import (
    Destination,
    HeldOut,
    ImportedDataset,
    ImportedScan,
    Proposal,
    last_scans_as_targets,
)
from longflow.registry import Registry, modules_of
from longflow.task import DEFAULT_TASK, Task, all_tasks

#: modules of this folder that are no importer
SHARED = ("patterns", "registry", "scans", "summary", "writing")


def flag(help: str, **arguments: Any) -> dict[str, Any]:
    """Describe a field of an importer's options, which is a flag of ``longflow_import``.

    :param help: text for ``--help``.
    :param arguments: further arguments of ``argparse.ArgumentParser.add_argument``.
    :returns: metadata of the dataclass field.
    """
    return {"help": help, **arguments}


@dataclass(frozen=True)
class NoOptions:
    """The options of a layout without flags."""


@dataclass(frozen=True)
class Importer:
    """A layout that can be imported.

    :param name: of the layout, as on the command line; that of the module.
    :param read: ``read(source, options)`` finds the scans below a folder; files of images are opened for headers only.
    :param options: dataclass whose fields have a default and metadata of :func:`flag`.
    :param example: command line for ``--help``.
    :param dataset_name: name of the dataset where the user gives none; empty: the user must give one.
    :param serves: whether datasets of the layout can serve a task.
    :param chooses_task: whether the user can choose among these tasks; else it is the first.
    :param task_reason: for a user who chooses nevertheless: why there is no choice, as a clause.
    :param split: ``split(scans, targets)`` makes scans of a test subject context and targets.
    :param split_help: what ``split`` does, for ``--help``; empty for :func:`last_scans_as_targets`.
    :param propose: ``propose(source, options, to)`` is a first step, for a layout that a person must look at before it
        is imported: it writes tables and no image. The second step has the flag ``accept``, and its ``read`` gets the
        destination as a third argument. None: one step.
    """

    name: str
    read: Callable[..., ImportedDataset]
    options: type = NoOptions
    example: str = ""
    dataset_name: str = ""
    serves: Callable[[Task], bool] = lambda task: not task.uses_phases
    chooses_task: bool = True
    task_reason: str = ""
    split: Callable[[Sequence[ImportedScan], int], list[ImportedScan]] = last_scans_as_targets
    split_help: str = ""
    propose: Callable[[Path, Any, Destination], Proposal] | None = None

    @property
    def flags(self) -> tuple[Field, ...]:
        """Return the own flags of the layout."""
        return fields(self.options)

    @property
    def flag_names(self) -> list[str]:
        """Return the names of all flags that not every layout takes."""
        shared = ["task"] if self.chooses_task else []
        return [one.name for one in self.flags] + shared + ([] if self.split_help else ["test_targets"])

    def tasks(self) -> list[str]:
        """List the tasks that the layout serves, the default one first."""
        names = [task.name for task in all_tasks() if self.serves(task)]
        return sorted(names, key=lambda name: name != DEFAULT_TASK)

    def checked_task(self, name: str | None) -> str:
        """Return the task of a new dataset.

        :param name: as the user gave it; None: the default.
        :raises ConfigurationError: the layout does not serve it, or leaves no choice.
        """
        if name is not None and self.task_reason:
            raise ConfigurationError(f"--task {name}: {self.task_reason}. Omit --task.")
        known = self.tasks()
        if name is not None and name not in known:
            raise ConfigurationError(f"--task {name}: the layout {self.name} serves {', '.join(known)}.")
        return name or known[0]

    def run(self, source: Path, to: Destination, held_out: HeldOut | None = None, **options: Any) -> bool:
        """Import a folder.

        :param source: the folder; it is only read.
        :param to: the dataset to write.
        :param held_out: the test subjects; None: only those of the source itself.
        :param options: of the layout; a missing one has its default.
        :returns: False where the dataset was imported with the same settings before.
        :raises LongflowError: the layout is another one, an option is invalid, or a file cannot be used.
        """
        from longflow.importers.writing import write_dataset

        return write_dataset(self.find(source, to, held_out, **options), to)

    def find(self, source: Path, to: Destination, held_out: HeldOut | None = None, **options: Any) -> ImportedDataset:
        """Find what :meth:`run` imports; nothing is written.

        :param source: the folder.
        :param to: the dataset to write.
        :param held_out: the test subjects; None: only those of the source itself.
        :param options: of the layout.
        :returns: the dataset, with the settings that identify the import.
        :raises LongflowError: as :meth:`run`.
        """
        held_out = held_out or HeldOut()
        own = self.options(**options)
        found = self.read(source, own, to) if self.propose else self.read(source, own)
        settings = {"importer": self.name, "source": str(source.resolve()), **found.settings}
        settings |= {"test": sorted(held_out.subjects)} | (
            {} if self.split_help else {"test_targets": held_out.targets}
        )
        return replace(found, scans=self._split(found, held_out), settings=settings)

    def _split(self, found: ImportedDataset, held_out: HeldOut) -> list[ImportedScan]:
        """Make the scans of test subjects context and targets."""
        by_subject: dict[str, list[ImportedScan]] = {}
        for scan in found.scans:
            by_subject.setdefault(scan.subject, []).append(scan)
        for subject in held_out.subjects:
            if subject not in by_subject:
                raise unknown_name("subject", subject, by_subject)
        for subject in {*held_out.subjects, *found.test_subjects}:
            by_subject[subject] = self.split(by_subject[subject], held_out.targets)
        return list(chain.from_iterable(by_subject.values()))


def _own() -> dict[str, str]:
    modules = modules_of(Path(__file__).parent, __package__, "IMPORTER")
    return {name: place for name, place in modules.items() if name not in SHARED}


IMPORTERS = Registry(
    "layout",
    "longflow.importers",
    _own,
    lambda found: isinstance(found, Importer),
    "a longflow.importers.registry.Importer",
)


def all_importers() -> list[Importer]:
    """Return every importer that can be loaded, longflow's own first."""
    found = []
    for name in [*_own(), *(name for name in IMPORTERS.names() if name not in _own())]:
        try:
            found.append(IMPORTERS.get(name))
        except ConfigurationError:
            continue  # reported when the user names the layout
    return found
