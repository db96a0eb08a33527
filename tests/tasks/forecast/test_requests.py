import pytest

from longflow.data.dataset import image_path
from longflow.errors import DataError
from longflow.tasks.forecast.hidden_context import HiddenContext
from longflow.tasks.forecast.requests import forecast_requests
from tests.inference.helpers import TWO_CHANNELS, write_input


@pytest.fixture
def folder(tmp_path):
    return write_input(tmp_path)


def listed(folder, times=(), hidden=None):
    requests = forecast_requests(folder, TWO_CHANNELS, times, hidden)
    return {item.target.case: ([scan.time for scan in item.context], item.horizon) for item in requests}


def test_rows_without_images_are_requested_from_all_scans_before_them(folder):
    assert listed(folder) == {"s_25": ([0, 10, 20], 5), "s_40": ([0, 10, 20, 30], 10)}


def test_times_stand_instead_of_rows_each_once(folder):
    assert listed(folder, [50, 12.5, 50]) == {"s_t50": ([0, 10, 20, 30], 20), "s_t12.5": ([0, 10], 2.5)}


@pytest.mark.parametrize(
    ("text", "contexts"),
    [
        ("first:1", {"s_25": ([10, 20], 5), "s_40": ([10, 20, 30], 10)}),
        ("last:1", {"s_25": ([0, 10], 15), "s_40": ([0, 10, 20], 20)}),
        ("last:2", {"s_25": ([0], 25), "s_40": ([0, 10], 30)}),
    ],
)
def test_scans_are_hidden_of_all_that_are_given_and_horizons_count_from_the_rest(folder, text, contexts, caplog):
    assert listed(folder, hidden=HiddenContext.of(text)) == contexts
    assert not caplog.text


def test_one_scan_is_kept_where_there_are_too_few_and_the_log_says_so(folder, caplog):
    hidden = HiddenContext.of("first:3")
    assert listed(folder, hidden=hidden) == {"s_25": ([20], 5), "s_40": ([30], 10)}
    said = "--hide_context first:3: 1 of 2 targets have no more than 3 context scans (s_25). One scan is kept for each"
    assert said in caplog.text


def test_the_sidecar_says_what_was_hidden(folder):
    (one, _) = forecast_requests(folder, TWO_CHANNELS, (), HiddenContext.of("last:2"))
    provenance = one.provenance()
    assert provenance["hide_context"] == "last:2" and provenance["context"] == ["s_0"] and provenance["horizon"] == 25
    assert forecast_requests(folder, TWO_CHANNELS, ())[0].provenance()["hide_context"] is None


def test_long_times_have_different_names(folder):
    assert list(listed(folder, [1_000_001, 1_000_002.5])) == ["s_t1000001", "s_t1000002.5"]


def test_all_problems_are_reported_at_once(folder):
    image_path(folder, "s_10", 1, TWO_CHANNELS).unlink()
    with pytest.raises(DataError, match=r"s_10_\*\.nii\.gz: channels: found 0000; expected 0000, 0001") as raised:
        listed(folder, [-1])
    assert "s_t-1: subject s is requested at time -1, but its first scan is at 0" in str(raised.value)
