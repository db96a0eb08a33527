"""Which intensity normal form each channel gets, and why."""

from longflow.data.dataset import DatasetDescription
from longflow.data.hounsfield import is_ct
from longflow.errors import ConfigurationError
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.plans import ONE_ACQUISITION, ChannelPlan, NormalForm

#: MFM B.3: what CT is limited to for translation, in HU; it is scaled to -1 ... 1
MFM_CLIP = (-1000.0, 1000.0)

#: tasks that see a scan without the others of its subject, and what they do with it
ALONE = {"segment": "segmented", "translate": "translated"}


def plan_channels(fingerprint: SpatialFingerprint, description: DatasetDescription) -> list[ChannelPlan]:
    """The normal form of every channel; ``normalization`` in dataset.json has the last word.

    :raises ConfigurationError: ``normalization`` names a channel that does not exist.
    """
    names, task = description.channels, description.task
    if unknown := sorted(set(description.normalization) - {str(index) for index in range(len(names))}):
        raise ConfigurationError(
            f"dataset.json: 'normalization' names the channel {', '.join(unknown)}, but the channels are "
            f"{', '.join(f'{index} ({name})' for index, name in enumerate(names))}."
        )
    if task in ALONE and "per_subject" in description.normalization.values():
        raise ConfigurationError(
            f"dataset.json: 'normalization' asks for 'per_subject', but a scan is {ALONE[task]} by itself, without the "
            "subject's first one. Expected 'per_scan' or 'absolute', or no entry for the channel."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    channels = []
    for index, name in enumerate(names):
        found, wanted = properties[str(index)], description.normalization.get(str(index))
        channel = _plan_channel(name, found, wanted, description, fingerprint.foreground)
        if task == "segment" and channel.normal_form == "absolute":
            channel.clip = (found.percentile_00_5, found.percentile_99_5)
            channel.reason += "; clipped to their percentiles 0.5 and 99.5, as in nnU-Net"
        channels.append(channel)
    return channels


def _plan_channel(
    name: str,
    intensities: ChannelIntensities,
    wanted: NormalForm | None,
    description: DatasetDescription,
    foreground: str,
) -> ChannelPlan:
    """:param foreground: where intensities were taken."""
    unit, task = description.time_unit, description.task
    if wanted:
        form, reason = wanted, "dataset.json asks for it"
    elif is_ct(name):
        form, reason = "absolute", f"'{name}' is CT, whose units mean the same in every scan"
    elif task in ALONE:
        form, reason = "per_scan", f"a scan is {ALONE[task]} by itself, with its own mean and standard deviation"
        reason += ", as in nnU-Net" if task == "segment" else ""
    elif unit in ONE_ACQUISITION:
        form, reason = "per_subject", f"times in {unit} are one acquisition: changes of intensity are signal"
    else:
        form, reason = "per_scan", f"times in {unit} are separate visits, whose units cannot be compared"
    if form != "absolute":
        return ChannelPlan(name=name, normal_form=form, reason=reason)
    if task == "translate" and is_ct(name):
        low, high = MFM_CLIP
        reason += f"; clipped to {low:g} to {high:g} HU, which become -1 to 1 (MFM B.3)"
        middle, half = (low + high) / 2, (high - low) / 2
        return ChannelPlan(name=name, normal_form="absolute", offset=middle, scale=half, clip=MFM_CLIP, reason=reason)
    return ChannelPlan(
        name=name,
        normal_form="absolute",
        offset=intensities.mean,
        scale=intensities.std or 1.0,
        reason=f"{reason}; offset and scale are mean and standard deviation of {intensities.count:,} voxels of "
        f"{foreground}",
    )
