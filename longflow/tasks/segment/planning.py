"""Sizes, methods and remarks that plan a segmentation: nnU-Net's numbers within a memory budget."""

from collections.abc import Sequence
from dataclasses import replace

from rich.console import RenderableType

from longflow.data.labels import sides, structures
from longflow.errors import first_few
from longflow.methods.registry import method_class
from longflow.planning import presets as sizes
from longflow.planning.presets import Preset
from longflow.planning.summary import key_table
from longflow.plans import ConfigurationPlan, Encoder, Plans, TrainingPlan

#: methods whose memory is planned; of those that predict, the largest decides the patch
PLANNED_METHODS = ("unet", "unet_consistent", "unet_longitudinal", "spatiotemporal")

#: nnU-Net's numbers (ExperimentPlanner, ResEncUNetPlanner); its planners read folders when they are made, so the
#: numbers are written here, and tests/planning/test_presets.py compares them with its
NNUNET_BASE_FEATURES = 32
NNUNET_MOST_FEATURES = {2: 512, 3: 320}
NNUNET_BLOCKS: dict[Encoder, tuple[int, ...]] = {"plain": (2,) * 14, "residual": (1, 3, 4, *(6,) * 10)}
NNUNET_SMALLEST_BATCH = 2
NNUNET_DATASET_SHARE = 0.05
#: no planned network has more stages than nnU-Net has numbers of blocks for
NNUNET_MOST_STAGES = min(len(blocks) for blocks in NNUNET_BLOCKS.values())
#: nnU-Net has no upper limit but the memory and the share of the dataset; this one ends the search
MOST_SAMPLES = 64

#: stages of the smallest U-Net, for tests and CPUs; its memory, and that of pretraining alone (large projectors)
TINY_STAGES, TINY_MEMORY, TINY_PRETRAINING_MEMORY = 4, 1, 2

#: steps as in nnUNetTrainer; of the rest, each method has its own recipe
_NNUNET_TRAINING = TrainingPlan(
    epochs=1000, iterations_per_epoch=250, learning_rate=1e-2, weight_decay=3e-5, warmup=0, ema_decay=0
)


def preset(name: str, encoder: Encoder = "plain", labelled: bool = True) -> Preset:
    """Return a preset for nnU-Net's U-Nets: its numbers within the preset's memory; tiny is smaller in all.

    :param labelled: whether there is anything to segment, or pretraining alone.
    """
    tiny = name == "tiny"
    size = sizes.preset(name)
    return replace(
        size,
        gpu_memory=(TINY_MEMORY if labelled else TINY_PRETRAINING_MEMORY) if tiny else size.gpu_memory,
        base_features=16 if tiny else NNUNET_BASE_FEATURES,
        expansion=tuple(2**stage for stage in range(NNUNET_MOST_STAGES)),
        max_stages=TINY_STAGES if tiny else NNUNET_MOST_STAGES,
        attention=False,
        batch_size=size.batch_size if tiny else (NNUNET_SMALLEST_BATCH, MOST_SAMPLES),
        training=_NNUNET_TRAINING.model_copy(
            update={"epochs": size.training.epochs, "iterations_per_epoch": size.training.iterations_per_epoch}
        ),
        most_features=NNUNET_MOST_FEATURES,
        encoder=encoder,
        blocks=NNUNET_BLOCKS[encoder],
        fewest_stages=2,
        dataset_share=NNUNET_DATASET_SHARE,
    )


def planned_methods(plans: Plans, has_pairs: bool) -> list[str]:
    """List those of :data:`PLANNED_METHODS` that can be trained: without structures, pretraining alone.

    :param has_pairs: whether a subject has two scans; without, only methods of single scans.
    """
    if not structures(plans.labels):
        return [method for method in PLANNED_METHODS if not method_class(method).predicts]
    if not has_pairs:
        return [method for method in PLANNED_METHODS if method_class(method).samples == "labelled"]
    return list(PLANNED_METHODS)


def deciding_methods(methods: Sequence[str]) -> list[str]:
    """List the methods that decide the patch: those that predict.

    The projectors of pretraining (``--set width``) have nothing to do with a patch.
    """
    predicting = [method for method in methods if method_class(method).predicts]
    if "unet" in predicting:  # whose memory a step of unet_consistent takes, too
        return ["unet"]
    return predicting or list(methods)


def remarks(plan: ConfigurationPlan, gpu_memory: float) -> list[str]:
    """Name the methods that take more than the patch was planned for.

    :param plan: with the estimates.
    :param gpu_memory: GB that was planned for.
    """
    return [
        f"'{method}' takes {needed:.2f} GB, more than the {gpu_memory:g} GB that the patch was planned for; "
        f"{remedy(method)}."
        for method, needed in plan.memory_estimate.items()
        if needed > gpu_memory and (not method_class(method).predicts or method_class(method).uses_other_scans)
    ]


def remedy(method: str) -> str:
    """Say how a method takes less memory with the patch that is planned. :param method: its name."""
    if method_class(method).uses_other_scans:
        return "samples with fewer other scans take less (other_scans in a copy of the plans)"
    return "smaller projectors take less (longflow_train --set width=256)"


def structure_table(plans: Plans) -> RenderableType:
    """Return the table of what is segmented."""
    table = key_table("Structures")
    for name, values in structures(plans.labels).items():
        table.add_row(name, " + ".join(map(str, values)))
    if "ignore" in plans.labels:
        table.add_row("ignored", f"voxels of {plans.labels['ignore']}")
    if sides(plans.labels) and any(plan.mirrored for plan in plans.configurations.values()):
        names = first_few(f"{left} and {right}" for left, right in sides(plans.labels))
        table.add_row("mirrored", f"{names}, too: if they mirror each other, set mirror_axes of each configuration")
    if not structures(plans.labels):
        table.add_row("none", "dataset.json names no labels: the scans can serve pretraining alone")
    return table
