import pytest

from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.training.labelled_subjects import (
    choose_labelled,
    labelled_scans,
    require_labelled_scans,
)
from longflow.training.splits import Cohort
from tests.tasks.segment.cohort import filled, segment_plans, write_cohort

LABEL = filled(1)


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    """Training subjects a to e, of which c has no label and d one at its second scan; v validates."""
    subjects = {name: [LABEL, LABEL] for name in "abev"} | {"c": [None, None], "d": [None, filled(0)]}
    made = write_cohort(tmp_path / "cache", segment_plans(), subjects)
    return Cohort(made.folder, {name: made.scans[name] for name in "edcba"})


def file_of(tmp_path, text: str, encoding="utf-8") -> str:
    path = tmp_path / "subjects.txt"
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_labelled_scans_of_a_cohort(cohort):
    assert labelled_scans(cohort) == [("e", 0), ("e", 1), ("d", 1), ("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    assert labelled_scans(Cohort(cohort.folder, cohort.scans, frozenset("cd"))) == [("d", 1)]


def test_where_labels_are_needed_and_there_is_none(cohort):
    with pytest.raises(DataError, match=r"None of the 1 subjects to try \(c\) has a label.*labelsTr"):
        require_labelled_scans(Cohort(cohort.folder, {"c": cohort.scans["c"]}), "to try")


def test_a_number_is_drawn_from_the_seed_among_subjects_with_labels(cohort):
    drawn = {tuple(choose_labelled("2", cohort, seed)) for seed in range(40)}
    assert all(list(two) == sorted(two) and set(two) <= set("abde") for two in drawn)
    assert len(drawn) == 6  # every pair of four
    assert choose_labelled("2", cohort, 3) == choose_labelled("2", cohort, 3)


def test_the_draw_does_not_depend_on_the_order_of_the_cohort(cohort):
    turned = Cohort(cohort.folder, dict(reversed(cohort.scans.items())))
    assert choose_labelled("2", turned, 3) == choose_labelled("2", cohort, 3)


def test_fewer_are_among_more(cohort):
    for seed in range(5):
        one, two, four = (set(choose_labelled(str(count), cohort, seed)) for count in (1, 2, 4))
        assert one < two < four == set("abde")


@pytest.mark.parametrize("value", ["0", "5", "-1"])
def test_a_number_that_cannot_be_drawn(cohort, value):
    with pytest.raises(ConfigurationError, match=f"{value}: 4 training subjects .* from 1 to 4"):
        choose_labelled(value, cohort, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_names_them(cohort, tmp_path, encoding):
    assert choose_labelled(file_of(tmp_path, "b\r\n\n  a \nb\n", encoding), cohort, 0) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nx\ny\n", "x, y is no subject of this dataset"),
        ("a\nv\n", "v belongs to the validation"),
        ("a\nc\n", "c has no label"),
        ("\n", "names no subject"),
    ],
)
def test_a_file_that_cannot_be_used(cohort, tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=f"subjects.txt.*{message}"):
        choose_labelled(file_of(tmp_path, text), cohort, 0)


def test_a_file_that_is_not_text(cohort, tmp_path):
    with pytest.raises(ConfigurationError, match=r"subjects.txt is not a text file"):
        choose_labelled(file_of(tmp_path, "ä", "latin-1"), cohort, 0)


def test_neither_a_number_nor_a_file(cohort, tmp_path):
    with pytest.raises(NotFoundError, match=r"three: expected a number .* or a text file"):
        choose_labelled("three", cohort, 0)
    with pytest.raises(NotFoundError, match=r"2\.5"):
        choose_labelled("2.5", cohort, 0)
