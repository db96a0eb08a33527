"""Workers live in this module because spawned processes import them from it."""

import os
import signal
import time

import pytest

from longflow.data.parallel import available_cores, for_each_subject
from longflow.errors import DataError, WorkerError


def double(number):
    return 2 * number


def fail(number):
    if number == 2:
        raise ValueError("two is not wanted")
    if number == 3:
        raise DataError("three.nii.gz is truncated")
    return number


def killed(argument):
    number, folder = argument
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    (folder / str(number)).touch()
    return number


def killed_once(argument):
    number, folder = argument
    if number == 2 and not (folder / "tried").exists():
        (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_every_subject_has_its_answer(processes):
    seen = []
    subjects = {f"s{number}": number for number in range(5)}
    answers = dict(for_each_subject(double, subjects, processes, lambda done, total, name: seen.append((done, total))))
    assert answers == {f"s{number}": 2 * number for number in range(5)}
    assert seen == [(number, 5) for number in range(1, 6)]


def test_nothing_to_do():
    assert list(for_each_subject(double, {})) == []
    assert available_cores() >= 1


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_names_subject_and_cause(processes):
    with pytest.raises(WorkerError, match="subject b failed: ValueError: two is not wanted"):
        list(for_each_subject(fail, {"a": 1, "b": 2}, processes))
    with pytest.raises(DataError, match=r"three\.nii\.gz is truncated"):
        list(for_each_subject(fail, {"a": 1, "c": 3}, processes))


def test_a_killed_worker_is_named(tmp_path):
    subjects = {f"s{number}": (number, tmp_path) for number in range(4)}
    with pytest.raises(WorkerError, match="subject s2 was ended by the system"):
        list(for_each_subject(killed, subjects, 2))


def test_a_worker_killed_for_want_of_memory_is_tried_again_alone(tmp_path):
    subjects = {f"s{number}": (number, tmp_path) for number in range(4)}
    assert dict(for_each_subject(killed_once, subjects, 2)) == {f"s{number}": number for number in range(4)}
