"""From a fingerprint to plans."""

import torch

from longflow.data.dataset import DatasetDescription
from longflow.data.labels import label_manager, structures
from longflow.errors import ConfigurationError
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.methods.method import known_methods, method_class, network_of
from longflow.networks.precision import computes_bf16, default_device
from longflow.paths import PLANS_NAME
from longflow.planning.channels import plan_channels
from longflow.planning.memory import GB, training_memory
from longflow.planning.presets import Preset, preset, segmentation_preset, translation_preset
from longflow.planning.spatial import plan_space
from longflow.planning.temporal import plan_time
from longflow.plans import ConfigurationPlan, Encoder, InferencePlan, NetworkPlan, Plans, Task

#: the methods whose memory is planned, by task; of those that predict, the largest decides the patch
PLANNED_METHODS = {
    "forecast": ("cronos", "cronos_discrete", "tfm", "simvp", "vivit", "convlstm", "ode_lstm"),
    "segment": ("unet", "unet_consistent", "spatiotemporal"),
    "translate": ("mfm", "mfm-unet", "mfm-segresnet", "mfm-swin_unetr", "mfm-umamba_bot"),
}


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
    :param encoder: of nnU-Net's U-Nets, for the task "segment"; None: plain.
    :raises DataError: the dataset cannot serve its task (no subject has two scans).
    :raises ConfigurationError: nothing fits the memory, or dataset.json asks for what cannot be.
    """
    segments, translates = description.task == "segment", description.task == "translate"
    if encoder is not None and not segments:
        raise ConfigurationError(
            f"--encoder {encoder} is for the task 'segment', but {fingerprint.dataset_name} has the task "
            f"'{description.task}' (dataset.json), whose networks have one kind of encoder. Leave it out."
        )
    size = _size(description, preset_name, encoder)
    plans = Plans(
        dataset_name=fingerprint.dataset_name,
        plans_name=plans_name,
        task=description.task,
        preset=size.name,
        gpu_memory=size.gpu_memory if gpu_memory is None else gpu_memory,
        channel_names=description.channels,
        **(_labels(description) if segments else {}),
        phases=fingerprint.phases.names if translates else [],
        file_ending=description.file_ending,
        transpose_forward=[0, 1, 2],
        transpose_backward=[0, 1, 2],
        temporal=plan_time(fingerprint.temporal, size.longest_sequence, description.task),
        channels=plan_channels(fingerprint.spatial, description),
        configurations={},
        training=size.training.model_copy(),
        inference=_inference(description.task, size),
    )
    scans = [len(times) for times in fingerprint.temporal.times]
    steps = TrainingSteps(plans, has_pairs=max(scans) > 1)
    space = plan_space(
        fingerprint.spatial, size, steps.largest, plans.gpu_memory * GB, sum(scans), own_slices=translates
    )
    for plan in space.configurations.values():
        by_method = steps.by_method(plan.patch_size, plan.network, plan.batch_size)
        plan.memory_estimate = {method: round(needed / GB, 3) for method, needed in by_method.items()}
        plan.reasons += _beyond_memory(plan.memory_estimate, plans.gpu_memory)
        plan.reasons += _of_networks(plan.memory_estimate, plans.gpu_memory)
        if steps.heaviest == ["unet_consistent"]:
            plan.reasons.append(
                f"'unet_consistent' decides, whose step holds twice as many scans as that of 'unet', which takes "
                f"{plan.memory_estimate['unet']:.2f} GB. For 'unet' alone, give twice the --gpu_memory."
            )
    return plans.model_copy(
        update={
            "transpose_forward": space.transpose_forward,
            "transpose_backward": space.transpose_backward,
            "configurations": space.configurations,
        }
    )


def _size(description: DatasetDescription, preset_name: str, encoder: Encoder | None) -> Preset:
    if description.task == "segment":
        return segmentation_preset(preset_name, encoder or "plain", bool(structures(description.labels)))
    return translation_preset(preset_name) if description.task == "translate" else preset(preset_name)


def _inference(task: Task, size: Preset) -> InferencePlan:
    """How predictions are made where the user does not say."""
    if task == "translate":
        return InferencePlan(solver="heun2", steps=1)  # RK2 (1), the best of MFM's table 5
    # the eightfold work of mirroring is not for a CPU
    return InferencePlan(mirror=False if task == "segment" and size.name == "tiny" else None)


def _beyond_memory(estimate: dict[str, float], gpu_memory: float) -> list[str]:
    """What is to be said of methods that take more than the patch was planned for."""
    return [
        f"'{method}' takes {needed:.2f} GB, more than the {gpu_memory:g} GB that the patch was planned for; smaller "
        "projectors take less (longflow_train --set width=256)."
        for method, needed in estimate.items()
        if needed > gpu_memory and not method_class(method).predicts
    ]


def _of_networks(estimate: dict[str, float], gpu_memory: float) -> list[str]:
    """What a step takes with networks other than the one that decided the patch."""
    others = {network: needed for method, needed in estimate.items() if (network := network_of(method)[1])}
    if not others:
        return []
    shown = ", ".join(f"{network} {needed:.2f} GB" for network, needed in others.items())
    more = "; where there is not as much, set a smaller batch_size or patch_size in the plans"
    return [f"With other networks (--network): {shown}{more if max(others.values()) > gpu_memory else ''}."]


def _labels(description: DatasetDescription) -> dict[str, dict | list]:
    """What the plans keep of the labels; a dataset without structures can serve pretraining.

    :raises ConfigurationError: the labels cannot be used.
    """
    if structures(description.labels):
        label_manager(description.labels, description.regions_class_order)
    return {"labels": description.labels, "regions_class_order": description.regions_class_order}


def planned_methods(plans: Plans, has_pairs: bool) -> list[str]:
    """Those of :data:`PLANNED_METHODS` that can be trained: without structures, pretraining alone.

    :param has_pairs: whether a subject has two scans; without, what segments single scans alone.
    """
    methods = [method for method in PLANNED_METHODS[plans.task] if network_of(method)[0] in known_methods()]
    if plans.task == "segment" and not structures(plans.labels):
        return [method for method in methods if not method_class(method).predicts]
    if plans.task == "segment" and not has_pairs:
        return [method for method in methods if method_class(method).samples == "labelled"]
    return methods


def training_device(preset_name: str) -> tuple[str, bool]:
    """The kind of device that a plan of this preset is for, and whether it trains in bf16.

    That of this machine; but without a GPU here, all presets but tiny are planned for a GPU elsewhere, with bf16.
    """
    kind = default_device().type
    if kind != "cuda" and preset_name != "tiny":
        return "cuda", True
    return kind, computes_bf16(torch.device(kind))


def _heaviest(plans: Plans, methods: list[str]) -> list[str]:
    if plans.task == "forecast":  # the method whose stack of scans is the largest
        temporal = plans.temporal
        return ["cronos_discrete" if temporal.grid.length >= temporal.sequence_length else "cronos"]
    if plans.task == "translate":  # the default network
        return [method for method in methods if not network_of(method)[1]]
    # what predicts decides: the projectors of pretraining (--set width) have nothing to do with a patch
    predicting = [method for method in methods if method_class(method).predicts]
    if "unet_consistent" in predicting:  # which does all that unet does, and more
        return ["unet_consistent"]
    return predicting or methods


class TrainingSteps:
    """Bytes of training steps of the planned methods; remembered, because planning asks for the same ones again."""

    def __init__(self, plans: Plans, has_pairs: bool):
        # a loss with an ignore label asks what voxels hold, which none of these has
        labels = {name: value for name, value in plans.labels.items() if name != "ignore"}
        self.plans = plans.model_copy(update={"labels": labels})
        self.device, self.bf16 = training_device(plans.preset)
        self.methods = planned_methods(plans, has_pairs)
        #: the methods of which one is the largest
        self.heaviest = _heaviest(plans, self.methods)
        self._known: dict[str, float] = {}

    def largest(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> float:
        """Of the method that takes most."""
        return max((self._of(method, patch_size, network, batch_size) for method in self.heaviest), default=0.0)

    def by_method(self, patch_size: list[int], network: NetworkPlan, batch_size: int) -> dict[str, float]:
        """Of every planned method."""
        return {method: self._of(method, patch_size, network, batch_size) for method in self.methods}

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
