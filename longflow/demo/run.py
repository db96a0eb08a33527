"""What the demos share: commands of longflow, run as a user would type them."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: what the demos train
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


@dataclass(frozen=True)
class Results:
    """What a demo ends with: a table, and lines below it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[str]


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
