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
