"""Choose the intensity normal form of each channel, and say why."""

import math
from collections.abc import Mapping

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError
from longflow.fingerprint.intensities import IntensityMaps
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.fingerprint.temporal import Distribution
from longflow.plans import ChannelPlan, NormalForm
from longflow.task import get_task

#: units of visits are shared where half of the maps between neighbouring scans change the gain by less than the first
#: number (natural logarithm), and 9 in 10 by less than the second: a rare change of the scanner shows in that one alone
GAIN_LIMITS = (0.05, 0.2)
#: the same for the shift of the mean, in standard deviations of the body
SHIFT_LIMITS = (0.075, 0.3)


def plan_channels(
    fingerprint: SpatialFingerprint,
    description: DatasetDescription,
    maps: Mapping[str, IntensityMaps] | None = None,
) -> list[ChannelPlan]:
    """Choose the normal form of every channel; ``normalization`` in dataset.json overrides the rules.

    :param fingerprint: intensities of every channel.
    :param description: dataset.json.
    :param maps: between neighbouring scans, by channel number; None: not measured.
    :returns: a plan for every channel.
    :raises ConfigurationError: ``normalization`` names a channel that does not exist, or a form that the task cannot
        use.
    """
    names, task = description.channels, get_task(description.task)
    if unknown := sorted(set(description.normalization) - {str(index) for index in range(len(names))}):
        raise ConfigurationError(
            f"dataset.json: 'normalization' names the channel {', '.join(unknown)}, but the channels are "
            f"{', '.join(f'{index} ({name})' for index, name in enumerate(names))}."
        )
    of_series = [form for form in description.normalization.values() if form in ("per_subject", "matched")]
    if task.sees_single_scans and of_series:
        raise ConfigurationError(
            f"dataset.json: 'normalization' is '{of_series[0]}', but a scan is {task.words.done} by itself, "
            "without the subject's first one. Expected 'per_scan' or 'absolute', or no entry for the channel."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    channels = []
    for index, name in enumerate(names):
        found, requested = properties[str(index)], description.normalization.get(str(index))
        form, reason = _normal_form(name, requested, description, (maps or {}).get(str(index)))
        channel = _plan_channel(name, form, reason, found, fingerprint.foreground)
        channels.append(task.adapt_channel(channel, found) if channel.normal_form == "absolute" else channel)
    return channels


def _normal_form(
    name: str, requested: NormalForm | None, description: DatasetDescription, maps: IntensityMaps | None
) -> tuple[NormalForm, str]:
    """Choose the normal form of a channel, and say why.

    :param requested: by dataset.json.
    """
    if requested:
        return requested, "dataset.json asks for it"
    if is_ct(name):
        return "absolute", f"'{name}' is CT, whose units mean the same in every scan"
    return get_task(description.task).normal_form(description, maps)


def _plan_channel(
    name: str, form: NormalForm, reason: str, intensities: ChannelIntensities, foreground: str
) -> ChannelPlan:
    """Return the plan of a channel. :param foreground: where intensities were measured."""
    if form != "absolute":
        return ChannelPlan(name=name, normal_form=form, reason=reason)
    return ChannelPlan(
        name=name,
        normal_form="absolute",
        offset=intensities.mean,
        scale=intensities.std or 1.0,
        reason=f"{reason}; offset and scale are mean and standard deviation of {intensities.count:,} voxels of "
        f"{foreground}",
    )


def form_of_visits(maps: IntensityMaps | None) -> tuple[NormalForm, str]:
    """Choose the normal form of separate visits: by whether they share their intensity units.

    :param maps: of the channel between neighbouring scans; None: not measured.
    :returns: "per_subject" where units are shared, "matched" where they differ, "per_scan" where nothing was measured;
        and the end of a sentence that says why.
    """
    if maps is None or not maps.log_gains.count:
        pairs = maps.without_map if maps else 0
        return "per_scan", (
            f"and whether they share their units could not be measured ({pairs} pairs of neighbouring scans, none with "
            "a map): each scan has its own mean and standard deviation"
        )
    gains, certain, shifts = maps.log_gains, maps.certain_log_gains, maps.shifts
    shared = _within(certain, GAIN_LIMITS) and _within(shifts, SHIFT_LIMITS)
    numbers = (
        f"of {gains.count} maps between neighbouring scans, fitted to what did not change, half have a gain of "
        f"{math.exp(gains.percentile_25):.3f} to {math.exp(gains.percentile_75):.3f} and 9 in 10 one of "
        f"{math.exp(gains.percentile_5):.3f} to {math.exp(gains.percentile_95):.3f} (beyond doubt "
        f"{math.exp(certain.percentile_25):.3f} to {math.exp(certain.percentile_75):.3f} and "
        f"{math.exp(certain.percentile_5):.3f} to {math.exp(certain.percentile_95):.3f}); half shift the mean by "
        f"{shifts.percentile_25:.3f} to {shifts.percentile_75:.3f} standard deviations and 9 in 10 by "
        f"{shifts.percentile_5:.3f} to {shifts.percentile_95:.3f} (limits: {GAIN_LIMITS[0]:.0%} and "
        f"{GAIN_LIMITS[1]:.0%}, {SHIFT_LIMITS[0]:g} and {SHIFT_LIMITS[1]:g})"
    )
    if shared:
        return "per_subject", f"which share their units: {numbers}"
    return "matched", f"whose units differ: {numbers}"


def _within(found: Distribution, limits: tuple[float, float]) -> bool:
    """Check half and 9 in 10 of the numbers against their limits."""
    half = max(abs(found.percentile_25), abs(found.percentile_75))
    most = max(abs(found.percentile_5), abs(found.percentile_95))
    return half < limits[0] and most < limits[1]
