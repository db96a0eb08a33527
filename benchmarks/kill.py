"""Kill longflow's commands at random moments, fill the disk, take write permission away: the result must be the same.

    python benchmarks/kill.py [--kills 100] [--disturbances 2] [--seed 0] [--steps train predict] [--folder DIR]

A tiny phantom goes through import, registration, planning, preprocessing, training, prediction, comparison and the
choice of the best model, once without a disturbance. Then each command is begun again from the same state of all files,
and killed (SIGKILL, its whole session) at a random moment. The same command, run again, must end with exit code 0, and
all files must then equal those of the undisturbed run: none missing, none too many, none half, none left of the killed
process. What was finished before the kill must not be done twice: the times of change of its records show that.

Two more disturbances, on Linux, in a file system of its own (tmpfs in a mount namespace): a disk that becomes full
while the command writes (ENOSPC), and one that is read-only from a random moment on, or from the beginning (EROFS,
which holds for root, too; Linux allows it while no file is open for writing: training meets it at the beginning only).
The command must end with exit code 1 and a message, or with 0 where all was written; then the disk is enlarged or
made writable, and the same command must lead to the same files.

Commands run in forked copies of this process, which has imported them before: so the random moments hit the work and
not the imports. Training saves its state every 0.2 s instead of every 10 minutes.
"""

import argparse
import csv
import ctypes
import functools
import importlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "200"

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

#: files that hold durations or are drawn from them: they have to exist, that is all
TIMED = {"run.json", "progress.png", "training.log", "comparison.json", "comparison.csv", "cost.png"}
#: columns of progress.csv that hold durations
TIMED_COLUMNS = {"seconds", "epoch_seconds", "data_wait_share"}
#: files of which each run has its own
IGNORED = re.compile(r"events\.out\.tfevents")
DATASET, REGISTERED = "Dataset910_Kill", "Dataset911_KillRegistered"
TRAIN = ("3d_fullres", "0", "-m", "cronos", "--iterations", "12", "--device", "cpu", "--workers", "0")
#: exit code of a process that may not mount
NOT_ALLOWED = 77
CLONE_NEWNS, CLONE_NEWUSER, MS_RDONLY, MS_REMOUNT = 0x20000, 0x10000000, 1, 32


