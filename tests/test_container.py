"""The container files, as far as a machine without a container runtime can check; longflow where little is writable."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from longflow.commands import COMMANDS
from longflow.plans import read_plans
from tests.conftest import OWN_VARIABLES
from tests.training.helpers import finished_model

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "documentation" / "container"
#: what a container, or a batch system, gives to a process that may write nearly nowhere
NOBODY = 65_534


def locked(name: str) -> dict[str, str]:
    """The versions in a lock file; every package has hashes."""
    versions = {}
    for entry in re.split(r"\n(?=\S)", (FOLDER / name).read_text().strip()):
        package, hashes = re.match(
            r"([A-Za-z0-9_.-]+==\S+) \\\n((?:\s+--hash=sha256:[0-9a-f]{64}(?: \\\n)?)+)$", entry
        ).groups()
        requirement = Requirement(package)
        assert hashes.count("sha256:") >= 1 and requirement.url is None
        versions[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    return versions


def required() -> list[Requirement]:
    """What setup.py installs."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    (value,) = (keyword.value for keyword in call.keywords if keyword.arg == "install_requires")
    return [Requirement(text) for text in ast.literal_eval(value)]


def test_the_lock_holds_all_that_is_required_in_tested_versions():
    versions = locked("requirements.lock")
    assert len(versions) > 100
    for requirement in required():
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert {"setuptools", "wheel"} <= set(locked("build.lock"))
    system = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("requires = "))
    for text in ast.literal_eval(system.removeprefix("requires = ")):
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked("build.lock")[requirement.name])


@pytest.mark.parametrize("name", ["Containerfile", "longflow.def"])
def test_both_definitions_install_the_lock_alone_and_copy_what_exists(name):
    text = (FOLDER / name).read_text()
    installs = re.findall(r"pip install (.*?)(?: \\)?$", text, flags=re.MULTILINE)
    assert [line.split() for line in installs[:2]] == [
        ["--require-hashes", "--no-deps", "-r", "build.lock"],
        ["--require-hashes", "--no-deps", "--no-build-isolation", "-r", "requirements.lock"],
    ]
    assert installs[2].startswith("--no-deps --no-build-isolation .") and len(installs) == 3
    copied = {place for place in re.findall(r"[\w./-]+", text) if (ROOT / place).exists() and place not in (".", "/")}
    needed = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "longflow"}
    assert needed | {f"documentation/container/{lock}.lock" for lock in ("build", "requirements")} <= copied


def test_the_container_is_not_root():
    lines = (FOLDER / "Containerfile").read_text().splitlines()
    user = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user == ["1000:1000"] and lines.index("USER 1000:1000") > max(
        number for number, line in enumerate(lines) if line.startswith(("RUN", "COPY"))
    )


def test_the_manifest_of_kubernetes():
    """The fields that an indexed Job needs, by the reference of batch/v1 and of Pod security "restricted"."""
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and 1 <= spec["parallelism"] <= spec["completions"] == 5
    assert spec["backoffLimitPerIndex"] >= 1 and "backoffLimit" not in spec
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # backoffLimitPerIndex and podFailurePolicy need it
    (container,) = pod["containers"]
    exits = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert exits == [{"containerName": container["name"], "operator": "In", "values": [130]}]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert sorted(mounted) == sorted(volume["name"] for volume in pod["volumes"])
    assert {"/data", "/tmp", "/dev/shm", "/scratch"} == set(mounted.values())
    shell, flag, command = container["command"]
    assert (shell, flag) == ("/bin/sh", "-c") and command.startswith("exec longflow_train ")
    assert '"$JOB_COMPLETION_INDEX"' in command and "--scratch /scratch" in command
    assert command.split()[1] in {name for name, _, _ in COMMANDS}
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) == 1


def test_the_command_of_the_manifest_trains_the_fold_of_its_index(dataset, tmp_path):
    """Run as Kubernetes does: through the shell, with the index in a variable. The command is replaced by one that
    prints its arguments."""
    command = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]["containers"][0][
        "command"
    ]
    fake = tmp_path / "longflow_train"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": "3"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "101 3d_fullres 3 --scratch /scratch\n"


