"""Choose the intensity normal form of each channel, and say why."""

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.plans import ChannelPlan, NormalForm
from longflow.task import get_task


def plan_channels(fingerprint: SpatialFingerprint, description: DatasetDescription) -> list[ChannelPlan]:
    """Choose the normal form of every channel; ``normalization`` in dataset.json overrides the rules.

    :param fingerprint: intensities of every channel.
    :param description: dataset.json.
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
    if task.sees_single_scans and "per_subject" in description.normalization.values():
        raise ConfigurationError(
            f"dataset.json: 'normalization' is 'per_subject', but a scan is {task.words.done} by itself, "
            "without the subject's first one. Expected 'per_scan' or 'absolute', or no entry for the channel."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    channels = []
    for index, name in enumerate(names):
        found, requested = properties[str(index)], description.normalization.get(str(index))
        channel = _plan_channel(name, found, requested, description, fingerprint.foreground)
        channels.append(task.adapt_channel(channel, found) if channel.normal_form == "absolute" else channel)
    return channels


def _plan_channel(
    name: str,
    intensities: ChannelIntensities,
    requested: NormalForm | None,
    description: DatasetDescription,
    foreground: str,
) -> ChannelPlan:
    """Choose the normal form of a channel.

    :param foreground: where intensities were measured.
    :param requested: by dataset.json.
    """
    if requested:
        form, reason = requested, "dataset.json asks for it"
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
