"""Work on every subject in worker processes, with progress, and with the cause where a worker is killed."""

import gc
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from multiprocessing import forkserver, popen_forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.pool import ExceptionWithTraceback
from typing import Any

import psutil

from longflow.errors import LongflowError, WorkerError
from longflow.stop import shielded_children

logger = logging.getLogger(__name__)

#: called with (finished, all, name of the finished subject)
Progress = Callable[[int, int, str], None]

_imported_by_the_server: list[str] = []

#: share of the free memory that all workers may use together
MEMORY_SHARE = 0.8


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Return the bytes of memory that are free on this machine."""
    return int(psutil.virtual_memory().available)


def processes_that_fit(requested: int | None, needed: Sequence[int]) -> int:
    """Limit the number of processes to the free memory.

    :param requested: number of processes; None: one for each core.
    :param needed: bytes that each piece of work uses at its peak; at worst, the largest ones run together.
    :returns: at least 1.
    """
    requested = min(requested or available_cores(), max(1, len(needed)))
    available = int(MEMORY_SHARE * free_memory())
    largest = sorted(needed, reverse=True)
    fitting = max(1, sum(together <= available for together in accumulate(largest)))
    if fitting < requested:
        logger.info(
            "%d instead of %d processes: a subject needs up to %.1f GB, and all workers may use %.1f GB of memory.",
            fitting,
            requested,
            largest[0] / 1e9,
            available / 1e9,
        )
    return min(requested, fitting)


def for_each_subject(
    work: Callable[[Any], Any],
    subjects: dict[str, Any],
    processes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Any]]:
    """Call ``work(argument)`` for each subject.

    At most ``processes`` subjects are worked on at a time, which bounds memory. Where the system kills a worker (mostly
    for memory), the unfinished subjects are done again one at a time: they fit then, or the error names the subject.

    :param work: a function of a module (workers are spawned and import it).
    :param subjects: the argument of each subject.
    :param processes: number of workers; None: all available cores; 1: no worker, the work is done in this process.
    :param progress: called after each subject.
    :returns: iterator over (subject, result) in the order in which they finish.
    :raises LongflowError: raised by ``work``, unchanged.
    :raises WorkerError: anything else that ``work`` raises, and a killed worker; with subject and cause.
    """
    processes = min(processes or available_cores(), len(subjects))
    answers = _one_after_the_other(work, subjects) if processes <= 1 else _side_by_side(work, subjects, processes)
    for done, (subject, answer) in enumerate(answers, start=1):
        if progress:
            progress(done, len(subjects), subject)
        yield subject, answer


def _one_after_the_other(work: Callable, subjects: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for subject, argument in subjects.items():
        try:
            answer = work(argument)
        except Exception as error:
            raise _explained(subject, error) from error
        yield subject, answer


def _side_by_side(work: Callable, subjects: dict[str, Any], processes: int) -> Iterator[tuple[str, Any]]:
    waiting = list(reversed(subjects))
    workers: dict[Connection, Worker] = {}
    under_way: dict[Connection, tuple[str, bool]] = {}  # the subject, and whether it is worked on alone
    try:
        while waiting or under_way:
            while waiting and len(under_way) < processes:
                worker = next((one for one in workers if one not in under_way), None) or _start_worker(work, workers)
                under_way[worker] = waiting.pop(), processes == 1
                with suppress(BrokenPipeError):  # a killed worker, which is found below
                    worker.send((work, subjects[under_way[worker][0]]))
            for worker in wait(list(under_way)):
                subject, alone = under_way.pop(worker)
                try:
                    answer, error = worker.recv()
                except (EOFError, OSError) as killed:
                    workers.pop(worker).join()
                    if alone:
                        raise _killed(subject) from killed
                    logger.warning(
                        "A worker was killed while working on %s, probably for lack of memory. The work continues "
                        "with one worker.",
                        subject,
                    )
                    waiting.append(subject)
                    processes = 1
                    continue
                except Exception as unreadable:
                    raise _explained(subject, unreadable) from unreadable
                if error is not None:
                    raise _explained(subject, error) from error
                yield subject, answer
    except BaseException:  # an error, or this process is told to stop: what a worker has begun may take minutes
        for process in workers.values():
            process.kill()  # workers write files whole or not at all, so that only their time is lost
        raise
    finally:
        for worker, process in workers.items():
            worker.close()  # it ends when it finds no more work
            process.join()


def _start_worker(work: Callable, workers: dict[Connection, "Worker"]) -> Connection:
    """Start one more worker; return the connection to it.

    Each worker has a pipe of its own, whose other end nobody else holds: where it is killed in the middle of an answer,
    the pipe ends there. (The executors of Python share one pipe, and wait for the rest of the answer for ever.)
    """
    context = start_server(work.__module__)
    own, others = context.Pipe()
    process = context.Process(target=_serve, args=(others, _with_one_thread()), daemon=True)
    process.start()
    others.close()
    workers[own] = process
    return own


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    """Work on what the parent sends, until it has no more; runs in a worker."""
    _begin_worker(environment)
    while True:
        try:
            work, argument = connection.recv()
        except EOFError:
            return
        try:
            answer = work(argument), None
        except BaseException as error:
            answer = None, ExceptionWithTraceback(error, error.__traceback__)
        try:
            connection.send(answer)
        except Exception as error:  # it cannot be pickled
            connection.send((None, ExceptionWithTraceback(error, error.__traceback__)))


class _WorkerPopen(popen_forkserver.Popen):
    """The handle of a worker. A Python that ends terminates its workers by this handle, then waits for them."""

    def terminate(self) -> None:
        """Kill it."""
        self.kill()


class Worker(ForkServerProcess):
    """A worker process. It is shielded from signals, so that SIGKILL alone ends it before its parent ends."""

    @staticmethod
    def _Popen(process):
        return _WorkerPopen(process)


class WorkerContext(ForkServerContext):
    """Start each worker as a :class:`Worker`."""

    Process = Worker


_CONTEXT = WorkerContext()


def worker_context(*modules: str) -> multiprocessing.context.BaseContext:
    """Return the context in which worker processes start: forked from a server that has imported their modules.

    Importing torch takes seconds, and the server does it once for all workers of a command. It has one thread, so that
    forking it is safe, which forking this process is not. Start it with :func:`start_server` where signals may come.

    :param modules: names of modules that the workers need. The first call that starts a worker decides what the server
        imports; a worker itself imports what the server lacks.
    :returns: the context.
    """
    _imported_by_the_server.extend(module for module in modules if module not in _imported_by_the_server)
    _CONTEXT.set_forkserver_preload(_imported_by_the_server)
    return _CONTEXT


def start_server(*modules: str) -> multiprocessing.context.BaseContext:
    """Start the server of the workers now: it imports their modules while this process does other things.

    Server and workers are shielded from signals (:func:`longflow.stop.shielded_children`); they end with this process.

    :param modules: as in :func:`worker_context`, for all workers of the command.
    :returns: the context.
    """
    context = worker_context(*modules)
    own = dict(os.environ)
    os.environ.update(_with_one_thread())  # libraries read it when they are loaded
    try:
        with shielded_children():
            resource_tracker.ensure_running()  # which receives SIGINT and SIGTERM again in this thread
        with shielded_children():
            forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(own)
    return context


def _with_one_thread() -> dict[str, str]:
    """Return the environment of a worker: there is one for each core, so each computes with one thread.

    A user's own numbers stay.
    """
    return {**dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"), **os.environ}


def _begin_worker(environment: dict[str, str]) -> None:
    """Take over the environment of the parent, and end when it ends; else a worker would wait for work forever.

    :param environment: of the parent; the server's can be older.
    """
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()  # else collecting garbage writes to every object of the server, whose memory is then shared no longer
    parent = multiprocessing.parent_process()

    def wait_for_the_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def _explained(subject: str, error: Exception) -> LongflowError:
    if isinstance(error, LongflowError):
        return error
    if isinstance(error, MemoryError):
        return _killed(subject)
    return WorkerError(f"The worker on subject {subject} failed: {type(error).__name__}: {error}")


def _killed(subject: str) -> WorkerError:
    return WorkerError(
        f"The worker on subject {subject} was killed by the system, mostly for lack of memory. Close other programs, "
        "or use a machine with more memory. Then run the same command again: finished work is kept."
    )