@dataclass(frozen=True)
class Step:
    """A command of the journey.

    :param name: as in the table.
    :param module: in ``longflow.cli``.
    :param arguments: of the command; ``{source}`` and ``{home}`` are filled in.
    :param share: of all kills; 0: it is only run to make the next state.
    :param finished: patterns of the records of finished work, relative to the home.
    :param needed: whether later commands need its files.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    share: float = 0.0
    finished: tuple[str, ...] = ()
    needed: bool = True


STEPS = (
    Step(
        "import",
        "import_dataset",
        ("nifti4d", "{source}", "-d", DATASET, "--times", "frames", "--test", "s4", "-np", "1"),
        0.2,
        ("raw/**/images*/[!.]*.nii.gz",),
    ),
    Step(
        "register",
        "register",
        ("-d", "910", "--model", "rigid", "-o", REGISTERED, "-np", "1"),
        0.06,
        ("raw/*/transforms/[!.]*.json",),
        needed=False,
    ),
    Step("verify", "extract_fingerprint", ("-d", "910", "-np", "1")),
    Step("plan", "plan", ("-d", "910", "--preset", "tiny")),
    Step("preprocess", "preprocess", ("-d", "910", "-np", "1"), 0.2, ("preprocessed/*/*_*/[!.]*.json",)),
    Step("train", "train", ("910", *TRAIN), 0.14, ("results/*/*__*/fold_0/checkpoint_final.safetensors",)),
    Step("find_best", "find_best", ("-d", "910", "-np", "1"), 0.16, ()),
    Step(
        "predict",
        "predict",
        ("-i", f"{{home}}/raw/{DATASET}/imagesTs", "-o", "{home}/out", "-d", "910", "--device", "cpu"),
        0.2,
        ("out/s*.json",),
    ),
    Step(
        "compare",
        "compare",
        ("-d", "910", "-m", "cronos", "lci", "--iterations", "12", "--device", "cpu", "--workers", "0"),
        0.04,
        ("results/*/comparisons/predictions/*/*/[!.]*.json",),
    ),
)


@dataclass
class Tally:
    """What happened to a command.

    :param tried: number of disturbances.
    :param hit: number of those that met the command at work.
    :param equal: number of equal results.
    :param kept: finished pieces of work before the command was run again.
    :param redone: number of those that were done again.
    :param problems: everything that was not as it has to be.
    """

    tried: int = 0
    hit: int = 0
    equal: int = 0
    kept: int = 0
    redone: int = 0
    problems: list[str] = field(default_factory=list)


class Campaign:
    """The folders of a campaign.

    :param folder: for everything.
    :param seed: of moments and sizes.
    """

    def __init__(self, folder: Path, seed: int):
        self.source, self.home, self.states = folder / "source", folder / "home", folder / "states"
        self.output = folder / "output.txt"
        self.random = random.Random(seed)
        self.seconds: dict[str, float] = {}

    def prepare(self, steps: Sequence[Step]) -> None:
        """Write the phantom, then run all commands undisturbed; keep the files before and after each."""
        write_source(self.source)
        self.home.mkdir(parents=True)
        for step in steps:
            copy(self.home, self.states / step.name / "before")
            begun = time.monotonic()
            if self.run(step) != 0:
                raise SystemExit(f"{step.name} failed undisturbed:\n{self.output.read_text()}")
            self.seconds[step.name] = time.monotonic() - begun
            copy(self.home, self.states / step.name / "after")
            print(f"{step.name}: {self.seconds[step.name]:.1f} s undisturbed", flush=True)

    def start(self, step: Step) -> int:
        """Begin a command in a forked process, with a session of its own; return its id."""
        if pid := os.fork():
            return pid
        try:
            os.setsid()
            output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ["LONGFLOW_HOME"] = str(self.home)
            arguments = [one.format(source=self.source, home=self.home) for one in step.arguments]
            code = importlib.import_module(f"longflow.cli.{step.module}").main(arguments)
            sys.stdout.flush()
            os._exit(code)
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 2)
        except BaseException as error:  # also of a closed disk: never go on with the campaign in the child
            os.write(2, f"Traceback: {error!r}\n".encode())
            os._exit(2)

    def run(self, step: Step) -> int:
        """Run a command to its end; return its exit code."""
        return exit_code(self.start(step))

    def kill(self, step: Step, tally: Tally) -> None:
        """Kill a command at a random moment and run it again."""
        copy(self.states / step.name / "before", self.home)
        pid = self.start(step)
        time.sleep(self.random.uniform(0, self.seconds[step.name]))
        tally.hit += os.waitpid(pid, os.WNOHANG)[0] == 0
        kill_session(pid)
        self.finish(step, tally)

    def fill_disk(self, step: Step, tally: Tally) -> None:
        """Run a command on a disk that has room for a part of what it writes; then enlarge the disk."""
        before, after = (size_of(self.states / step.name / one) for one in ("before", "after"))
        room = before + self.random.uniform(0.05, 0.9) * max(after - before, 4096)
        with_disk = functools.partial(mount, self.home, f"size={int(room / 4096) * 4}k")
        self.on_own_disk(step, tally, with_disk, lambda: mount(self.home, "remount,size=1g"))

    def forbid_writing(self, step: Step, tally: Tally) -> None:
        """Run a command on a disk that becomes read-only at a random moment; then make it writable."""
        moment = self.random.uniform(-0.5, 1) * self.seconds[step.name]
        make, mend = (functools.partial(mount, self.home, how) for how in ("size=1g", "remount,rw"))
        self.on_own_disk(step, tally, make, mend, moment)

    def on_own_disk(
        self,
        step: Step,
        tally: Tally,
        make: Callable[[], bool],
        mend: Callable[[], bool],
        moment: float = math.inf,
    ) -> None:
        """Disturb a command on a disk of its own: nobody but one forked process sees that disk.

        :param make: makes the disk.
        :param mend: makes it large and writable.
        :param moment: seconds after which it becomes read-only; below 0: before the command begins.
        """
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                shutil.rmtree(self.home, ignore_errors=True)
                self.home.mkdir()
                if not (own_mounts() and make()):
                    os._exit(NOT_ALLOWED)
                own = Tally()
                copy(self.states / step.name / "before", self.home)
                if moment < 0:
                    forbid(self.home)
                command = self.start(step)
                if 0 <= moment < math.inf:
                    time.sleep(moment)
                    # refused while a file is open for writing
                    while os.waitid(os.P_PID, command, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                        if forbid(self.home):
                            break
                code, said = exit_code(command), self.output.read_text()
                own.hit += code != 0
                if code not in (0, 1) or "Traceback" in said:
                    own.problems.append(f"{step.name}: exit code {code}: {said[-2000:]}")
                mend()
                self.finish(step, own)
                report = [own.hit, own.equal, own.kept, own.redone, "\n".join(own.problems)]
                os.write(writing, "\x1f".join(map(str, report)).encode()[:60_000])
                os._exit(0)
            except BaseException as error:
                os.write(writing, f"0\x1f0\x1f0\x1f0\x1f{step.name}: {error!r}".encode())
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read().decode()
        if exit_code(pid) == NOT_ALLOWED:
            print("Left out: this system allows no file system of one's own (tmpfs in a mount namespace).", flush=True)
            return
        *numbers, problems = answer.split("\x1f")
        tally.tried += 1
        for name, number in zip(("hit", "equal", "kept", "redone"), map(int, numbers), strict=True):
            setattr(tally, name, getattr(tally, name) + number)
        tally.problems += [problems] if problems else []

    def finish(self, step: Step, tally: Tally) -> None:
        """Run a disturbed command again, and compare with the undisturbed one."""
        tally.tried += 1
        before = self.finished(step)
        if (code := self.run(step)) != 0:
            tally.problems.append(f"{step.name}: run again, it ended with {code}: {self.output.read_text()[-2000:]}")
            return
        after = self.finished(step)
        redone = [name for name, changed in before.items() if after.get(name) != changed]
        tally.kept, tally.redone = tally.kept + len(before), tally.redone + len(redone)
        found = differences(self.states / step.name / "after", self.home)
        tally.equal += not found
        tally.problems += [f"{step.name}: {one}" for one in found]
        tally.problems += [f"{step.name}: done twice: {one}" for one in redone]

    def finished(self, step: Step) -> dict[str, int]:
        """Return when the finished pieces of work were written, by name: an import renames their folder."""
        return {
            path.name: path.stat().st_mtime_ns
            for pattern in step.finished
            for path in self.home.glob(pattern)
            if path.is_file()
        }


def write_source(folder: Path) -> None:
    """Write the 4D images that are imported: five subjects, in whom a ball grows."""
    folder.mkdir(parents=True)
    z, y, x = np.mgrid[:12, :28, :28]
    for subject in range(5):
        drawn = np.random.default_rng(subject)
        texture = gaussian_filter(drawn.normal(0, 1, z.shape), 2)
        body = (z - 6) ** 2 * 4 + (y - 14) ** 2 + (x - 13) ** 2 < 120
        frames = []
        for frame in range(4):
            ball = (z - 6) ** 2 * 4 + (y - 10) ** 2 + (x - 11) ** 2 < (3 + frame) ** 2
            array = 300 + 100 * texture / texture.std() + 150 * ball
            frames.append(100 + array * body + drawn.normal(0, 5, body.shape))
        image = sitk.JoinSeries([sitk.GetImageFromArray(one.astype(np.int16)) for one in frames])
        sitk.WriteImage(image, str(folder / f"s{subject}.nii.gz"))


def exit_code(pid: int) -> int:
    """Wait for a process; return its exit code, or minus the number of its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_session(pid: int) -> None:
    """Kill a process and all that it began."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # it had ended, and was waited for
        os.waitpid(pid, 0)
    time.sleep(0.05)


def copy(source: Path, target: Path) -> None:
    """Copy a folder with its times of change; empty the target first, which may be a mounted disk."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in target.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def own_mounts() -> bool:
    """Let this process mount what no other process sees: as root, else as root of a user namespace of its own."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        return False
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


def mount(folder: Path, options: str) -> bool:
    """Mount a tmpfs, or change a mounted one."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def forbid(folder: Path) -> bool:
    """Make a mounted disk read-only."""
    flags = MS_RDONLY | MS_REMOUNT
    return ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), None) == 0


