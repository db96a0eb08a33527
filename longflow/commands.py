"""Commands of longflow, run on this machine as a user would type them."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from longflow.paths import VARIABLES


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


def run_command(command: Command, folders: Mapping[str, str]) -> int:
    """Run a command, its output passed through; return its exit code.

    Who is stopped here stops the command too, and waits until that has saved its work; where this process is killed,
    the command saves its work and ends.

    :param folders: the variables that say where things lie (:data:`longflow.paths.VARIABLES`), in place of our own.
    """
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | dict(folders)
    # as the console script does, but found in any environment, whether or not its bin folder is on the PATH
    launch = (
        f"from longflow.commands import end_with_parent; end_with_parent({os.getpid()})\n"
        f"from longflow.cli.{command.name} import main; raise SystemExit(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", launch, *command.arguments], env=environment)
    try:
        return process.wait()
    except BaseException as stop:
        # a terminal sends Ctrl-C to the command as well; any other end has to be passed on
        if not isinstance(stop, KeyboardInterrupt):
            process.terminate()
        process.wait()
        raise


def end_with_parent(parent: int, every: float = 0.5) -> None:
    """Send this process SIGTERM once the one that started it is gone: who runs it again must not find it at work.

    :param parent: its number. :param every: seconds between two looks. Windows hides that a parent ended.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
