from io import StringIO

from rich.console import Console

from longflow.tasks.segment.lesion_changes import ChangeRule
from longflow.tasks.segment.lesion_comparison import COMPARED
from longflow.tasks.segment.lesion_tables import show_calls, show_lesions, show_remarks

RESULTS = {
    "structure": "[lesion]",
    "time_unit": "days",
    "rule": vars(ChangeRule()),
    "subjects_with_one_visit": [],
    "other_grids": {},
    "shifted": [],
    "pairs_not_checked": 0,
    "compared": None,
}


def row(subject, lesion, time, **changes):
    cells = {"ml": 1.5, "before_ml": None, "change": "first visit", "with": ""}
    return {"subject": subject, "lesion": lesion, "time": time, **cells, "x_mm": -1.25, "y_mm": 2, "z_mm": 3, **changes}


def shown(show, *arguments, **further):
    console = Console(file=StringIO(), width=200)
    show(*arguments, console, **further)
    return " ".join(console.file.getvalue().split())


def test_lesions_and_their_changes():
    rows = [row("[p]", 1, 0), row("[p]", 1, 7.5, before_ml=1.25, change="merged", **{"with": "2 3"})]
    text = shown(show_lesions, rows, RESULTS)
    assert "Lesions of [lesion] over time" in text
    assert "[p] 1 0 1.500 first visit -1, 2, 3 7.5 1.500 1.250 merged with 2, 3" in text
    assert "more rows" not in text


def test_a_long_table_is_cut():
    rows = [row("p", number, 0) for number in range(5)]
    assert "... and 3 more rows in the file" in shown(show_lesions, rows, RESULTS, most=2)
    assert "more rows" not in shown(show_lesions, rows, RESULTS, most=None)
    assert "No lesion of [lesion] in any visit" in shown(show_lesions, [], RESULTS)


def test_calls():
    assert shown(show_calls, RESULTS) == ""
    counts = {"reference": 4, "detected": 3, "predicted": 6, "correct": 5}
    compared = {"by_change": dict.fromkeys(COMPARED, counts), "subjects": 6, "subjects_right": list("abcde")}
    text = shown(show_calls, RESULTS | {"compared": compared | {"f1": {"mean": 0.75, "interval": [0.5, 1.0]}}})
    assert "grown 4 3 6 5" in text and "of 6 subjects" in text
    assert "F1 of changes (all but stable), mean over subjects: 0.750, 95 % interval 0.500 to 1.000." in text
    assert "Every change called right in 5 of 6 subjects." in text


def test_what_cannot_be_trusted_is_said():
    text = shown(show_remarks, RESULTS)
    assert "by 25% and 0.1 ml at least" in text and "below 0.014 ml" in text and "3 mm apart" in text
    assert "shifted" not in text and "Not followed" not in text and "not checked" not in text
    changed = {"other_grids": {"[q]": "x differs"}, "shifted": ["a and b"], "subjects_with_one_visit": ["c"]}
    text = shown(show_remarks, RESULTS | changed | {"pairs_not_checked": 2})
    assert "Not followed: [q]. x differs. Register" in text and "shifted against each other: a and b." in text
    assert "One visit, nothing to follow: c." in text and "not checked for 2 pairs of visits" in text
