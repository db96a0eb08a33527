"""Which intensity normal form each channel gets, and why."""

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.plans import ChannelPlan, NormalForm
from longflow.task import get_task


def plan_channels(fingerprint: SpatialFingerprint, description: DatasetDescription) -> list[ChannelPlan]:
    """The normal form of every channel; ``normalization`` in dataset.json has the last word.

    :raises ConfigurationError: ``normalization`` names a channel that does not exist.
    """
    names, task = description.channels, get_task(description.task)
    if unknown := sorted(set(description.normalization) - {str(index) for index in range(len(names))}):
        raise ConfigurationError(
            f"dataset.json: 'normalization' names the channel {', '.join(unknown)}, but the channels are "
            f"{', '.join(f'{index} ({name})' for index, name in enumerate(names))}."
        )
    if task.sees_single_scans and "per_subject" in description.normalization.values():
        raise ConfigurationError(
            f"dataset.json: 'normalization' asks for 'per_subject', but a scan is {task.words.done} by itself, "
            f"without the "
            "subject's first one. Expected 'per_scan' or 'absolute', or no entry for the channel."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    channels = []
    for index, name in enumerate(names):
        found, wanted = properties[str(index)], description.normalization.get(str(index))
        channel = _plan_channel(name, found, wanted, description, fingerprint.foreground)
        channels.append(task.adapt_channel(channel, found) if channel.normal_form == "absolute" else channel)
    return channels


def _plan_channel(
    name: str,
    intensities: ChannelIntensities,
    wanted: NormalForm | None,
    description: DatasetDescription,
    foreground: str,
) -> ChannelPlan:
    """:param foreground: where intensities were taken."""
    if wanted:
        form, reason = wanted, "dataset.json asks for it"
    elif is_ct(name):
        form, reason = "absolute", f"'{name}' is CT, whose units mean the same in every scan"
    else:
        form, reason = get_task(description.task).normal_form(description)
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
