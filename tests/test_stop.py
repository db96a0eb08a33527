import os
import signal
import subprocess
import sys
import time

import pytest

from longflow.stop import STOPPING, WARNINGS, Stopped, StopSignal, shielded_children, stopped_by_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def test_signals_are_a_flag_within_the_block_and_what_they_were_after_it():
    before = {number: signal.getsignal(number) for number in STOPPING}
    assert {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT} == set(before)
    for number in before:
        with StopSignal() as stop:
            assert not stop.received
            os.kill(os.getpid(), number)
            assert stop.received
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_batch_system_may_repeat_itself(caplog):
    with StopSignal() as stop:
        for number in (signal.SIGUSR2, signal.SIGCONT, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.received
    assert caplog.text.count("will be saved") == 1 and "SIGUSR2" in caplog.text


def python(code, **options):
    """Start Python, and wait until it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options)
    process.stdout.readline()
    return process


WAIT = "print('ready', flush=True); import time; time.sleep(20)"


def test_a_second_ctrl_c_ends_at_once():
    code = f"from longflow.stop import StopSignal\nwith StopSignal():\n    {WAIT}"
    with python(code, stderr=subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, *WARNINGS])
def test_within_a_command_the_first_signal_raises_and_the_next_ones_do_not_disturb(number):
    before = {one: signal.getsignal(one) for one in STOPPING}
    with stopped_by_signals():
        assert signal.getsignal(number) != before[number]
    assert {one: signal.getsignal(one) for one in STOPPING} == before
    with pytest.raises(Stopped), stopped_by_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # the process is about to end: nothing may change its exit code
    assert signal.getsignal(number) == signal.SIG_IGN
    assert issubclass(Stopped, KeyboardInterrupt)


def test_a_flag_within_a_command_has_precedence():
    with stopped_by_signals(), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.received


def test_children_of_the_block_and_theirs_do_not_receive_the_signals():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}])"
    with shielded_children():
        process = python(code, start_new_session=True)
    try:
        for number in (*STOPPING, signal.SIGCONT):
            os.killpg(process.pid, number)
        time.sleep(0.3)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_signal_within_the_block_is_handled_after_it():
    """In a process with one thread: in one with several, the system hands it to a thread that did not block it."""
    code = (
        "import os, signal\nfrom longflow.stop import StopSignal, shielded_children\n"
        "with StopSignal() as stop:\n"
        "    with shielded_children():\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "        within = stop.received\n"
        "print(within, stop.received, flush=True)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stdout == "False True\n"


def test_a_command_that_was_started_shielded_handles_signals_again():
    code = f"from longflow.stop import stopped_by_signals\nwith stopped_by_signals():\n    {WAIT}"
    with shielded_children():
        process = python(code, stderr=subprocess.PIPE)
    with process:
        process.send_signal(signal.SIGTERM)
        assert "Stopped" in process.communicate(timeout=10)[1]
