import pytest

from longflow.errors import ConfigurationError
from longflow.planning.channels import plan_channels
from tests.planning.helpers import description, spatial


@pytest.mark.parametrize(
    ("unit", "name", "form"),
    [
        ("days", "CT", "absolute"),
        ("ms", "ct", "absolute"),
        ("ms", "cine MRI", "per_subject"),
        ("cycles", "cine MRI", "per_subject"),
        ("months", "FLAIR", "per_scan"),
    ],
)
def test_normal_form(unit, name, form):
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(unit, (name,)))
    assert channel.normal_form == form
    assert channel.reason
    assert (channel.offset, channel.scale) == ((40, 100) if form == "absolute" else (None, None))


def test_dataset_json_has_the_last_word():
    wanted = description("days", ("FLAIR", "T1"), normalization={"1": "absolute"})
    channels = plan_channels(spatial([8, 8, 8], [1, 1, 1], channels=2), wanted)
    assert [channel.normal_form for channel in channels] == ["per_scan", "absolute"]


def test_a_channel_that_does_not_exist():
    with pytest.raises(ConfigurationError, match=r"names the channel 2, but the channels are 0 \(FLAIR\)"):
        plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(normalization={"2": "absolute"}))


@pytest.mark.parametrize("unit", ["days", "ms", "cycles"])
def test_to_segment_every_scan_has_its_own_numbers(unit):
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(unit, ("cine MRI",), task="segment"))
    assert (channel.normal_form, channel.clip) == ("per_scan", None)
    assert "by itself" in channel.reason


def test_ct_is_clipped_to_segment_alone():
    to_segment, to_forecast = (
        plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(names=("CT",), task=task))[0]
        for task in ("segment", "forecast")
    )
    assert (to_segment.normal_form, to_segment.offset, to_segment.scale) == ("absolute", 40, 100)
    assert to_segment.clip == (-800, 900)
    assert "percentiles" in to_segment.reason
    assert to_forecast.clip is None


def test_the_first_scan_cannot_prepare_one_that_is_segmented_by_itself():
    wanted = description(task="segment", normalization={"0": "per_subject"})
    with pytest.raises(ConfigurationError, match="'per_subject', but a scan is segmented by itself"):
        plan_channels(spatial([8, 8, 8], [1, 1, 1]), wanted)