CONFINED = """
import ctypes, os, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_BIND, MS_REMOUNT, MS_RDONLY = 0x20000, 0x4000, 1 << 18, 4096, 32, 1

def mount(source, target, kind, flags, data=None):
    if libc.mount(str(source).encode(), str(target).encode(), kind, flags, data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))

end = sys.argv.index("--")
empty, user, open_folder, *read_only = sys.argv[1:end]
try:
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    opened = {Path(place): os.open(place, os.O_PATH) for place in (open_folder, *read_only)}
    # Python may be installed below the home folder of root: everything else there is hidden
    hidden = {above for place in opened for above in place.parents if not above.stat().st_mode & 1}
    for above in sorted(hidden):
        if not hidden & set(above.parents):
            mount("none", above, b"tmpfs", 0, b"mode=755")
    for place, number in opened.items():
        place.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{number}", place, None, MS_BIND)
        if str(place) != open_folder:
            mount("none", place, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    mount(empty, "/dev/shm", None, MS_BIND)  # a folder that the user cannot write to
except OSError as error:
    print(error, file=sys.stderr)
    raise SystemExit(99)
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.execv(sys.executable, [sys.executable, *sys.argv[end + 1:]])
"""


def confined(
    folder: Path,
    command: str,
    *arguments: object,
    python: Path = Path(sys.executable),
    read_only: tuple = (sys.base_prefix, sys.prefix, ROOT),
    **variables: str,
) -> subprocess.CompletedProcess:
    """Run a command as an unprivileged user with read-only package folders, HOME and /dev/shm; only ``folder`` is open.

    It needs root, to give that up; the test is skipped without.

    :param python: that has longflow and its packages, or finds longflow in the last of the read-only folders.
    :param read_only: folders of Python, of the packages, and of longflow.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to run as another user with read-only folders")
    home, empty = folder / "user_home", folder / "no_shared_memory"
    for place in (home, empty):
        place.mkdir(mode=0o555, exist_ok=True)
    module = {name: module for name, module, _ in COMMANDS}[command]
    code = f"from longflow.cli.{module} import main; raise SystemExit(main())"
    environment = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    for name in [one for one in environment if one.startswith(("XDG_", "MPL", "TORCH", "TRITON", "CUDA_CACHE"))]:
        del environment[name]
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
    environment["PYTHONPATH"] = str(read_only[-1])
    environment.pop("TMPDIR", None)
    result = subprocess.run(
        [
            str(python),
            "-c",
            CONFINED,
            str(empty),
            str(NOBODY),
            str(folder),
            *map(str, (*read_only, home)),
            "--",
            "-c",
            code,
            *map(str, arguments),
        ],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if result.returncode == 99:
        pytest.skip(f"this machine does not allow mounts: {result.stderr.strip()}")
    return result


@pytest.fixture
def open_folder(dataset, tmp_path):
    """The dataset in a folder that an unprivileged user can reach and write to."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to run as another user with read-only folders")
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    folder = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    home = dataset.raw.parents[1]
    for place in (home, *home.rglob("*")):
        os.chown(place, NOBODY, NOBODY)
    tmp_path.chmod(0o711)
    return home


@pytest.mark.slow
def test_an_unprivileged_user_with_read_only_folders_predicts_evaluates_and_trains(open_folder, tmp_path):
    """No shared memory, no HOME, read-only packages; caches go where LONGFLOW_CACHE says."""
    home, cache = open_folder, open_folder / "cache"
    variables = {"LONGFLOW_HOME": str(home), "LONGFLOW_CACHE": str(cache)}
    images = home / "raw" / "Dataset001_Test" / "imagesTr"
    commands = (
        ("longflow_predict", "-d", 1, "-i", images, "-o", home / "out", "-t", 50, "--device", "cpu"),
        ("longflow_train", 1, "3d_fullres", 1, "--iterations", 2, "--device", "cpu"),
    )
    for command in commands:
        result = confined(tmp_path, *command, **variables)
        assert result.returncode == 0, result.stderr
        assert "not a writable directory" not in result.stderr and "Read-only" not in result.stderr
    assert len(list((home / "out").glob("*_t50.json"))) == 6
    assert (home / "results/Dataset001_Test/cronos__longflowPlans__3d_fullres/fold_1/progress.png").is_file()
    assert (cache / "matplotlib").is_dir() and not list((tmp_path / "user_home").iterdir())
