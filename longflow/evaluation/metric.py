"""Metrics: found by name, longflow's own and those of installed packages.

A task lists its metrics in ``Task.metrics``. A package adds one by an entry point of the group ``longflow.metrics``: an
instance of :class:`Metric` that names its task. It then appears in metrics.csv, metrics.json and the table of
``longflow_evaluate`` of that task.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from longflow.errors import ConfigurationError
from longflow.registry import Registry
from longflow.task import Task, all_tasks

logger = logging.getLogger(__name__)

Better = Literal["higher", "lower"]

#: in ``Metric.unit``: replaced by "HU" in tables of CT
INPUT_UNITS = "input units"


@dataclass(frozen=True, eq=False)
class Compared:
    """A prediction in memory with its reference, on one grid; what a metric is computed from.

    Tasks add what their metrics need (the last context image, the body).

    :param prediction: (channels, z, y, x) in input units, or a boolean mask (z, y, x) of one structure.
    :param reference: likewise.
    :param spacing: mm, (z, y, x).
    """

    prediction: np.ndarray
    reference: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Metric:
    """A number that compares a prediction with its reference.

    :param name: column of metrics.csv and key of metrics.json.
    :param task: name of the task whose predictions it measures.
    :param function: of a :class:`Compared` of the task; returns None where the number is not defined. It must be a
        function of a module, since worker processes import it.
    :param definition: what the number means, for metrics.json.
    :param better: which direction is better; None where neither is.
    :param unit: as "mm", or "input units".
    :param heading: in tables; empty: not shown.
    :param format: of the number in tables, as ".4f".
    :param scale: the number is multiplied by it in tables, as 100 for percent.
    """

    name: str
    task: str
    function: Callable[[Any], float | None]
    definition: str
    better: Better | None = None
    unit: str = ""
    heading: str = ""
    format: str = ".4f"
    scale: float = 1.0

    def title(self, input_units: str = INPUT_UNITS) -> str:
        """Return heading and unit for a table.

        :param input_units: the unit of the voxels.
        """
        if not self.unit:
            return self.heading
        separator = "" if self.heading.endswith("\n") else " "
        return f"{self.heading}{separator}[{self.unit.replace(INPUT_UNITS, input_units)}]"


def _own_metrics() -> dict[str, str]:
    """Return the metrics of all tasks, as ``task.name``: two tasks can have a metric of one name."""
    return {f"{task.name}.{name}": place for task in all_tasks() for name, place in task.metrics.items()}


METRICS = Registry(
    "metric",
    "longflow.metrics",
    _own_metrics,
    lambda found: isinstance(found, Metric),
    "a longflow.evaluation.metric.Metric",
)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Return the metrics of a task: its own in the order of tables, then those of installed packages by name.

    A package's metric that cannot be loaded is skipped with a warning.

    :raises ConfigurationError: a package's metric has the name of another metric of the task.
    """
    metrics = {name: METRICS.get(f"{task.name}.{name}") for name in task.metrics}
    own = _own_metrics()
    for entry in METRICS.names():
        if entry in own:
            continue
        try:
            metric = METRICS.get(entry)
        except ConfigurationError as error:
            logger.warning("%s It is missing from the results.", error)
            continue
        if metric.task != task.name:
            continue
        if metric.name in metrics:
            raise ConfigurationError(
                f"The metric '{entry}' of an installed package is called '{metric.name}', as another metric of the "
                f"task '{task.name}'. Expected: a name of its own. Rename it, or uninstall the package."
            )
        metrics[metric.name] = metric
    return tuple(metrics.values())


def compute_metrics(metrics: Iterable[Metric], compared: Compared) -> dict[str, float | None]:
    """Compute metrics of one prediction.

    :returns: number by name; None where it is not defined.
    """
    return {metric.name: metric.function(compared) for metric in metrics}


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def mean_of_all(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where one value is not defined.

    For numbers that are undefined because they are infinite: the mean is infinite then, too.
    """
    values = list(values)
    return None if None in values else mean_of_defined(values)
