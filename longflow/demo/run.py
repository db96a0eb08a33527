"""The demo: a phantom cohort, and the commands of longflow on it, run as a user would type them."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longflow.data.dataset import image_path, read_description, read_rows
from longflow.data.images import read_scan
from longflow.demo.cohort import DATASET_NAME, cohort_subject
from longflow.demo.phantom import expected_scan
from longflow.evaluation.metrics import nrmse
from longflow.paths import DatasetPaths

CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Command:
    """A command of longflow.

    :param name: without ``longflow_``; also the name of its module in ``longflow.cli``.
    """

    name: str
    arguments: tuple[str, ...]

    @property
    def typed(self) -> str:
        """As a user types it."""
        return shlex.join([f"longflow_{self.name}", *self.arguments])


def raw_folder(home: Path) -> Path:
    """Where the cohort is written."""
    return home / "raw" / DATASET_NAME


def forecast_folder(home: Path) -> Path:
    """Where the forecasts of the held-out subjects, their numbers and their figure are written."""
    return home / "forecasts"


def demo_commands(home: Path, max_time: str) -> list[Command]:
    """What the demo runs, in order."""
    dataset = DatasetPaths(DATASET_NAME).id
    wanted, forecasts = str(raw_folder(home) / "imagesTs"), str(forecast_folder(home))
    return [
        Command("plan_and_preprocess", ("-d", dataset, "--preset", "tiny")),
        Command("train", (dataset, CONFIGURATION, "0", "--max_time", max_time)),
        Command("find_best", ("-d", dataset)),
        Command("predict", ("-i", wanted, "-o", forecasts)),
        Command("evaluate", ("-d", dataset, "-i", forecasts)),
    ]


def run_command(command: Command, home: Path) -> int:
    """Run a command with ``LONGFLOW_HOME`` at ``home``, its output passed through; return its exit code.

    A demo that is stopped stops its command too, and waits until that has saved its work.
    """
    own = {"longflow_raw", "longflow_preprocessed", "longflow_results"}
    environment = {key: value for key, value in os.environ.items() if key not in own}
    environment["LONGFLOW_HOME"] = str(home.resolve())
    # as the console script does, but found in any environment, whether or not its bin folder is on the PATH
    launch = f"from longflow.cli.{command.name} import main; raise SystemExit(main())"
    process = subprocess.Popen([sys.executable, "-c", launch, *command.arguments], env=environment)
    try:
        return process.wait()
    except BaseException as stop:
        # a terminal sends Ctrl-C to the command as well; any other end has to be passed on
        if not isinstance(stop, KeyboardInterrupt):
            process.terminate()
        process.wait()
        raise


def attainable_nrmse(raw: Path) -> float:
    """Mean NRMSE of the law itself over the wanted targets: what is left is the noise of their scans."""
    description = read_description(raw / "dataset.json")
    found = []
    for row in read_rows(raw / "imagesTs" / "scans.csv"):
        truth = image_path(raw / "targetsTs", row.case, 0, description)
        if truth.is_file():
            target = read_scan((truth,)).array
            law = expected_scan(cohort_subject(raw, row.subject), float(row.time), target.shape[1:])
            found.append(nrmse(law[None], target))
    return float(np.mean(found))
