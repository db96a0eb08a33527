"""Build what the container image holds without a container runtime, and run longflow in it as the image's user does.

    python -m benchmarks.container [--python python3.12] [--folder FOLDER] [--keep]

For root on Linux, with network. The instructions of the first stage of the Containerfile are followed one by one, in a
folder in place of the image's root: an empty environment, the two lock files with their hashes, longflow itself. Then
an unprivileged user lists the commands, forecasts, and trains two steps, while the packages, HOME and /dev/shm are
read-only and nothing but a folder of data can be written to (tests/test_container.py has the same for the packages of
the tests). The environment takes about 7 GB.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTAINERFILE = ROOT / "documentation" / "container" / "Containerfile"
#: folders of the image that the first stage writes to
ENVIRONMENT, SOURCE = "/opt/longflow", "/source"


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of the first stage, each with its arguments; continued lines are joined."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    found = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]
    stages = [number for number, (word, _) in enumerate(found) if word == "FROM"]
    return found[stages[0] + 1 : stages[1]]


def build(image: Path, python: str) -> None:
    """Follow the instructions of the first stage.

    :param image: empty folder in place of the root of the image.
    :param python: interpreter of the base image.
    """

    def inside(text: str) -> str:
        for place in (ENVIRONMENT, SOURCE):
            text = text.replace(place, f"{image}{place}")
        return text

    environment, folder = dict(os.environ), image
    # the settings of whoever builds do not reach into an image
    for name in [one for one in environment if one.startswith(("PYTHON", "VIRTUAL_ENV"))]:
        del environment[name]
    for word, rest in instructions(CONTAINERFILE.read_text()):
        if word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = inside(pair).partition("=")
                environment[name] = value.replace("$PATH", environment["PATH"])
        elif word == "WORKDIR":
            folder = Path(inside(rest))
            folder.mkdir(parents=True)
        elif word == "COPY":
            copy(rest.split(), folder)
        elif word == "RUN":
            begun, command = time.monotonic(), inside(rest).replace("python -m venv", f"{python} -m venv")
            subprocess.run(["/bin/sh", "-c", command], env=environment, cwd=folder, check=True)
            print(f"{time.monotonic() - begun:.0f} s: {rest}", flush=True)
        else:
            raise SystemExit(f"{CONTAINERFILE}: this script does not know {word}")


def copy(words: list[str], folder: Path) -> None:
    """Copy files, or the content of a folder, of the repository as COPY does."""
    *sources, target = words
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)


def use(work: Path, python: Path, base: Path) -> None:
    """Run commands as an unprivileged user.

    :param work: the folder that this user can write to.
    :param python: of the environment.
    :param base: folder of the Python that the environment was made with.
    """
    from longflow.paths import DatasetPaths
    from longflow.plans import read_plans
    from tests.test_container import NOBODY, confined
    from tests.training.helpers import finished_model, make_dataset

    home = work / "home"
    os.environ["LONGFLOW_HOME"] = str(home)
    make_dataset()
    dataset = DatasetPaths("Dataset001_Test")
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    images = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", images / "scans.csv")
    for place in (home, *home.rglob("*")):
        os.chown(place, NOBODY, NOBODY)
    variables = {"LONGFLOW_HOME": str(home), "LONGFLOW_CACHE": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    for command in (
        ("longflow",),
        ("longflow_predict", "-d", 1, "-i", images, "-o", home / "out", "-t", 50, "--device", "cpu"),
        ("longflow_train", 1, "3d_fullres", 1, "--iterations", 2, "--device", "cpu"),
    ):
        begun = time.monotonic()
        answer = confined(work, *command, python=python, read_only=(base, python.parents[1]), **variables)
        if answer.returncode:
            raise SystemExit(answer.stdout + answer.stderr)
        print(f"{time.monotonic() - begun:.0f} s: {' '.join(map(str, command[:1]))} as user {NOBODY}", flush=True)
    written = sorted((home / "out").glob("*_t50.json"))
    assert len(written) == 6, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3.12", help="of the version that the base image has")
    parser.add_argument("--folder", type=Path, help="where the environment is built (default: the temporary one)")
    parser.add_argument("--keep", action="store_true", help="do not delete the environment at the end")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="longflow-image-", dir=options.folder))
    work.chmod(0o711)
    try:
        build(work, options.python)
        size = sum(file.lstat().st_size for file in (work / "opt").rglob("*"))
        print(f"{size / 1e9:.1f} GB: the environment", flush=True)
        ask = [options.python, "-c", "import sys; print(sys.base_prefix)"]
        base = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        use(work, work / ENVIRONMENT.lstrip("/") / "bin" / "python", Path(base))
    finally:
        if not options.keep:
            shutil.rmtree(work)
    sys.stdout.write("The lock can be installed, and longflow runs from it.\n")


if __name__ == "__main__":
    main()
