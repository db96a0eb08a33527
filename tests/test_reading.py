import json

import pytest

from longflow import reading
from longflow.errors import DataError
from longflow.reading import parse_number, read_json, read_table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b'{\n "a": }', "line 2, column 7"),
        (b"\xff\xfe\x00", "not a text file"),
        (b'{"a": 1,\n "b": {"c": 1,\n "c": 2}}', "line 3: the key 'c' a second time"),
        (b'{"a": "NaN",\n "b": [NaN]}', "line 2: NaN, expected a finite number"),
        (b"[-Infinity]", "line 1: -Infinity, expected a finite number"),
        (b"[0,\n1e999]", "line 2: 1e999, expected a finite number"),
        (b"[" + b"9" * 5000 + b"]", "line 1: 9+, expected a finite number"),
        (b"[1" + b"0" * 308 + b"]", "line 1: 10+, expected a finite number"),
        (b'{"a": 1, "\\u0061": 2}', "a key twice, with and without escapes"),
        (b"[" * 65 + b"]" * 65, "more than 64 lists and objects"),
        (b"[" * 1_000_000, "more than 64 lists and objects"),
        (b'["\\ud800"]', "half of a letter"),
        (b" " * (32 * 2**20 + 1), "32 MB, expected at most 32 MB"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "more than 1000000 lists and objects"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "x.json")


def test_json_with_a_byte_order_mark_or_repeated_keys_in_several_objects_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(
        b'\xef\xbb\xbf{"a": {"b": 1, "c": "{\\"b\\": 2"}, "b": [{"b": 1.5e3}, {"b": null}]}'
    )
    assert read_json(tmp_path / "x.json") == {"a": {"b": 1, "c": '{"b": 2'}, "b": [{"b": 1500.0}, {"b": None}]}
    (tmp_path / "x.json").write_text("[" * 64 + "]" * 64)
    assert json.dumps(read_json(tmp_path / "x.json")) == "[" * 64 + "]" * 64


def test_json_of_another_kind_is_an_error(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    assert read_json(tmp_path / "x.json", list) == [1]
    with pytest.raises(DataError, match=r"holds '\[1\]', expected an object"):
        read_json(tmp_path / "x.json", dict)


@pytest.mark.parametrize("name", ["folder", "a" * 300 + ".json"])
def test_what_is_no_file_is_an_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError):
        read_json(tmp_path / name)


def test_line_numbers_count_blank_lines_and_line_breaks_in_quotes(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'\n\xef\xbb\xbfa,b\r\n1,"two\r\nlines"\r\n\r\n\r\n2, x \r\n3\r\n4,5,6\r\n'[1:])
    lines = read_table(tmp_path / "x.csv", "a")
    assert [(line.number, line.cells, line.surplus) for line in lines] == [
        (2, {"a": "1", "b": "two\r\nlines"}, ()),
        (6, {"a": "2", "b": "x"}, ()),
        (7, {"a": "3", "b": ""}, ()),
        (8, {"a": "4", "b": "5"}, ("6",)),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,a\n", "2 columns called a: columns 1, 3"),
        ("a, A ,b\n", "2 columns called a: columns 1, 2"),
        ("a,b,\u00e9,e\u0301\n", "2 columns called \u00e9: columns 3, 4"),
        ("b,c\n", "no column a. Found in its first line: b, c. Expected: a and any"),
        ("", "no column a. Found in its first line: nothing"),
        ("b;a\n", "separated by semicolons. Save it with commas"),
        ('a\n1\n"never closed\n2\n', "unexpected end of data, from line 3 on"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "x.csv", "a")


def test_columns_without_a_name_may_be_several(tmp_path):
    (tmp_path / "x.csv").write_text("a,,\n1,,\n")
    assert read_table(tmp_path / "x.csv", "a")[0].cells["a"] == "1"


def test_a_table_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_LINES", 3)
    (tmp_path / "x.csv").write_text("a\n1\n2\n3\n")
    with pytest.raises(DataError, match="more than 3 lines"):
        read_table(tmp_path / "x.csv", "a")


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("+.5", 0.5), ("-3.", -3), ("1E-2", 0.01)]
    + [(text, None) for text in ("2019_01", "1_0", "\u0661", "1e999", "0x1", "nan", "inf", " 1", "1\n", "1,5", "")],
)
def test_numbers_are_written_in_digits(text, number):
    assert parse_number(text) == number
