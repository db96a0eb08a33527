"""The plans of a dataset: every decision, and its reason. The contract between the rooms.

``longflowPlans.json`` is written by ``longflow_plan``, may be edited by hand, and is validated whenever it is read.
Names follow nnU-Net's plans where both have the thing (``patch_size``, ``strides``, ``features_per_stage``).
Arrays are in nnU-Net's axis order (z, y, x), after ``transpose_forward``.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from longflow.errors import DataError, unknown_name
from longflow.files import write_json
from longflow.fitness.stored import FitnessReference
from longflow.reading import read_json
from longflow.schema import (
    Duration,
    FileEnding,
    FileName,
    FolderName,
    Name,
    Period,
    Phases,
    PositiveFloat,
    PositiveInt,
    validated,
)
from longflow.task import get_task, known_task

PLANS_VERSION = "1"

#: grids have at most this many times the sequence length of slots, and are judged on as many of the latest scans before
#: a target. It is wider than a sample, so that scans are missing as in practice
CONTEXT_WINDOW = 2

TimeUnit = Literal["days", "weeks", "months", "years", "s", "ms", "frames", "cycles", "visits"]
Solver = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "dopri5"]
PresetName = Literal["tiny", "S", "M", "L", "paper"]
NormalForm = Literal["absolute", "per_subject", "per_scan", "matched", "min_max"]
Encoder = Literal["plain", "residual"]

#: time units in which the scans of a subject belong to one acquisition, so that they share one intensity map
ONE_ACQUISITION = ("s", "ms", "frames", "cycles")

#: most stages of a network, blocks of a stage, voxels of a patch and labels
MOST_STAGES, MOST_BLOCKS, MOST_VOXELS, MOST_LABELS = 16, 100, 2**29, 4096
#: most columns of scans.csv that are conditions of networks
MOST_COVARIATES = 100

#: keys that tasks understand whose samples are patches of scans
OF_PATCHES = {"mirror_axes", "pairs_per_batch", "shared_intensity", "other_scans"}

#: name of a task, of longflow or of an installed package
TaskName = Annotated[str, AfterValidator(known_task)]


class _Strict(BaseModel):
    """Refuse unknown keys, which are typing errors, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=False, allow_inf_nan=False)

    @property
    def changed_samples(self) -> list[str]:
        """The keys of patches of scans (``Task.draws_patches``) that have another value than the default."""
        fields = type(self).model_fields
        return [name for name in OF_PATCHES & set(fields) if getattr(self, name) != fields[name].default]


class GridPlan(_Strict):
    """A regular temporal grid (CRONOS A.1.1) and what it costs on this dataset."""

    spacing: PositiveFloat = Field(description="Δ, in time units (eq. 12)")
    length: PositiveInt = Field(description="K, number of slots (eq. 12)")
    overwritten: float = Field(
        ge=0, le=1, description="share of scans lost because a later one fell into their slot (eq. 16)"
    )
    rounding_error: float = Field(
        ge=0, description="mean distance of a scan from its slot, in units of the median interval"
    )
    filled: float = Field(ge=0, le=1, description="share of slots that have no scan and are filled by LOCF (eq. 19)")
    clipped: float = Field(ge=0, le=1, description="share of scans that lie before the first slot (eq. 13)")
    score: float = Field(ge=0, description="the sum by which grids were compared; lower is better")


class RecurrencePlan(_Strict):
    """Scans of a subject repeat, after a period of its own that is inferred from them (``data.recurrence``)."""

    periods: list[PositiveFloat] = Field(min_length=1, description="those that occur, in time units")
    probabilities: list[Annotated[float, Field(ge=0, le=1)]] = Field(description="of each period, before any scan")
    length: PositiveFloat = Field(description="of the kernel")
    noise: PositiveFloat = Field(description="of the kernel")

    @model_validator(mode="after")
    def _one_probability_per_period(self) -> "RecurrencePlan":
        if len(self.probabilities) != len(self.periods) or not sum(self.probabilities) > 0:
            raise ValueError(
                f"{len(self.periods)} periods need as many probabilities, not all 0; found {self.probabilities}"
            )
        return self