def differences(expected: Path, found: Path) -> list[str]:
    """List the files that differ from those of the undisturbed run."""
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
        for folder in (expected, found)
    ]
    wanted, had = ({name for name in one if not IGNORED.search(name)} for one in names)
    lines = [f"missing: {name}" for name in sorted(wanted - had)] + [f"left: {name}" for name in sorted(had - wanted)]
    return lines + [
        f"differs: {name}" for name in sorted(wanted & had) if content(expected / name) != content(found / name)
    ]


def content(path: Path) -> object:
    """Return the part of a file's content that does not depend on the clock."""
    if path.name in TIMED:
        return path.stat().st_size > 0
    if path.name == "progress.csv":
        with open(path, newline="") as file:
            return [
                {name: value for name, value in row.items() if name not in TIMED_COLUMNS}
                for row in csv.DictReader(file)
            ]
    return path.read_bytes()


def import_everything() -> None:
    """Import what the commands need, so that forked processes begin with their work at once."""
    import torch

    import longflow.job
    from longflow.commands import COMMANDS
    from longflow.task import all_tasks

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for _, module, _ in COMMANDS:
        importlib.import_module(f"longflow.cli.{module}")
    for room in ("training.loop", "preprocessing.run", "registration.dataset", "planning.run", "compare.perform"):
        importlib.import_module(f"longflow.{room}")
    for task in all_tasks():
        task.predictor()
    longflow.job.FoldSettings = functools.partial(longflow.job.FoldSettings, checkpoint_every=0.2)


