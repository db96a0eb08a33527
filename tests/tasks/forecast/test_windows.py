import numpy as np
import pytest
import torch

from longflow.data.recurrence import Kernel, kriging_weights
from longflow.inference.windows import WindowSettings, noise_field
from longflow.plans import RecurrencePlan
from longflow.tasks.forecast.windows import (
    Times,
    covariates_for_network,
    periods_for_network,
    predict_forecast,
    times_for_network,
)
from tests.inference.helpers import coordinates, identity, method_of
from tests.methods.helpers import conditioned_plans


def predict(methods, context, times=(0, 10), target=25, **settings):
    methods = methods if isinstance(methods, list) else [methods]
    return predict_forecast(methods, context, Times(list(times), target), WindowSettings("cpu", **settings))


def test_patches_reach_the_method_in_its_own_number_of_axes():
    shapes = set()

    def note(batch):
        shapes.add(tuple(batch.context.shape))
        assert batch.context_mask.all() and batch.target is None and batch.noise is None
        return identity(batch)

    predict(method_of(note), coordinates((4, 8, 12)))
    assert shapes == {(1, 2, 1, 4, 8, 8)}
    shapes.clear()
    predict(method_of(note, dimensions=2), coordinates((11, 8, 8)))
    assert shapes == {(8, 2, 1, 8, 8), (3, 2, 1, 8, 8)}  # slices share a pass


def test_times_reach_the_method_from_the_last_scan_in_units_of_the_scale():
    def note(batch):
        assert batch.context_times.tolist() == [[-3.0, -1.0, 0.0]] and batch.target_time.tolist() == [1.5]
        return identity(batch)

    predict(method_of(note), coordinates((4, 8, 8), scans=3), times=(1970, 1990, 2000), target=2015)
    assert times_for_network([5.0], 6.0, 2.0) == ([0.0], 0.5)


def test_periods_reach_the_method_in_units_of_the_scale_and_unknown_ones_as_nan():
    temporal = method_of(identity).plans.temporal
    assert periods_for_network([800.0, None], temporal) is None
    periodic = temporal.model_copy(update={"period": "rr", "time_scale": 40.0})
    periods = periods_for_network([800.0, None], periodic)
    assert periods[0] == 20 and periods[1].isnan()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_forecast_that_begins_with_noise_gets_one_field_next_to_its_context(dimensions, mirror):
    """The method returns its noise; the context is the same as without noise."""
    context = coordinates((5, 17, 13), channels=2)

    def noise(batch):
        scans = len(context)
        assert batch.context.shape[1] == batch.context_times.shape[1] == batch.context_mask.shape[1] == scans
        return {"forecast": batch.context[:, -1], "noise": batch.noise}

    method = method_of(noise, ("forecast", "noise"), dimensions, channels=2, noise=True)
    predictions = predict([method] * 2, context, mirror=mirror)
    assert np.array_equal(predictions["forecast"], context[-1])
    zeros = np.zeros_like(context)
    drawn = predict(method, zeros, mirror=mirror)["noise"]
    np.testing.assert_allclose(drawn, noise_field((2, 5, 17, 13), dimensions == 2, 0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(predict(method, zeros, seed=1)["noise"], drawn)


def test_covariates_reach_the_method_scaled_with_a_flag_and_unknown_ones_as_zero():
    plans = conditioned_plans(names=("age", "treatment"))
    batch = covariates_for_network([{"age": 75.0, "treatment": None}, {"treatment": 60.0}, {}], plans)
    assert batch.tolist() == [[1.5, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]] and batch.dtype == torch.float32
    assert covariates_for_network([{"age": 75.0}], conditioned_plans()) is None


def test_conditions_are_those_of_every_patch():
    seen = []
    method = method_of(lambda batch: seen.append(batch) or identity(batch))
    method.plans = conditioned_plans(period="rr", names=("age",))
    times = Times([0, 10], 25, period=30.0, covariates={"age": 50.0})
    predict_forecast([method], coordinates((6, 15, 20)), times, WindowSettings("cpu"))
    assert sum(len(batch.period) for batch in seen) > 1
    for batch in seen:
        assert batch.period.tolist() == [3] * len(batch.context)
        assert batch.covariates.tolist() == [[-1, 1]] * len(batch.context)


@pytest.mark.parametrize(("known", "expected"), [(None, 4.4), (50.0, 5.0)])
def test_recurrence_reaches_the_method_with_a_known_or_an_inferred_period(known, expected):
    seen = []
    method = method_of(lambda batch: seen.append(batch) or identity(batch))
    plan = RecurrencePlan(periods=[40.0, 50.0], probabilities=[0.6, 0.4], length=1.0, noise=0.1)
    method.plans.temporal.recurrence = plan
    predict_forecast([method], coordinates((6, 15, 20)), Times([0, 10], 25, known), WindowSettings("cpu"))
    assert sum(len(batch.period) for batch in seen) > 1
    for batch in seen:
        assert batch.period.tolist() == pytest.approx([expected] * len(batch.context))
        weights = kriging_weights(
            np.array([0.0, 10.0]), 25.0, np.array([known] if known else plan.periods), Kernel(1.0, 0.1)
        )
        share = [1.0] if known else plan.probabilities
        assert batch.recurrence.tolist() == [pytest.approx((share @ weights).tolist())] * len(batch.context)