class TemporalPlan(_Strict):
    """How networks see time."""

    time_unit: TimeUnit
    time_scale: PositiveFloat = Field(
        description="median interval in time units; networks see (t - t_last_context) / time_scale"
    )
    sequence_length: PositiveInt = Field(description="most context scans that a sample holds")
    shortest_interval: PositiveFloat = Field(description="5th percentile of the intervals, in time units")
    longest_span: PositiveFloat = Field(description="longest time between two scans of one subject, in time units")
    longest_horizon: PositiveFloat = Field(description="longest horizon that training can draw, in time units")
    period: Period | None = Field(
        default=None, description="after which scans repeat: time units, or the column of scans.csv that holds it"
    )
    recurrence: RecurrencePlan | None = Field(
        default=None, description="null: forecasts of training scans that assume repetition were not better than LCI"
    )
    grid: GridPlan
    runners_up: list[GridPlan] = []
    regular: bool = Field(
        description="whether scans lie on a grid closely enough that discrete methods are recommended"
    )
    reasons: list[str] = Field(description="each choice with the numbers that led to it")

    @property
    def repeats(self) -> bool:
        """Whether scans repeat, so that a subject's period is given or inferred."""
        return self.period is not None or self.recurrence is not None

    def numbers(self) -> dict[str, Any]:
        """Return what a trained network depends on, for hashes."""
        # without the keys that hold nothing: hashes of earlier plans stay what they were
        without = {"reasons", "runners_up", *(name for name in ("period", "recurrence") if getattr(self, name) is None)}
        return self.model_dump(exclude=without)


class ChannelPlan(_Strict):
    """The invertible intensity normal form of a channel: normal = (input - offset) / scale.

    ``offset`` and ``scale`` are fixed numbers for ``absolute`` (CT) and ``null`` otherwise, where each subject's
    first scan (``per_subject``) or each scan (``per_scan``) has its own mean and standard deviation. ``matched``:
    those of the first scan, carried to the later ones by robust maps between neighbouring scans. ``min_max``: the
    minimum of each scan becomes 0, its maximum 1; it is never planned, only asked for.
    In ``phase_channels`` they have numbers in every form: those of a typical scan.
    Intensities are limited to ``clip`` before, in input units: for segmentation of CT, as nnU-Net does.
    """

    name: Name
    normal_form: NormalForm
    offset: float | None = None
    scale: PositiveFloat | None = None
    clip: tuple[float, float] | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _absolute_needs_numbers(self) -> "ChannelPlan":
        if self.normal_form == "absolute" and (self.offset is None or self.scale is None):
            raise ValueError("normal_form 'absolute' needs numbers for offset and scale")
        return self

    def numbers(self) -> dict[str, Any]:
        """Return what the prepared voxels depend on, for hashes."""
        # without the key where nothing is clipped: hashes of forecasting plans stay what they were
        return self.model_dump(exclude={"reason"} if self.clip else {"reason", "clip"})


class NetworkPlan(_Strict):
    """Topology of a network, by nnU-Net's rules; the number of dimensions is the length of a stride.

    ``encoder`` is of nnU-Net's U-Nets (task ``segment``), ``blocks_per_stage`` of these and of the networks that
    translate; a network that forecasts has one residual block at each stage.
    """

    features_per_stage: list[PositiveInt] = Field(min_length=1)
    strides: list[list[PositiveInt]]
    kernel_sizes: list[list[PositiveInt]]
    attention: bool = Field(description="windowed self-attention at the bottleneck (CRONOS C.3)")
    encoder: Encoder = "plain"
    blocks_per_stage: list[PositiveInt] = Field(
        default=[], description="convolutions or blocks of each encoder stage; empty: the network's own number"
    )

    @model_validator(mode="after")
    def _one_entry_per_stage(self) -> "NetworkPlan":
        stages = {len(self.features_per_stage), len(self.strides), len(self.kernel_sizes)}
        if len(stages) != 1:
            raise ValueError(
                "features_per_stage, strides and kernel_sizes need one entry per stage, but have "
                f"{len(self.features_per_stage)}, {len(self.strides)} and {len(self.kernel_sizes)}"
            )
        if self.blocks_per_stage and len(self.blocks_per_stage) not in stages:
            raise ValueError(
                f"blocks_per_stage needs one entry per stage ({len(self.strides)}), found {self.blocks_per_stage}"
            )
        if len(self.strides) > MOST_STAGES or max(self.blocks_per_stage, default=0) > MOST_BLOCKS:
            raise ValueError(f"a network has at most {MOST_STAGES} stages of {MOST_BLOCKS} blocks each")
        if {len(axes) for axes in self.strides + self.kernel_sizes} not in ({2}, {3}):
            raise ValueError("every entry of strides and kernel_sizes needs one number per axis, 2 or 3 in all of them")
        if any(features % 8 for features in self.features_per_stage):
            raise ValueError(
                f"features_per_stage must be multiples of 8 (GroupNorm 8), found {self.features_per_stage}"
            )
        return self

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.strides[0])


