import numpy as np
import pytest

from longflow.errors import ConfigurationError
from longflow.fingerprint.intensities import IntensityMaps
from longflow.fingerprint.temporal import Distribution
from longflow.planning.channels import plan_channels
from tests.planning.helpers import description, spatial


@pytest.mark.parametrize(
    # without maps between visits, as of a cohort whose scans have nothing in common, each scan has its own numbers
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


def maps(explained, log_gains=(0.0,), shifts=(0.0,), without_map=0):
    numbers = {"log_gains": log_gains if explained else [], "shifts": shifts, "explained": explained}
    distributions = {name: Distribution.of(list(values)) for name, values in numbers.items()}
    return {"0": IntensityMaps(**distributions, without_map=without_map)}


def normal_form(measured, unit="months", name="FLAIR", **further):
    (channel,) = plan_channels(spatial([8, 8, 8], [1, 1, 1]), description(unit, (name,), **further), measured)
    return channel


@pytest.mark.parametrize(
    ("explained", "form"),
    [
        ([0.0] * 40, "per_subject"),
        ([-0.01, 0.05, 0.2], "per_subject"),
        ([0.05, 0.15, 0.2], "matched"),
        # one scanner in eight has other units
        ([0.0] * 35 + [0.9] * 5, "matched"),
        # one visit in forty is an outlier
        ([0.0] * 39 + [0.9], "per_subject"),
        # a single map has no spread, and is another unit none the less
        ([0.9], "matched"),
    ],
)
def test_units_of_visits_are_measured(explained, form):
    assert normal_form(maps(explained)).normal_form == form


def test_the_reason_has_the_numbers():
    spread = np.array([-1.0, -0.5, 0.0, 0.5, 1.0] * 8)
    reason = normal_form(maps([0.25] * 40, 0.3 * spread, 0.2 * spread)).reason
    for part in (
        "separate visits, whose units differ: 40 maps between neighbouring scans",
        "25.0% of the squared difference at the median and 25.0% at the 95th percentile (limits: 10% and 60%)",
        "gains are 0.861 to 1.162, half of their shifts of the mean -0.100 to 0.100 standard deviations",
    ):
        assert part in reason


def test_what_cannot_be_measured_is_said():
    channel = normal_form(maps([], without_map=7))
    assert channel.normal_form == "per_scan" and "could not be measured (7 pairs" in channel.reason


def test_units_of_one_acquisition_of_ct_and_of_the_user_are_not_measured():
    other = maps([0.9])
    assert normal_form(other, "ms").normal_form == "per_subject"
    assert normal_form(other, name="CT").normal_form == "absolute"
    assert normal_form(other, normalization={"0": "per_scan"}).normal_form == "per_scan"
    assert normal_form(None, normalization={"0": "matched"}).normal_form == "matched"
    assert normal_form(other, normalization={"0": "min_max"}).numbers()["normal_form"] == "min_max"


@pytest.mark.parametrize("form", ["per_subject", "matched"])
@pytest.mark.parametrize(("task", "verb"), [("segment", "segmented"), ("translate", "translated")])
def test_the_first_scan_cannot_prepare_one_that_is_seen_by_itself(task, verb, form):
    expected = description(task=task, normalization={"0": form})
    with pytest.raises(ConfigurationError, match=f"'{form}', but a scan is {verb} by itself"):
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
