from dataclasses import replace

import pytest

from longflow.cluster import slurm as module
from longflow.cluster.records import SubmittedJob
from longflow.cluster.request import read_study_data
from longflow.cluster.slurm import Queued
from longflow.cluster.status import estimated_left, last_line, progress_of, slurm_state, study_status, summary_of
from longflow.cluster.steps import study_steps
from longflow.cluster.study import study_of
from longflow.files import write_csv
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, finish, request_of

JOBS = [
    SubmittedJob(name="p", number="1", steps=("prepare",)),
    SubmittedJob(name="q", number="2", steps=("preprocess",)),
    SubmittedJob(name="t", number="3", steps=("train cronos 3d_fullres fold 0", "train cronos 3d_fullres fold 1")),
    SubmittedJob(name="b", number="4", steps=("find best",)),
    SubmittedJob(name="i", number="5", steps=("predict imagesTs",)),
    SubmittedJob(name="e", number="6", steps=("evaluate",)),
    SubmittedJob(name="r", number="7", steps=("report",)),
]


@pytest.fixture
def data(phantom_home):
    return read_study_data(DatasetPaths(NAME))


@pytest.fixture
def steps(data):
    """Prepared and preprocessed."""
    steps = study_steps(request_of(), data)
    for step in steps[:2]:
        finish(step, request_of(), data)
    return steps


def study(request, steps):
    return replace(study_of(request, read_study_data(request.paths)), steps=steps)


def write_progress(fold, iteration, seconds):
    row = {"epoch": 1, "iteration": iteration, "seconds": seconds}
    write_csv(list(row), [row], fold.progress_csv)


def states(found):
    return [one.state for one in found]


def test_every_step_has_its_state(steps):
    request = request_of(training=("--iterations", "100"))
    write_progress(steps[2].fold, 25, 50.0)
    log = request.paths.study.log("t", 0)
    log.parent.mkdir(parents=True)
    log.write_text("start\n\x1b[2Ktraining\n\n")
    queue = {
        "3_0": Queued("RUNNING", "", "2:00:00", 1, "gpu07"),
        "3_1": Queued("PENDING", "Priority", "2:00:00", 0, ""),
        "4_0": Queued("PENDING", "Dependency", "1:00", 0, ""),
    }
    found = study_status(study(request, steps), JOBS[:4], queue, {})
    assert states(found) == ["done", "done", "running", "waiting", "waiting", *["not started"] * 3]
    running = found[2]
    assert (running.share, running.left, running.node, running.restarts) == (0.25, 150.0, "gpu07", 1)
    assert running.last_line == "training" and running.job == "3_0"
    assert "higher priority" in found[3].reason and "not done" in found[4].reason
    assert summary_of(found) == {"running": 1, "waiting": 2, "not started": 3, "done": 2}
    assert estimated_left(found) == 150.0


def test_what_waits_for_a_failure_says_so(steps):
    ended = {"3_0": "TIMEOUT", "3_1": "OUT_OF_MEMORY", "4_0": "CANCELLED", "5_0": "CANCELLED"}
    queue = {f"{job}_0": Queued("PENDING", "DependencyNeverSatisfied", "1:00", 0, "") for job in (6, 7)}
    found = study_status(study(request_of(), steps), JOBS, queue, ended)
    assert states(found) == ["done", "done", *["failed"] * 6]
    reasons = [one.reason for one in found[2:]]
    assert "time was over" in reasons[0] and "raise memory" in reasons[1]
    assert reasons[2] == "was not started, because it waits for train cronos 3d_fullres fold 0, which failed"
    assert reasons[3].endswith("find best, which failed") and reasons[4].endswith("predict imagesTs, which failed")


def test_a_result_counts_more_than_the_words_of_slurm(steps, data):
    finish(steps[2], request_of(), data)
    found = study_status(study(request_of(), steps), JOBS, {}, {"3_0": "FAILED", "3_1": "COMPLETED"})
    assert states(found)[2:4] == ["done", "failed"] and found[3].reason == "ended without its result"


def test_without_accounts_a_job_that_is_gone_has_failed(steps):
    found = study_status(study(request_of(), steps), JOBS[:3], {}, {})
    assert found[2].reason == "Slurm does not know the job any more"


def test_on_this_machine_a_locked_fold_runs(steps):
    fold = steps[2].fold
    write_progress(fold, 1, 3.0)
    assert states(study_status(study(request_of(), steps), [], {}, {}))[2] == "not started"
    fold.lock.touch()
    found = study_status(study(request_of(max_time=12.0), steps), [], {}, {})
    assert states(found)[2:4] == ["running", "not started"] and (found[2].share, found[2].left) == (0.25, 9.0)


def test_progress_is_unknown_before_the_first_epoch(steps):
    assert progress_of(study(request_of(), steps), steps[2].fold) == (None, None)
    write_csv(["epoch", "iteration", "seconds"], [], steps[2].fold.progress_csv)
    assert progress_of(study(request_of(), steps), steps[2].fold) == (0.0, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", ""), (b"a\nb\n", "b"), (b"10 %\r20 %\r", "20 %"), (b"x" * 9000 + b"\nend", "end"), (b"\xff\n", "\ufffd")],
)
def test_the_last_line_of_a_log(tmp_path, content, expected):
    assert last_line(tmp_path / "log") == ""
    (tmp_path / "log").write_bytes(content)
    assert last_line(tmp_path / "log") == expected


def test_jobs_that_can_never_start_are_cancelled(monkeypatch):
    cancelled, asked = [], []
    queue = {
        "3_0": Queued("RUNNING", "", "", 0, "n"),
        "4_0": Queued("PENDING", "DependencyNeverSatisfied", "", 0, ""),
        "99_0": Queued("PENDING", "DependencyNeverSatisfied", "", 0, ""),  # of somebody else's study
    }
    monkeypatch.setattr(module, "queue", lambda: queue)
    monkeypatch.setattr(module, "cancel", cancelled.extend)
    monkeypatch.setattr(module, "ended", lambda jobs: asked.extend(jobs) or {})
    found, _, hopeless = slurm_state(JOBS)
    assert set(found) == {"3_0", "4_0"} and hopeless == cancelled == ["4_0"]
    assert asked == ["1", "2", "3", "5", "6", "7"]  # element 1 of job 3 is in the queue no more
