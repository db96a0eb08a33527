import subprocess
import sys
from pathlib import Path

import pytest

from longflow.cluster import slurm
from longflow.cluster.settings import ClusterSettings
from longflow.cluster.slurm import Queued, SlurmError, SlurmUnreachableError
from longflow.errors import NotFoundError


def played(monkeypatch, tmp_path, **commands):
    """Put commands into the PATH, as its only ones but for bash and Python; each is the body of a script."""
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


def test_without_slurm_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"No Slurm on this machine: the command sbatch is missing.*login node"):
        slurm.check_slurm()


def test_without_submitit_the_error_says_what_to_install(monkeypatch, tmp_path):
    played(monkeypatch, tmp_path, **dict.fromkeys(("sbatch", "squeue", "sacct", "scancel"), ""))
    slurm.check_slurm()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(NotFoundError, match=r"pip install \"longflow\[cluster\]\""):
        slurm.check_slurm()


def test_predicting_needs_no_submitit():
    imported = "longflow.cli.predict, longflow.inference.predictor, longflow.cli.run, longflow.cluster.submit"
    code = f"import sys; sys.modules['submitit'] = None; import {imported}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_is_submitted_after_others(monkeypatch, tmp_path):
    played(monkeypatch, tmp_path, sbatch=f'echo "$*" > {tmp_path}/call; echo "17;test"')
    assert slurm.submit(tmp_path / "x.sh", ["5", "6_1"]) == "17"
    assert (tmp_path / "call").read_text() == f"--parsable --dependency=afterok:5:6_1 {tmp_path}/x.sh\n"


def test_the_words_of_slurm_are_passed_on(monkeypatch, tmp_path):
    played(monkeypatch, tmp_path, sbatch="echo 'sbatch: error: no way' >&2; exit 1")
    with pytest.raises(SlurmError, match="sbatch: sbatch: error: no way"):
        slurm.submit(tmp_path / "x.sh", [])


@pytest.mark.parametrize(
    "words",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "error: If munged is up, restart with --num-threads=10\nerror: Munge encode failed: Failed to access socket",
        "slurm_load_jobs error: Protocol authentication error",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
    ],
)
@pytest.mark.parametrize("call", [slurm.queue, lambda: slurm.submit(Path("x"), []), lambda: slurm.cancel(["7"])])
def test_a_scheduler_that_does_not_answer_is_explained(monkeypatch, tmp_path, words, call):
    (tmp_path / "said").write_text(words)
    played(monkeypatch, tmp_path, **dict.fromkeys(("squeue", "sbatch", "scancel"), f"cat {tmp_path}/said >&2; exit 1"))
    with pytest.raises(SlurmUnreachableError) as raised:
        call()
    said = str(raised.value)
    assert "does not answer at present" in said and "Nothing is lost: running jobs go on" in said
    assert "again in a few minutes" in said and "the staff" in said and said.endswith(words)


def test_without_accounts_nothing_is_known_of_ended_jobs(monkeypatch, tmp_path):
    played(
        monkeypatch, tmp_path, sacct="echo 'sacct: error: connection to host:localhost: Connection refused' >&2; exit 1"
    )
    assert slurm.ended(["7"]) == {}


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("Batch job submission failed: Invalid partition name specified", "partition"),
        ("Invalid account or account/partition combination specified", "account"),
        ("Invalid qos specification", "qos"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time"),
        ("Memory specification can not be satisfied", "memory"),
        ("Invalid feature specification", "constraint"),
        ("Invalid generic resource (gres) specification", "gpus"),
        ("CPU count per node can not be satisfied", "cpus"),
        ("Node count specification invalid", "nodes"),
    ],
)
def test_a_refusal_names_the_line_of_the_settings(words, key):
    settings = ClusterSettings(
        **{key: "4h" if key == "time" else "x" if key in ("partition", "account", "qos") else None}
    )
    said = str(slurm.explained(SlurmError(f"sbatch: error: {words}"), "train", settings))
    assert words in said and f'Change "{key}"' in said and not slurm.NO_ANSWER.search(words)


def test_an_unknown_refusal_is_shown_as_it_is():
    assert "tea time" in str(slurm.explained(SlurmError("sbatch: tea time"), "train", ClusterSettings()))


def test_the_queue_is_read(monkeypatch, tmp_path):
    cells = ("7", "3", "RUNNING", "None", "1-02:00:00", "2", "gpu[01-02]")
    line = "".join(f"{cell:<{width}}" for cell, width in zip(cells, slurm.QUEUE.values(), strict=True))
    played(monkeypatch, tmp_path, squeue=f"echo '{line}'")
    assert slurm.queue() == {"7_3": Queued("RUNNING", "", "1-02:00:00", 2, "gpu[01-02]")}


def test_states_of_arrays_are_read_from_the_accounts(monkeypatch, tmp_path):
    lines = ["JobID|State|NodeList", "7_0|COMPLETED|n1", "7_[2-4%2]|PENDING|None assigned", "9|CANCELLED by 0|n1"]
    played(monkeypatch, tmp_path, sacct=f"cat {tmp_path}/accounts")
    (tmp_path / "accounts").write_text("\n".join(lines) + "\n")
    found = slurm.ended(["7", "9"])
    assert found["7_0"] == "COMPLETED" and found["7_3"] == "PENDING" and found["9"] == "CANCELLED"
    assert slurm.ended([]) == {}
    played(monkeypatch, tmp_path, sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert slurm.ended(["7"]) == {}


def test_the_longest_array_is_asked_for(monkeypatch, tmp_path):
    played(monkeypatch, tmp_path, scontrol="echo 'MaxArraySize            = 201'")
    assert slurm.longest_array() == 201


def test_jobs_are_cancelled_together(monkeypatch, tmp_path):
    played(monkeypatch, tmp_path, scancel=f'echo "$*" >> {tmp_path}/call')
    slurm.cancel([])
    slurm.cancel(["9", "7_1"])
    assert (tmp_path / "call").read_text() == "7_1 9\n"
