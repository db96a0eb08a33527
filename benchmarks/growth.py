"""Measure how seconds and memory grow with context scans, voxels, subjects and processes.

    python benchmarks/growth.py [--threads 1] [--out FOLDER]

Scans and voxels: a training step and a forecast of cronos. Subjects: the stages of longflow_plan_and_preprocess with
one process, on phantoms; planning without its memory estimate, which does not see the subjects. Processes: the same
preprocessing with one and two. Each point is measured in a fork of this process, which has imported everything.
Seconds are those of the processor, which a busy machine does not change much; for processes those of the clock. Memory
is the peak of the process less what it held before; for processes the sum of all of them.

The exponent is the slope of the logarithms over the last doubling: 1 is linear, 2 quadratic. Written are growth.csv and
growth.png.
"""

import argparse
import logging
import math
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import context_memory
import memory
import psutil
import torch
from matplotlib import pyplot as plt

from longflow.compare.figures import COLOURS, MARKERS
from longflow.demo.cohort import write_cohort
from longflow.files import write_csv
from longflow.fingerprint.fingerprint import extract_fingerprint
from longflow.integrity.dataset import verify_dataset
from longflow.paths import DatasetPaths
from longflow.planning.run import plan_dataset
from longflow.preprocessing.run import preprocess_dataset
from longflow.private import return_freed_memory
from longflow.report.drawing import save

GB = 1024**3
SCANS, TIMES, SUBJECTS, PROCESSES = (1, 2, 4, 8), (1, 2, 4, 8), (6, 12, 24, 48), (1, 2)
#: patches of 1, 2, 4 and 8 times the voxels
PATCHES = ([8, 48, 48], [16, 48, 48], [16, 96, 48], [16, 96, 96])
SHAPE, VISITS = (8, 48, 48), (4, 4)
COLUMNS = ("against", "size", "what", "seconds", "memory_gb")
#: steps of which the quickest counts
REPEATS = 2
PERIOD = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the table and the figure (default: here)")
    options = parser.parse_args()
    rows = network_rows("context scans", {size: (size, PATCHES[1]) for size in SCANS}, options.threads)
    rows += network_rows("voxels", {size: (2, PATCHES[n]) for n, size in enumerate(TIMES)}, options.threads)
    with tempfile.TemporaryDirectory() as home:
        os.environ["LONGFLOW_HOME"] = home
        for size in SUBJECTS:
            found = apart(options.threads, stages, size)
            rows += [row("subjects", size, what, *cost) for what, cost in found.items()]
        for size in PROCESSES:
            rows.append(row("processes", size, "preprocess", *apart(options.threads, side_by_side, size)))
    write_csv(COLUMNS, rows, options.out / "growth.csv")
    show_exponents(rows)
    draw(rows, options.out / "growth.png")


def apart(threads: int, work: Callable, *arguments):
    """The result of a function in a fork of this process."""
    with ProcessPoolExecutor(1, get_context("fork"), torch.set_num_threads, (threads,)) as process:
        return process.submit(work, *arguments).result()


def row(against: str, size: int, what: str, seconds: float, taken: float) -> dict:
    """One point, which is printed."""
    sys.stdout.write(f"{against:<14}{size:>3} {what:<16}{seconds:>9.2f} s{taken / GB:>9.3f} GB\n")
    sys.stdout.flush()
    return {"against": against, "size": size, "what": what, "seconds": seconds, "memory_gb": taken / GB}


def network_rows(against: str, shapes: dict[int, tuple[int, list[int]]], threads: int) -> list[dict]:
    """Points of a training step and of a forecast of two solver steps."""
    rows = []
    for size, (scans, patch_size) in shapes.items():
        memory.SHAPES["growth"] = ("cronos", scans, 16, memory.ANISOTROPIC, 2, patch_size, False)
        for what, work in {"training step": memory.train_steps, "forecast": context_memory.predict}.items():
            rows.append(row(against, size, what, *apart(threads, network_cost, work)))
    return rows


def network_cost(work: Callable) -> tuple[float, float]:
    """Seconds and peak of a training step or a forecast, without those that the first one takes."""
    return_freed_memory()
    work("growth", "cpu", False, smallest=True)
    steps = 2 if work is memory.train_steps else 1
    costs = [cost_of(lambda: work("growth", "cpu", False, smallest=False)) for _ in range(REPEATS)]
    return min(seconds for seconds, _ in costs) / steps, costs[0][1]


