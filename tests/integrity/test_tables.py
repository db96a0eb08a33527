import pytest

from longflow.data.dataset import DatasetDescription, read_rows
from longflow.integrity.tables import column_problems, table_problems, time_unit_problems


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
        (["31012024", "01022024"], "days", True),
        ([190101, 190401, 200101], "days", True),
        (["050321", "050921"], "weeks", True),
        (["201901", "201904", "201907"], "months", True),
        ([456789, 457000, 457090], "days", False),
        ([201913, 201901], "days", False),  # there is no 13th month
        ([190101, 190102], "ms", False),
        ([18262, 18293, 20101], "days", False),  # days since 1970
        ([737060, 737091, 737120], "days", False),  # days since the year 0
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


@pytest.mark.parametrize(
    ("values", "unit", "severity", "found"),
    [
        (["20240131"], "days", "error", "20240131: dates as yyyymmdd"),
        (["20240131", "20240229.0"], "s", "warning", "dates as yyyymmdd"),
        (["31122024", "01022025"], "days", "error", "dates as ddmmyyyy"),
        (["190101", "190401"], "days", "warning", "dates as yymmdd"),
        (["190101", "190401", "200101"], "days", "error", "dates as yymmdd"),
        (["311298", "010199", "020199"], "days", "error", "dates as ddmmyy"),
    ],
)
def test_dates_as_numbers_are_named(values, unit, severity, found):
    problems = time_unit_problems([("a", value) for value in values], unit, "scans.csv")
    assert problems[0].severity == severity and found in problems[0].found


@pytest.mark.parametrize("text", ["31.1.2024", "2024-01-31T10:00:00", "2019_01", "31 Jan 2024", "1/31/24", "2019-01"])
def test_dates_that_people_read_are_named(tmp_path, text):
    (problem,) = problems_of(tmp_path, f"case,subject,time\na_0,a,{text}\n")[0]
    assert problem.found == f"'{text}', a date" and "subtract the first date" in problem.advice


def test_lines_are_those_of_the_file(tmp_path):
    problems, _ = problems_of(
        tmp_path, 'case,subject,time,note\n\na_0,a,0,"two\nlines"\n\n\na_1,a,soon,\na_2,a,1,x,y\n'
    )
    assert [problem.field for problem in problems] == ["line 7: time", "line 8: cells"]
    assert problems[1].found == "5 (a_2,a,1,x,y)"


def test_the_columns_of_any_table_are_checked(tmp_path):
    """Of training scans, of test scans and of the input of a prediction."""
    description = DatasetDescription(channel_names={"0": "T1"}, file_ending=".nii.gz", time_unit="days")
    problems, rows = problems_of(tmp_path, "case,subject,time\na_0,p1,20240131\na_1,P01,20240201\n\na_2,p1,20240301\n")
    assert problems == []
    dates, spelling = column_problems("scans.csv", rows, description)
    assert (dates.severity, spelling.severity) == ("error", "warning")
    assert (spelling.field, spelling.found) == ("line 3: subject", "'P01' (line 3) and 'p1' (line 2)")


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
