from longflow.inference.selection import select
from longflow.inference.tasks import PREDICTORS, load_predictor
from longflow.plans import read_plans
from longflow.task import TASKS
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.segment.predictor import Segmenter
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


def test_every_task_has_its_predictor():
    assert set(PREDICTORS) == set(TASKS.names())
