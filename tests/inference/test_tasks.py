import pytest

from longflow.errors import ConfigurationError
from longflow.inference.forecaster import Forecaster
from longflow.inference.segmenter import Segmenter
from longflow.inference.selection import select
from longflow.inference.tasks import load_predictor
from longflow.plans import read_plans
from tests.inference.helpers import segmentation_model
from tests.training.helpers import finished_model


def test_the_plans_of_the_model_say_which_predictor(dataset):
    finished_model(dataset, read_plans(dataset.plans()))
    predictor = load_predictor(select(), "cpu", mirror=True, solver="midpoint", steps=2)
    assert (
        isinstance(predictor, Forecaster) and predictor.settings()["solver"] == "midpoint" and predictor.models.mirror
    )
    segmentation_model(dataset)
    assert isinstance(load_predictor(select(method="unet"), "cpu"), Segmenter)


def test_a_task_that_is_not_known_yet(dataset):
    model = finished_model(dataset, read_plans(dataset.plans()))
    model.plans.write_text(model.plans.read_text().replace('"task": "forecast"', '"task": "translate"'))
    with pytest.raises(ConfigurationError, match="is planned for 'translate', which this version cannot predict"):
        load_predictor(select(), "cpu")
