"""Fingerprints of made-up datasets."""

from longflow.data.dataset import DatasetDescription, Scan, Series
from longflow.fingerprint.fingerprint import Fingerprint
from longflow.fingerprint.phases import PhaseFingerprint
from longflow.fingerprint.spatial import ChannelIntensities, SpatialFingerprint
from longflow.fingerprint.temporal import TemporalFingerprint, temporal_fingerprint


def temporal(times: list[list[float]], unit: str = "days") -> TemporalFingerprint:
    series = [
        Series(
            str(index), tuple(Scan(f"{index}_{number}", str(index), float(time), ()) for number, time in enumerate(one))
        )
        for index, one in enumerate(times)
    ]
    return temporal_fingerprint(series, unit)


def spatial(shape: list[int], spacing: list[float], subjects: int = 3, channels: int = 1) -> SpatialFingerprint:
    intensities = ChannelIntensities(
        mean=40, median=38, std=100, min=-900, max=1500, percentile_99_5=900, percentile_00_5=-800, count=1000,
        data_types=["int16"],
    )  # fmt: skip
    return SpatialFingerprint(
        spacings=[spacing] * subjects,
        shapes_before_crop=[shape] * subjects,
        shapes_after_crop=[shape] * subjects,
        median_relative_size_after_cropping=1,
        foreground_intensity_properties_per_channel={str(channel): intensities for channel in range(channels)},
    )


def fingerprint(
    times: list[list[float]], shape: list[int], spacing: list[float], unit: str = "days", channels: int = 1
) -> Fingerprint:
    return Fingerprint(
        dataset_name="Dataset950_MadeUp",
        raw_digest="0",
        subjects=[str(index) for index in range(len(times))],
        spatial=spatial(shape, spacing, len(times), channels),
        temporal=temporal(times, unit),
    )


def phase_fingerprint(
    shape: list[int], spacing: list[float], subjects: int = 3, channels: int = 1, **left_out
) -> Fingerprint:
    """One pair of each subject; ``left_out`` as :class:`PhaseFingerprint` has it."""
    phases = PhaseFingerprint(
        names=["native", "arterial"],
        pairs=subjects,
        **{"without_pair": [], "single": [], "other_phases": {}, **left_out},
    )
    return fingerprint([[0.0]] * subjects, shape, spacing, channels=channels).model_copy(update={"phases": phases})


def description(unit: str = "days", names: tuple[str, ...] = ("FLAIR",), **further) -> DatasetDescription:
    return DatasetDescription(
        channel_names={str(index): name for index, name in enumerate(names)},
        file_ending=".nii.gz",
        time_unit=unit,
        **further,
    )
