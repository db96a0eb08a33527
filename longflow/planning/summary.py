"""Show plans on one screen: the data, the decisions and their reasons."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longflow.data.images import by_axis
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.temporal import Distribution
from longflow.methods.registry import network_of
from longflow.plans import ConfigurationPlan, Plans
from longflow.task import get_task


def summarize(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    """Make a summary to print with rich.

    :param fingerprint: of the dataset.
    :param plans: made of it.
    :returns: tables.
    """
    return Group(
        Text(f"{plans.dataset_name}, preset {plans.preset}, {plans.gpu_memory:g} GB", style="bold"),
        _found(fingerprint, plans),
        *get_task(plans.task).plan_summary(fingerprint, plans),
        _intensities(plans),
        *_covariates(plans),
        _configurations(plans),
        _training(plans),
    )


def _found(fingerprint: Fingerprint, plans: Plans) -> RenderableType:
    temporal, spatial = fingerprint.temporal, fingerprint.spatial
    unit = temporal.time_unit
    shapes = Distribution.of([shape[0] * shape[1] * shape[2] for shape in spatial.shapes_after_crop])
    table = key_table("Found")
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


def time_table(plans: Plans) -> RenderableType:
    """Return the table of temporal choices and their reasons."""
    table = key_table("Time")
    for reason in plans.temporal.reasons:
        head, _, rest = reason.partition(": ")
        table.add_row(head, rest) if rest else table.add_row("", head)
    if plans.temporal.runners_up:
        others = "; ".join(
            f"Δ = {grid.spacing:.4g}, K = {grid.length} ({grid.score:.3f})" for grid in plans.temporal.runners_up
        )
        table.add_row("Runners-up", others)
    return table


def _intensities(plans: Plans) -> RenderableType:
    table = key_table("Intensities")
    for phase, channels in (plans.phase_channels or {"": plans.channels}).items():
        for channel in channels:
            place = f"{phase}, " if phase else ""
            table.add_row(f"{place}{channel.name}: {channel.normal_form}", channel.reason)
    return table


def _covariates(plans: Plans) -> list[RenderableType]:
    """Return the table of covariates, used and excluded; none where the dataset has none."""
    if not plans.covariates and not plans.excluded_covariates:
        return []
    table = key_table("Covariates")
    for covariate in plans.covariates:
        table.add_row(covariate.name, covariate.reason)
    for name, reason in plans.excluded_covariates.items():
        table.add_row(name, f"excluded: {reason}")
    return [table]


def _configurations(plans: Plans) -> RenderableType:
    encoders = {plan.network.encoder for plan in plans.configurations.values()}
    network = f"features ({', '.join(sorted(encoders))} U-Net)" if get_task(plans.task).chooses_encoder else "features"
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
            _memory(plan),
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
    table = key_table("Training")
    training = plans.training
    steps = f"{training.epochs} epochs of {training.iterations_per_epoch} iterations"
    rate = f"{training.learning_rate:g}" if get_task(plans.task).fixed_learning_rate else "each method's own"
    table.add_row(
        "by default", f"{steps}, learning rate {rate} (longflow_train --epochs, --iterations, --lr, --max_time)"
    )
    return table


def key_table(title: str) -> Table:
    """Make an empty table of names and values."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def _memory(plan: ConfigurationPlan) -> str:
    """Format the GB of the method that takes most; those with another network than the default do not count."""
    usual = [needed for method, needed in plan.memory_estimate.items() if not network_of(method)[1]]
    return f"{max(usual or plan.memory_estimate.values()):.2f}" if plan.memory_estimate else "?"


def _range(values: Distribution) -> str:
    if values.minimum == values.maximum:
        return f"{values.minimum:.4g}"
    return f"{values.minimum:.4g} to {values.maximum:.4g} (median {values.median:.4g})"
