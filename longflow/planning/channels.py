"""Choose the intensity normal form of each channel, and say why."""

import math
from collections.abc import Mapping

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError
from longflow.fingerprint.intensities import IntensityMaps
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.plans import ChannelPlan, NormalForm
from longflow.task import get_task

#: units of visits are shared where the maps between neighbouring scans explain less than this share of their squared
#: difference: at the median, so that neglecting them costs at most sqrt(0.1) = 0.32 of the error of the last scan; and
#: in 95 % of the pairs, since a rare change of the scanner shows there alone
MEDIAN_LIMIT, HIGH_LIMIT = 0.1, 0.6


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
            "without the subject's first one. Expected 'per_scan', 'min_max' or 'absolute', or no entry for the "
            "channel."
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
    gains, shifts, explained = maps.log_gains, maps.shifts, maps.explained
    numbers = (
        f"{gains.count} maps between neighbouring scans, fitted to what did not change, explain "
        f"{max(explained.median, 0):.1%} of the squared difference at the median and "
        f"{max(explained.percentile_95, 0):.1%} at the 95th percentile (limits: {MEDIAN_LIMIT:.0%} and "
        f"{HIGH_LIMIT:.0%}); half of their gains are "
        f"{math.exp(gains.percentile_25):.3f} to {math.exp(gains.percentile_75):.3f}, half of their shifts of the mean "
        f"{shifts.percentile_25:.3f} to {shifts.percentile_75:.3f} standard deviations"
    )
    if explained.median < MEDIAN_LIMIT and explained.percentile_95 < HIGH_LIMIT:
        return "per_subject", f"which share their units: {numbers}"
    return "matched", f"whose units differ: {numbers}"
