from dataclasses import asdict

import pytest

from longflow.errors import ConfigurationError, NotFoundError
from longflow.files import write_json
from longflow.plans import read_plans
from longflow.training.run import RunSettings
from longflow.training.start import check_same_settings, pretrained_file
from tests.training.helpers import finished_model
from tests.training.test_trainer import train


@pytest.mark.parametrize(
    ("begun", "wanted", "message"),
    [
        ({"pretrained": "tfm"}, {}, "was begun with pretrained = tfm, this command has None"),
        ({"labelled_subjects": "2"}, {"labelled_subjects": "3"}, "labelled_subjects = 2, this command has 3"),
        (
            {"options": {"width": 8}},
            {"options": {"width": 9}},
            r"options = {'width': 8}, this command has {'width': 9}",
        ),
    ],
)
def test_a_fold_keeps_what_it_was_begun_with(dataset, begun, wanted, message):
    paths = dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    write_json({"settings": asdict(RunSettings(**begun))}, paths.run)
    check_same_settings(paths, RunSettings(epochs=7, seed=3, **begun))
    with pytest.raises(ConfigurationError, match=message):
        check_same_settings(paths, RunSettings(**wanted))


def test_pretrained_is_a_file_or_the_same_fold_of_a_method(dataset, tmp_path):
    plans = read_plans(dataset.plans())
    model = dataset.model("tfm", "longflowPlans", "3d_fullres")
    own = tmp_path / "weights.safetensors"
    own.touch()
    assert pretrained_file(dataset, RunSettings(pretrained=str(own)), model, 0) == own
    with pytest.raises(NotFoundError, match=r"'cronoss' is neither a file nor a method"):
        pretrained_file(dataset, RunSettings(pretrained="cronoss"), model, 0)
    source = finished_model(dataset, plans, fold=1)
    assert pretrained_file(dataset, RunSettings(pretrained="cronos"), model, 1) == source.fold(1).final
    with pytest.raises(
        NotFoundError, match=r"Fold 0 .* finished are: 1\. Run first: longflow_train 001 3d_fullres 0 -m cronos"
    ):
        pretrained_file(dataset, RunSettings(pretrained="cronos"), model, 0)


def test_pretrained_weights_are_not_for_forecasts(dataset):
    source = finished_model(dataset, read_plans(dataset.plans()), random=True).fold(0).final
    with pytest.raises(ConfigurationError, match="pretrained weights are for segmentation"):
        train(dataset, fold=1, iterations=1, pretrained=str(source))
