import logging

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import read_description, read_rows
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.integrity.dataset import verify_dataset
from longflow.reading import read_json
from tests.data.helpers import tiny_array, tiny_label, write_image
from tests.importers.helpers import run_import

OASIS = {"sub-OAS30001": ("ses-d0129", "ses-d0757"), "sub-OAS30002": ("ses-d0371", "ses-d0653", "ses-d1680")}
OTHERS = ("sub-01", "sub-02")


def write_bids(source, subjects, run="_run-01"):
    """Scan n of a subject is ``tiny_array(n)``; next to T1w there are a FLAIR and files that are not anatomy."""
    for subject, sessions in subjects.items():
        for number, session in enumerate(sessions):
            anat = source / subject / session / "anat"
            write_image(tiny_array(number), anat / f"{subject}_{session}{run}_T1w.nii.gz")
            write_image(tiny_array(number + 50), anat / f"{subject}_{session}_FLAIR.nii.gz")
            (anat / f"{subject}_{session}{run}_T1w.json").write_text("{}")
            (anat.parent / "func").mkdir()
    return source


@pytest.fixture
def source(tmp_path):
    return write_bids(tmp_path / "oasis", OASIS)


@pytest.fixture
def plain(tmp_path):
    """Sessions whose names say nothing about time."""
    return write_bids(tmp_path / "plain", dict.fromkeys(OTHERS, ("ses-a", "ses-b")))


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset107_OASIS3"


def run(source, raw, **options):
    return run_import("bids", source, raw, **options)


def write_sessions(source, subject, column, values, sessions=("ses-a", "ses-b")):
    rows = [f"{session}\t{value}\tx" for session, value in zip(sessions, values, strict=True)]
    (source / subject / f"{subject}_sessions.tsv").write_text(f"session_id\t{column}\tother\n" + "\n".join(rows) + "\n")


def times(raw):
    return {row.case: float(row.time) for row in read_rows(raw / "scans.csv")}


def unit(raw):
    return read_description(raw / "dataset.json").time_unit


def excluded(raw):
    return read_json(raw / "import.json")["settings"]["left_out"]


