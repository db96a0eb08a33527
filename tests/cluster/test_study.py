import pytest

from longflow.cluster.request import read_study_data
from longflow.cluster.study import study_of
from tests.cluster.helpers import PLANS, finish, request_of


def test_a_study_has_the_steps_of_its_request(phantom_home):
    request = request_of()
    data = read_study_data(request.paths)
    study = study_of(request, data, parts=2)
    assert [step.name for step in study.steps][1:3] == ["preprocess part 1 of 2", "preprocess part 2 of 2"]
    assert study.files == request.paths.study and study.unfinished == list(study.steps)


@pytest.mark.parametrize(
    ("flags", "unplanned", "planned"),
    [
        (("--iterations", "7"), 7, 7),
        (("--epochs", "3"), None, 3 * PLANS.training.iterations_per_epoch),
        ((), None, PLANS.training.epochs * PLANS.training.iterations_per_epoch),
    ],
)
def test_the_length_of_a_training_is_known_with_the_plans(phantom_home, flags, unplanned, planned):
    request = request_of(training=flags)
    data = read_study_data(request.paths)
    study = study_of(request, data)
    assert study.plans is None and study.iterations == unplanned
    finish(study.steps[0], request, data)
    assert study.plans == PLANS and study.iterations == planned
