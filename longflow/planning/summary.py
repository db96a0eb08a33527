"""What was found, what was decided, why: plans on one screen."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longflow.data.images import by_axis
from longflow.data.labels import structures
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.temporal import Distribution
from longflow.methods.method import DEFAULT_METHODS
from longflow.plans import ConfigurationPlan, Plans, Task


def summarize(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    """A summary to print with rich."""
    return Group(
        Text(f"{plans.dataset_name}, preset {plans.preset}, {plans.gpu_memory:g} GB", style="bold"),
        _found(fingerprint, plans),
        *([_structures(plans)] if plans.task == "segment" else []),
        _phases(fingerprint, plans) if plans.task == "translate" else _time(plans),
        _intensities(plans),
        _configurations(plans),
        _training(plans),
    )


def _found(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    temporal, spatial = fingerprint.temporal, fingerprint.spatial
    unit = temporal.time_unit
    shapes = Distribution.of([shape[0] * shape[1] * shape[2] for shape in spatial.shapes_after_crop])
    table = _key_table("Found")
    scans = "scans"
    if fingerprint.phases:
        scans = "pair of scans" if temporal.scans_per_subject.maximum == 1 else "pairs of scans"
    table.add_row("subjects", f"{len(fingerprint.subjects)} with {_range(temporal.scans_per_subject)} {scans} each")
    if temporal.intervals.count:
        table.add_row("times", f"intervals {_range(temporal.intervals)} {unit}, spans {_range(temporal.spans)} {unit}")
    table.add_row(
        "images",
        f"{', '.join(plans.channel_names)}; {shapes.minimum / 1e6:.2f} to {shapes.maximum / 1e6:.2f} million voxels "
        f"after cropping ({spatial.median_relative_size_after_cropping:.0%} of the file, in the median)",
    )
    return table


def _time(plans: Plans) -> RenderableType:
    table = _key_table("Time")
    for reason in plans.temporal.reasons:
        head, _, rest = reason.partition(": ")
        table.add_row(head, rest) if rest else table.add_row("", head)
    if plans.temporal.runners_up:
        others = "; ".join(
            f"Δ = {grid.spacing:.4g}, K = {grid.length} ({grid.score:.3f})" for grid in plans.temporal.runners_up
        )
        table.add_row("Runners-up", others)
    return table


def _phases(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    """What is translated into what; times play no part."""
    table = _key_table("Phases")
    for end, phase in enumerate(plans.phases):
        table.add_row(f"t = {end}", phase)
    table.add_row("pairs", f"{fingerprint.phases.pairs} of one subject and time; one network learns both directions")
    for part in fingerprint.phases.left_out():
        table.add_row("left out", part)
    return table


def _structures(plans: Plans) -> RenderableType:
    table = _key_table("Structures")
    for name, values in structures(plans.labels).items():
        table.add_row(name, " + ".join(map(str, values)))
    if "ignore" in plans.labels:
        table.add_row("ignored", f"voxels of {plans.labels['ignore']}")
    if not structures(plans.labels):
        table.add_row("none", "dataset.json names no labels: the scans can serve pretraining alone")
    return table


def _intensities(plans: Plans) -> RenderableType:
    table = _key_table("Intensities")
    for channel in plans.channels:
        table.add_row(f"{channel.name}: {channel.normal_form}", channel.reason)
    return table


def _configurations(plans: Plans) -> RenderableType:
    encoders = {plan.network.encoder for plan in plans.configurations.values()}
    network = f"features ({', '.join(sorted(encoders))} U-Net)" if plans.task == "segment" else "features"
    table = Table(title="Configurations", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("", "spacing, mm", "median image", "patch", "batch", network, "strides", "memory, GB"):
        table.add_column(name)
    for name, plan in plans.configurations.items():
        table.add_row(
            name,
            f"{by_axis(plan.spacing, digits=3)}{' (median)' if plan.own_grid else ''}",
            by_axis(plan.median_image_size, digits=4),
            by_axis(plan.patch_size),
            str(plan.batch_size),
            " ".join(map(str, plan.network.features_per_stage)) + (" +attention" if plan.network.attention else ""),
            " ".join("".join(map(str, stride)) for stride in plan.network.strides),
            _memory(plan, plans.task),
        )
    notes = Table.grid(padding=(0, 2))
    reasons: dict[str, list[str]] = {}
    for name, plan in plans.configurations.items():
        for reason in plan.reasons:
            reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        notes.add_row("all" if len(names) == len(plans.configurations) > 1 else ", ".join(names), reason)
    return Group(table, notes)


def _training(plans: Plans) -> RenderableType:
    table = _key_table("Training")
    training = plans.training
    steps = f"{training.epochs} epochs of {training.iterations_per_epoch} iterations"
    rate = "each method's own" if plans.task == "segment" else f"{training.learning_rate:g}"
    table.add_row(
        "by default", f"{steps}, learning rate {rate} (longflow_train --epochs, --iterations, --lr, --max_time)"
    )
    return table


def _key_table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def _memory(plan: ConfigurationPlan, task: Task) -> str:
    """Of the method that takes most; of a network that translates, the usual one, which decided the patch."""
    usual = plan.memory_estimate.get(DEFAULT_METHODS[task]) if task == "translate" else None
    return f"{usual or max(plan.memory_estimate.values()):.2f}" if plan.memory_estimate else "?"


def _range(values: Distribution) -> str:
    if values.minimum == values.maximum:
        return f"{values.minimum:.4g}"
    return f"{values.minimum:.4g} to {values.maximum:.4g} (median {values.median:.4g})"
