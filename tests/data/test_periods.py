import pytest

from longflow.data.dataset import Scan
from longflow.data.periods import neighbours_in_period, period_of
from longflow.errors import DataError


def scans(*cells):
    return [
        Scan(f"a_{position}", "a", position, (), covariates={} if cell is None else {"rr": cell})
        for position, cell in enumerate(cells)
    ]


@pytest.mark.parametrize(
    ("cells", "period", "expected"),
    [
        (["800", "820", "900"], "rr", 820),
        (["", "812.5", " "], "rr", 812.5),
        (["", None], "rr", None),
        (["800"], None, None),
        (["800"], 650.0, 650),
    ],
)
def test_the_period_is_the_number_of_the_plans_or_the_median_of_the_column(cells, period, expected):
    assert period_of(scans(*cells), period) == expected


@pytest.mark.parametrize("cell", ["0", "-3", "nan", "inf", "800 ms", "0,8"])
def test_a_cell_that_is_no_period_is_refused_with_its_case(cell):
    with pytest.raises(DataError, match=r"case a_1 \(column 'rr' of scans.csv\)"):
        period_of(scans("800", cell), "rr")


def test_the_end_of_a_beat_lies_between_the_last_scan_and_the_first_of_the_next():
    times = [float(frame) for frame in range(14)]
    assert neighbours_in_period(times, 17.0, 20.0) == (13, 0, pytest.approx(4 / 7))
    assert neighbours_in_period(times, 37.0, 20.0) == (13, 0, pytest.approx(4 / 7))
    assert neighbours_in_period(times, 22.0, 20.0) == (2, 3, 0.0)


def test_of_two_scans_at_one_phase_the_later_counts():
    assert neighbours_in_period([0.0, 4.0, 20.0], 40.0, 20.0) == (2, 1, 0.0)