def test_names_of_oasis_are_days_since_entry(source, raw, caplog):
    with caplog.at_level(logging.INFO):
        assert run(source, raw)
    assert times(raw) == {
        "sub-OAS30001_ses-d0129": 129,
        "sub-OAS30001_ses-d0757": 757,
        "sub-OAS30002_ses-d0371": 371,
        "sub-OAS30002_ses-d0653": 653,
        "sub-OAS30002_ses-d1680": 1680,
    }
    assert "Times of the sessions: the numbers in the sessions' names, days." in caplog.text
    image = nibabel.load(raw / "imagesTr" / "sub-OAS30002_ses-d1680_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, tiny_array(2))
    description = read_description(raw / "dataset.json")
    assert (description.channels, description.time_unit, description.labels) == (["T1w"], "days", {})
    assert verify_dataset(raw, processes=1) == []
    assert not run(source, raw)


def test_months_by_their_letter_and_other_numbers_by_a_flag(tmp_path, raw):
    write_bids(tmp_path / "adni", {"sub-1": ("ses-M000", "ses-M012")})
    run(tmp_path / "adni", raw)
    assert (list(times(raw).values()), unit(raw)) == ([0, 12], "months")
    write_bids(tmp_path / "weekly", {"sub-1": ("ses-01", "ses-13")})
    with pytest.raises(DataError, match=r"Nothing says when the sessions"):
        run(tmp_path / "weekly", raw, overwrite=True)
    run(tmp_path / "weekly", raw, times="labels", time_unit="weeks", overwrite=True)
    assert (list(times(raw).values()), unit(raw)) == ([1, 13], "weeks")


def test_dates_become_days_since_the_first_session(plain, raw):
    write_sessions(plain, "sub-01", "acq_time", ("2009-06-16T01:30:00", "2009-06-14T13:30:00Z"))
    write_sessions(plain, "sub-02", "acq_time", ("1925-01-01", "1926-01-01"))
    run(plain, raw)
    assert list(times(raw).items()) == [
        ("sub-01_ses-b", 0),
        ("sub-01_ses-a", 1.5),
        ("sub-02_ses-a", 0),
        ("sub-02_ses-b", 365),
    ]
    assert unit(raw) == "days"


def test_ages_are_years_and_names_of_sessions_may_lack_their_prefix(plain, raw):
    for subject in ("sub-01", "sub-02"):
        write_sessions(plain, subject, "age", (63.5, 65), ("a", "b"))
    run(plain, raw)
    assert (times(raw)["sub-01_ses-a"], times(raw)["sub-02_ses-b"], unit(raw)) == (63.5, 65, "years")


def test_one_table_for_all_subjects_and_another_column(plain, raw):
    (plain / "sessions.tsv").write_text(
        "participant_id\tsession_id\tdays\tscan_age\n"
        + "".join(
            f"sub-0{number}\tses-{name}\t0\t{week}\n" for number in (1, 2) for name, week in (("a", 37), ("b", 41))
        )
    )
    with pytest.raises(ConfigurationError, match=r"--times scan_age: give the unit"):
        run(plain, raw, times="scan_age")
    run(plain, raw, times="scan_age", time_unit="weeks")
    assert (list(times(raw).values()), unit(raw)) == ([37, 41, 37, 41], "weeks")
    with pytest.raises(DataError, match=r"sub-01_ses-a and sub-01_ses-b are both at time 0 by the column days"):
        run(plain, raw, overwrite=True)


def test_what_is_excluded_is_reported_and_kept(source, raw, caplog):
    anat = source / "sub-OAS30001" / "ses-d0129" / "anat"
    write_image(tiny_array(9), anat / "sub-OAS30001_ses-d0129_run-02_T1w.nii.gz")
    write_image(tiny_array(8), anat / "sub-OAS30001_ses-d0129_ce-gd_T1w.nii.gz")
    (source / "sub-OAS30002/ses-d0653/anat/sub-OAS30002_ses-d0653_run-01_T1w.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        run(source, raw)
    name = "sub-OAS30001_ses-d0129"
    assert excluded(raw) == [
        f"sub-OAS30001/ses-d0129: {name}_run-02_T1w.nii.gz, next to {name}_run-01_T1w.nii.gz",
        f"sub-OAS30001/ses-d0129: {name}_ce-gd_T1w.nii.gz, next to {name}_run-01_T1w.nii.gz",
        "sub-OAS30002/ses-d0653: no anat/*_T1w.nii.gz",
    ]
    assert "Excluded: sub-OAS30002/ses-d0653: no anat/*_T1w.nii.gz" in caplog.text
    run(source, raw, modality="ce-gd_T1w", test=[], overwrite=True)
    assert list(times(raw)) == ["sub-OAS30001_ses-d0129"]


def test_sessions_without_a_time_are_excluded(plain, raw):
    write_sessions(plain, "sub-01", "days", (0, "n/a"))
    run(plain, raw)
    assert excluded(raw) == [
        f"{session}: no time in the column days of the tables of sessions"
        for session in ("sub-01/ses-b", "sub-02/ses-a", "sub-02/ses-b")
    ]


def write_scans_tsv(source, subject, dates, own=False):
    """A table of images with dates: one for each session, or one for the subject."""
    lines = {}
    for session, date in zip(("ses-a", "ses-b"), dates, strict=True):
        name = f"anat/{subject}_{session}_run-01_T1w.nii.gz"
        folder, name = (source / subject, f"{session}/{name}") if own else (source / subject / session, name)
        path = folder / (f"{subject}_scans.tsv" if own else f"{subject}_{session}_scans.tsv")
        lines.setdefault(path, ["filename\tacq_time\toperator"]).append(f"{name}\t{date}\tx")
        lines[path].append(f"{name.replace('T1w', 'bold')}\t1999-01-01\tx")
    for path, content in lines.items():
        path.write_text("\ufeff" + "\n".join(content) + "\n", encoding="utf-8")


@pytest.mark.parametrize("own", [False, True])
def test_dates_of_the_images_are_read_where_nothing_else_has_times(plain, raw, own):
    write_scans_tsv(plain, "sub-01", ("2009-06-14T13:30:00", "2010-06-14T13:30:00"), own)
    write_scans_tsv(plain, "sub-02", ("1925-03-01", "1925-01-01"), own)
    run(plain, raw)
    assert list(times(raw).items()) == [
        ("sub-01_ses-a", 0),
        ("sub-01_ses-b", 365),
        ("sub-02_ses-b", 0),
        ("sub-02_ses-a", 59),
    ]
    assert unit(raw) == "days"
    write_sessions(plain, "sub-01", "days", (0, 7))
    run(plain, raw, times="acq_time", overwrite=True)
    assert times(raw)["sub-01_ses-b"] == 365


def test_names_with_a_unit_count_before_dates_of_images(source, raw):
    anat = "anat/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz"
    table = source / "sub-OAS30001/ses-d0129/sub-OAS30001_ses-d0129_scans.tsv"
    table.write_text(f"filename\tacq_time\n{anat}\t2009-06-14\n")
    run(source, raw)
    assert times(raw)["sub-OAS30001_ses-d0129"] == 129


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("sub-01/sub-01_sessions.tsv", "session_id\tdays\nses-a\t0\n\nses-a\t9\n", r"ses-a twice, in lines 2 and 4"),
        ("sub-01/sub-01_sessions.tsv", "session_id\tdays\na\t0\nses-a\t9\n", r"sub-01 ses-a twice, in lines 2 and 3"),
        ("sessions.tsv", "participant_id\tsession_id\tdays\n01\ta\t0\nsub-01\tses-a\t9\n", r"in lines 2 and 3"),
        ("sub-01/sub-01_sessions.tsv", "session_id\tdays\tdays\nses-a\t0\t9\n", r"2 columns called days: columns 2, 3"),
        ("sub-01/sub-01_sessions.tsv", "session_id\tdays\nses-a\t2019_01\n", r"Found: '2019_01'. Expected numbers"),
        ("sub-01/sub-01_sessions.tsv", "session_id\tacq_time\nses-a\t15.06.2009\n", r"'15.06.2009'.*not 15.06.2009"),
    ],
)
def test_a_session_or_a_column_twice_and_other_cells(plain, raw, name, lines, message):
    (plain / name).write_text(lines)
    with pytest.raises(DataError, match=message):
        run(plain, raw)


