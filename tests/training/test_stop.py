import os
import signal

from longflow.training.stop import StopSignal


def test_signals_are_a_flag_within_the_block_and_what_they_were_after_it():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        with StopSignal() as stop:
            assert not stop.received
            os.kill(os.getpid(), number)
            assert stop.received
    assert {number: signal.getsignal(number) for number in before} == before
