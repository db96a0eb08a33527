"""Visits of one phantom with a known gain and offset each: validation and the choice of a model judge alike."""

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, Series, image_path
from longflow.data.images import Geometry, read_scan, write_volume
from longflow.demo.visits import draw_visit_subject, visit_scan, visit_units
from longflow.errors import DataError
from longflow.paths import DatasetPaths
from longflow.plans import write_plans
from longflow.preprocessing.series import load_prepared, prepare_series, save_prepared
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.predictor import restore_forecast
from longflow.tasks.forecast.targets import ForecastTarget
from longflow.tasks.forecast.units import read_reference, with_units
from longflow.tasks.forecast.validation import prepared_nrmse
from tests.preprocessing.helpers import make_plans

SHAPE, TIMES = (16, 40, 40), (0.0, 9.0, 20.0)
GEOMETRY = Geometry(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
SUBJECT = draw_visit_subject(3)
TARGET = ForecastTarget("s1", "s1_2", ("s1_0", "s1_1"))


@pytest.fixture
def visits(tmp_path, monkeypatch):
    """A prepared subject with three visits, and a pair whose last one is the target; a function of the normal form."""

    def make(normal_form):
        monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
        dataset, plans = DatasetPaths("Dataset101_Visits"), make_plans(normal_form=normal_form)
        description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days")
        scans = []
        for index, time in enumerate(TIMES):
            file = image_path(dataset.raw / "imagesTr", f"s1_{index}", 0, description)
            write_volume(visit_scan(SUBJECT, time, SHAPE, shared=False)[0], GEOMETRY, "int16", file)
            scans.append(Scan(f"s1_{index}", "s1", time, (file,)))
        prepared = dataset.cache(plans.plans_name, "3d_fullres")
        save_prepared(prepare_series(Series("s1", tuple(scans)), plans, "3d_fullres"), prepared, [4, 8, 8])
        model = dataset.model("cronos", plans.plans_name, "3d_fullres")
        write_plans(plans, model.plans)
        pair = ForecastPrediction(
            case="s1_2",
            subject="s1",
            images=(),
            method="cronos",
            target_time=TIMES[2],
            horizon=TIMES[2] - TIMES[1],
            context=("s1_1", "s1_0"),  # a sidecar's order is free
            context_times=(TIMES[1], TIMES[0]),
            context_images=tuple(scan.images for scan in scans[:2]),
            reference=scans[2].images,
        )
        return dataset, model, plans, pair, load_prepared(prepared, "s1")

    return make


def true_map():
    """From the units of the target to those of the last context scan."""
    (gain, offset), (last_gain, last_offset) = (visit_units(SUBJECT, time, False) for time in (TIMES[2], TIMES[1]))
    return last_gain / gain, last_offset - offset * last_gain / gain


def test_the_units_are_found_on_a_phantom_that_grows(visits):
    dataset, model, _, pair, _ = visits("matched")
    (found,) = with_units([pair], [model], dataset)
    ((gain, _),) = found.units
    true_gain, true_offset = true_map()
    assert abs(np.log(true_gain)) > 0.1  # else there is nothing to be found
    assert gain == pytest.approx(true_gain, rel=0.03)
    raw = read_scan(pair.reference).array
    expected = true_gain * raw + true_offset
    assert np.abs(read_reference(found).array - expected).max() < 0.03 * np.ptp(expected)


@pytest.mark.parametrize("normal_form", ["matched", "per_subject", "per_scan"])
def test_validation_and_the_choice_of_a_model_judge_alike(visits, normal_form):
    """The error of a forecast in memory, and that of its file against the reference's file."""
    dataset, model, plans, pair, series = visits(normal_form)
    (pair,) = with_units([pair], [model], dataset)
    last = np.asarray(series.images[1], dtype=np.float32)
    forecast = last + 0.2 * np.random.default_rng(0).standard_normal(last.shape).astype(np.float32)
    written = restore_forecast(forecast, series, 1, read_scan(pair.context_images[1]).array)
    expected = prepared_nrmse(forecast, series, TARGET, plans.channels)
    assert nrmse(written, read_reference(pair).array) == pytest.approx(expected, rel=1e-3)
    as_in_the_files = nrmse(written, read_scan(pair.reference).array)
    assert (as_in_the_files == pytest.approx(expected, rel=1e-2)) == (normal_form != "matched")


def test_without_a_matched_channel_the_reference_is_read_as_it_is(visits):
    dataset, model, _, pair, _ = visits("per_subject")
    (found,) = with_units([pair], [model], dataset)
    assert found == pair
    assert np.array_equal(read_reference(found).array, read_scan(pair.reference).array)


def test_a_subject_that_is_no_longer_prepared(visits):
    dataset, model, _, pair, _ = visits("matched")
    for path in dataset.preprocessed.rglob("s1*"):
        path.unlink()
    with pytest.raises(DataError, match=r"s1 is not prepared in .* Run longflow_preprocess"):
        with_units([pair], [model], dataset)
