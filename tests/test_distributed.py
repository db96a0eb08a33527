import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from longflow.distributed import Place, Processes, gpu_of, place_of, portable
from longflow.errors import ConfigurationError, DataError
from longflow.methods.weights import read_checkpoint
from longflow.reading import read_json
from longflow.training.logbook import read_progress
from tests.conftest import OWN_VARIABLES
from tests.tasks.segment.cohort import segment_plans
from tests.tasks.segment.test_validation import make_labelled
from tests.tasks.translate.cohort import make_pairs, phase_plans

VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def slurm_step(index, count, **further):
    """The variables that srun sets."""
    step = {
        "SLURM_STEP_NUM_TASKS": count,
        "SLURM_PROCID": index,
        "SLURM_LOCALID": index,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": os.getpid(),
        "SLURM_STEP_ID": 0,
    }
    return {name: str(value) for name, value in {**step, **further}.items()}


def test_the_place_of_a_process():
    assert place_of({}) == Place()
    assert place_of({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}) == Place(5, 8, 1)
    batch_script = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "a[1-2]"}
    assert place_of(batch_script) == Place()  # it is alone, whatever the job may start
    step = slurm_step(3, 4, SLURM_STEP_NODELIST="a[1-2]", SLURM_LOCALID=1, SLURM_JOB_ID=7, SLURM_STEP_ID=2)
    assert place_of(step) == Place(3, 4, 1, ("a1", 10_000 + 7 + 2 * 7919))
    assert place_of({**step, "MASTER_ADDR": "b", "MASTER_PORT": "99"}).address == ("b", 99)
    both = {**step, "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    assert place_of(both) == Place(1, 2, 1)  # torchrun, which srun started
    ports = {place_of(slurm_step(0, 2, SLURM_JOB_ID=job)).address[1] for job in range(0, 10**8, 10**4 + 1)}
    assert min(ports) >= 10_000 and max(ports) < 30_000


def test_each_process_has_a_gpu_of_its_own():
    assert [gpu_of(index, 4) for index in range(4)] == [0, 1, 2, 3]
    assert gpu_of(3, 1) == 0  # srun --gpus-per-task=1 shows each process its own
    with pytest.raises(ConfigurationError, match="Process 3 of this machine has no GPU: it sees 2"):
        gpu_of(2, 2)


def test_a_process_alone_agrees_with_itself():
    alone = Processes.start("cpu")
    assert (alone.index, alone.count, alone.first) == (0, 1, True) and alone.device == torch.device("cpu")
    assert alone.agree(0.25) == 0.25 and alone.gather("x") == ["x"] and alone.from_first(lambda: 3) == 3
    tensor = torch.ones(2)
    alone.take_from_first([tensor])
    assert tensor.tolist() == [1, 1]
    with pytest.raises(ValueError, match="mine"):
        alone.from_first(lambda: int("mine"))
    alone.end()


def test_errors_that_cannot_be_sent_are_described():
    class Own(Exception):
        pass

    assert str(portable(Own("text"), 2)) == "Process 2 failed: Own: text"
    error = DataError("kept")
    assert portable(error, 2) is error


def step_of_processes(home, codes, timeout=600, **further):
    """Start processes as srun does, each with its code; return them when they have ended."""
    common = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    common |= {"LONGFLOW_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    common["PYTHONPATH"] = str(Path(__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, *code],
            env={**common, **slurm_step(index, len(codes), **further)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, code in enumerate(codes)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
def test_two_processes_together_equal_one(dataset):
    """Primitives; gradients of both equal those of one process with both batches; validation is shared, bit by bit."""
    code = ["-c", "from tests.distributed_checks import check_all; check_all()"]
    for index, (returncode, output) in enumerate(step_of_processes(dataset.raw.parents[1], [code, code])):
        assert returncode == 0 and f"process {index} of 2: all equal" in output, output


@pytest.mark.slow
def test_two_processes_are_stopped_and_one_goes_on_and_both_predict(dataset, tmp_path):
    """As under Slurm: the warning comes to all; both end with 130. Another number of processes continues."""
    home, paths = dataset.raw.parents[1], dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    train = ["-m", "longflow.cli.train", "1", "3d_fullres", "0", "--device", "cpu", "--iterations"]
    warn = f"""
import os, signal, sys, threading, time
from pathlib import Path

def warn():
    while not Path({str(paths.progress_csv)!r}).is_file():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGUSR2)

threading.Thread(target=warn, daemon=True).start()
from longflow.cli.train import main
raise SystemExit(main({[*train[2:], "100000"]!r}))
"""
    ended = step_of_processes(home, [["-c", warn]] * 2)
    for returncode, output in ended:
        assert returncode == 130 and "Run the same command again" in output, output
    assert "samples a step. The learning rate" in ended[0][1]
    state = read_checkpoint(paths.latest).header["state"]
    assert state["iteration"] > 0 and state["batches"] == 2 * state["iteration"]
    run = read_json(paths.run)
    assert (run["processes"], run["global_batch_size"]) == (2, 2 * run["batch_size"])
    ((returncode, output),) = step_of_processes(home, [[*train, str(state["iteration"] + 2)]])
    assert returncode == 0 and "was begun by 2 processes and is continued by 1" in output, output
    assert read_json(paths.run)["processes"] == 1

    folder, outputs = dataset.raw / "imagesTr", [tmp_path / "two", tmp_path / "one"]
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    for out, count in zip(outputs, (2, 1), strict=True):
        predict = ["-m", "longflow.cli.predict", "-i", str(folder), "-o", str(out), "-t", "50", "--device", "cpu"]
        ended = step_of_processes(home, [predict] * count)
        assert all(returncode == 0 for returncode, _ in ended), ended
        assert sum("6 forecasts are in" in output for _, output in ended) == 1
    files = sorted(path.name for path in outputs[0].iterdir())
    assert len(files) == 6 * 2 + 2 and files == sorted(path.name for path in outputs[1].iterdir())
    assert all((outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes() for name in files)


def test_processes_that_do_not_find_each_other_say_so(monkeypatch):
    """The second process of two, without the first."""
    monkeypatch.setattr("longflow.distributed.TO_START", timedelta(seconds=1))
    for name, value in slurm_step(1, 2, MASTER_PORT=9).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigurationError, match=r"The 2 processes did not find each other at localhost:9 .*MASTER_ADDR"
    ):
        Processes.start("cpu")


def torchrun(home, *arguments, timeout=200):
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    environment |= {"LONGFLOW_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.slow
def test_two_processes_train_one_model(dataset):
    """Each draws its own batches; the first one writes; both leave."""
    home = dataset.raw.parents[1]
    result = torchrun(
        home, "-m", "longflow.cli.train", "Dataset001_Test", "3d_fullres", "0", "--iterations", "4", "--device", "cpu"
    )
    assert result.returncode == 0, result.stderr
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    assert read_checkpoint(paths.final).header["iteration"] in (2, 4)
    assert [entry.iteration for entry in read_progress(paths.progress_csv)] == [2, 4]
    assert not paths.latest.exists()


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_two_processes_pretrain_and_segment(tmp_path, monkeypatch, dimensions):
    """With batch normalisation, Dice over the batches of both (2D); what is written is written once."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset, _ = make_labelled(plans=segment_plans(dimensions=dimensions))
    configuration = "3d_fullres" if dimensions == 3 else "2d"
    flags = {
        "spatiotemporal": ("--set", "width=16"),
        "unet_consistent": ("--pretrained", "spatiotemporal", "--labelled_subjects", "1"),
    }
    common = ("--iterations", "3", "--device", "cpu")
    for method, further in flags.items():
        command = ("-m", "longflow.cli.train", dataset.name, configuration, "0", "-m", method, *common, *further)
        result = torchrun(tmp_path, *command)
        assert result.returncode == 0, result.stderr
        paths = dataset.model(method, "longflowPlans", configuration).fold(0)
        assert read_checkpoint(paths.final).header["iteration"] in (2, 3)
    assert result.stderr.count("Pretrained weights of") == 1
    assert read_json(paths.labelled_subjects) == ["s0"] and read_json(paths.pretrained)["loaded"]
    assert "loss_consistency" in read_progress(paths.progress_csv)[-1].found


@pytest.mark.slow
def test_two_processes_translate(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset, _ = make_pairs(phase_plans(2))
    command = ("-m", "longflow.cli.train", dataset.name, "2d", "0", "--iterations", "4", "--device", "cpu")
    result = torchrun(tmp_path, *command)
    assert result.returncode == 0, result.stderr
    paths = dataset.model("mfm", "longflowPlans", "2d").fold(0)
    assert read_checkpoint(paths.final).header["iteration"] in (2, 4)
    assert [entry.iteration for entry in read_progress(paths.progress_csv)] == [2, 4]
    assert len(list(paths.validation("translation").glob("*.nii.gz"))) == 2


AGREE_AND_FAIL = """
import torch
from longflow.distributed import Processes

processes = Processes.start("cpu")
assert processes.count == 2 and processes.agree(float(processes.index)) == 1.0
if processes.first:
    raise RuntimeError("the first one fails")
processes.agree(0.0)
"""


@pytest.mark.slow
def test_processes_agree_and_a_failure_ends_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(AGREE_AND_FAIL)
    result = torchrun(tmp_path, str(script), timeout=100)
    assert result.returncode != 0 and "the first one fails" in result.stderr
