import numpy as np
import pytest

from longflow.data.dataset import Scan, training_series
from longflow.data.images import read_scan
from longflow.errors import DataError, NotFoundError
from longflow.inference.predictor import predict_folder
from longflow.plans import read_plans
from longflow.preprocessing.series import load_prepared
from longflow.reading import read_json
from longflow.tasks.forecast.conditions import covariate_warnings, given_covariates, known_or_last, with_conditions
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.forecast.targets import ForecastTarget
from longflow.tasks.forecast.validation import given_times
from tests.inference.test_predictor import make_input
from tests.methods.helpers import conditioned_plans
from tests.training.helpers import add_conditions, conditioned_dataset, finished_model

PLANS = conditioned_plans(period="rr", names=("age", "treatment"))


def request(target, *context):
    scans = [
        Scan(f"a_{number}", "a", float(number), (), covariates=cells) for number, cells in enumerate((*context, target))
    ]
    return ForecastRequest(scans[-1], tuple(scans[:-1]))


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Random weights: everything matters."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    paths = conditioned_dataset()
    finished_model(paths, read_plans(paths.plans()), random=True)
    return paths


@pytest.fixture
def folder(dataset, tmp_path):
    """Two subjects, a and b, with a requested scan 3 each: period 20, age 53, treatment 1."""
    make_input(dataset, tmp_path / "in")
    add_conditions(tmp_path / "in" / "scans.csv")
    return tmp_path / "in"


def test_a_value_that_the_target_lacks_is_that_of_the_last_context_scan():
    assert known_or_last({"age": None, "sex": 0.0}, {"age": 61.0, "sex": 1.0}) == {"age": 61, "sex": 0}
    item = request({"age": "", "treatment": "1"}, {"age": "60", "rr": "8"}, {"age": "61", "treatment": "0", "rr": "9"})
    told = with_conditions(item, PLANS).provenance()
    assert told["covariates"] == {"age": 61, "treatment": 1} and told["period"] == 8.5
    told = with_conditions(request({}, {"age": "60"}, {}), PLANS).provenance()
    assert told["covariates"] == {"age": None, "treatment": None} and told["period"] is None


def test_a_model_without_conditions_is_told_none():
    told = with_conditions(request({"age": "60", "rr": "zero"}, {}), conditioned_plans()).provenance()
    assert "covariates" not in told and "period" not in told


def test_text_is_refused_with_its_case():
    with pytest.raises(DataError, match=r"case a_1 .*'yes', expected a number"):
        with_conditions(request({"treatment": "yes"}, {}), PLANS)


def test_values_outside_the_range_of_the_training_are_warnings():
    assert covariate_warnings({"age": 40.0, "treatment": None}, PLANS) == []
    sentences = covariate_warnings({"age": 81.5, "treatment": 39.0}, PLANS)
    assert sentences[0] == "The covariate age is 81.5, but was 40 to 80 in training: an extrapolation."
    assert sentences[1].startswith("The covariate treatment is 39, but") and len(sentences) == 2


def test_covariates_are_given_by_name_and_unknown_names_are_refused():
    plans = PLANS.model_copy(update={"excluded_covariates": {"sex": "constant"}})
    assert given_covariates({"treatment": 1.0, "sex": 1.0}, plans) == {"age": None, "treatment": 1}
    with pytest.raises(NotFoundError, match=r"no covariate 'agee'. Did you mean 'age'"):
        given_covariates({"agee": 60.0}, plans)


