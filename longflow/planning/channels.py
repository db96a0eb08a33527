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
    names = description.channels
    if unknown := sorted(set(description.normalization) - {str(index) for index in range(len(names))}):
        raise ConfigurationError(
            f"dataset.json: 'normalization' names the channel {', '.join(unknown)}, but the channels are "
            f"{', '.join(f'{index} ({name})' for index, name in enumerate(names))}."
        )
    properties = fingerprint.foreground_intensity_properties_per_channel
    return [
        _plan_channel(name, properties[str(index)], description.normalization.get(str(index)), description.time_unit)
        for index, name in enumerate(names)
    ]


def _plan_channel(name: str, intensities: ChannelIntensities, wanted: NormalForm | None, time_unit: str) -> ChannelPlan:
    if wanted:
        form, reason = wanted, "dataset.json asks for it"
    elif name.casefold() in CT_NAMES:
        form, reason = "absolute", f"'{name}' is CT, whose units mean the same in every scan"
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
        reason=f"{reason}; offset and scale are mean and standard deviation of {intensities.count:,} voxels of bodies",
    )
