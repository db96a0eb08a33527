import numpy as np
import pytest
import torch

from longflow.data.dataset import training_series
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.files import read_json
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.plans import read_plans
from longflow.preprocessing.series import load_prepared, save_prepared
from longflow.tasks.forecast.validation import prepared_nrmse, validate, write_validation_forecasts
from longflow.training.splits import ForecastTarget

TARGETS = (
    ForecastTarget("s0", "s0_3", ("s0_0", "s0_1", "s0_2")),
    ForecastTarget("s0", "s0_1", ("s0_0",)),
    ForecastTarget("s1", "s1_2", ("s1_0", "s1_1")),
)


def raw(paths, case):
    return read_scan((paths.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array[0].astype(np.float64)


def nrmse(found, true):
    return np.sqrt(np.mean((found - true) ** 2)) / (true.max() - true.min())


def cache(paths):
    return paths.cache("longflowPlans", "3d_fullres")


class Brighter(Method):
    """The last scan plus a constant in the normal form; the first reduction is the worse one."""

    task = "forecast"
    summary = "for tests"
    reductions = ("worse", "better")

    def predict(self, batch):
        last = batch.context[:, -1]
        return {"worse": last + 5, "better": last + 0.5}


def test_lci_and_context_mean_against_numpy_in_the_files_units(dataset):
    """Voxels are not resampled here, so that the prepared grid is the files' grid."""
    plans = read_plans(dataset.plans())
    score = validate(build_method("cronos", plans, "3d_fullres").eval(), cache(dataset), TARGETS, torch.device("cpu"))
    errors = {target: nrmse(raw(dataset, target.context[-1]), raw(dataset, target.target)) for target in TARGETS}
    expected = np.mean([np.mean([errors[TARGETS[0]], errors[TARGETS[1]]]), errors[TARGETS[2]]])
    assert score.lci == pytest.approx(expected, rel=1e-5)
    # an untrained flow is LCI (within bf16, where the machine computes in it)
    assert score.nrmse["last"] == pytest.approx(expected, rel=1e-5)
    assert set(score.nrmse) == {"last", "mean"} and score.best == min(score.nrmse.values())
    assert score.context_mean != score.lci


def test_a_forecast_is_mapped_back_with_the_last_context_scan(dataset):
    plans = read_plans(dataset.plans())
    score = validate(Brighter(plans, "3d_fullres"), cache(dataset), TARGETS[2:], torch.device("cpu"))
    last, true = raw(dataset, "s1_1"), raw(dataset, "s1_2")
    scale = load_prepared(cache(dataset), "s1").properties.scale[1][0]
    assert score.nrmse["better"] == pytest.approx(nrmse(last + 0.5 * scale, true), rel=1e-5)
    assert score.nrmse["worse"] == pytest.approx(nrmse(last + 5 * scale, true), rel=1e-5)
    assert score.best == score.nrmse["better"]


def test_a_constant_target_has_no_nrmse_and_does_not_spoil_the_others(dataset):
    plans = read_plans(dataset.plans())
    method = build_method("cronos", plans, "3d_fullres").eval()
    expected = validate(method, cache(dataset), TARGETS[1:], torch.device("cpu"))
    series = load_prepared(cache(dataset), "s0")
    series.images = series.images[:]
    series.images[3] = 1.0
    assert np.isnan(prepared_nrmse(np.asarray(series.images[2]), series, TARGETS[0]))
    save_prepared(series, cache(dataset))
    assert validate(method, cache(dataset), TARGETS, torch.device("cpu")) == expected
    with pytest.raises(DataError, match=r"Every validation target .s0_3. is constant"):
        validate(method, cache(dataset), TARGETS[:1], torch.device("cpu"))


def test_out_of_fold_forecasts_are_written_as_predictions_are(dataset):
    plans, paths = read_plans(dataset.plans()), dataset.model("cronos", "longflowPlans", "3d_fullres").fold(0)
    description, series = training_series(dataset.raw)
    scans = {scan.case: scan for one in series for scan in one.scans}
    method = build_method("cronos", plans, "3d_fullres").eval()
    write_validation_forecasts(method, cache(dataset), TARGETS, scans, description, paths, torch.device("cpu"))
    for reduction in ("last", "mean"):
        assert sorted(path.name for path in paths.validation(reduction).iterdir()) == sorted(
            name for target in TARGETS for name in (f"{target.target}_0000.nii.gz", f"{target.target}.json")
        )
    # an untrained flow under `last` is the last context scan: to the bit, in its geometry and type
    written = read_scan((paths.validation("last") / "s0_3_0000.nii.gz",))
    original = read_scan(scans["s0_2"].images)
    assert np.array_equal(written.array, original.array)
    assert written.data_type == "int16" and not written.geometry.differences(original.geometry)
    assert read_json(paths.validation("mean") / "s0_3.json") == {
        "case": "s0_3",
        "subject": "s0",
        "target_time": 40.0,
        "time_unit": "days",
        "horizon": 15.0,
        "context": ["s0_0", "s0_1", "s0_2"],
        "context_times": [0.0, 10.0, 25.0],
        "hide_context": None,
        "reduction": "mean",
    }
