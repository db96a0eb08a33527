import pytest

from longflow.cluster.request import default_folds, read_request, read_study_data, resolve_request
from longflow.errors import ConfigurationError, NotFoundError
from longflow.files import write_json
from longflow.methods.registry import method_class
from longflow.paths import DatasetPaths
from longflow.plans import write_plans
from tests.cluster.helpers import NAME, request_of
from tests.methods.helpers import minimal_plans


@pytest.fixture
def data(phantom_home):
    return read_study_data(DatasetPaths(NAME))


def test_the_tables_say_what_a_study_has(data):
    assert len(data.subjects) == 8 and all(len(cases) == 4 for cases in data.subjects.values())
    assert data.requested == 4 and data.has_references and data.prediction_flags == ()
    assert data.parts == 1


def test_without_test_scans_nothing_is_predicted(phantom_home):
    (phantom_home / "raw" / NAME / "imagesTs").rename(phantom_home / "elsewhere")
    data = read_study_data(DatasetPaths(NAME))
    assert data.requested == 0 and not data.has_references


def test_folds_are_those_of_the_splits_or_those_that_they_will_have(data):
    paths = DatasetPaths(NAME)
    assert default_folds(paths, data) == (0, 1, 2, 3, 4)
    write_json([{"train": ["a"], "val": ["b"]}] * 3, paths.splits)
    assert default_folds(paths, data) == (0, 1, 2)


def test_a_request_gets_the_defaults_of_the_task(data):
    request = resolve_request(request_of(methods=(), configurations=(), folds=()), data)
    assert request.methods == ("cronos",) and request.configurations == ("3d_fullres",)
    assert request.folds == (0, 1, 2, 3, 4) and request.predicts


def test_the_configuration_is_one_of_the_plans(data):
    plans = minimal_plans()
    only = {"2d": plans.configurations["3d_fullres"]}
    write_plans(plans.model_copy(update={"configurations": only}), DatasetPaths(NAME).plans())
    assert resolve_request(request_of(configurations=()), data).configurations == ("2d",)
    with pytest.raises(NotFoundError, match="3d_fullres"):
        resolve_request(request_of(), data)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ("crones",)}, NotFoundError, "Did you mean 'cronos'"),
        ({"methods": ("mfm",)}, ConfigurationError, "for the task 'translate', but Dataset900_Phantom has"),
        ({"methods": ("lci",)}, ConfigurationError, "has nothing to train"),
        ({"pretrained": "spatiotemporal"}, ConfigurationError, "for the task 'segment'"),
    ],
)
def test_a_method_that_cannot_be_trained_is_refused_before_anything_starts(data, changes, error, message):
    with pytest.raises(error, match=message):
        resolve_request(request_of(**changes), data)


def test_pretraining_is_a_step_of_its_own(data):
    request = resolve_request(request_of(methods=("tfm", "cronos"), pretrained="tfm"), data)
    assert request.methods == ("cronos",)


def test_every_method_is_trained_with_every_network(data):
    default, other = method_class("tfm").networks[:2]
    request = resolve_request(request_of(methods=("tfm",)), data, networks=(default, other, other))
    assert request.methods == ("tfm", f"tfm-{other}")
    assert resolve_request(request_of(methods=(f"tfm-{other}",)), data).methods == (f"tfm-{other}",)
    # as longflow_train names its folder
    assert resolve_request(request_of(methods=(f"tfm-{default}",)), data).methods == ("tfm",)
    pretrained = resolve_request(request_of(pretrained=f"tfm-{default}"), data).pretrained
    assert pretrained == "tfm"
    with pytest.raises(NotFoundError, match=other):
        resolve_request(request_of(methods=("tfm",)), data, networks=(f"{other}s",))
    with pytest.raises(ConfigurationError, match=f"names a network already: leave --network {other} away"):
        resolve_request(request_of(methods=(f"tfm-{default}",)), data, networks=(other,))


def test_a_request_has_a_seed(data):
    with pytest.raises(ValueError, match="seeds"):
        request_of(seeds=())


def test_a_request_is_written_and_read(data):
    request = request_of(training=("--iterations", "4"), max_time=None)
    with pytest.raises(NotFoundError, match="longflow_run -d 900"):
        read_request(request.paths)
    write_json(request.model_dump(mode="json"), request.paths.study.request)
    assert read_request(request.paths) == request


def test_two_phases_of_test_scans_are_translated_to_the_first(tmp_path, monkeypatch):
    from longflow.demo.abdomen_cohort import DATASET_NAME, write_abdomen_cohort

    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    write_abdomen_cohort(tmp_path / "raw" / DATASET_NAME, subjects=3, test_subjects=1, shape=(4, 24, 24))
    data = read_study_data(DatasetPaths(DATASET_NAME))
    assert data.prediction_flags == ("--to", "native")
    assert data.requested > 0 and data.has_references
