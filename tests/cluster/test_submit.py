"""What is submitted, with a Slurm that only keeps a list; tests/cluster/test_on_slurm.py has the real one."""

import stat

import pytest

from longflow.cluster.records import SubmittedJob, read_jobs, write_jobs
from longflow.cluster.request import read_study_data
from longflow.cluster.settings import ClusterSettings
from longflow.cluster.slurm import Queued, SlurmUnreachableError
from longflow.cluster.steps import study_steps
from longflow.cluster.study import study_of
from longflow.cluster.submit import cancel_all, for_cluster, known_jobs, print_scripts, submit_missing
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, ListedJobs, finish, request_of

RUNNING = Queued("RUNNING", "", "1:00", 0, "n1")
NEVER = Queued("PENDING", "DependencyNeverSatisfied", "1:00", 0, "")


@pytest.fixture
def slurm(monkeypatch):
    return ListedJobs(monkeypatch)


@pytest.fixture
def data(phantom_home):
    return read_study_data(DatasetPaths(NAME))


def submitted(request, data, settings=None):
    return submit_missing(study_of(request, data, data.parts), settings or ClusterSettings())


def test_a_study_becomes_arrays_with_dependencies(slurm, data):
    request = request_of(methods=("cronos", "tfm"))
    jobs, under_way = submitted(request, data)
    assert [(job.resources.kind, len(job.steps)) for job in jobs] == [
        *(
            ("prepare", 1),
            ("preprocess", 1),
            ("train", 4),
            ("find_best", 1),
            ("predict", 1),
            ("evaluate", 1),
            ("report", 1),
        )
    ]
    assert list(slurm.after.values()) == [[], ["100"], ["101"], ["102"], ["103"], ["104"], ["105"]]
    assert under_way == 0 and [job.number for job in read_jobs(request.paths.study.jobs)] == list(slurm.after)


def test_what_is_submitted_can_be_read_by_nobody_else(slurm, data):
    request = request_of()
    submitted(request, data)
    study = request.paths.study
    assert stat.S_IMODE(study.folder.stat().st_mode) == 0o700 == stat.S_IMODE(study.logs.stat().st_mode)


def test_the_same_command_again_submits_nothing(slurm, data):
    request = request_of()
    submitted(request, data)
    jobs, under_way = submitted(request, data)
    assert jobs == [] and under_way == 8 and len(slurm.after) == 7


def test_what_failed_is_submitted_again_and_what_waits_for_it(slurm, data):
    request = request_of()
    submitted(request, data)
    for step in study_steps(request, data)[:3]:
        finish(step, request, data)
    for number in ("100_0", "101_0", "102_0", "102_1"):  # fold 0 is done, fold 1 failed
        del slurm.waiting[number]
    jobs, under_way = submitted(request, data)
    assert [step.name for job in jobs for step in job.steps] == [
        *("train cronos 3d_fullres fold 1", "find best", "predict imagesTs", "evaluate", "report")
    ]
    assert under_way == 0 and slurm.cancelled == ["103_0", "104_0", "105_0", "106_0"]
    assert list(slurm.after.items())[7:] == [
        *(("107", []), ("108", ["107"]), ("109", ["108"]), ("110", ["109"]), ("111", ["110"]))
    ]


def test_a_running_fold_is_waited_for(slurm, data):
    request = request_of()
    submitted(request, data)
    for step in study_steps(request, data)[:2]:
        finish(step, request, data)
    slurm.waiting = {"102_0": RUNNING, "103_0": NEVER, "104_0": NEVER, "105_0": NEVER, "106_0": NEVER}  # fold 1 failed
    jobs, under_way = submitted(request, data)
    assert [len(job.steps) for job in jobs] == [1, 1, 1, 1, 1] and under_way == 1
    assert slurm.after["107"] == [] and slurm.after["108"] == ["107", "102_0"]


def test_a_long_array_is_split(monkeypatch, data):
    slurm = ListedJobs(monkeypatch, longest=3)
    jobs, _ = submitted(request_of(folds=(0, 1, 2, 3, 4)), data)
    assert [len(job.steps) for job in jobs if job.resources.kind == "train"] == [3, 2]
    assert slurm.after["102"] == slurm.after["103"] == ["101"] and slurm.after["104"] == ["102", "103"]


def test_a_refusal_leaves_nothing_behind_and_names_the_setting(slurm, data):
    slurm.refuses = "_train_"
    request, settings = request_of(), ClusterSettings(steps={"train": {"partition": "gpuu"}})
    with pytest.raises(ConfigurationError, match=r"invalid partition.*\n.*steps\.train\.partition.*it is 'gpuu'"):
        submitted(request, data, settings)
    assert slurm.cancelled == ["100", "101"] and slurm.waiting == {} and read_jobs(request.paths.study.jobs) == []


def test_a_scheduler_that_stops_answering_keeps_what_it_has(slurm, data):
    slurm.silent = "_train_"
    request = request_of()
    with pytest.raises(SlurmUnreachableError):
        submitted(request, data)
    assert slurm.cancelled == [] and [job.number for job in read_jobs(request.paths.study.jobs)] == ["100", "101", None]
    slurm.silent = ""
    jobs, under_way = submitted(request, data)
    assert [job.resources.kind for job in jobs] == [
        "train",
        "find_best",
        "predict",
        "evaluate",
        "report",
    ] and under_way == 2
    assert list(slurm.after.values())[2:] == [["101_0"], ["102"], ["103"], ["104"], ["105"]]


def test_a_job_whose_submission_was_interrupted_is_found_by_its_name(slurm, data):
    study = DatasetPaths(NAME).study
    jobs = [SubmittedJob(name=name, number=None, steps=("x",)) for name in ("interrupted", "refused")]
    write_jobs(jobs, study.jobs)
    assert known_jobs(study) == [SubmittedJob(name="interrupted", number="55", steps=("x",))]


def test_cancelling_counts_what_was_active(slurm, data):
    request = request_of()
    submitted(request, data)
    assert cancel_all(request.paths.study) == 8 and slurm.waiting == {}
    assert cancel_all(request.paths.study) == 0


def test_scripts_are_printed_without_slurm(data):
    request = request_of()
    study = request.paths.study
    written = print_scripts(study_of(request, data), ClusterSettings())
    assert [path.name.split("_")[1] for path in written[:-1]] == [
        *("prepare", "preprocess", "train", "find", "predict", "evaluate", "report")
    ]
    text = written[-1].read_text()
    assert written[-1].name == "submit.sh" and "job1=$(sbatch --parsable --dependency=afterok:$job0 lf900_pre" in text
    assert not study.jobs.exists()


def test_the_plans_are_for_the_gpus_that_will_train(data):
    assert for_cluster(request_of(), ClusterSettings()).planning == ("--preset", "M")
    without = ClusterSettings(steps={"train": {"gpus": 0}})
    chosen = request_of(planning=("--preset", "S"))
    assert for_cluster(request_of(), without) == request_of() and for_cluster(chosen, ClusterSettings()) == chosen
    finish(study_steps(request_of(), data)[0], request_of(), data)
    assert for_cluster(request_of(), ClusterSettings()) == request_of()  # planned already
