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
        ("months", "CT non-contrast", "absolute"),
        ("months", "CT perfusion Tmax", "per_scan"),
    ],
)
def test_normal_form(unit, name, form):
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(unit, (name,)))
    assert channel.normal_form == form
    assert channel.reason
    assert (channel.offset, channel.scale) == ((40, 100) if form == "absolute" else (None, None))


def test_dataset_json_has_the_last_word():
    expected = description("days", ("FLAIR", "T1"), normalization={"1": "absolute"})
    channels = plan_channels(spatial([8, 8, 8], [1, 1, 1], channels=2), expected)
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


@pytest.mark.parametrize(("task", "verb"), [("segment", "segmented"), ("translate", "translated")])
def test_the_first_scan_cannot_prepare_one_that_is_seen_by_itself(task, verb):
    expected = description(task=task, normalization={"0": "per_subject"})
    with pytest.raises(ConfigurationError, match=f"'per_subject', but a scan is {verb} by itself"):
        plan_channels(spatial([8, 8, 8], [1, 1, 1]), expected)


def test_to_translate_ct_has_the_papers_numbers():
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(names=("CT",), task="translate"))
    assert (channel.normal_form, channel.offset, channel.scale) == ("absolute", 0, 1000)
    assert channel.clip == (-1000, 1000)
    assert "MFM B.3" in channel.reason


@pytest.mark.parametrize("unit", ["days", "s"])
def test_to_translate_other_images_have_their_own_numbers(unit):
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(unit, ("T1",), task="translate"))
    assert (channel.normal_form, channel.offset, channel.clip) == ("per_scan", None, None)
    assert "translated by itself" in channel.reason


def test_absolute_numbers_of_what_is_not_ct_are_the_datasets():
    """HU are clipped where the name says CT; of other units nothing is known."""
    expected = description(names=("T1 map",), task="translate", normalization={"0": "absolute"})
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), expected)
    assert (channel.offset, channel.scale, channel.clip) == (40, 100, None)
