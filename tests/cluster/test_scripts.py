"""Batch scripts: their text, and what bash does with them. No Slurm is needed: its commands are played."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from longflow.cluster.request import read_study_data
from longflow.cluster.resources import resources_of
from longflow.cluster.scripts import Job, script_of, submit_script
from longflow.cluster.settings import ClusterSettings
from longflow.cluster.steps import Step, study_steps
from longflow.cluster.study import study_of
from longflow.commands import Command
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, request_of


@pytest.fixture
def study(phantom_home):
    return DatasetPaths(NAME).study


def job_of(settings, kind="train"):
    request = request_of()
    steps = [step for step in study_steps(request, read_study_data(request.paths)) if step.kind == kind]
    return Job(
        "lf900_0", tuple(steps), resources_of(steps[0], study_of(request, read_study_data(request.paths)), settings)
    )


def test_a_script_asks_for_what_the_settings_say(study):
    settings = ClusterSettings(partition="gpu", account="p1", parallel=3, memory=12.5, time="90m", cpus=4)
    text = script_of(job_of(settings), study)
    for line in (
        *("--partition=gpu", "--account=p1", "--array=0-1%3", "--mem=12500M", "--time=90", "--cpus-per-task=4"),
        *("--gres=gpu:1", "--signal=B:USR2@100", "--requeue", "--kill-on-invalid-dep=yes", "--ntasks-per-node=1"),
    ):
        assert f"#SBATCH {line}\n" in text
    assert "--qos" not in text and f"  export longflow_raw={study.folder.parents[2] / 'raw'}\n" in text
    assert f"run {sys.executable} -m longflow.cli.train {NAME} 3d_fullres 1 -m cronos" in text
    assert "-np 3" in text and "srun" not in text


def test_a_training_on_several_gpus_is_started_on_each(study):
    settings = ClusterSettings(steps={"train": {"gpus": 4, "nodes": 2}})
    text = script_of(job_of(settings), study)
    assert (
        "#SBATCH --nodes=2\n" in text and "#SBATCH --ntasks-per-node=4\n" in text and "#SBATCH --gres=gpu:4\n" in text
    )
    assert f"run srun --kill-on-bad-exit=1 {sys.executable} -m longflow.cli.train" in text


def test_setup_container_and_scratch(study):
    text = script_of(job_of(ClusterSettings(setup=["module load cuda"], scratch="$SLURM_TMPDIR")), study)
    assert "\nmodule load cuda\n" in text and "run python -m longflow.cli.train" in text
    assert "--scratch '$SLURM_TMPDIR'" in text  # longflow_train expands it on the node, at each start
    text = script_of(job_of(ClusterSettings(container="/images/longflow.sif")), study)
    assert (
        f"run apptainer exec --nv --bind {study.folder.parents[2]}/raw --bind" in text
        and "/images/longflow.sif python -m longflow.cli.train" in text
    )


def test_steps_of_the_processor_use_the_cores_of_the_job(study):
    text = script_of(job_of(ClusterSettings(cpus=3), "prepare"), study)
    assert text.count("-np 3") == 2  # longflow_plan has no such flag
    assert "--gres" not in text


def played(tmp_path, study, code, seconds="0", restarts=20):
    """Start the script of a job with one step that ends with a code when it gets SIGTERM; scontrol writes a file."""
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$*" > {tmp_path}/requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit({code})))\n"
        f"open('{tmp_path}/ready', 'w').close()\ntime.sleep({seconds})\nsys.exit({code if seconds == '0' else 0})\n"
    )
    python.chmod(0o755)
    step = Step("train x", "train", (Command("train", ("900",)),), (), lambda: False)
    resources = replace(job_of(ClusterSettings(setup=["true"])).resources, restarts=restarts)
    script = tmp_path / "script.sh"
    script.write_text(script_of(Job("job", (step,), resources), study))
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    environment |= {"SLURM_ARRAY_JOB_ID": "12", "SLURM_CPUS_PER_TASK": "2", "SLURM_RESTART_COUNT": "2"}
    return subprocess.Popen(["bash", script], env=environment, stdout=subprocess.PIPE, text=True)


def ready(tmp_path):
    end = time.monotonic() + 20
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 1, 137])
def test_the_code_of_the_command_is_that_of_the_job(tmp_path, study, code):
    process = played(tmp_path, study, code)
    assert process.wait(20) == code and not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("code", "sent", "restarts", "requeued"),
    [
        (130, signal.SIGUSR2, 20, True),
        (143, signal.SIGUSR2, 20, True),
        (1, signal.SIGUSR2, 20, False),  # an error is no interruption
        (130, signal.SIGTERM, 20, False),  # scancel
        (130, signal.SIGUSR2, 2, False),  # restarted twice already
    ],
)
def test_a_saved_training_goes_back_into_the_queue(tmp_path, study, code, sent, restarts, requeued):
    process = played(tmp_path, study, code, "20", restarts)
    ready(tmp_path)
    process.send_signal(sent)
    assert process.wait(20) == code
    assert (tmp_path / "requeued").exists() is requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 12_0\n"
        assert "goes back into the queue" in process.stdout.read()


def test_scripts_are_submitted_by_hand_in_order(tmp_path):
    resources = None
    first, second = Job("a", (), resources), Job("b", (), resources, depends_on=("a",), waits_for=("7_1",))
    (tmp_path / "sbatch").write_text('#!/bin/bash\necho "$*" >> "$CALLS"\necho 4${#2}\n')
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "submit.sh").write_text(submit_script([(first, tmp_path / "a.sh"), (second, tmp_path / "b.sh")]))
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    subprocess.run(["bash", tmp_path / "submit.sh"], env=environment, check=True, capture_output=True)
    assert (tmp_path / "calls").read_text() == "--parsable a.sh\n--parsable --dependency=afterok:44:7_1 b.sh\n"
