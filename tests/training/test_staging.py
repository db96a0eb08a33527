import fcntl
import os
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from longflow.errors import ConfigurationError, DataError
from longflow.preprocessing.store import files_of_subject, load_prepared
from longflow.training import staging
from longflow.training.splits import cohorts_of_fold
from longflow.training.staging import folder_for, scratch_folder, stage
from tests.conftest import another_process_holds
from tests.training.helpers import job_of
from tests.training.test_loop import same, train


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("NODE_DISK", str(folder))
    return folder


def staged(dataset, fold=0):
    job = job_of(dataset, fold=fold, scratch="$NODE_DISK")
    return stage(job, *cohorts_of_fold(job))


def test_the_subjects_of_a_fold_are_copied_once(dataset, scratch, caplog):
    before = cohorts_of_fold(job_of(dataset))
    caplog.set_level("INFO", "longflow")
    cohorts = staged(dataset)
    assert [one.scans for one in cohorts] == [one.scans for one in before]
    (folder,) = {one.folder for one in cohorts}
    assert folder.is_relative_to(scratch) and (folder.parent.stat().st_mode & 0o777) == 0o700
    for subject in (*cohorts[0].scans, *cohorts[1].scans):
        one, other = load_prepared(before[0].folder, subject), load_prepared(folder, subject)
        assert one.properties == other.properties and np.array_equal(one.images[:], other.images[:])
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "Copying 6 subjects" in caplog.text and not list(folder.glob(".*"))
    caplog.clear()
    staged(dataset, fold=1)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times and not caplog.text


def test_training_from_scratch_space_equals_training_from_the_source(dataset, scratch, tmp_path):
    whole = train(dataset, iterations=2)
    whole.folder.rename(tmp_path / "whole")
    paths = train(dataset, iterations=2, scratch="$NODE_DISK")
    assert same(tmp_path / "whole" / paths.final.name, paths.final)
    assert list(scratch.glob("*/*/s0_images.b2nd"))


def test_a_subject_that_was_prepared_again_or_cut_off_is_copied_again(dataset, scratch):
    source, target = cohorts_of_fold(job_of(dataset))[0].folder, staged(dataset)[0].folder
    properties = source / "s0.json"
    properties.write_text(properties.read_text().replace('"digest": "', '"digest": "x'))
    images = target / "s1_images.b2nd"
    images.write_bytes(images.read_bytes()[:-1])
    (target / "s2.json").unlink()
    staged(dataset)
    for subject in ("s0", "s1", "s2"):
        for file in files_of_subject(source, subject):
            assert (target / file.name).read_bytes() == file.read_bytes()


def test_a_name_with_unknown_variables_and_a_folder_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigurationError, match=r"--scratch \$NOT_SET/x: the variable is not set"):
        scratch_folder("$NOT_SET/x")
    with pytest.raises(ConfigurationError, match="is no folder that can be written to"):
        scratch_folder(str(tmp_path / "missing"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scratch_folder("~") == tmp_path


def test_a_full_disk_is_said_before_anything_is_copied(dataset, scratch, monkeypatch):
    usage = shutil.disk_usage(scratch)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ConfigurationError, match=r"need 0\.00 GB, .* has 0\.00 GB free. Give another folder"):
        staged(dataset)
    assert not list(scratch.rglob("*.b2nd"))


def test_a_folder_of_someone_else_is_refused(tmp_path):
    own = tmp_path / f"longflow-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)
    with pytest.raises(ConfigurationError, match="is not a folder of yours alone"):
        folder_for(tmp_path / "source", tmp_path)
    own.rmdir()
    (tmp_path / "elsewhere").mkdir()
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is not a folder of yours alone"):
        folder_for(tmp_path / "source", tmp_path)


def test_another_process_that_copies_is_waited_for(dataset, scratch):
    source = cohorts_of_fold(job_of(dataset))[0].folder
    target = folder_for(source, scratch)
    with another_process_holds(target / ".lock") as other:
        thread = threading.Timer(0.5, other.kill)
        thread.start()
        begun = time.monotonic()
        staged(dataset)
    assert time.monotonic() - begun > 0.4 and (target / "s0.json").is_file()


def test_a_file_system_without_locks(dataset, scratch, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    assert (staged(dataset)[0].folder / "s0.json").is_file()
    assert "this file system has no locks" in caplog.text


def test_a_file_that_another_machine_wrote_is_waited_for(dataset, scratch, tmp_path, monkeypatch):
    source = cohorts_of_fold(job_of(dataset))[0].folder
    late = source / "s0_coarse.npy"
    late.rename(tmp_path / "late")
    thread = threading.Timer(0.5, (tmp_path / "late").rename, (late,))
    thread.start()
    assert (staged(dataset)[0].folder / late.name).is_file()
    late.rename(tmp_path / "late")
    wait = staging.wait_for_files
    monkeypatch.setattr(staging, "wait_for_files", lambda files: wait(files, seconds=0.1))
    with pytest.raises(DataError, match=r"s0_coarse.npy left the preprocessed data"):
        staged(dataset)


def test_a_copy_that_differs_is_refused(dataset, scratch, monkeypatch):
    copy = shutil.copyfile

    def damaged(file, to):
        copy(file, to)
        with open(to, "r+b") as opened:
            opened.write(b"x")

    monkeypatch.setattr(staging.shutil, "copyfile", damaged)
    with pytest.raises(DataError, match=r"The copy of .* differs from it"):
        staged(dataset)
    job = job_of(dataset, scratch="$NODE_DISK")
    target = folder_for(cohorts_of_fold(job)[0].folder, scratch)
    assert not list(target.glob("*.json"))
    assert replace(job.settings, scratch=None).scratch is None
