import csv
import errno
import gzip
import hashlib
import logging
import os
import platform
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from longflow import files
from longflow.data.images import Geometry, write_volume
from longflow.errors import DataError, InUseError
from longflow.files import (
    atomic_write,
    awaited_lock,
    exclusive_lock,
    file_digest,
    link_or_copy,
    open_in_place,
    wait_for_files,
    write_csv,
    write_json,
    write_text,
)
from longflow.reading import read_json
from tests.conftest import another_process_holds, small_disk


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


def test_a_digest_is_that_of_sha256sum_and_follows_the_content(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"longflow", b"longFlow", bytes(3_000_000)):  # two of one length
        path.write_bytes(content)
        os.utime(path, (1, 1))
        assert file_digest(path) == hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="nowhere does not exist"):
        file_digest(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        file_digest(tmp_path)


def test_an_unchanged_file_is_read_once(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"longflow")
    read = files._digest.cache_info().misses
    assert file_digest(path) == file_digest(path) and files._digest.cache_info().misses == read + 1


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json({"a": float("nan")}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    write_text("old", path)
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_ending(tmp_path):
    with atomic_write(tmp_path / "scan.nii.gz") as temporary:
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
    with atomic_write(path) as temporary:
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


def test_text_that_a_spreadsheet_would_run_is_made_text_where_people_read_it(tmp_path):
    row = {"=a": "=cmd|' /C calc'!A0", "b": "-0.5", "c": "@x", "d": -2.5, "e": None, "f": "p-1"}
    write_csv(list(row), [row], tmp_path / "people.csv")
    write_csv(list(row), [row], tmp_path / "exact.csv", exact=True)
    header, shown = csv.reader((tmp_path / "people.csv").open(newline=""))
    assert header[0] == "'=a" and shown == ["'=cmd|' /C calc'!A0", "-0.5", "'@x", "-2.5", "", "p-1"]
    header, kept = csv.reader((tmp_path / "exact.csv").open(newline=""))
    assert header[0] == "=a" and kept[0] == "=cmd|' /C calc'!A0"


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock."""
    with another_process_holds(tmp_path / "fold_0" / ".lock") as process:
        yield process


def test_one_process_at_a_time(tmp_path, other):
    lock = tmp_path / "fold_0" / ".lock"
    message = (
        rf"Fold 0 is being trained by another process already \(process {other.pid} on {platform.node()}; .*lock\)"
    )
    with pytest.raises(InUseError, match=message), exclusive_lock(lock, "Fold 0 is being trained"):
        pytest.fail("held by two")
    other.kill()
    other.wait()
    with exclusive_lock(lock, "Fold 0 is being trained"):
        assert lock.read_text() == f"process {os.getpid()} on {platform.node()}\n"


def test_a_process_that_was_forked_does_not_hold_what_its_parent_held(tmp_path):
    """Those who prepare batches live on for seconds where the training itself is killed."""
    lock, (ended, end) = tmp_path / ".lock", os.pipe()
    if (parent := os.fork()) == 0:
        try:
            with exclusive_lock(lock, ""):
                if os.fork() == 0:  # lives until the test has ended
                    os.close(end)
                    os.read(ended, 1)
                os._exit(0)
        finally:  # a child that fails must not go on with the tests
            os._exit(1)
    assert os.waitpid(parent, 0)[1] == 0
    with exclusive_lock(lock, "Fold 0 is being trained"):
        assert lock.read_text().startswith(f"process {os.getpid()}")
    os.close(end)
    os.close(ended)


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_a_compressed_file_that_its_writer_left_cut_off_is_not_put_in_place(tmp_path, cut):
    """As SimpleITK does on a full disk."""
    path = tmp_path / "scan.nii.gz"
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(b"x" * 1000))
    whole = path.read_bytes()
    with (
        pytest.raises(DataError, match=r"scan\.nii\.gz could not be written: the file was cut off"),
        atomic_write(path) as temporary,
    ):
        temporary.write_bytes(gzip.compress(os.urandom(1000))[:-cut])
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == whole


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_an_image_is_written_whole_or_not_at_all_on_a_full_disk(tmp_path, ending):
    array = np.random.default_rng(0).integers(0, 30_000, (5, 20, 20))
    geometry = Geometry((20, 20, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    path = tmp_path / f"scan{ending}"
    write_volume(array, geometry, "int16", path)
    size = path.stat().st_size
    for room in (100, 1000, size // 2, size - 200, size - 1):
        path.unlink(missing_ok=True)
        with pytest.raises(DataError, match="could not be written"), small_disk(room):
            write_volume(array, geometry, "int16", path)
        assert list(tmp_path.iterdir()) == [], room


def test_the_lock_leaves_nothing_behind(tmp_path):
    lock = tmp_path / "results" / "fold_0" / ".lock"
    with pytest.raises(RuntimeError), exclusive_lock(lock, ""):
        assert lock.is_file()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with exclusive_lock(lock, ""):
        (lock.parent / "x.txt").write_text("x")
    assert list(lock.parent.iterdir()) == [lock.parent / "x.txt"]


def test_a_lock_that_its_holder_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    """Opened while another process held it, locked once that process has removed the file."""
    lock, lockf, calls = tmp_path / ".lock", files.fcntl.lockf, []

    def late(file, how):
        if not calls:
            lock.unlink()
        calls.append(how)
        lockf(file, how)

    monkeypatch.setattr(files.fcntl, "lockf", late)
    with exclusive_lock(lock, ""):
        assert lock.is_file() and len(calls) == 2


@pytest.mark.parametrize("place", ["link", "dangling link", "pipe", "folder"])
def test_what_was_placed_where_a_lock_or_log_belongs_is_not_touched(tmp_path, place):
    target, lock = tmp_path / "target", tmp_path / ".lock"
    target.write_text("precious")
    if place.endswith("link"):
        lock.symlink_to(target if place == "link" else tmp_path / "absent")
    elif place == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    for use in (lambda: exclusive_lock(lock, "").__enter__(), lambda: open_in_place(lock)):
        with pytest.raises(DataError, match=r"\.lock (is a link or no regular file\. Delete it|could not be written)"):
            use()
    assert target.read_text() == "precious" and not (tmp_path / "absent").exists()


def test_a_link_that_appears_at_the_last_moment_is_not_followed(tmp_path, monkeypatch):
    target, log = tmp_path / "target", tmp_path / "training.log"
    target.write_text("precious")
    log.symlink_to(target)
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    with pytest.raises(DataError, match=r"training\.log could not be written"):
        open_in_place(log)


def test_a_file_in_place_is_read_and_appended_to(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("one\n")
    with open_in_place(path) as file:
        file.write("two\n")
        file.seek(0)
        assert file.read() == "one\ntwo\n"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path, mode):
    path, seen = tmp_path / "x.txt", []
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as temporary:
        seen.append(temporary.stat().st_mode & 0o777)
        temporary.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == mode
    assert seen == [0o600]  # nobody else may read it before


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text("x", tmp_path / "x.txt")
    finally:
        os.umask(before)
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o640


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "lockf", lockf)
    with caplog.at_level(logging.WARNING), exclusive_lock(tmp_path / ".lock", ""):
        assert "this file system has no locks" in caplog.text


def test_links_are_renewed_and_copies_where_the_disk_has_none(tmp_path, monkeypatch):
    source, link = tmp_path / "a", tmp_path / "below" / "b"
    source.write_text("1")
    link_or_copy(source, link)
    assert os.path.samefile(source, link)

    def no_links(*_):
        raise OSError

    monkeypatch.setattr(os, "link", no_links)
    link_or_copy(source, link)
    assert link.read_text() == "1" and not os.path.samefile(source, link)
    with pytest.raises(DataError, match=r"a\.nii does not exist"):
        link_or_copy(tmp_path / "a.nii", link)


def test_the_file_behind_a_link_is_linked(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "link").symlink_to("a")
    link_or_copy(tmp_path / "link", tmp_path / "below" / "b")
    assert (tmp_path / "below" / "b").read_text() == "1" and not (tmp_path / "below" / "b").is_symlink()


def test_a_lock_is_waited_for(tmp_path):
    lock = tmp_path / ".lock"
    with another_process_holds(lock) as other:
        threading.Timer(0.3, other.kill).start()
        begun = time.monotonic()
        with awaited_lock(lock, "work", every=0.02):
            assert time.monotonic() - begun > 0.2 and lock.is_file()
    assert not lock.exists()


def test_an_error_within_an_awaited_lock_passes(tmp_path):
    with pytest.raises(InUseError, match="another lock"), awaited_lock(tmp_path / ".lock", "work"):
        raise InUseError("another lock")
    assert not (tmp_path / ".lock").exists()


def test_files_that_become_visible_late_are_waited_for(tmp_path):
    early, late = tmp_path / "early", tmp_path / "late"
    early.touch()
    threading.Timer(0.2, late.touch).start()
    assert wait_for_files([early, late], seconds=10) == []
    begun = time.monotonic()
    missing = [tmp_path / "missing", tmp_path / "no" / "folder"]
    assert wait_for_files([early, *missing], seconds=0.2) == missing
    assert time.monotonic() - begun < 5
