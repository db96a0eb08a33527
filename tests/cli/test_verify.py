import csv

import numpy as np
import pytest

from longflow.cli.verify import main
from longflow.paths import DatasetPaths
from tests.data.helpers import SHAPE, edit_table, tiny_array, write_dataset, write_image


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return write_dataset(tmp_path / "raw" / "Dataset001_Tiny")


def run(*arguments):
    return main([*arguments, "-np", "1"])


def written():
    with open(DatasetPaths("Dataset001_Tiny").integrity, newline="") as file:
        return list(csv.DictReader(file))


def test_a_good_dataset(raw, capsys):
    assert run("-d", "1") == 0
    out = capsys.readouterr().out
    assert "no problem found" in out and "longflow_plan_and_preprocess -d 001" in out
    assert written() == []


def test_warnings_alone_end_with_0(raw, capsys):
    (raw / "labelsTr" / "p1_1.nii.gz").unlink()
    assert run("-d", "Dataset001_Tiny") == 0
    assert "1 of 6 scans have none" in capsys.readouterr().out
    assert [line["severity"] for line in written()] == ["warning"]


def test_errors_end_with_1_and_all_are_in_the_file(raw, capsys):
    for case in ("p1_0", "p1_1", "p1_2", "p2_0", "p2_1", "p2_2"):
        write_image(np.full(SHAPE, 3, np.int16), raw / "imagesTr" / f"{case}_0000.nii.gz")
    edit_table(raw, "p2_1,p2,30", "p2_1,p2,2024-01-31")
    assert run("-d", "1") == 1
    captured = capsys.readouterr()
    assert "'2024-01-31', a date" in captured.out
    assert captured.out.count("all 3") == 5 and "and 1 more like these" in captured.out
    assert captured.out.count("The image is empty") == 1
    assert "7 errors, 0 warnings" in captured.err
    assert len(written()) == 7
    assert {line["advice"] != "" for line in written()} == {True}


def test_an_unknown_dataset(raw, capsys):
    assert run("-d", "Dataset001_Tinny") == 1
    assert "Did you mean 'Dataset001_Tiny'" in capsys.readouterr().err


def test_brackets_in_names_are_no_markup(raw, capsys):
    edit_table(raw, "p1_1,p1,30", "p1_1,p1,[bold]")
    assert run("-d", "1") == 1
    assert "'[bold]'" in capsys.readouterr().out


def test_a_flag_that_is_missing(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 1


@pytest.mark.parametrize(
    ("file", "old", "new", "shown"),
    [
        ("dataset.json", "{", "[" * 100_000, "more than 64 lists and objects"),
        ("dataset.json", '"days"', "NaN", "line 1: NaN, expected a finite number"),
        ("dataset.json", '"T1"', '"[/red]\\u001b]8;;http://x"', "without control characters"),
        ("scans.csv", "p1_1,p1,30", "b" * 300 + ",p1,30", "160 bytes"),
        ("scans.csv", "p1_1,p1,30", "[/red]\x1b]8;;http://x,p1,30", r"[/red]\x1b]8;;http://x"),
        ("scans.csv", "p1_1,p1,30", "p1_1,p1,=1+1", "'=1+1'"),
    ],
)
def test_hostile_text_ends_with_1_and_reaches_neither_terminal_nor_spreadsheet(raw, capsys, file, old, new, shown):
    text = (raw / file).read_text()
    (raw / file).write_text(text.replace(old, new, 1))
    assert run("-d", "1") == 1
    captured = capsys.readouterr()
    assert "".join(shown.split()) in "".join(captured.out.replace("│", "").split())
    assert "\x1b" not in captured.out + captured.err
    assert all(cell[:1] not in ("=", "+", "@") for line in written() for cell in line.values())


@pytest.mark.parametrize("flag", ["--least_gap", "--targets_per_subject", "--seed"])
def test_settings_of_a_protocol_need_one(raw, flag, capsys):
    assert run("-d", "1", flag, "1") == 1
    assert f"{flag} is a setting of --test_protocol. Give both, or neither." in capsys.readouterr().err


def test_only_forecasts_have_a_test_protocol(tmp_path, raw, capsys):
    write_dataset(raw, task="segment")
    assert run("-d", "1", "--test_protocol", "all") == 1
    assert "A test protocol is for forecasts, but Dataset001_Tiny is to be segmented" in capsys.readouterr().err


def test_a_test_protocol_that_does_not_fit_is_reported_and_kept(raw, capsys):
    (raw / "imagesTs").mkdir()
    for index in range(3):
        write_image(tiny_array(index), raw / "imagesTs" / f"q_{index}_0000.nii.gz")
    (raw / "imagesTs" / "scans.csv").write_text("case,subject,time\nq_0,q,0\nq_1,q,10\nq_2,q,30\n")
    assert run("-d", "1", "--test_protocol", "all", "--seed", "0") == 0
    edit_table(raw / "imagesTs", "q_0,q,0", "q_0,q,60")
    stored = (raw / "test_protocol.json").read_bytes()
    assert run("-d", "1") == 0
    (line,) = [line for line in written() if line["file"] == "test_protocol.json"]
    assert line["severity"] == "warning" and "does not fit" in line["found"]
    assert run("-d", "1", "--test_protocol", "all", "--seed", "0") == 1
    assert "holds another protocol (other scans)" in " ".join(capsys.readouterr().err.split())
    assert (raw / "test_protocol.json").read_bytes() == stored
