"""The record of submitted jobs: which number belongs to which step. States are Slurm's, and results are on the disk."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from longflow.files import write_json
from longflow.plans import validated
from longflow.reading import read_json


class SubmittedJob(BaseModel):
    """A job array that was submitted.

    :param name: of the job.
    :param number: Slurm's; None while it is being submitted.
    :param steps: names of its steps, in the order of the array's indices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    number: str | None
    steps: tuple[str, ...]

    def element(self, index: int) -> str:
        """Return the number of a step of the array."""
        return f"{self.number}_{index}"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    jobs: list[SubmittedJob]


def read_jobs(path: Path) -> list[SubmittedJob]:
    """Read the record; empty where there is none.

    :raises LongflowError: it is no such record.
    """
    return validated(_Record, read_json(path), path).jobs if path.is_file() else []


def write_jobs(jobs: list[SubmittedJob], path: Path) -> None:
    """Write the record."""
    write_json(_Record(jobs=jobs).model_dump(mode="json"), path)


def last_job_of(jobs: list[SubmittedJob]) -> dict[str, tuple[SubmittedJob, int]]:
    """Return the last job of each step, and the step's index in it."""
    return {step: (job, index) for job in jobs for index, step in enumerate(job.steps)}
