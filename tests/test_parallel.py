"""Workers live in this module because spawned processes import them from it."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import psutil
import pytest

from longflow.errors import DataError, WorkerError
from longflow.parallel import available_cores, for_each_subject, processes_that_fit, start_server
from longflow.stop import Stopped, stopped_by_signals

GIGABYTE = 10**9


def double(number):
    return 2 * number


def fail(number):
    if number == 2:
        raise ValueError("two is not allowed")
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


def linger(folder):
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def killed_once(argument):
    number, folder = argument
    if number == 2 and not (folder / "tried").exists():
        (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def variables(name):
    return os.environ.get(name), os.environ.get("LONGFLOW_GONE")


def frozen(number):
    return gc.get_freeze_count()


def truncated(number):
    raise EOFError("the file ends too early")


def unreadable(number):
    return lambda: number


def killed_while_it_answers(argument):
    """Once; the answer is larger than what a pipe holds."""
    number, folder = argument
    if number == 1 and not (folder / "tried").exists():
        (folder / "tried").touch()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(number * 1_000_000)


def parents(number):
    time.sleep(0.2)  # so that both workers answer
    return os.getpid(), psutil.Process().parent().cmdline()


def test_workers_have_the_variables_that_the_parent_has_now(monkeypatch):
    monkeypatch.setenv("LONGFLOW_GONE", "yes")
    list(for_each_subject(variables, {"a": "LONGFLOW_TRIED", "b": "LONGFLOW_TRIED"}, 2))
    monkeypatch.delenv("LONGFLOW_GONE")
    monkeypatch.setenv("LONGFLOW_TRIED", "a new value")
    answers = dict(for_each_subject(variables, {"a": "LONGFLOW_TRIED", "b": "LONGFLOW_TRIED"}, 2))
    assert answers == {"a": ("a new value", None), "b": ("a new value", None)}


def test_workers_are_forked_from_a_server_that_imported_their_modules():
    (one, server), (other, same) = dict(for_each_subject(parents, {"a": 1, "b": 2}, 2)).values()
    assert one != other and server == same
    assert "forkserver" in server[-1] and "longflow.preprocessing.run" in server[-1]  # as conftest.py asks


def test_collecting_garbage_leaves_the_memory_that_workers_share():
    assert all(count > 1000 for _, count in for_each_subject(frozen, {"a": 1, "b": 2}, 2))


def test_the_server_knows_its_modules_when_it_starts(monkeypatch):
    known = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: known.extend(forkserver._forkserver._preload_modules))
    start_server("json", "longflow.errors")
    assert {"json", "longflow.errors"} <= {*known}


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


@pytest.fixture
def ten_gigabytes(monkeypatch):
    memory = type("Memory", (), {"available": 10 * GIGABYTE})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_all_cores_where_memory_allows(ten_gigabytes):
    assert processes_that_fit(None, [1] * 500) == available_cores()
    assert processes_that_fit(8, [GIGABYTE] * 20) == 8
    assert processes_that_fit(8, []) == 1


@pytest.mark.parametrize(("gigabytes", "expected"), [([4] * 20, 2), ([6, 1, 1], 3), ([60], 1), ([1, 60, 1], 1)])
def test_memory_bounds_the_number_of_processes(ten_gigabytes, caplog, gigabytes, expected):
    with caplog.at_level(logging.INFO, "longflow"):
        assert processes_that_fit(8, [number * GIGABYTE for number in gigabytes]) == expected
    bound = expected < len(gigabytes)
    assert (f"{expected} instead of {min(8, len(gigabytes))} processes" in caplog.text) == bound


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_names_subject_and_cause(processes):
    with pytest.raises(WorkerError, match="subject b failed: ValueError: two is not allowed"):
        list(for_each_subject(fail, {"a": 1, "b": 2}, processes))
    with pytest.raises(DataError, match=r"three\.nii\.gz is truncated"):
        list(for_each_subject(fail, {"a": 1, "c": 3}, processes))


@pytest.mark.parametrize("processes", [1, 2])
def test_what_work_raises_is_not_taken_for_a_killed_worker(processes):
    with pytest.raises(WorkerError, match=r"subject [ab] failed: EOFError: the file ends too early"):
        list(for_each_subject(truncated, {"a": 1, "b": 2}, processes))


def test_an_answer_that_cannot_be_sent_is_said():
    with pytest.raises(WorkerError, match=r"subject [ab] failed: .*pickle.*unreadable"):
        list(for_each_subject(unreadable, {"a": 1, "b": 2}, 2))


def test_a_worker_killed_in_the_middle_of_its_answer(tmp_path):
    """An executor of Python would wait for the rest for ever."""
    answers = {}
    for subject, answer in for_each_subject(killed_while_it_answers, {f"s{n}": (n, tmp_path) for n in range(4)}, 2):
        answers[subject] = len(answer)
        time.sleep(0.5)  # nobody reads what the other worker sends
    assert answers == {f"s{number}": number * 1_000_000 for number in range(4)}
    assert (tmp_path / "tried").exists()


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_signal_at_any_moment_stops_the_work(size):
    for moment in np.linspace(0.01, 0.15, 12):
        warning = threading.Timer(moment, os.kill, (os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped), stopped_by_signals():
            for _ in for_each_subject(bytes, {str(number): size for number in range(100_000)}, 2):
                if not warning.ident:
                    warning.start()  # once the workers are at work
        warning.join()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a command that was stopped ignores what comes later


def test_a_killed_worker_is_named(tmp_path):
    subjects = {f"s{number}": (number, tmp_path) for number in range(4)}
    with pytest.raises(WorkerError, match="subject s2 was killed by the system"):
        list(for_each_subject(killed, subjects, 2))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.test_parallel import linger\n"
        "from longflow.parallel import for_each_subject\n"
        "if __name__ == '__main__': list(for_each_subject(linger, {str(n): Path(sys.argv[1]) for n in range(2)}, 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_alive(worker) for worker in workers))


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def is_alive(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_killed_for_want_of_memory_is_tried_again_alone(tmp_path):
    subjects = {f"s{number}": (number, tmp_path) for number in range(4)}
    assert dict(for_each_subject(killed_once, subjects, 2)) == {f"s{number}": number for number in range(4)}


def variable(name):
    return os.environ.get(name)


def test_a_worker_computes_with_one_thread_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    names = {name: name for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    assert dict(for_each_subject(variable, names, 2)) == {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "3"}
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def _sleep_long():
    time.sleep(600)


def test_a_shielded_worker_does_not_keep_its_parent_from_ending():
    """At its end Python terminates its daemons by their handles, and waits for them."""
    worker = start_server().Process(target=_sleep_long, daemon=True)
    worker.start()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(0.5)
    assert worker.is_alive()
    worker._popen.terminate()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