def test_labels_by_their_pattern_and_test_subjects(source, raw):
    pattern = "derivatives/{subject}/{session}/{subject}_{session}_dseg.nii.gz"
    write_image(tiny_label(), source / pattern.format(subject="sub-OAS30002", session="ses-d0371"))
    run(source, raw, labels=pattern, label_names=["hippocampus"], task="segment", test=["sub-OAS30001"])
    assert [path.name for path in (raw / "labelsTr").iterdir()] == ["sub-OAS30002_ses-d0371.nii.gz"]
    assert read_description(raw / "dataset.json").labels == {"background": 0, "hippocampus": 1}
    assert len(list((raw / "imagesTs").glob("*.nii.gz"))) == 2
    with pytest.raises(DataError, match=r"has a name as --labels {subject}.nii.gz"):
        run(source, raw, labels="{subject}.nii.gz", overwrite=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "session_id\tacq_time\nses-a\t15.06.2009\nses-b\t\n",
            "No session of .* has a usable value in the column 'acq_time'",
        ),
        ("session_id,days\nses-a,0\n", "has no column session_id. Found in its first line: session_id,days. .*tabs"),
        ("session_id\tweight\nses-a\t70\n", "Nothing says when the sessions"),
    ],
)
def test_tables_that_cannot_be_used(plain, raw, content, message):
    (plain / "sub-01" / "sub-01_sessions.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        run(plain, raw)


def test_sources_and_flags_that_cannot_be_used(source, plain, raw, tmp_path):
    with pytest.raises(DataError, match=r"Nothing says when the sessions of .* \(ses-a, ses-b\)"):
        run(plain, raw)
    with pytest.raises(DataError, match=r"--times age: .* has no \*_sessions.tsv"):
        run(plain, raw, times="age")
    with pytest.raises(DataError, match=r"Nothing says when"):
        write_bids(tmp_path / "mixed", {"sub-1": ("ses-d0001", "ses-M012")})
        run(tmp_path / "mixed", raw)
    (tmp_path / "flat" / "sub-1" / "anat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"one session each, so nothing can be learned over time"):
        run(tmp_path / "flat", raw)
    with pytest.raises(DataError, match=r"has no sessions. Expected folders as sub-.* Found: no such folder"):
        run(tmp_path / "nowhere", raw)
    with pytest.raises(DataError, match=r"No session of .* has an image anat/\*_T2w.nii.gz. Found there: FLAIR, T1w"):
        run(source, raw, modality="T2w")
    with pytest.raises(NotFoundError, match=r"There is no subject 'sub-OAS30003'"):
        run(source, raw, test=["sub-OAS30003"])
    write_sessions(plain, "sub-01", "acq_time", ("2009-06-14", "2009-06-15"))
    with pytest.raises(ConfigurationError, match=r"--time_unit weeks: dates .* become days"):
        run(plain, raw, time_unit="weeks")
    (plain / "sub-01" / "sub-01_sessions.tsv").write_bytes(b"session_id\tage\n\xff\xfe\t1\n")
    with pytest.raises(DataError, match=r"sub-01_sessions.tsv is not a text file in UTF-8"):
        run(plain, raw)
    path = next(source.rglob("*T1w.nii.gz"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=path.name):
        run(source, raw)
    assert not raw.exists()
