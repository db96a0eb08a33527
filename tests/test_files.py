import errno
import os

import pytest

from longflow.errors import DataError
from longflow.files import read_json, write_csv, write_json, write_text, written_whole


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_json_is_read_back(tmp_path):
    content = {"b": [1, 2.5, None], "a": "Größe"}
    write_json(content, tmp_path / "deep" / "x.json")
    assert read_json(tmp_path / "deep" / "x.json") == content
    assert list(read_json(tmp_path / "deep" / "x.json")) == ["b", "a"]


def test_csv_has_empty_cells_for_what_is_missing(tmp_path):
    write_csv(["a", "b"], [{"a": 1.5, "b": None}, {"b": "x, y"}], tmp_path / "deep" / "x.csv")
    assert (tmp_path / "deep" / "x.csv").read_text().splitlines() == ["a,b", "1.5,", ',"x, y"']


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json({"a": float("nan")}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    write_text("old", path)
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_ending(tmp_path):
    with written_whole(tmp_path / "scan.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz") and temporary.name.startswith(".unfinished-")
        temporary.write_text("x")


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".unfinished-12345678-x.txt").write_text("half")
    (tmp_path / ".unfinished-12345678-y.txt").write_text("another file's")
    write_text("whole", tmp_path / "x.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".unfinished-12345678-y.txt", "x.txt"]


def test_what_another_process_is_writing_is_left_to_it(tmp_path):
    """Five folds that start at once all write the same splits; what a dead process left is removed."""
    path = tmp_path / "x.txt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
        dead = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", "-999999999-"))
        elsewhere = tmp_path / ".unfinished-otherhost-1-12345678-x.txt"
        for file in (dead, elsewhere):
            file.write_text("half")
        write_text("second", path)
        assert temporary.exists() and elsewhere.exists() and not dead.exists()
        os.utime(elsewhere, (1, 1))
    assert path.read_text() == "first"
    write_text("third", path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("when", ["writing", "replacing"])
def test_a_full_disk_has_a_message_and_leaves_nothing_half_written(tmp_path, monkeypatch, when):
    path = tmp_path / "x.json"
    write_json({"old": 1}, path)
    with monkeypatch.context() as patch:
        if when == "replacing":
            patch.setattr(os, "replace", full_disk)
        else:
            patch.setattr("pathlib.Path.write_text", full_disk)
        with pytest.raises(DataError, match=r"x\.json could not be written: No space left on device\. Free some space"):
            write_json({"new": 2}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_json(path) == {"old": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((DataError, OSError)):
        write_text("x", tmp_path / "file" / "x.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b'{\n "a": }', "line 2, column 7"), (b"\xff\xfe\x00", "not a text file")],
)
def test_json_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "x.json")
