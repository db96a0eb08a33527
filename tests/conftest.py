"""What several rooms' tests share: a tiny phantom cohort, and commands run as a user runs them."""

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from longflow.parallel import start_server
from longflow.stop import STOPPING

# tiny tensors on several threads wait more than they compute; commands in a process of their own are left to choose,
# unless tests run in parallel (pytest -n)
THREADS_OF_THE_USER = os.environ.get("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else None)
os.environ["OMP_NUM_THREADS"] = THREADS_OF_THE_USER or "1"
# consoles take their width when they are made: whichever test comes first, no message is wrapped within a name
os.environ["COLUMNS"] = "200"
# as commands do: tests that compute in bf16 must not do so with AMX instructions (networks/test_precision.py)
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

#: folder of public data sets that are not in the repository; tests that need them are skipped without
OUTSIDE_DATA = Path(os.environ.get("LONGFLOW_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

# generated headers, tables and JSON: pytest --hypothesis-profile long tries a hundred times as many
for _profile, _examples in (("ci", 1_000), ("long", 100_000)):
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        derandomize=_profile == "ci",  # the same examples in every run: a failure is never chance
        database=None,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("ci")

OWN_VARIABLES = ("LONGFLOW_HOME", "longflow_raw", "longflow_preprocessed", "longflow_results")


def outside_data(name: str) -> Path:
    """Return a folder of :data:`OUTSIDE_DATA`; skip the test where it does not exist.

    :param name: path in it, as "acdc/training".
    """
    if not (OUTSIDE_DATA / name).is_dir():
        pytest.skip(f"needs public data that are not in the repository: {name} in the folder LONGFLOW_TEST_DATA")
    return OUTSIDE_DATA / name


@contextmanager
def small_disk(bytes_that_fit: int) -> Iterator[None]:
    """Within the block no file of this process can grow further: writing fails as on a full disk.

    Nothing may be reported inside it: the output of the tests can itself be a file.
    """
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_that_fit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="session", autouse=True)
def server_of_workers() -> None:
    """Start the server of worker processes before any test changes limits or variables that it would keep."""
    start_server("longflow.preprocessing.run", "longflow.fingerprint.spatial")


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Handle and block the signals after a test as before it: a command that was stopped ignores further ones."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


_HOLD = "import sys; from pathlib import Path; from longflow.files import exclusive_lock\n"
_HOLD += "with exclusive_lock(Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()"


@contextmanager
def another_process_holds(lock: Path) -> Iterator[subprocess.Popen]:
    """Within the block another process holds a lock; yield that process."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory) -> Path:
    """A folder for LONGFLOW_HOME with ``raw/Dataset900_Phantom``: 8 subjects x 4 scans of 8 x 32 x 32, 2 held out.

    It is shared by all tests: copy it before writing into it anything that another test could stumble over.
    """
    from longflow.demo.cohort import DATASET_NAME, write_cohort

    home = tmp_path_factory.mktemp("phantom")
    write_cohort(home / "raw" / DATASET_NAME, subjects=8, test_subjects=2, shape=(8, 32, 32), scans=(4, 4))
    return home


@pytest.fixture(scope="session")
def brain_dataset(tmp_path_factory) -> Path:
    """A folder for LONGFLOW_HOME with ``raw/Dataset901_BrainPhantom``: 5 subjects x 2 or 3 visits of 16 x 24 x 20.

    Two more subjects are held out. It is shared by all tests, as ``phantom_dataset``.
    """
    from longflow.demo.brain_cohort import DATASET_NAME, write_brain_cohort

    home = tmp_path_factory.mktemp("brain")
    write_brain_cohort(home / "raw" / DATASET_NAME, subjects=5, test_subjects=2, shape=(16, 24, 20), visits=(2, 3))
    return home


@pytest.fixture
def phantom_home(phantom_dataset, tmp_path, monkeypatch) -> Path:
    """A LONGFLOW_HOME of one's own with the phantom cohort's raw data alone, and a wide screen."""
    shutil.copytree(phantom_dataset / "raw", tmp_path / "raw")
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture(scope="session")
def _prepared_home(tmp_path_factory) -> Path:
    from tests.training.helpers import make_dataset

    home = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFLOW_HOME", str(home))
        make_dataset()
    return home


@pytest.fixture
def dataset(_prepared_home, tmp_path, monkeypatch):
    """A dataset that is ready for training, made once and copied for each test.

    Six subjects of four scans, 5 x 10 x 12 voxels; plans of tests.methods.helpers; preprocessed.
    """
    from longflow.paths import DatasetPaths

    shutil.copytree(_prepared_home, tmp_path / "home")
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    return DatasetPaths("Dataset001_Test")


@pytest.fixture(scope="session")
def _validated_home(_prepared_home, tmp_path_factory):
    from longflow.paths import DatasetPaths
    from tests.tasks.forecast.calibrating import validated_model

    home = tmp_path_factory.mktemp("validated") / "home"
    shutil.copytree(_prepared_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFLOW_HOME", str(home))
        validated_model(DatasetPaths("Dataset001_Test"))
    return home


@pytest.fixture
def validated_dataset(_validated_home, tmp_path, monkeypatch):
    """:func:`dataset` with five finished folds that forecast LCI, and their out-of-fold forecasts."""
    from longflow.paths import DatasetPaths

    shutil.copytree(_validated_home, tmp_path / "home")
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    return DatasetPaths("Dataset001_Test")


def run_command(*arguments: object, home: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run a command, as ``run_command("longflow_verify", "-d", 900, home=...)``; stdout and stderr are text.

    :param home: LONGFLOW_HOME of the process, whatever the environment of the tests says.
    """
    from longflow.commands import COMMANDS

    command, *rest = (str(argument) for argument in arguments)
    module = {name: module for name, module, _ in COMMANDS}[command]
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    if THREADS_OF_THE_USER is None:
        environment.pop("OMP_NUM_THREADS")
    environment["COLUMNS"] = "200"
    if home is not None:
        environment["LONGFLOW_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-c", f"from longflow.cli.{module} import main; raise SystemExit(main())", *rest],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(name="run_command", scope="session")
def run_command_fixture():
    """:func:`run_command`, for tests that do not import it."""
    return run_command


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch):
    """Tests never write to the datasets of whoever runs them."""
    for name in OWN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_logging_of_earlier_commands():
    """A command sets up the package's logger for its own screen, which is gone after the test."""
    yield
    logger = logging.getLogger("longflow")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