def cost_of(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor, and the peak of memory above what was held before."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    held, begun = memory.resident("VmRSS"), processor_seconds()
    work()
    return processor_seconds() - begun, memory.resident("VmHWM") - held


def processor_seconds() -> float:
    """Seconds that this process and its ended children took so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def dataset_of(subjects: int) -> str:
    """Name of a dataset of phantoms, written where it is missing."""
    name = f"Dataset{800 + subjects}_Growth"
    write_cohort(DatasetPaths(name).raw, subjects, test_subjects=0, shape=SHAPE, scans=VISITS)
    return name


def stages(subjects: int) -> dict[str, tuple[float, float]]:
    """Seconds and peak of each stage of longflow_plan_and_preprocess, with one process."""
    logging.disable()
    stages_of(dataset_of(SUBJECTS[0]))  # what the first call takes
    name = dataset_of(subjects)
    return stages_of(name)


def stages_of(name: str) -> dict[str, tuple[float, float]]:
    """As :func:`stages`, of a dataset that exists; finished stages are repeated."""
    with patch("longflow.planning.plan.training_memory", lambda *_: 1e8):
        return {
            "verify": cost_of(lambda: verify_dataset(DatasetPaths(name).raw, 1)),
            "fingerprint": cost_of(lambda: extract_fingerprint(name, 1, overwrite=True)),
            "plan": cost_of(lambda: plan_dataset(name, "tiny")),
            "preprocess": cost_of(lambda: preprocess_dataset(name, processes=1, overwrite=True)),
        }


def side_by_side(processes: int) -> tuple[float, float]:
    """Seconds of the clock, and the peak of all processes together, of preprocessing the largest cohort."""
    logging.disable()
    name, peak, done = dataset_of(SUBJECTS[-1]), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(PERIOD):
            peak = max(peak, together())

    held, begun = together(), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    preprocess_dataset(name, processes=processes, overwrite=True)
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    return seconds, peak - held


def together() -> int:
    """Bytes that this process and its children hold."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def show_exponents(rows: list[dict]) -> None:
    """Print the exponents of seconds and memory over the last doubling."""
    sys.stdout.write(f"\n{'against':<15}{'what':<16}{'seconds':>9}{'memory':>9}\n")
    for against, what in dict.fromkeys((row["against"], row["what"]) for row in rows):
        before, last = [row for row in rows if (row["against"], row["what"]) == (against, what)][-2:]
        shown = [
            f"{math.log2(last[name] / before[name]):>9.2f}" if min(last[name], before[name]) > 0 else f"{'-':>9}"
            for name in ("seconds", "memory_gb")
        ]
        sys.stdout.write(f"{against:<15}{what:<16}{''.join(shown)}\n")


def draw(rows: list[dict], path: Path) -> None:
    """Seconds above, memory below; a column for each quantity, relative to its smallest size. Grey: linear."""
    quantities = list(dict.fromkeys(row["against"] for row in rows))
    figure, axes = plt.subplots(2, len(quantities), figsize=(12, 6), layout="constrained", sharex="col", squeeze=False)
    for column, against in enumerate(quantities):
        own = [row for row in rows if row["against"] == against]
        sizes = sorted({row["size"] for row in own})
        for line, (name, title) in enumerate({"seconds": "seconds", "memory_gb": "peak memory, GB"}.items()):
            axis = axes[line, column]
            for number, what in enumerate(dict.fromkeys(row["what"] for row in own)):
                values = [row[name] for row in own if row["what"] == what]
                style = {"color": COLOURS[number], "marker": MARKERS[number], "markersize": 4}
                axis.plot(sizes, values, label=what, **style)
                rise = 1 if against != "processes" or name == "memory_gb" else -1
                linear = [values[-1] * (size / sizes[-1]) ** rise for size in sizes]
                axis.plot(sizes, linear, color="0.75", linewidth=1, zorder=0)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(title)
        axes[0, column].set_title(f"against {against}", fontsize=10)
        axes[0, column].legend(fontsize=7)
        axes[1, column].set_xlabel(against)
    figure.supxlabel("Grey: linear growth up to the last point.", fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
