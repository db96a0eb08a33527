"""Make plans from a fingerprint."""

import torch

from longflow.data.dataset import DatasetDescription
from longflow.data.labels import label_manager, structures
from longflow.errors import ConfigurationError
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.methods.registry import known_methods, network_of
from longflow.networks.precision import computes_bf16, default_device
from longflow.paths import PLANS_NAME
from longflow.planning.channels import plan_channels
from longflow.planning.conditions import plan_conditions
from longflow.planning.memory import GB, training_memory
from longflow.planning.presets import Preset
from longflow.planning.spatial import own_topologies, plan_space
from longflow.plans import ConfigurationPlan, Encoder, InferencePlan, NetworkPlan, Plans
from longflow.task import get_task


def make_plans(
    fingerprint: Fingerprint,
    description: DatasetDescription,
    preset_name: str,
    gpu_memory: float | None = None,
    plans_name: str = PLANS_NAME,
    encoder: Encoder | None = None,
) -> Plans:
    """Decide everything for a dataset.

    :param gpu_memory: GB that a training step may take; None: the preset's.
    :param encoder: of nnU-Net's U-Nets, for tasks that choose it; None: plain.
    :param fingerprint: of the dataset.
    :param description: dataset.json.
    :param preset_name: tiny, S, M, L, or another one of the task.
    :param plans_name: name of the plans.
    :returns: the plans.
    :raises DataError: the dataset cannot serve its task (no subject has two scans).
    :raises ConfigurationError: nothing fits the memory, or dataset.json requests something impossible.
    """
    task = get_task(description.task)
    if encoder is not None and not task.chooses_encoder:
        raise ConfigurationError(
            f"--encoder {encoder} has no meaning for {fingerprint.dataset_name}: the networks of its task "
            f"'{description.task}' (dataset.json) have one kind of encoder. Remove --encoder."
        )
    size = task.preset(preset_name, description, encoder)
    plans = Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        task=description.task,
        preset=size.name,
        gpu_memory=size.gpu_memory if gpu_memory is None else gpu_memory,
        channel_names=description.channels,
        **(_labels(description) if task.uses_labels else {}),
        phases=fingerprint.phases.names if task.uses_phases else [],
        file_ending=description.file_ending,
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        **plan_conditions(task.plan_time(fingerprint.temporal, size.longest_sequence), fingerprint, description),
        channels=plan_channels(fingerprint.spatial, description, fingerprint.intensity_maps),
        phase_channels=task.plan_phase_channels(fingerprint, description),
        configurations={},
        training=size.training.model_copy(),
        inference=task.inference(size) or InferencePlan(),
        training_data=fingerprint.training_data(),
    )
    return _with_space(plans, fingerprint, size)


def _with_space(plans: Plans, fingerprint: Fingerprint, size: Preset) -> Plans:
    """Add the spatial choices, the memory of every planned method and the task's remarks."""
    task = get_task(plans.task)
    scans = [len(times) for times in fingerprint.temporal.times]
    steps = TrainingSteps(plans, size, has_pairs=max(scans) > 1)
    space = plan_space(
        fingerprint.spatial, size, steps.largest, plans.gpu_memory * GB, sum(scans), own_slices=task.own_slices
    )
    for plan in space.configurations.values():
        by_method = steps.by_method(plan.patch_size, plan.network, plan.batch_size)
        plan.memory_estimate = {method: round(needed / GB, 3) for method, needed in by_method.items()}
        plan.reasons += task.planning_remarks(plan, steps.deciding, plans.gpu_memory)
    return plans.model_copy(
        update={
            "transpose_forward": space.transpose_forward,
            "transpose_backward": space.transpose_backward,
            "configurations": space.configurations,
        }
    )


def _labels(description: DatasetDescription) -> dict[str, dict | list]:
    """Return the labels as the plans keep them; a dataset without structures can serve pretraining.

    :raises ConfigurationError: the labels cannot be used.
    """
    if structures(description.labels):
        label_manager(description.labels, description.regions_class_order)
    return {"labels": description.labels, "regions_class_order": description.regions_class_order}


def training_device(preset_name: str) -> tuple[str, bool]:
    """Return the kind of device that a plan of this preset is for, and whether it trains in bf16.

    It is that of this machine. But without a GPU here, all presets except tiny are planned for a GPU elsewhere, with
    bf16.
    """
    kind = default_device().type
    if kind != "cuda" and preset_name != "tiny":
        return "cuda", True
    return kind, computes_bf16(torch.device(kind))


class TrainingSteps:
    """Bytes of training steps of the planned methods; remembered, since planning requests them repeatedly."""

    def __init__(self, plans: Plans, size: Preset, has_pairs: bool):
        self.size = size
        # a loss with an ignore label reads the voxels' values, which fake tensors lack
        labels = {name: value for name, value in plans.labels.items() if name != "ignore"}
        self.plans = plans.model_copy(update={"labels": labels})
        self.device, self.bf16 = training_device(plans.preset)
        task, known = get_task(plans.task), known_methods()
        #: methods whose memory is written down
        self.methods = [method for method in task.planned_methods(plans, has_pairs) if network_of(method)[0] in known]
        #: methods of which the largest decides the patch
        self.deciding = task.deciding_methods(plans, self.methods)
        self._known: dict[str, float] = {}

    def largest(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> float:
        """Return the bytes of the deciding method that takes most."""
        return max((self._of(method, patch_size, network, batch_size) for method in self.deciding), default=0.0)

    def by_method(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> dict[str, float]:
        """Return the bytes of every planned method."""
        return {method: self._of(method, patch_size, network, batch_size) for method in self.methods}

    def _of(self, method: str, patch_size: list[int], network: NetworkPlan, batch_size: int) -> float:
        trial = ConfigurationPlan(
            data_identifier="trial",
            spacing=[1, 1, 1],
            median_image_size=[1, 1, 1],
            patch_size=patch_size,
            batch_size=batch_size,
            network=network,
            networks=own_topologies(network, self.size),
        )
        key = f"{method} {trial.model_dump_json()}"
        if key not in self._known:
            plans = self.plans.model_copy(update={"configurations": {"trial": trial}})
            self._known[key] = training_memory(method, plans, "trial", self.device, self.bf16)
        return self._known[key]
