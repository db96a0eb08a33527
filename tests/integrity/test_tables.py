import pytest

from longflow.data.dataset import read_rows
from longflow.integrity.tables import table_problems, time_unit_problems


def problems_of(tmp_path, text):
    (tmp_path / "scans.csv").write_text(text)
    return table_problems("scans.csv", read_rows(tmp_path / "scans.csv"))


def test_lines_whose_files_can_be_looked_for_are_kept(tmp_path):
    problems, rows = problems_of(
        tmp_path, "case,subject,time\na_0,a,0\na_1,a,soon\n,a,2\na_0,a,3\nb/0,b,0\nc_0,,0\nd_0,d,1\nd_1,d,1\n"
    )
    assert [row.case for row in rows] == ["a_0", "a_1", "d_0", "d_1"]
    assert [problem.field for problem in problems] == [
        "line 3: time",
        "line 4: case",
        "line 5: case",
        "line 6: case",
        "line 7: subject",
        "line 9: time",
    ]


def test_one_line_can_have_several_problems(tmp_path):
    problems, _ = problems_of(tmp_path, "case,subject,time\n,,31.1.2024\n")
    assert [problem.field for problem in problems] == ["line 2: case", "line 2: subject", "line 2: time"]
    assert problems[2].found == "'31.1.2024', a date"


@pytest.mark.parametrize(
    ("values", "unit", "doubted"),
    [
        ([20240131, 20240229], "days", True),
        ([20240131, 20240230], "days", False),  # the 30th of February is no date; 99 days are believable
        ([0, 20240131], "days", True),  # 55 000 years
        ([1999, 2001], "years", False),
        ([1999.5, 2001.5], "months", False),
        ([0, 0.2], "days", True),
        ([0, 90], "days", False),
        ([0, 1], "cycles", False),
        ([0, 5], "visits", False),
        ([7], "days", False),
        ([], "days", False),
    ],
)
def test_time_units(values, unit, doubted):
    found = time_unit_problems([("a", str(value)) for value in values], unit, "scans.csv")
    assert bool(found) is doubted


def test_the_span_is_that_of_a_subject():
    times = [("a", "0"), ("a", "100"), ("b", "200000"), ("b", "200100")]
    assert time_unit_problems(times, "days", "scans.csv") == []


def test_a_time_in_two_phases_is_fine_where_they_are_translated(tmp_path):
    (tmp_path / "scans.csv").write_text(
        "case,subject,time,phase\na_0,a,0,native\na_1,a,0,arterial\na_2,a,0,native\nb_0,b,0,\nb_1,b,0,\n"
    )
    rows = read_rows(tmp_path / "scans.csv")
    (problem,) = table_problems("scans.csv", rows, ("phase",))[0]
    assert (problem.field, problem.found) == ("line 4: time", "0 of subject a in phase native, as in line 2")
    fields = [problem.field for problem in table_problems("scans.csv", rows)[0]]
    assert fields == ["line 3: time", "line 4: time", "line 6: time"]
