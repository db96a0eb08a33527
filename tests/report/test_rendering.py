from longflow.report.numbers import NumberTable
from longflow.report.rendering import cell, interval, policy_for, readable, templates


def test_values_of_sidecars_are_shown_as_what_they_are():
    assert readable({"a": [0.0, 1, True, None], "b": []}) == "a: 0.0, 1, yes, none; b: none"


def test_cells_have_five_digits_where_they_are_long():
    assert [cell(text) for text in ("0.1234567890123", "1234567", "<b>long text</b>")] == [
        "0.12346",
        "1234567",
        "<b>long text</b>",
    ]


def test_an_interval_is_shown_where_there_is_one():
    assert interval({"mean": 0.25, "interval": None}) == "0.25"
    assert interval({"mean": None, "interval": None}) == "–"
    assert interval(None) == ""


def test_nothing_runs_on_a_page_without_scripts():
    assert policy_for([]).split("; ")[1] == "script-src 'none'"


def test_text_of_users_is_escaped():
    table = NumberTable("<img src=x>", ["<b>"], ["'\"&"], {("'\"&", "<b>"): {"mean": 1.0, "interval": None}})
    page = templates().get_template("tables.html.j2").module.numbers(table)
    assert "&lt;img src=x&gt;" in page and "<img" not in page and "<b>" not in page