def campaign(
    folder: Path, kills: int, disturbances: int, seed: int = 0, names: Sequence[str] = ()
) -> dict[tuple[str, str], Tally]:
    """Run a campaign.

    :param folder: empty, for all files.
    :param kills: number of kills, shared by the commands.
    :param disturbances: number of full and of read-only disks for each command.
    :param seed: of moments and sizes.
    :param names: of the commands that are disturbed; none: all.
    :returns: the tally of each command and disturbance.
    """
    import_everything()
    own = Campaign(folder, seed)
    chosen = [step for step in STEPS if step.share and (not names or step.name in names)]
    needed = STEPS[: STEPS.index(chosen[-1]) + 1]
    own.prepare([step for step in needed if step.needed or step in chosen])
    shares, tallies = sum(step.share for step in chosen), {}
    for step in chosen:
        for kind, disturb, times in (
            ("killed", own.kill, round(kills * step.share / shares)),
            ("disk full", own.fill_disk, disturbances),
            ("read-only", own.forbid_writing, disturbances),
        ):
            tally = tallies[step.name, kind] = Tally()
            for _ in range(times):
                disturb(step, tally)
            print(f"{step.name}, {kind}: {tally}", flush=True)
    return tallies


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Return the table of a campaign in Markdown."""
    lines = ["| command | disturbance | times | met at work | equal results | kept, finished | done twice |"]
    lines.append("|" + "---|" * 7)
    for (name, kind), one in tallies.items():
        lines.append(f"| {name} | {kind} | {one.tried} | {one.hit} | {one.equal} | {one.kept} | {one.redone} |")
    return "\n".join(lines)


def main() -> int:
    """Run a campaign, print its table and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: 100)")
    parser.add_argument("--disturbances", type=int, default=2, help="full and read-only disks a command (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", nargs="+", default=[], choices=[step.name for step in STEPS if step.share])
    parser.add_argument("--folder", type=Path, help="for all files (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        tallies = campaign(folder, options.kills, options.disturbances, options.seed, options.steps)
    print(table(tallies))
    problems = [problem for tally in tallies.values() for problem in tally.problems]
    print("\n".join(problems) or "All results equal those of the undisturbed commands.")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
