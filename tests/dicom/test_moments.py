from datetime import date

import pytest

from longflow.dicom.moments import moment, moment_of_datetime, parse_date, parse_time_of_day


@pytest.mark.parametrize("text", ["", None, "20120000", "00000000", "2012", "today", "20121301"])
def test_no_date(text):
    assert parse_date(text) is None


def test_dates_of_old_and_new_kinds():
    assert parse_date("20200110") == parse_date("2020.01.10") == date(2020, 1, 10)


@pytest.mark.parametrize(
    ("text", "seconds"), [("08", 28800), ("0815", 29700), ("081500.5", 29700.5), ("08:15:00", 29700)]
)
def test_times_of_day(text, seconds):
    assert parse_time_of_day(text) == seconds


@pytest.mark.parametrize("text", ["", None, "noon", "250000", "089900"])
def test_no_time_of_day(text):
    assert parse_time_of_day(text) is None


def test_moments_go_past_midnight():
    assert moment("20200111", "000010") - moment("20200110", "235950") == 20
    assert moment_of_datetime("20200110081500.25+0100") == moment("20200110", "081500.25")
    assert moment_of_datetime("20200110") is None and moment("20200110", "") is None
