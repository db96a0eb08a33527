"""From a fingerprint to plans."""

import torch

from longflow.data.dataset import DatasetDescription
from longflow.errors import ConfigurationError
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.networks.precision import computes_bf16, default_device
from longflow.paths import PLANS_NAME
from longflow.planning.channels import plan_channels
from longflow.planning.memory import GB, training_memory
from longflow.planning.presets import preset
from longflow.planning.spatial import plan_space
from longflow.planning.temporal import plan_time
from longflow.plans import ConfigurationPlan, NetworkPlan, Plans

#: the methods whose training steps must fit the memory, by task; the largest decides the patch
PLANNED_METHODS = {"forecast": ("cronos", "cronos_discrete", "tfm")}


def make_plans(
    fingerprint: Fingerprint,
    description: DatasetDescription,
    preset_name: str,
    gpu_memory: float | None = None,
    plans_name: str = PLANS_NAME,
) -> Plans:
    """Decide everything for a dataset.

    :param gpu_memory: GB that a training step may take; None: the preset's.
    :raises DataError: the dataset cannot serve its task (no subject has two scans).
    :raises ConfigurationError: nothing fits the memory, or dataset.json asks for what cannot be.
    """
    size = preset(preset_name)
    if description.task not in PLANNED_METHODS:
        raise ConfigurationError(
            f"dataset.json asks for the task '{description.task}', which longflow cannot plan for yet. "
            f"Known: {', '.join(PLANNED_METHODS)}."
        )
    plans = Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        task=description.task,
        preset=size.name,
        gpu_memory=size.gpu_memory if gpu_memory is None else gpu_memory,
        channel_names=description.channels,
        file_ending=description.file_ending,
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        temporal=plan_time(fingerprint.temporal, size.longest_sequence, description.task),
        channels=plan_channels(fingerprint.spatial, description),
        configurations={},
        training=size.training.model_copy(),
    )
    steps = TrainingSteps(plans)
    space = plan_space(fingerprint.spatial, size, steps.largest, plans.gpu_memory * GB)
    for plan in space.configurations.values():
        by_method = steps.by_method(plan.patch_size, plan.network, plan.batch_size)
        plan.memory_estimate = {method: round(needed / GB, 3) for method, needed in by_method.items()}
    return plans.model_copy(
        update={
            "transpose_forward": space.transpose_forward,
            "transpose_backward": space.transpose_backward,
            "configurations": space.configurations,
        }
    )


def training_device(preset_name: str) -> tuple[str, bool]:
    """The kind of device that a plan of this preset is for, and whether it trains in bf16.

    That of this machine; but without a GPU here, all presets but tiny are planned for a GPU elsewhere, with bf16.
    """
    kind = default_device().type
    if kind != "cuda" and preset_name != "tiny":
        return "cuda", True
    return kind, computes_bf16(torch.device(kind))


class TrainingSteps:
    """Bytes of training steps of the planned methods; remembered, because planning asks for the same ones again."""

    def __init__(self, plans: Plans):
        self.plans = plans
        self.device, self.bf16 = training_device(plans.preset)
        temporal = plans.temporal
        grid_is_longer = temporal.grid.length >= temporal.sequence_length
        #: the method whose stack is the largest
        self.heaviest = "cronos_discrete" if grid_is_longer else "cronos"
        self._known: dict[str, float] = {}

    def largest(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> float:
        """Of the method that takes most."""
        return self._of(self.heaviest, patch_size, network, batch_size)

    def by_method(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> dict[str, float]:
        """Of every planned method."""
        return {
            method: self._of(method, patch_size, network, batch_size) for method in PLANNED_METHODS[self.plans.task]
        }

    def _of(self, method: str, patch_size: list[int], network: NetworkPlan, batch_size: int) -> float:
        trial = ConfigurationPlan(
            data_identifier="trial",
            spacing=[1, 1, 1],
            median_image_size=[1, 1, 1],
            patch_size=patch_size,
            batch_size=batch_size,
            network=network,
        )
        key = f"{method} {trial.model_dump_json()}"
        if key not in self._known:
            plans = self.plans.model_copy(update={"configurations": {"trial": trial}})
            self._known[key] = training_memory(method, plans, "trial", self.device, self.bf16)
        return self._known[key]
