from longflow.report.numbers import facts, number_tables, parts_named, table_by_span

ONE = {"mean": 1.0, "interval": [0.5, 1.5]}
OTHER = {"mean": None, "interval": None}


def test_numbers_are_found_wherever_they_are():
    content = {"overall": {"a": {"x": ONE, "y": OTHER}, "b": {"x": ONE}, "n": 3}, "definitions": {"x": "mean"}}
    content["spans"] = [{"from": 1, "to": 2.5, "a": {"x": OTHER}}]
    overall, of_span = number_tables(content, "days")
    assert (overall.title, overall.columns, overall.rows) == ("overall", ["a", "b"], ["x", "y"])
    assert overall.cells == {("x", "a"): ONE, ("y", "a"): OTHER, ("x", "b"): ONE}
    assert (of_span.title, of_span.columns) == ("spans, 1 to 2.5 days", ["a"])


def test_a_number_that_stands_alone():
    (table,) = number_tables({"dice": ONE})
    assert (table.columns, table.rows) == ([""], ["dice"])


def test_a_file_without_numbers_gives_no_table():
    assert number_tables({"a": 1, "b": [1, 2], "c": {"mean": {"x": 1}, "interval": None}}) == []


def test_one_number_over_spans():
    spans = [{"from": 0, "to": 1, "subjects": 2, "a": {"x": ONE}, "b": {"x": OTHER}}, {"from": 1, "to": 2, "a": {}}]
    (table,) = table_by_span({"by_horizon": spans, "other": [1, 2], "overall": {}}, "x", "s")
    assert table.title == "x, by horizon"
    assert table.rows == ["0 to 1 s (2 subjects)"] and table.columns == ["a", "b"]


def test_facts_are_what_is_no_mean_over_subjects():
    content = {"n": 3, "verdict": None, "x": ONE, "share": {"share": 0.5, "interval": [0, 1]}, "deep": {"x": ONE}}
    assert facts(content) == {"n": 3, "verdict": None, "share": {"share": 0.5, "interval": [0, 1]}}


def test_parts_are_found_by_words_of_their_keys():
    content = {"by": {"core": {"calibration_slope": {"slope": 1.0}, "other": 2}}}
    assert list(parts_named(content, ("calibration",))) == [("by, core, calibration_slope", {"slope": 1.0})]