def test_a_forecast_depends_on_the_covariates_and_the_period_and_its_sidecar_says_them(dataset, folder, tmp_path):
    def forecast(name):
        out = tmp_path / name
        predict_folder(Forecaster.load(device="cpu", steps=1), folder, out)
        return read_scan((out / "a_3_0000.nii.gz",)).array, read_json(out / "a_3.json")

    first, sidecar = forecast("first")
    assert sidecar["covariates"] == {"age": 53, "treatment": 1} and sidecar["period"] == 20
    assert any("treatment is 1, but was 40 to 80" in sentence for sentence in sidecar["warnings"])
    table = (folder / "scans.csv").read_text()
    for old, new in ((",20,53,1", ",20,79,1"), (",20,53,1", ",20,53,0"), (",20,5", ",33,5")):
        (folder / "scans.csv").write_text(table.replace(old, new))
        assert not np.array_equal(forecast(f"{old}{new}")[0], first)
    (folder / "scans.csv").write_text(table.replace(",20,53,1", ",20,,"))
    assert forecast("unknown")[1]["covariates"] == {"age": 52, "treatment": None}  # of the last context scan


def test_a_forecast_is_made_again_where_its_covariates_changed(dataset, folder, tmp_path, caplog):
    forecaster, out = Forecaster.load(device="cpu", steps=1), tmp_path / "out"
    predict_folder(forecaster, folder, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_3_0000.nii.gz")}
    table = (folder / "scans.csv").read_text().rstrip()
    (folder / "scans.csv").write_text(table.removesuffix(",20,53,1") + ",20,60,1\n")  # that of b_3
    caplog.set_level("INFO")
    predict_folder(forecaster, folder, out)
    changed = [path.name for path, made in before.items() if path.stat().st_mtime_ns != made]
    assert changed == ["b_3_0000.nii.gz"] and "covariates was" in caplog.text


def test_a_column_that_is_missing_at_prediction_is_a_warning_and_not_known(dataset, folder, tmp_path):
    lines = [line.rsplit(",", 2)[0] for line in (folder / "scans.csv").read_text().splitlines()]
    (folder / "scans.csv").write_text("\n".join(lines))
    predict_folder(Forecaster.load(device="cpu", steps=1), folder, tmp_path / "out")
    sidecar = read_json(tmp_path / "out" / "a_3.json")
    assert sidecar["covariates"] == {"age": None, "treatment": None}
    assert sum("It counts as not known for every scan" in sentence for sentence in sidecar["warnings"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(",20,53,1", ",20,old,1", "covariate age: .*'old'"), (",20,53,1", ",-5,53,1", "column rr: .*'-5'")],
)
def test_cells_that_are_no_numbers_stop_a_prediction_with_line_and_remedy(dataset, folder, tmp_path, old, new, message):
    (folder / "scans.csv").write_text((folder / "scans.csv").read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"(?s)scans.csv: {message} \(line 5\)"):
        predict_folder(Forecaster.load(device="cpu", steps=1), folder, tmp_path / "out")


@pytest.mark.parametrize(("target", "context"), [(3, (0, 1, 2)), (2, (1,)), (2, (0,))])
def test_validation_has_the_conditions_of_prediction(dataset, target, context):
    plans, (_, all_series) = read_plans(dataset.plans()), training_series(dataset.raw)
    scans = all_series[4].scans
    item = ForecastRequest(scans[target], tuple(scans[index] for index in context))
    expected = with_conditions(item, plans).conditions
    series = load_prepared(dataset.cache("longflowPlans", "3d_fullres"), "s4")
    stored = ForecastTarget("s4", f"s4_{target}", tuple(f"s4_{index}" for index in context))
    times = given_times(series, stored)
    assert (times.covariates, times.period) == (expected["covariates"], expected["period"])
    assert times.covariates["age"] == 54 + target and times.period == 24


def test_in_memory_covariates_are_given_by_name(dataset):
    forecaster = Forecaster.load(device="cpu", steps=1)
    scans = [np.random.default_rng(index).normal(100, 10, (5, 10, 12)).astype(np.float32) for index in range(2)]

    def forecast(**covariates):
        return forecaster.predict(scans, [0, 10], 20, (1, 1, 1), covariates=covariates)

    assert not np.array_equal(forecast(age=70.0), forecast())
    assert np.array_equal(forecast(age=None, treatment=None), forecast())
