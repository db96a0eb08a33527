import pytest
import torch

from longflow.errors import NotFoundError
from longflow.methods import Method
from longflow.methods.registry import method_class
from longflow.plans import read_plans
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.training.splits import Cohort
from longflow.training.validation import validation_of


def made(method, dataset):
    plans = read_plans(dataset.plans())
    cache = dataset.cache("longflowPlans", "3d_fullres")
    cohort = Cohort(cache, {"s0": ["s0_0", "s0_1"]})
    return validation_of(method, dataset, plans, "3d_fullres", 0, cohort, torch.device("cpu"))


def test_a_method_gets_the_validation_it_names(dataset):
    assert isinstance(made(method_class("cronos"), dataset), ForecastValidation)


def test_a_validation_that_nobody_does_is_named(dataset):
    class Strange(Method):
        validation = "lables"

    with pytest.raises(NotFoundError, match=r"no kind of validation 'lables'\. Did you mean 'labels'"):
        made(Strange, dataset)
