import pytest

from longflow.cluster import resources
from longflow.cluster.request import read_study_data
from longflow.cluster.settings import ClusterSettings, StepSettings
from longflow.cluster.steps import study_steps
from longflow.cluster.study import study_of
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths
from tests.cluster.helpers import NAME, PLANS, finish, request_of


@pytest.fixture
def data(phantom_home):
    return read_study_data(DatasetPaths(NAME))


def sized(step, request, settings):
    return resources.resources_of(step, study_of(request, read_study_data(request.paths)), settings)


def test_steps_without_measurement_have_the_usual_sizes(data):
    request = request_of()
    found = {step.name: sized(step, request, ClusterSettings()) for step in study_steps(request, data)}
    fold = found["train cronos 3d_fullres fold 0"]
    assert (fold.gpus, fold.cores, fold.nodes, fold.processes, fold.seconds) == (1, 8, 1, 1, 24 * 3600)
    assert fold.restarts == 20 and "time not measured yet" in fold.why
    assert found["preprocess"].gpus == 0 and found["predict imagesTs"].gpus == 1
    assert fold == found["train cronos 3d_fullres fold 1"]  # one array


def test_settings_count_before_proposals(data):
    request, settings = request_of(), ClusterSettings(cpus=2, steps={"train": {"gpus": 4, "nodes": 2, "time": "2h"}})
    fold = sized(study_steps(request, data)[2], request, settings)
    assert (fold.cores, fold.gpus, fold.nodes, fold.processes, fold.seconds) == (2, 4, 2, 8, 7200)
    assert sized(study_steps(request, data)[0], request, settings).gpus == 0


def test_only_work_that_is_shared_out_has_several_processes(data):
    request, settings = request_of(), ClusterSettings(gpus=2, nodes=2)
    found = {step.kind: sized(step, request, settings) for step in study_steps(request, data)}
    asked = {kind: (one.nodes, one.gpus, one.processes) for kind, one in found.items()}
    assert asked["train"] == asked["predict"] == (2, 2, 4) and asked["evaluate"] == asked["prepare"] == (1, 2, 1)


def test_a_time_budget_is_the_time_of_a_training(data):
    request = request_of(max_time=36000.0)
    fold = sized(study_steps(request, data)[2], request, ClusterSettings())
    assert fold.seconds == 11 * 3600 + 900 and fold.restarts == 4  # 1 more, to save at the end, and 3 spare ones
    shorter = sized(study_steps(request, data)[2], request, ClusterSettings(time="2h"))
    assert shorter.seconds == 7200 and shorter.restarts == 8  # 40500 s in jobs of 7200 s less the lead: 6 of them


def test_time_and_memory_follow_what_was_measured(data):
    request = request_of(training=("--iterations", "1000"))
    steps = study_steps(request, data)
    for step in steps[:2]:
        finish(step, request, data)
    on_cpu = ClusterSettings(steps={"train": StepSettings(gpus=0)})
    assert "0.1 GB planned x 1.3 + 4" in sized(steps[3], request, on_cpu).why
    finish(steps[2], request, data, seconds=7200.0, iterations=2000, peak_memory=2_000_000_000)
    fold = sized(steps[3], request, on_cpu)
    assert fold.seconds == 3.6 * 1000 * 1.3 + 900 and fold.memory == 4  # 2 GB x 1.3 + 1, rounded up
    assert "1.6 h expected from finished folds" in fold.why and "2.0 GB of a process measured" in fold.why


def test_a_further_seed_takes_as_long_as_the_first_one(data):
    request = request_of(training=("--iterations", "1000"), seeds=(0, 1))
    steps = {step.name: step for step in study_steps(request, data)}
    for name in ("prepare", "preprocess", "train cronos 3d_fullres fold 0"):
        finish(steps[name], request, data, seconds=500.0, iterations=100)
    first, second = (
        sized(steps[f"train cronos 3d_fullres fold 1{seed}"], request, ClusterSettings()) for seed in ("", " seed 1")
    )
    assert "finished folds" in second.why and first == second


def test_before_a_fold_is_finished_they_follow_a_measurement(data):
    request = request_of(training=("--iterations", "1000"))
    steps = study_steps(request, data)
    for step in steps[:2]:
        finish(step, request, data)
    measured = request_of(measures=2)
    finish(study_steps(measured, data)[-1], measured, data)
    two, one = (ClusterSettings(steps={"train": StepSettings(gpus=gpus)}) for gpus in (2, 1))
    assert "time not measured yet" in sized(steps[2], request, one).why
    fold = sized(steps[2], request, two)
    expected = 1.3 * (0.5 * 1000 + 10 * 1000 / PLANS.training.iterations_per_epoch) + 900
    assert abs(fold.seconds - expected) <= 60 and "h expected from measured steps" in fold.why
    assert fold.memory == 2 * 7 and fold.restarts == 4  # 4 GB x 1.3 + 1, rounded up, for each process


def test_a_measurement_asks_for_an_hour_of_what_a_training_asks_for(data):
    request = request_of(measures=8)
    settings = ClusterSettings(steps={"train": StepSettings(gpus=4, nodes=2, time="24h")})
    found = sized(study_steps(request, data)[-1], request, settings)
    assert (found.kind, found.processes, found.seconds, found.cores) == ("measure", 8, 3600, 8)


def test_the_warning_comes_early_enough_to_save_a_checkpoint(data):
    request = request_of()
    step = study_steps(request, data)[2]
    assert sized(step, request, ClusterSettings()).lead == 100  # 2 GB at 50 MB/s, and a minute
    step.fold.folder.mkdir(parents=True)
    with open(step.fold.latest, "wb") as file:
        file.truncate(10_000_000_000)  # a hole
    assert sized(step, request, ClusterSettings()).lead == 260
    assert sized(study_steps(request, data)[0], request, ClusterSettings()).lead == 60


def test_a_time_limit_shorter_than_a_checkpoint_is_refused(data):
    request, settings = request_of(), ClusterSettings(steps={"train": {"time": "4m"}})
    with pytest.raises(
        ConfigurationError, match=r"steps\.train\.time in cluster\.json is 4 minutes.*at least 5 minutes"
    ):
        sized(study_steps(request, data)[2], request, settings)
