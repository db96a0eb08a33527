"""Tables and JSON that are generated: none ends with a foreign exception, and valid ones are read as others read them.

Their number is that of hypothesis' profile: ``pytest --hypothesis-profile=...``.
"""

import csv
import io
import json
import math
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from longflow.data.dataset import DatasetDescription, image_path, read_description, read_rows, series_of_folder
from longflow.errors import DataError, LongflowError
from longflow.files import write_csv, write_json
from longflow.integrity.dataset import verify_dataset
from longflow.integrity.tables import column_problems, table_problems
from longflow.paths import RESERVED_NAMES
from longflow.plans import Plans, read_plans
from longflow.reading import parse_number, read_json, read_table
from longflow.training.splits import read_or_make_splits
from tests.test_plans import CONTENT

#: one folder serves all examples of a test; each writes its files anew
generated = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)

DESCRIPTION = {"channel_names": {"0": "T1"}, "file_ending": ".nii.gz", "time_unit": "days"}
#: pieces that tables, names and numbers go wrong with
PIECES = (
    *(
        "case",
        "subject",
        "time",
        "p1",
        "p01",
        "P1",
        "p1_0",
        "p1_1",
        "0",
        "30",
        "365.5",
        "1e400",
        "-1",
        "2019_01",
        "nan",
    ),
    *("20240131", "190101", "31.1.2024", ",", ";", "\t", "\n", "\r\n", '"', "\ufeff", "\u00a0", "\u200b", "\x1b[2J"),
    *("../x", "/", "\\", "[red]", "=1+1", "e\u0301", "\u00e9", "\0", "a" * 200, "\u2028", ".", "\ud800", "\u0661"),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(PIECES) | st.text(max_size=8)
KEYS = st.sampled_from(PIECES) | st.text(max_size=8)


def json_of(leaves):
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
    )


ANY_JSON = json_of(SCALARS)


@st.composite
def changed(draw, content):
    """A valid content with one value at any depth replaced by anything, or removed."""
    result = json.loads(json.dumps(content))
    place = result
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        place = inner
    if draw(st.booleans()) and isinstance(place, dict):
        del place[key]
    else:
        place[key] = draw(ANY_JSON)
    return result


def raw_json(content) -> bytes:
    """JSON as Python writes it: with NaN, Infinity and halves of letters where the content has them."""
    return json.dumps(content).encode()


def outcome(read, *arguments):
    """What is read, or None where one of our own errors refuses it; any other exception is a failure."""
    try:
        return read(*arguments)
    except LongflowError as error:
        assert str(error)
        return None


def cells_as_csv_reads_them(text: str) -> list[list[str]]:
    return [record for record in csv.reader(io.StringIO(text, newline=""), strict=True) if record]


PIECE = st.sampled_from(PIECES) | st.text(max_size=6)
#: lines of three or four cells
LINES = st.lists(st.lists(PIECE, min_size=3, max_size=4).map(",".join), max_size=6)


@generated
@given(
    text=st.lists(PIECE, max_size=30).map("".join) | LINES.map(lambda lines: "case,subject,time\n" + "\n".join(lines))
)
def test_any_text_as_a_table(tmp_path, text):
    (tmp_path / "scans.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    rows = outcome(read_rows, tmp_path / "scans.csv")
    description = DatasetDescription.model_validate(DESCRIPTION)
    series = outcome(series_of_folder, tmp_path, description)
    if rows is not None:
        records = cells_as_csv_reads_them(text.removeprefix("\ufeff"))
        assert [(row.case, row.subject, row.time) for row in rows] == [
            tuple(_cells_of(record, records[0])) for record in records[1:]
        ]
    if series is not None:
        assert all(math.isfinite(scan.time) for one in series for scan in one.scans)
    if rows is not None:  # what is refused where a table is used is an error of the check, and the other way round
        problems, usable = table_problems("scans.csv", rows)
        column_problems("scans.csv", usable, description)
        errors = [one for one in problems if one.severity == "error" and not one.field.endswith("cells")]
        assert bool(errors) == (series is None) or any(row.surplus for row in rows)


def _cells_of(record, header):
    header = [unicodedata.normalize("NFC", name).strip() for name in header]
    cells = dict(zip(header, [*record, *[""] * len(header)], strict=False))
    return [unicodedata.normalize("NFC", cells[name]).strip() for name in ("case", "subject", "time")]


NAMES = st.text(st.characters(categories=("L", "Nd"), include_characters="-_ []=+@'\""), min_size=1, max_size=20).map(
    lambda text: unicodedata.normalize("NFC", text).strip()
)
TIMES = st.floats(-1e6, 1e6)


@generated
@given(scans=st.lists(st.tuples(NAMES, NAMES, TIMES, st.text(max_size=10)), max_size=8), blank=st.integers(0, 3))
def test_valid_tables_are_read_as_written(tmp_path, scans, blank):
    cases = [f"{case}{number}" for number, (case, *_) in enumerate(scans)]
    assume(len({(subject, time) for _, subject, time, _ in scans}) == len(scans))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["subject", "note", "case", "time"])
    starts = []
    for case, (_, subject, time, note) in zip(cases, scans, strict=True):
        buffer.write("\n" * blank)
        starts.append(1 + len(buffer.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1)
        writer.writerow([subject, note.encode("utf-8", "ignore").decode(), case, repr(time)])
    (tmp_path / "scans.csv").write_bytes(buffer.getvalue().encode())
    rows = read_rows(tmp_path / "scans.csv")
    assert [row.line for row in rows] == starts
    assert [(row.case, row.subject, float(row.time)) for row in rows] == [
        (case, subject, time) for case, (_, subject, time, _) in zip(cases, scans, strict=True)
    ]
    if all(subject and subject not in RESERVED_NAMES for _, subject, *_ in scans):
        series = series_of_folder(tmp_path, DatasetDescription.model_validate(DESCRIPTION))
        read = {scan.case: (one.subject, scan.time) for one in series for scan in one.scans}
        assert read == {case: (subject, time) for case, (_, subject, time, _) in zip(cases, scans, strict=True)}


@generated
@given(content=ANY_JSON, mark=st.booleans())
def test_json_is_read_as_another_reader_reads_it(tmp_path, content, mark):
    path = tmp_path / "x.json"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + raw_json(content))
    try:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False)
        text.encode()
        json.loads(text, parse_int=float)
        valid = not any(len(part) > 308 for part in text.split())
    except (ValueError, OverflowError):
        valid = False
    if valid:
        assert read_json(path) == json.loads(text)
        write_json(content, path)
        assert read_json(path) == json.loads(text)
    else:
        with pytest.raises(DataError):
            read_json(path)


