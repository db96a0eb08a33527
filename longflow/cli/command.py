"""The parts that all commands share: parser, logging, exit codes.

Exit codes: 0 done; 1 the user's data or command; 2 our fault; 130 stopped by the user.
"""

import argparse
import atexit
import errno
import gc
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from longflow.errors import LongflowError
from longflow.stop import stopped_by_signals

EXIT_DONE, EXIT_USER, EXIT_OURS, EXIT_STOPPED = 0, 1, 2, 130

#: errors of the system that the user can solve
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)

#: variables with the caches of libraries, and their folders below LONGFLOW_CACHE
CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_HOME": "torch",
    "CUDA_CACHE_PATH": "cuda",
    "XDG_CACHE_HOME": "xdg",
    "XDG_CONFIG_HOME": "xdg_config",
}

#: kinds of Unicode that a terminal obeys instead of showing them: control characters, directions of writing
OBEYED = ("Cc", "Cs")
DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Write out what a terminal would obey: names of files and cells of tables can hold it.

    >>> printable("p01\x1b[31m")
    'p01\\\\x1b[31m'
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter not in "\n\t" and (unicodedata.category(letter) in OBEYED or letter in DIRECTIONS)
        else letter
        for letter in text
    )


class _Console(Console):
    """A console that writes out control characters in all text that it gets, in tables too."""

    def render_str(self, text: str, **options) -> Text:
        return super().render_str(printable(text), **options)


console = _Console(soft_wrap=True, emoji=False)
error_console = _Console(stderr=True, soft_wrap=True, emoji=False)


def say(text: str) -> None:
    """Print a text as it is: brackets in it are no markup, and numbers have no colour."""
    console.print(text, markup=False, highlight=False)


def show_error(message: str, kind: str = "Error:") -> None:
    """Print an error as it is: brackets in it are no markup."""
    error_console.print(Text.assemble((kind, "bold red"), f" {printable(message)}"), highlight=False)


class _PlainFormatter(logging.Formatter):
    """Writes out control characters in messages of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Parser(argparse.ArgumentParser):
    """An argument parser. Its errors end with exit code 1; its help keeps the example's line breaks."""

    def __init__(self, command: str, description: str, example: str):
        super().__init__(
            prog=command,
            description=description,
            epilog=f"example:\n{_indented(example)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("-v", "--verbose", action="store_true", help="print more messages")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str):
        self.print_usage(sys.stderr)
        show_error(f"{message}. See: {self.prog} --help")
        raise SystemExit(EXIT_USER)


def _indented(text: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())


def run(parser: Parser, work: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, set up logging, do the work, turn errors into messages and exit codes.

    :param work: does the work of the command with the parsed flags.
    :param arguments: None: those of the process.
    :returns: the exit code; the console scripts end with it.
    """
    options = parser.parse_args(arguments)
    _set_up_caches()
    _set_up_logging(options.verbose, options.debug)
    atexit.register(gc.freeze)  # else ending takes a second: Python searches for garbage among all that was imported
    try:
        with stopped_by_signals(), _only_installed_modules():
            work(options)
    except LongflowError as error:
        if options.debug:
            error_console.print_exception()
        show_error(str(error))
        return EXIT_USER
    except KeyboardInterrupt:
        error_console.print("Stopped. Run the same command again to continue.", highlight=False)
        return EXIT_STOPPED
    except BrokenPipeError:
        # the reader of our output is gone (`longflow_verify ... | head`): no error, and no message can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:
        if options.debug:
            error_console.print_exception()
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            place = f" ({error.filename})" if error.filename else ""
            show_error(
                f"{error.strerror}{place}. Free some space or check the permissions, then run the same command again: "
                "finished work is kept."
            )
            return EXIT_USER
        show_error(
            f"{type(error).__name__}: {error}\nPlease report it, with the output of the same command and --debug.",
            "This is a fault of longflow:",
        )
        return EXIT_OURS
    return EXIT_DONE


@contextmanager
def _only_installed_modules() -> Iterator[None]:
    """Let the processes that are started in the block import nothing from the current folder.

    That folder may be from somebody else, and Python puts it first for workers and for ``python -c``. Python 3.10
    cannot be told otherwise.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def _set_up_caches() -> None:
    """Keep what libraries cache below the folder that LONGFLOW_CACHE names; the user's own variables stay.

    Without it they write to the home folder, which compute nodes and containers may not let them do.
    """
    if folder := os.environ.get("LONGFLOW_CACHE"):
        for name, below in CACHES.items():
            os.environ.setdefault(name, os.path.join(os.path.expanduser(folder), below))


def set_up_process() -> None:
    """Set what libraries read when they are loaded; call it before torch is imported. The user's own values stay.

    Waiting threads must not spin: on shared machines that triples the time of a training step.

    oneDNN must not use AMX instructions: in bf16 gradients of some 3D convolutions it then writes beyond its memory.
    longflow computes nothing in bf16 on processors with AMX (:func:`longflow.networks.precision.computes_bf16`); this
    is the second lock.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


@contextmanager
def importing() -> Iterator[None]:
    """Import modules in the block without a search for garbage among their objects, then or later.

    These are hundreds of thousands, and stay until the process ends, when all of them would be searched once more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _set_up_logging(verbose: bool, debug: bool) -> None:
    handler = RichHandler(
        console=error_console, show_time=False, show_path=False, show_level=False, markup=False, highlighter=None
    )
    handler.setFormatter(_PlainFormatter("%(message)s"))
    handler.setLevel(logging.DEBUG if verbose or debug else logging.INFO)
    root = logging.getLogger("longflow")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(logging.DEBUG)
