"""A real Slurm of two nodes on this machine, with accounting and two pretend GPUs each; for root, without systemd.

    python -m tests.cluster.slurm.two_nodes start      # prints the variable that makes sbatch and the others find it
    python -m tests.cluster.slurm.two_nodes stop

Debian's packages are in :data:`PACKAGES`; they start nothing by themselves in a container. Daemons are started here and
stopped by their process numbers. Several test processes share one Slurm: the last one stops it.

Each node is a slurmd of its own. Nodes are named by addresses of this machine, so that processes on them find each
other by the name of the first node, as on a real cluster.
"""

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from tests.ports import free_ports

PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "munge"),
    *("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server", "mariadb-client"),
)
COMMANDS = (
    "slurmctld",
    "slurmd",
    "sbatch",
    "munged",
    "slurmdbd",
    "mariadbd",
    "mariadb",
    "mariadb-install-db",
    "sacctmgr",
)

ROOT = Path(tempfile.gettempdir()) / "longflow-two-nodes-slurm"
#: clients of the accounting use munge's own socket, whatever the configuration says
MUNGE = Path("/run/munge/munge.socket.2")
NODES = ("127.0.0.1", "127.0.0.2")
#: of each node; cores are pretended, too: jobs of tests mostly wait
CORES, MEMORY_MB, GPUS = 4, 16000, 2
#: daemons in the order in which they start
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", *(f"slurmd.{node}" for node in NODES))

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
SlurmctldPort={controller}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={accounting}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
JobCompType=jobcomp/none
MpiDefault=none
EnforcePartLimits=ALL
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
SlurmdParameters=config_overrides
InactiveLimit=0
MinJobAge=300
KillWait=5
MaxArraySize=1001
GresTypes=gpu
NodeName=DEFAULT CPUs={cores} Boards=1 SocketsPerBoard=1 CoresPerSocket={cores} ThreadsPerCore=1 RealMemory={memory} \
Gres=gpu:{gpus} State=UNKNOWN
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=500 OverSubscribe=NO
PartitionName=short Nodes=ALL Default=NO MaxTime=10 State=UP DefMemPerCPU=500 OverSubscribe=NO
"""

ACCOUNTING = """\
AuthType=auth/munge
DbdHost=localhost
DbdPort={accounting}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


class NotStarted(Exception):
    """Slurm does not run; the message says why."""


def why_not() -> str:
    """Return why Slurm cannot be started here; empty where it can."""
    if missing := [name for name in COMMANDS if shutil.which(name, path=_path()) is None]:
        return (
            f"no Slurm: {missing[0]} is missing (as root: apt-get install --no-install-recommends {' '.join(PACKAGES)})"
        )
    return "" if os.geteuid() == 0 else "no Slurm: its daemons need root"


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, env=_environment(), **options)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _path(), "SLURM_CONF": str(ROOT / "slurm.conf")}