@generated
@given(raw=st.binary(max_size=60) | st.lists(st.sampled_from('{}[]":,\\0eN-1 \n'), max_size=60).map("".join))
def test_any_bytes_as_json(tmp_path, raw):
    path = tmp_path / "dataset.json"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    outcome(read_json, path)
    outcome(read_description, path)


@generated
@given(key=KEYS, values=st.tuples(SCALARS, SCALARS), depth=st.integers(0, 5), lines=st.integers(0, 3))
def test_a_key_twice_is_refused_with_its_line(tmp_path, key, values, depth, lines):
    first, second = (json.dumps(value) for value in values)
    name = json.dumps(key)
    inner = f"{{{name}: {first}," + "\n" * lines + f"{name}: {second}}}"
    (tmp_path / "x.json").write_text("[" * depth + inner + "]" * depth)
    with pytest.raises(DataError, match=r"line [0-9]+|half of a letter"):
        read_json(tmp_path / "x.json")


@generated
@given(content=changed({**DESCRIPTION, "labels": {"background": 0, "lesion": 1}, "phases": ["native", "arterial"]}))
def test_any_change_of_dataset_json(tmp_path, content):
    raw = tmp_path / "Dataset001_Tiny"
    (raw / "imagesTr").mkdir(parents=True, exist_ok=True)
    (raw / "dataset.json").write_bytes(raw_json(content))
    (raw / "scans.csv").write_text("case,subject,time,phase\na_0,a,0,native\na_1,a,9,arterial\n")
    description = outcome(read_description, raw / "dataset.json")
    if description is not None:
        for case in ("a_0", "../x"):
            path = outcome(image_path, raw / "imagesTr", case, 0, description)
            assert path is None or path.parent == raw / "imagesTr"
        assert all(Path(f"a_{phase}").name == f"a_{phase}" for phase in description.phases)
    assert outcome(verify_dataset, raw, 1)  # its images are missing: there is always a problem


@generated
@given(content=changed(CONTENT))
def test_any_change_of_plans(tmp_path, content):
    (tmp_path / "plans.json").write_bytes(raw_json(content))
    plans = outcome(read_plans, tmp_path / "plans.json")
    if plans is not None:
        assert Plans.model_validate(plans.model_dump(mode="json")) == plans
        assert [plans.transpose_forward[axis] for axis in plans.transpose_backward] == [0, 1, 2]
        assert all(Path(f"a_{name}").name == f"a_{name}" for name in (*plans.phases, *plans.configurations))
        assert all(math.isfinite(value) for value in (plans.gpu_memory, plans.temporal.time_scale))
        assert all(plan.network.dimensions in (2, 3) and plan.tile for plan in plans.configurations.values())


@generated
@given(content=changed([{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]))
def test_any_change_of_splits(tmp_path, monkeypatch, content):
    from longflow.paths import DatasetPaths
    from longflow.task import get_task

    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths("Dataset001_Tiny")
    paths.splits.parent.mkdir(parents=True, exist_ok=True)
    paths.splits.write_bytes(raw_json(content))
    splits = outcome(read_or_make_splits, paths, {name: ["x", "y"] for name in "abc"}, get_task("forecast"))
    assert splits is None or all(not set(split.train) & set(split.val) for split in splits)


@generated
@given(text=st.text(st.sampled_from("0123456789._eE+-x ni,\u0661"), max_size=8))
def test_numbers_are_those_of_python_without_its_further_spellings(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    plain = math.isfinite(value) and text.isascii() and "_" not in text and text == text.strip()
    assert parse_number(text) == (value if plain else None)


@generated
@given(row=st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4))
def test_written_tables_are_read_back_exactly(tmp_path, row):
    assume(len({unicodedata.normalize("NFKC", name).casefold() for name in row}) == len(row) and all(row))
    assume("\0" not in "".join(row.values()))
    write_csv(list(row), [row], tmp_path / "x.csv", exact=True)
    expected = {name: unicodedata.normalize("NFC", cell).strip() for name, cell in row.items()}
    lines = read_table(tmp_path / "x.csv")
    assert [line.cells for line in lines] == (
        [expected] if any(row.values()) or len(row) > 1 else [expected][: len(lines)]
    )
