"""The commands of longflow: their table, and how to run one on this machine as a user would type it.

``setup.py`` reads ``COMMANDS`` from the text of this file, so that the table stays a literal.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from longflow.paths import VARIABLES
from longflow.stop import Stopped, shielded_children

#: name, module in ``longflow.cli`` and summary of every command, in the order of use
COMMANDS = (
    ("longflow", "overview", "show this list"),
    ("longflow_demo", "demo", "run everything on a phantom cohort, in minutes"),
    ("longflow_import", "import_dataset", "write a raw dataset from other formats"),
    ("longflow_deidentify", "deidentify", "remove identities from DICOM files"),
    ("longflow_verify", "verify", "show all problems of a raw dataset"),
    ("longflow_register", "register", "align the scans of every subject"),
    ("longflow_run", "run", "everything from here to evaluate, in one"),
    ("longflow_status", "status", "show how far longflow_run is"),
    ("longflow_plan_and_preprocess", "plan_and_preprocess", "longflow_verify and these three, in one:"),
    ("longflow_extract_fingerprint", "extract_fingerprint", "measure the properties of the data"),
    ("longflow_plan", "plan", "decide time scale, patch, batch, network"),
    ("longflow_preprocess", "preprocess", "crop, resample, bring to the normal form"),
    ("longflow_train", "train", "train a method on one fold or all"),
    ("longflow_find_best", "find_best", "choose the model by cross-validation"),
    ("longflow_calibrate", "calibrate", "make intervals of volumes in forecasts"),
    ("longflow_predict", "predict", "forecast, segment or translate scans"),
    ("longflow_evaluate", "evaluate", "compare predictions with references"),
    ("longflow_lesions", "lesions", "follow lesions through a subject's visits"),
    ("longflow_report", "report", "show a study and predictions in a browser"),
    ("longflow_compare", "compare", "train and compare many forecasting methods"),
    ("longflow_translate_dataset", "translate_dataset", "write a dataset's images in another phase"),
    ("longflow_export", "export", "write a segmentation as nnU-Net's model folder"),
    ("longflow_export_dicom", "export_dicom", "write predictions as DICOM, for the PACS"),
    ("longflow_export_reader_study", "export_reader_study", "write blinded images of a reader study"),
    ("longflow_export_bids", "export_bids", "write predictions as BIDS derivatives"),
)

#: the commands that longflow_plan_and_preprocess runs; the overview indents them
PARTS_OF_PLANNING = ("longflow_extract_fingerprint", "longflow_plan", "longflow_preprocess")


@dataclass(frozen=True)
class Command:
    """A command with its arguments.

    :param name: without ``longflow_``; also the name of its module in ``longflow.cli``.
    """

    name: str
    arguments: tuple[str, ...]

    @property
    def typed(self) -> str:
        """Return the command as a user types it."""
        return shlex.join([f"longflow_{self.name}", *self.arguments])


def run_command(command: Command, folders: Mapping[str, str]) -> int:
    """Run a command and return its exit code; its output is passed through.

    If this process is interrupted, the command is told to end, and its saving is waited for. If this process is
    killed, the command saves its work and ends.

    :param folders: the variables with the folders of data (:data:`longflow.paths.VARIABLES`), in place of our own.
    """
    process = start_command(command, folders)
    with ended_together([process]):
        return process.wait()


def start_command(command: Command, folders: Mapping[str, str], log: TextIO | None = None) -> subprocess.Popen:
    """Start a command in a process that ends when this one does.

    :param folders: variables of its environment, among them those with the folders of data.
    :param log: open file for its output; None: that of this process.
    """
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | dict(folders)
    # as the console script does, but found in any environment, whether or not its bin folder is on the PATH
    launch = (
        f"from longflow.commands import end_with_parent; end_with_parent({os.getpid()})\n"
        f"from longflow.cli.{command.name} import main; raise SystemExit(main())"
    )
    call = [sys.executable, "-c", launch, *command.arguments]
    with shielded_children():  # until it handles signals itself
        return subprocess.Popen(call, env=environment, stdout=log, stderr=log)


@contextmanager
def ended_together(processes: Collection[subprocess.Popen]) -> Iterator[None]:
    """If this process is interrupted within the block, tell commands to end, and wait until they have saved their work.

    :param processes: commands; their number can change within the block.
    """
    try:
        yield
    except BaseException as stop:
        for process in processes:
            # a terminal sends Ctrl-C to the command as well; any other end has to be passed on
            if isinstance(stop, Stopped) or not isinstance(stop, KeyboardInterrupt):
                process.terminate()
        for process in processes:
            process.wait()
        raise


def why_ended(code: int) -> str:
    """Explain the exit code of a command that failed.

    >>> why_ended(1)
    'exit code 1, its message is above'
    """
    if code < 0:
        return f"ended by the system (signal {-code}), most often because memory ran out"
    return f"exit code {code}, its message is above"


def end_with_parent(parent: int, every: float = 0.5) -> None:
    """Send SIGTERM to this process when its parent is gone, so that no second run meets it at work.

    Windows does not show that a parent ended.

    :param parent: process number of the parent.
    :param every: seconds between two checks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