def write_configuration() -> int:
    """Write the files of the daemons, and make the pretend GPUs: null devices. :returns: the port of the database."""
    for name in ("state", "spool", "log", "run", "mysql"):
        (ROOT / name).mkdir(mode=0o755, parents=True)
    ROOT.chmod(0o755)
    shutil.chown(ROOT / "mysql", "mysql", "mysql")
    controller, accounting, database, *daemons = free_ports(3 + len(NODES))
    nodes = [
        f"NodeName={node} NodeHostname={platform.node()} NodeAddr={node} Port={port}"
        for node, port in zip(NODES, daemons, strict=True)
    ]
    values = {"root": ROOT, "host": platform.node(), "nodes": "\n".join(nodes), "controller": controller}
    values |= {"accounting": accounting, "database": database, "cores": CORES, "memory": MEMORY_MB, "gpus": GPUS}
    (ROOT / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (ROOT / "slurmdbd.conf").write_text(ACCOUNTING.format(**values))
    (ROOT / "slurmdbd.conf").chmod(0o600)
    for number in range(GPUS):
        os.mknod(ROOT / f"gpu{number}", 0o20666, os.makedev(1, 3))
    (ROOT / "gres.conf").write_text(f"Name=gpu File={ROOT}/gpu[0-{GPUS - 1}]\n")
    key = ROOT / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    return database


def _wait_for(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            logs = "".join(f"\n{log.name}: {log.read_text()[-500:]}" for log in sorted((ROOT / "log").glob("*.log")))
            raise NotStarted(f"{what} did not start within {seconds:g} s.{logs}")
        time.sleep(0.1)


def start() -> None:
    """Start all daemons.

    :raises NotStarted: one does not answer.
    """
    shutil.rmtree(ROOT, ignore_errors=True)
    database = write_configuration()
    start_munge()
    start_database(database)
    start_daemon("slurmdbd")
    _wait_for("slurmdbd", lambda: _run("sacctmgr", "-n", "show", "cluster").returncode == 0)
    _run("sacctmgr", "-i", "add", "cluster", "test", check=True)
    start_daemon("slurmctld")
    for node in NODES:
        start_daemon(f"slurmd.{node}")
    _wait_for("slurmd", lambda: _states() == {"idle"})


def start_munge() -> None:
    MUNGE.parent.mkdir(parents=True, exist_ok=True)
    MUNGE.parent.chmod(0o755)
    words = {"key": "munge.key", "pid": "run/munged.pid", "log": "log/munged.log", "seed": "run/munged.seed"}
    files = [f"--{name}-file={ROOT / path}" for name, path in words.items()]
    _run("munged", f"--socket={MUNGE}", *files, "--force", check=True)


def start_database(port: int) -> None:
    """Start MariaDB on a port of its own, and make the user of the accounting."""
    data, place = ROOT / "mysql", f"--socket={ROOT}/mysql/mariadbd.sock"
    install = ("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}")
    _run(*install, "--auth-root-authentication-method=normal", check=True)
    network = (place, "--bind-address=127.0.0.1", f"--port={port}", "--innodb-buffer-pool-size=64M")
    with open(ROOT / "log" / "mariadbd.log", "w") as log:
        subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                "--user=mysql",
                f"--datadir={data}",
                f"--pid-file={data}/mariadbd.pid",
                *network,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    client = ("mariadb", "--no-defaults", place, "-e")
    _wait_for("MariaDB", lambda: _run(*client, "select 1").returncode == 0)
    user = "create user 'slurm'@'127.0.0.1' identified by 'slurm', 'slurm'@'localhost' identified by 'slurm'"
    rights = "grant all on slurm_acct.* to 'slurm'@'127.0.0.1', 'slurm'@'localhost'"
    _run(*client, f"{user}; {rights}", check=True)


def start_daemon(name: str) -> None:
    """Start one of Slurm's daemons, as :data:`DAEMONS` names it."""
    program, _, node = name.partition(".")
    file = ROOT / ("slurmdbd.conf" if program == "slurmdbd" else "slurm.conf")
    options = () if program == "slurmdbd" else ("-f", file, *(("-N", node) if node else ()))
    subprocess.run(
        [program, *options], env={**_environment(), "SLURM_CONF": str(file)}, check=True, capture_output=True
    )


def stop_daemon(name: str) -> None:
    """Stop a daemon by its process number, and wait until it is gone."""
    file = ROOT / ("mysql" if name == "mariadbd" else "run") / f"{name}.pid"
    if not file.is_file():
        return
    number = int(file.read_text())
    try:
        os.kill(number, signal.SIGTERM)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            os.kill(number, 0)
            if Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
            time.sleep(0.1)
        os.kill(number, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        pass


def stop() -> None:
    """Cancel all jobs and stop all daemons; the folder stays for a look at its logs until the next start."""
    if (ROOT / "slurm.conf").is_file():
        _run("scancel", "--user=root")
        for name in reversed(DAEMONS):
            stop_daemon(name)


def drain_and_resume() -> None:
    """Let the nodes take no further jobs, and then take them again; they must be known to the controller."""
    _wait_for("the nodes", lambda: _states() <= {"idle", "mixed", "allocated"})
    nodes = [("scontrol", "update", f"NodeName={node}") for node in NODES]
    for node in nodes:
        _run(*node, "State=DRAIN", "Reason=test", check=True)
    _wait_for("draining", lambda: all(state.startswith("drain") for state in _states()))

    def resumes(*node: str) -> bool:
        # RESUME is for a node without jobs, UNDRAIN for one with jobs; each is an error for the other
        return any(_run(*node, f"State={state}").returncode == 0 for state in ("RESUME", "UNDRAIN"))

    for node in nodes:
        _wait_for("resuming", partial(resumes, *node))


def _states() -> set[str]:
    """The states of the nodes."""
    return set(_run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").stdout.split())


def kill_node(node: str) -> None:
    """Kill everything of a node at once, as if it lost its power; the controller is told, which takes it a minute."""
    file = ROOT / "run" / f"slurmd.{node}.pid"
    dying = [psutil.Process(int(file.read_text()))]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            variables = process.environ()
            if variables.get("SLURMD_NODENAME") == node and variables.get("SLURM_CONF", "").startswith(str(ROOT)):
                above = process.parent()
                dying += [above, process] if above and above.name() == "slurmstepd" else [process]
    for process in dying:
        with suppress(psutil.Error):
            process.kill()
    _run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test", check=True)


def start_node(node: str) -> None:
    """Start a node that died, and wait until it takes jobs."""
    start_daemon(f"slurmd.{node}")
    _run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    _wait_for("the node", lambda: _states() <= {"idle", "mixed", "allocated"})


def restart_controller() -> None:
    """Stop slurmctld, start it again, and wait until it answers."""
    stop_daemon("slurmctld")
    start_daemon("slurmctld")
    _wait_for("slurmctld", lambda: _run("scontrol", "ping").returncode == 0)


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Hold the list of processes that use the Slurm; what the block leaves in it is written down."""
    with open(f"{ROOT}.users", "a+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.seek(0)
        users = [number for number in map(int, file.read().split()) if Path(f"/proc/{number}").exists()]
        yield users
        file.truncate(0)
        file.write(" ".join(map(str, users)))
        file.flush()


@contextmanager
def turn() -> Iterator[None]:
    """Within the block no other process is in such a block: its jobs are the only ones, and it may restart daemons."""
    with open(f"{ROOT}.turn", "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Within the block Slurm runs; yield the variables that its commands need.

    :raises NotStarted: it cannot be started.
    """
    if why := why_not():
        raise NotStarted(why)
    with _counted() as users:
        if not users:
            stop()  # of a test process that was killed
            start()
        users.append(os.getpid())
    try:
        yield {"SLURM_CONF": str(ROOT / "slurm.conf")}
    finally:
        with _counted() as users:
            users.remove(os.getpid())
            if not users:
                stop()


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]]()
    print(f"export SLURM_CONF={ROOT / 'slurm.conf'}")
