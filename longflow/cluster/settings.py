"""The settings of a cluster, ``cluster.json``: partition, account, sizes of jobs, for all steps and for each kind."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from longflow.cluster.steps import KINDS, StepKind
from longflow.errors import ConfigurationError
from longflow.files import write_json
from longflow.paths import cluster_settings, is_printable
from longflow.plans import validated
from longflow.reading import read_json

#: kinds of steps that have the settings of another kind, where they have none of their own
LIKE: dict[StepKind, StepKind] = {"measure": "train", "compare": "predict"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> int:
    """Parse a time limit.

    >>> seconds_of("90m"), seconds_of("1.5d")
    (5400, 129600)

    :raises ValueError: it is none, or shorter than a minute.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    seconds = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if seconds < 60:
        raise ValueError(f"'{text}' is no time limit; expected 30m, 24h or 2d")
    return seconds


def _one_word(text: str) -> str:
    if not text or re.search(r"\s", text) or not is_printable(text):
        raise ValueError("expected one word, as the cluster's documentation has it")
    return text


def _one_line(text: str) -> str:
    if not is_printable(text, 10_000):
        raise ValueError("expected one line of the shell, without control characters")
    return text


def _is_time(text: str) -> str:
    seconds_of(text)
    return text


Word = Annotated[str, AfterValidator(_one_word)]
Line = Annotated[str, AfterValidator(_one_line)]


class StepSettings(BaseModel):
    """What a job asks Slurm for; None: longflow proposes a number, or Slurm's default counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Word | None = Field(None, description="queue of the jobs, as sinfo lists them; null: the default one")
    account: Word | None = Field(None, description="project that pays, as the cluster's staff named it")
    qos: Word | None = Field(None, description="quality of service, where the cluster has several")
    constraint: Word | None = Field(None, description="feature that the node must have, as a kind of GPU: a100")
    nodes: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="machines of one job; null: 1")
    gpus: Annotated[int, Field(ge=0, le=64)] | None = Field(
        None, description="GPUs on each node; null: 1 for train and predict, 0 for all other steps"
    )
    cpus: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="cores for each process; null: proposed"
    )
    memory: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None, description="GB of main memory on each node; null: proposed"
    )
    time: Annotated[str, AfterValidator(_is_time)] | None = Field(
        None,
        description="time limit: 30m, 24h, 2d; a training that takes longer goes on in the same job; null: proposed",
    )
    parallel: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="most jobs of one kind that run at the same time; null: as many as Slurm allows"
    )
    setup: tuple[Line, ...] | None = Field(
        None,
        description='lines of the shell before the command, as "module load cuda", "source venv/bin/activate"; null: '
        "the Python that longflow_run was started with",
    )
    container: Line | None = Field(None, description="Apptainer image that has longflow; null: no container")
    scratch: Line | None = Field(
        None, description='folder on the node to which a training copies its data first, as "$SLURM_TMPDIR"; null: none'
    )

    @field_validator("container", "scratch")
    @classmethod
    def _is_not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("expected a path; null means none")
        return value


class ClusterSettings(StepSettings):
    """``cluster.json``: settings of all steps, and under ``steps`` those of a kind of step, which override them."""

    comments: dict[str, str] = Field(default={}, description="explanations; longflow does not read them")
    steps: dict[StepKind, StepSettings] = Field(default={}, description="settings by kind of step")

    def of(self, kind: StepKind) -> StepSettings:
        """Return the settings of a kind of step."""
        values = self.model_dump(exclude={"comments", "steps"}, exclude_none=True)
        for one in reversed(_read_for(kind)):
            values |= self._of_steps(one, kind)
        return StepSettings(**values)

    def place_of(self, kind: StepKind, key: str) -> str:
        """Return where a setting of a step stands in the file, or has to be written."""
        below = [one for one in _read_for(kind) if key in self._of_steps(one, kind)]
        if not below and getattr(self, key) is not None:
            return key
        return f"steps.{(below or [kind])[0]}.{key}"

    def _of_steps(self, place: StepKind, kind: StepKind) -> dict[str, Any]:
        """Return what stands under ``steps`` at a place and counts for a kind of step."""
        found = self.steps.get(place, StepSettings()).model_dump(exclude_none=True)
        # a measurement takes minutes, whatever a training may take
        return {key: value for key, value in found.items() if kind != "measure" or place == kind or key != "time"}


def _read_for(kind: StepKind) -> list[StepKind]:
    """Return the kinds whose settings count for a step, its own first."""
    return [kind, LIKE[kind]] if kind in LIKE else [kind]


def read_settings(path: Path | None) -> ClusterSettings:
    """Read the settings of a cluster.

    :param path: of a file; None: ``cluster.json`` in the folder of results, and the defaults where it does not exist.
    :raises DataError: the file is missing or no JSON.
    :raises ConfigurationError: a key is unknown or has an invalid value; all problems are listed.
    """
    if path is None:
        path = cluster_settings()
        if not path.is_file():
            return ClusterSettings()
    return validated(ClusterSettings, read_json(path), path)


def write_defaults(path: Path) -> None:
    """Write the default settings, each with its explanation.

    :raises ConfigurationError: the file exists.
    """
    if path.exists():
        raise ConfigurationError(f"{path} exists. Give another name, or delete the file first.")
    keys = StepSettings.model_fields
    content: dict[str, Any] = {
        "comments": {
            **{name: field.description for name, field in keys.items()},
            "steps": f"settings of a kind of step ({', '.join(KINDS)}) that override those above, as "
            '{"train": {"partition": "gpu", "time": "24h"}}; compare has those of predict where it has none of its '
            "own, measure those of train apart from its time",
        },
        **dict.fromkeys(keys),
        "steps": {"train": {}, "predict": {}},
    }
    write_json(content, path)
