"""Measure where the seconds and gigabytes of every command go: import, reading, network, writing, other work, waiting.

    python benchmarks/profile.py                                    # the three tasks, on phantoms
    python benchmarks/profile.py --task forecast --package OTHER .  # another checkout, then this one
    python benchmarks/profile.py --dataset raw/Dataset101_Cine      # your own dataset

Every command runs as its user runs it, with a few steps of training. ``sampler/sitecustomize.py`` watches all of its
processes. The seconds of a row add up to the time that the user waits: where several kinds of work run at once, they
share the time. "waiting" is time in which no process ran, or another program had the processor. Memory is the highest
sum over the command's processes, in which shared memory counts once (PSS). It needs Linux.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

if __name__ == "profile":
    # another script of this folder is running, and Python's cProfile imports its own module of this name
    standard = PathFinder.find_spec("profile", [os.path.dirname(os.__file__)])
    sys.modules["profile"] = module_from_spec(standard)
    standard.loader.exec_module(sys.modules["profile"])

HERE = Path(__file__).resolve().parent
TASKS = {"forecast": "forecasting", "segment": "segmentation", "translate": "translation"}
KINDS = ("import", "reading", "network", "writing", "other")
COMMANDS = (
    *("plan_and_preprocess", "verify", "extract_fingerprint", "plan", "preprocess"),
    *("train", "find_best", "predict", "evaluate"),
)
#: commands whose results later ones read
NEEDED = ("plan_and_preprocess", "train", "predict")
#: seconds; the wait of a moment is divided among the kinds of work that ran in it
MOMENT = 0.05
#: seconds between two looks at the memory
LOOK = 0.2


@dataclass(frozen=True)
class Data:
    """A raw dataset.

    :param home: folder with the folder "raw" that holds it.
    :param name: full name.
    """

    home: Path
    name: str

    @property
    def raw(self) -> Path:
        return self.home / "raw" / self.name

    @property
    def description(self) -> dict:
        return json.loads((self.raw / "dataset.json").read_text(encoding="utf-8"))

    @property
    def task(self) -> str:
        return self.description.get("task", "forecast")


@dataclass(frozen=True)
class Measured:
    """What a command took.

    :param seconds: wall time.
    :param by_kind: shares of it; "waiting" is the rest.
    :param processor: seconds of all processes.
    :param memory: bytes, PSS.
    """

    seconds: float
    by_kind: Counter
    processor: float
    memory: float


def commands(data: Data, iterations: int, most: int | None) -> Iterator[tuple[str, list[str]]]:
    """List the commands in order, without "longflow_"; the stages of planning are repeated one by one.

    :param iterations: steps of training.
    :param most: processes; None: as many as the commands choose.
    """
    number, out = data.name[7:10], str(data.home / "predictions")
    configuration = "2d" if data.task == "translate" else "3d_fullres"
    limit = [] if most is None else ["-np", str(most)]
    yield "plan_and_preprocess", ["-d", number, "--preset", "tiny", *limit]
    yield "verify", ["-d", number, *limit]
    yield "extract_fingerprint", ["-d", number, "--overwrite", *limit]
    yield "plan", ["-d", number, "--preset", "tiny"]
    yield "preprocess", ["-d", number, "--overwrite", *limit]
    yield "train", [number, configuration, "0", "--iterations", str(iterations), *limit]
    yield "find_best", ["-d", number]
    if (data.raw / "imagesTs").is_dir():
        phase = ["--to", data.description["phases"][0]] if data.task == "translate" else []
        yield "predict", ["-d", number, "-i", str(data.raw / "imagesTs"), "-o", out, *phase]
        yield "evaluate", ["-d", number, "-i", out]


def run(command: str, arguments: list[str], home: Path, package: Path) -> Measured:
    """Run a command and measure it.

    :param package: the checkout whose command it is.
    """
    with tempfile.TemporaryDirectory() as samples:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("longflow_")},
            "LONGFLOW_HOME": str(home),
            "LONGFLOW_SAMPLES": samples,
            "PYTHONPATH": f"{HERE / 'sampler'}{os.pathsep}{package}",
        }
        launch = f"from longflow.cli.{command} import main; raise SystemExit(main())"
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", launch, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
        )
        memory = 0.0
        while process.poll() is None:
            memory = max(memory, shared_out(Path(samples)))
            time.sleep(LOOK)
        seconds = time.monotonic() - begun
        if process.returncode:
            raise SystemExit(f"longflow_{command} {' '.join(arguments)} failed:\n{process.stdout.read()}")
        by_kind, processor = divided(Path(samples), process.pid, begun, seconds)
        return Measured(seconds, by_kind, processor, memory)


def shared_out(samples: Path) -> float:
    """Return the bytes of memory of a command's processes; memory that they share counts once.

    :param samples: folder of the sampler's files, which are named by the processes.
    """
    total = 0
    for path in samples.glob("*.txt"):
        try:
            text = Path(f"/proc/{path.stem}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def divided(samples: Path, main: int, begun: float, seconds: float) -> tuple[Counter, float]:
    """Divide the wall time of a command among kinds of work.

    :param samples: folder of the sampler's files, one for each process.
    :param main: number of the command's first process. What it does in a moment without work is waited for.
    :param begun: start of the command, as ``time.monotonic``.
    :param seconds: wall time.
    :returns: seconds by kind, "waiting" included; processor seconds.
    """
    moments = [Counter() for _ in range(int(seconds / MOMENT) + 1)]
    doing = ["import"] * len(moments)
    for path in samples.glob("*.txt"):
        before = None
        for line in path.read_text(encoding="ascii").splitlines():
            moment, of_main, *cells = line.split()
            last = min(max(int((float(moment) - begun) / MOMENT), 0), len(moments) - 1)
            first = last if before is None else before
            spent = {kind: float(value) for kind, value in (cell.split("=") for cell in cells)}
            for index in range(first, last + 1):  # a process in a long call of C is not seen for a while
                moments[index].update({kind: value / (last - first + 1) for kind, value in spent.items()})
                if path.stem == str(main):
                    doing[index] = of_main
            before = last
    by_kind: Counter = Counter()
    for spent, of_main in zip(moments, doing, strict=True):
        busy = sum(spent.values())
        for kind, value in spent.items():
            by_kind[kind] += value * min(1, MOMENT / busy) if busy else 0
        by_kind["waiting" if of_main == "other" else of_main] += max(0.0, MOMENT - busy)
    by_kind["waiting"] += seconds - sum(by_kind.values())
    return by_kind, sum(sum(spent.values()) for spent in moments)


def phantoms(task: str, home: Path, package: Path) -> Data:
    """Make the phantoms of a task's demo; keep finished ones."""
    code = (
        f"import pathlib; from longflow.demo import {TASKS[task]} as demo; home = pathlib.Path({str(home)!r});"
        "demo.write_data(home); print(demo.raw_folder(home).name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(package)}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return Data(home, made.stdout.split()[-1])


def profile(data: Data, package: Path, options: argparse.Namespace) -> None:
    """Run the commands on a dataset in a fresh folder, and print a table."""
    print(f"\n{data.task}, {data.name}, {package}\n", flush=True)
    heads = ["`longflow_...`", "wall, s", *KINDS, "waiting", "processor, s", "peak, GB"]
    print("| " + " | ".join(heads) + " |\n|---|" + "---:|" * (len(heads) - 1), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        home = Path(folder)
        (home / "raw").mkdir()
        (home / "raw" / data.name).symlink_to(data.raw.resolve())
        steps = list(commands(Data(home, data.name), options.iterations, options.processes))
        selected = [index for index, (command, _) in enumerate(steps) if command in (options.commands or dict(steps))]
        for index, (command, arguments) in enumerate(steps[: max(selected) + 1]):
            if index not in selected and command not in NEEDED:
                continue
            found = run(command, arguments, home, package)
            numbers = [found.seconds, *(found.by_kind[kind] for kind in (*KINDS, "waiting")), found.processor]
            cells = [command, *(f"{number:.1f}" for number in numbers), f"{found.memory / 1e9:.2f}"]
            if index in selected:
                print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument("--dataset", type=Path, help="folder of a raw dataset, in place of phantoms")
    parser.add_argument("--package", nargs="+", type=Path, default=[HERE.parent], help="checkouts (default: this one)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, metavar="NAME", help="only these (default: all)")
    parser.add_argument("--iterations", type=int, default=4, help="steps of training (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="worker processes (default: as the commands choose)")
    parser.add_argument("--folder", type=Path, help="keeps the phantoms; all else is deleted (default: nowhere)")
    options = parser.parse_args()
    temporary = None if options.folder else tempfile.mkdtemp()
    options.folder = Path(temporary or options.folder).resolve()
    packages = [package.resolve() for package in options.package]
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {options.iterations} steps of training")
    try:
        if options.dataset:
            raw = options.dataset.resolve()
            datasets = [Data(raw.parents[1], raw.name)]
        else:
            datasets = [phantoms(task, options.folder / task, packages[-1]) for task in options.task]
        for data in datasets:
            for package in packages:
                profile(data, package, options)
    finally:
        if temporary:
            shutil.rmtree(temporary)


if __name__ == "__main__":
    main()
