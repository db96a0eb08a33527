"""A study: steps that belong together, the place of their records, and what the length of a training depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.cluster.request import StudyData, StudyRequest
from longflow.cluster.steps import Step, study_steps, unfinished
from longflow.paths import DatasetPaths, StudyPaths
from longflow.plans import Plans, read_plans


@dataclass(frozen=True)
class Study:
    """A study that can be run, submitted and looked at.

    :param dataset: that its plans are of.
    :param files: its request, scripts, logs and the record of its jobs.
    :param steps: a step stands after those that it depends on.
    :param plans_file: which may not exist yet.
    :param flags: of every training; the last of --max_time, --iterations and --epochs in them is its length.
    :param max_time: seconds of every training; None: its length is counted in steps.
    """

    dataset: DatasetPaths
    files: StudyPaths
    steps: Sequence[Step]
    plans_file: Path
    flags: tuple[str, ...] = ()
    max_time: float | None = None

    @property
    def plans(self) -> Plans | None:
        """The plans; None before they are made."""
        return read_plans(self.plans_file) if self.plans_file.is_file() else None

    @property
    def iterations(self) -> int | None:
        """Number of steps of a training; None where it is not known before the plans are made."""
        given: Mapping[str, str] = dict(zip(self.flags[::2], self.flags[1::2], strict=True))
        if "--iterations" in given:
            return int(given["--iterations"])
        plans = self.plans
        if plans is None:
            return None
        return int(given.get("--epochs", plans.training.epochs)) * plans.training.iterations_per_epoch

    @property
    def unfinished(self) -> list[Step]:
        """The steps that have to be run, in their order."""
        return unfinished(self.steps)


def study_of(request: StudyRequest, data: StudyData, parts: int = 1) -> Study:
    """Make the study of a request.

    :param parts: steps in which the subjects are prepared.
    """
    return Study(
        dataset=request.paths,
        files=request.paths.study,
        steps=tuple(study_steps(request, data, parts)),
        plans_file=request.paths.plans(request.plans_name),
        flags=request.training,
        max_time=request.max_time,
    )