class ConfigurationPlan(_Strict):
    """The plan of one resolution."""

    data_identifier: FolderName = Field(
        description="the preprocessed data that it reads; 2d shares those of 3d_fullres"
    )
    spacing: list[PositiveFloat] = Field(min_length=3, max_length=3, description="mm, (z, y, x) after transposition")
    median_image_size: list[PositiveFloat] = Field(min_length=3, max_length=3, description="voxels at this spacing")
    patch_size: list[PositiveInt] = Field(min_length=2, max_length=3)
    batch_size: PositiveInt
    pairs_per_batch: PositiveInt | None = Field(
        default=None, description="task 'segment': pairs of scans in a step; null: half of batch_size, at least 1"
    )
    mirror_axes: list[Annotated[int, Field(ge=0, le=2)]] | None = Field(
        default=None, description="task 'segment': mirrored axes of a patch, 0 the first; null: all, as nnU-Net"
    )
    other_scans: PositiveInt = Field(default=2, description="task 'segment': most other scans of a training sample")
    network: NetworkPlan
    networks: dict[Name, NetworkPlan] = Field(
        default={}, description="of networks that have a topology of their own (--network), by name"
    )
    own_grid: bool = Field(
        default=False,
        description="scans keep the grid of their files; 'spacing' is then the median, and decides nothing",
    )
    memory_estimate: dict[str, float] = Field(default={}, description="GB at the peak of a training step, by method")
    reasons: list[str] = Field(default=[], description="spacing, patch and batch with the numbers that led to them")

    @model_validator(mode="after")
    def _patch_fits_network(self) -> "ConfigurationPlan":
        if len(self.patch_size) != self.network.dimensions:
            raise ValueError(
                f"patch_size {self.patch_size} has {len(self.patch_size)} axes, but the network's strides have "
                f"{self.network.dimensions}"
            )
        if wrong := [name for name, one in self.networks.items() if one.dimensions != self.network.dimensions]:
            raise ValueError(
                f"networks: '{wrong[0]}' has strides of {self.networks[wrong[0]].dimensions} axes, expected "
                f"{self.network.dimensions}, as 'network' has"
            )
        if math.prod(self.patch_size) > MOST_VOXELS:
            raise ValueError(f"patch_size {self.patch_size} has more than {MOST_VOXELS} voxels")
        for axis, size in enumerate(self.patch_size):
            divisor = 1
            for stride in self.network.strides:
                divisor *= stride[axis]
            if size % divisor:
                raise ValueError(
                    f"patch_size {self.patch_size} is not divisible by the product of the strides along axis {axis} "
                    f"({divisor}); the next possible size there is {(size // divisor + 1) * divisor}"
                )
        return self

    @model_validator(mode="after")
    def _mirrored_axes_exist(self) -> "ConfigurationPlan":
        axes, last = self.mirror_axes or [], len(self.patch_size) - 1
        if len(set(axes)) < len(axes) or max(axes, default=0) > last:
            raise ValueError(f"mirror_axes names each of the patch's axes 0 to {last} at most once; found {axes}")
        return self

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The axes of a patch that are mirrored, in ascending order."""
        return tuple(range(len(self.patch_size))) if self.mirror_axes is None else tuple(sorted(self.mirror_axes))

    @property
    def pairs(self) -> int:
        """The pairs of scans in a step."""
        return self.pairs_per_batch or max(1, self.batch_size // 2)

    def topology(self, network: str) -> NetworkPlan:
        """Return the topology of a network, by its name (``--network``)."""
        return self.networks.get(network, self.network)

    @property
    def tile(self) -> tuple[int, int, int]:
        """The patch size along z, y, x: a 2D patch is a slice."""
        return (*[1] * (3 - len(self.patch_size)), *self.patch_size)


class TrainingPlan(_Strict):
    """Defaults of ``longflow_train``; flags override them."""

    epochs: Duration
    iterations_per_epoch: Duration
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0, default=0.01)
    warmup: float = Field(ge=0, lt=1, default=0.05, description="share of the run during which the rate rises")
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = Field(ge=0, lt=1, default=0.999)
    elastic: float = Field(
        ge=0, le=1, default=0, description="probability of an elastic deformation of a sample; for forecasts"
    )
    time_factor: float = Field(
        ge=1,
        le=10,
        default=1,
        description="times of a sample are multiplied by a number from 1 / time_factor to it; not with a period",
    )
    label_weight: float = Field(
        ge=0,
        le=1000,
        default=0,
        description="loss of a forecast: labelled voxels of the target weigh 1 + label_weight, others 1",
    )
    shared_intensity: bool = Field(False, description="task 'segment': one intensity augmentation for both of a pair")


class InferencePlan(_Strict):
    """Defaults of ``longflow_predict``; flags override them."""

    solver: Solver = "euler"
    steps: PositiveInt = 10
    tile_step_size: float = Field(ge=0.01, le=1, default=0.5)
    mirror: bool | None = Field(default=None, description="average over mirrored inputs; null: as the method has it")


class IntensityRange(_Strict):
    """Intensities of a channel in the foreground of the training scans, in file units."""

    percentile_00_5: float
    median: float
    percentile_99_5: float


class CovariatePlan(_Strict):
    """A column of scans.csv that is a condition of the networks: (value - mean) / standard_deviation."""

    name: Name = Field(description="of the column")
    mean: float = Field(description="over the training scans whose value is known")
    standard_deviation: PositiveFloat = Field(description="over the same scans")
    minimum: float = Field(description="smallest value of the training scans")
    maximum: float = Field(description="largest value of the training scans")
    reason: str = ""


class TrainingData(_Strict):
    """The ranges of the training data; prediction warns of input far outside them. It names no subject.

    Spacing and field of view are those of the files, (smallest, largest) along each axis (z, y, x).
    """

    spacing: list[tuple[float, float]] = Field(min_length=3, max_length=3, description="mm")
    field_of_view: list[tuple[float, float]] = Field(min_length=3, max_length=3, description="mm")
    intensities: list[IntensityRange] = Field(description="one entry per channel")
    foreground: Literal["bodies", "labels"] = Field(description="where the intensities were measured")
    shortest_interval: PositiveFloat | None = Field(description="between two scans of a subject; null: none has two")
    fitness: FitnessReference | None = Field(default=None, description="null: too few subjects, or an earlier version")


class Plans(_Strict):
    """All decisions for a dataset."""

    version: Literal["1"] = PLANS_VERSION
    dataset_name: FileName
    plans_name: FileName
    task: TaskName
    preset: PresetName
    gpu_memory: PositiveFloat = Field(description="GB that a training step may take")
    channel_names: list[Name]
    labels: dict[Name, int | list[int]] = Field(
        default={}, max_length=MOST_LABELS, description="as in dataset.json, with nnU-Net's regions"
    )
    regions_class_order: list[int] = Field(default=[], description="as in dataset.json; empty without regions")
    phases: Phases = Field(default=[], description="task 'translate': the phase at t = 0, then that at t = 1")
    phase_channels: dict[str, list[ChannelPlan]] = Field(
        default={},
        description="channels of each phase, where the phases are different modalities; translations are written by "
        "the numbers of the requested phase, for other forms than 'absolute' those of a typical scan",
    )
    file_ending: FileEnding
    transpose_forward: list[int] = Field(min_length=3, max_length=3)
    transpose_backward: list[int] = Field(min_length=3, max_length=3)
    temporal: TemporalPlan
    channels: list[ChannelPlan]
    covariates: list[CovariatePlan] = Field(default=[], max_length=MOST_COVARIATES, description="conditions")
    excluded_covariates: dict[Name, str] = Field(default={}, description="reason by column of scans.csv")
    configurations: dict[FolderName, ConfigurationPlan]
    training: TrainingPlan
    inference: InferencePlan = InferencePlan()
    training_data: TrainingData | None = Field(default=None, description="null: planned by longflow 0.1")

    @model_validator(mode="after")
    def _axes_phases_and_channels_fit(self) -> "Plans":
        forward, backward = self.transpose_forward, self.transpose_backward
        if sorted(forward) != [0, 1, 2] or [forward[axis] for axis in backward if axis in (0, 1, 2)] != [0, 1, 2]:
            raise ValueError(
                "transpose_forward needs the axes 0, 1 and 2, each once, and transpose_backward must undo it; found "
                f"{forward} and {backward}"
            )
        if get_task(self.task).uses_phases and not self.phases:
            raise ValueError(f"the task {self.task} needs two phases, found none")
        if self.phase_channels and set(self.phase_channels) != set(self.phases):
            raise ValueError(
                f"phase_channels needs the phases {', '.join(self.phases)}, found {', '.join(self.phase_channels)}"
            )
        for phase, channels in self.phase_channels.items():
            if len(channels) != len(self.channel_names):
                raise ValueError(
                    f"phase_channels: '{phase}' has {len(channels)} entries, expected one for each of channel_names "
                    f"({len(self.channel_names)})"
                )
            if any(channel.offset is None or channel.scale is None for channel in channels):
                raise ValueError(
                    f"phase_channels: a channel of '{phase}' has no normal form to write translations by: offset and "
                    "scale need numbers; plan the dataset again"
                )
        if len(self.channels) != len(self.channel_names) or not self.channels:
            raise ValueError(
                f"channels needs one entry for each of channel_names: found {len(self.channels)} and "
                f"{len(self.channel_names)}"
            )
        return self

    @model_validator(mode="after")
    def _what_other_tasks_ignore_is_not_set(self) -> "Plans":
        changed = {name for plan in (self.training, *self.configurations.values()) for name in plan.changed_samples}
        if changed and not get_task(self.task).draws_patches:
            raise ValueError(f"{', '.join(sorted(changed))} can only be set for the task 'segment', not '{self.task}'")
        return self

    def channels_of(self, phase: str) -> list[ChannelPlan]:
        """Return the channels of a phase; those of all scans where phases have none of their own."""
        return self.phase_channels.get(phase, self.channels)

    def configuration(self, name: str) -> ConfigurationPlan:
        """Return a configuration by name.

        :raises NotFoundError: there is none of that name; the nearest one is in the message.
        """
        if name not in self.configurations:
            raise unknown_name("configuration", name, self.configurations, hint=f"(Plans of {self.dataset_name}.)")
        return self.configurations[name]

    def identity(self, configuration: str) -> str:
        """Return a short hash of everything that a trained network of this configuration depends on.

        It is stored with every checkpoint, so that weights are never loaded into another plan. It excludes what only
        steers training or prediction: epochs, learning rate, solver, tiles, memory.
        """
        plan = self.configuration(configuration)
        content = {
            "task": self.task,
            "channels": [channel.numbers() for channel in self.channels],
            "temporal": self.temporal.numbers(),
            "transpose": self.transpose_forward,
            "spacing": plan.spacing,
            "patch_size": plan.patch_size,
            # what a network does not have (flows have no encoder kind) says nothing about its weights
            "network": plan.network.model_dump(exclude_defaults=True),
        }
        if self.covariates:
            content["covariates"] = [[one.name, one.mean, one.standard_deviation] for one in self.covariates]
        if self.phase_channels:
            content["phase_channels"] = phase_numbers(self)
        if plan.networks:
            content["networks"] = {name: one.model_dump(exclude_defaults=True) for name, one in plan.networks.items()}
        content |= get_task(self.task).plan_identity(self, plan)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def phase_numbers(plans: Plans) -> dict[str, list[dict[str, Any]]]:
    """Return what prepared voxels depend on in the channels of each phase, for hashes."""
    return {phase: [channel.numbers() for channel in channels] for phase, channels in plans.phase_channels.items()}


def read_plans(path: Path) -> Plans:
    """Read and validate plans.

    :raises DataError: the file is missing or not JSON.
    :raises ConfigurationError: a key is unknown, missing or out of its range; all problems are listed.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. longflow_plan_and_preprocess makes the plans of a dataset.")
    return validated(Plans, read_json(path), path)


def write_plans(plans: Plans, path: Path) -> None:
    """Write plans as JSON, atomically."""
    write_json(plans.model_dump(mode="json"), path)
