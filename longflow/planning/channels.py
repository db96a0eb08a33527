"""Which intensity normal form each channel gets, and why."""

from longflow.data.dataset import DatasetDescription
from longflow.errors import ConfigurationError
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.plans import ONE_ACQUISITION, ChannelPlan, NormalForm

#: channel names that mean Hounsfield units; "ct" is nnU-Net's
CT_NAMES = ("ct", "cbct", "nct", "ncct", "ctp", "cect", "ct native", "ct contrast")


def plan_channels(fingerprint: SpatialFingerprint, description: DatasetDescription) -> list[ChannelPlan]:
    """The normal form of every channel; ``normalization`` in dataset.json has the last word.

    :raises ConfigurationError: ``normalization`` names a channel that does not exist.
    """
    names, segments = description.channels, description.task == "segment"
    if unknown := sorted(set(description.normalization) - {str(index) for index in range(len(names))}):
        raise ConfigurationError(
            f"dataset.json: 'normalization' names the channel {', '.join(unknown)}, but the channels are "
            f"{', '.join(f'{index} ({name})' for index, name in enumerate(names))}."
        )
    if segments and "per_subject" in description.normalization.values():
        raise ConfigurationError(
            "dataset.json: 'normalization' asks for 'per_subject', but a scan is segmented by itself, without the "
            "subject's first one. Expected 'per_scan' or 'absolute', or no entry for the channel."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    time_unit = None if segments else description.time_unit
    channels = []
    for index, name in enumerate(names):
        found, wanted = properties[str(index)], description.normalization.get(str(index))
        channel = _plan_channel(name, found, wanted, time_unit, fingerprint.foreground)
        if segments and channel.normal_form == "absolute":
            channel.clip = (found.percentile_00_5, found.percentile_99_5)
            channel.reason += "; clipped to their percentiles 0.5 and 99.5, as in nnU-Net"
        channels.append(channel)
    return channels


def _plan_channel(
    name: str, intensities: ChannelIntensities, wanted: NormalForm | None, time_unit: str | None, foreground: str
) -> ChannelPlan:
    """:param time_unit: None where scans are seen by themselves. :param foreground: where intensities were taken."""
    if wanted:
        form, reason = wanted, "dataset.json asks for it"
    elif name.casefold() in CT_NAMES:
        form, reason = "absolute", f"'{name}' is CT, whose units mean the same in every scan"
    elif time_unit is None:
        form, reason = (
            "per_scan",
            "a scan is segmented by itself, with its own mean and standard deviation, as in nnU-Net",
        )
    elif time_unit in ONE_ACQUISITION:
        form, reason = "per_subject", f"times in {time_unit} are one acquisition: changes of intensity are signal"
    else:
        form, reason = "per_scan", f"times in {time_unit} are separate visits, whose units cannot be compared"
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
