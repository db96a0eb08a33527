"""Record what every process of a command spends its processor time on. ``benchmarks/profile.py`` puts this on the path.

Python imports a module of this name when it starts. A thread then looks at all threads, fifty times a second. It adds
a line to the process's file in the folder ``LONGFLOW_SAMPLES``: time, kind of work of the main thread, and seconds of
processor time by kind of work since the last line. Forked processes do the same.
"""

import os
import re
import sys
import threading
import time

EVERY = 0.02  # seconds

#: kind of work of a function, by its file and name; the innermost function that one of them matches decides
RULES = (
    ("other", r"longflow/(parallel|commands)\.py:"),
    ("writing", r"longflow/.*:_?(write|save|atomic_write)"),
    ("reading", r"longflow/.*:_?(read|load|open|file_digest|folder_digest)|longflow/preprocessing/patches\.py:"),
    ("reading", r"/blosc2/.*:(__getitem__|get_slice)"),
    ("network", r"longflow/(networks|methods|flow)/|longflow/.*:_?train_step|/torch/(nn|optim|autograd)/"),
)
_known = {}


def kind_of(frame) -> str:
    """Return the kind of work of a thread: "import", "reading", "network", "writing" or "other"."""
    kind = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib"):
            return "import"
        if code not in _known:
            where = f"{code.co_filename}:{code.co_name}".replace(os.sep, "/")
            _known[code] = next((name for name, rule in RULES if re.search(rule, where)), None)
            if "longflow/planning/" in where:  # runs networks without contents, to estimate their memory
                _known[code] = "planning"
        kind = "planning" if _known[code] == "planning" else kind or _known[code]
        frame = frame.f_back
    return "other" if kind in (None, "planning") else kind


def seconds_of(thread: int | None) -> float:
    """Return the seconds of processor time that a thread has used."""
    try:
        with open(f"/proc/self/task/{thread}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, IndexError):  # it has ended
        return 0.0


def sample(folder: str, held: threading.Lock) -> None:
    """Write lines until the process ends."""
    file = os.open(f"{folder}/{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    own, main = threading.get_native_id(), os.getpid()
    used: dict[int | None, float] = {}
    # a process that was just started has used time of its own; a forked one begins at 0
    before = 0.0
    while True:
        with held:
            frames, spent = sys._current_frames(), {}
            kinds = {one.native_id: kind_of(frames.get(one.ident)) for one in threading.enumerate()}
            del frames
            for thread, kind in kinds.items():
                now = seconds_of(thread)
                if thread != own:
                    spent[kind] = spent.get(kind, 0.0) + max(0.0, now - used.get(thread, 0.0))
                used[thread] = now
            total = time.process_time() - used[own]
            of_main = kinds.get(main, "other")
            # threads without Python: those of OpenMP and of backward work for the main thread
            unseen = total - before - sum(spent.values())
            spent[of_main] = spent.get(of_main, 0.0) + max(0.0, unseen)
            before = total
            cells = " ".join(f"{kind}={seconds:.6f}" for kind, seconds in spent.items())
            os.write(file, f"{time.monotonic():.6f} {of_main} {cells}\n".encode())
        time.sleep(EVERY)


def begin() -> None:
    """Start the sampling thread, here and in every process that is forked from here."""
    folder, held = os.environ["LONGFLOW_SAMPLES"], threading.Lock()

    def start() -> None:
        threading.Thread(target=sample, args=(folder, held), daemon=True).start()

    def start_forked() -> None:
        held.release()
        start()

    # the thread holds no lock of Python while a process is forked
    os.register_at_fork(before=held.acquire, after_in_parent=held.release, after_in_child=start_forked)
    start()


if "LONGFLOW_SAMPLES" in os.environ:
    begin()
