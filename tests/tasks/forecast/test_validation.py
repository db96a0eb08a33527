import csv

import numpy as np
import pytest
import torch

from longflow.cli import evaluate, predict
from longflow.data.dataset import read_rows
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.plans import read_plans
from longflow.preprocessing.series import load_prepared, save_prepared
from longflow.reading import read_json
from longflow.tasks.forecast.targets import ForecastTarget
from longflow.tasks.forecast.validation import ForecastValidation, contexts_of, prepared_nrmse, validate
from longflow.training.splits import cohorts_of_fold
from tests.training.helpers import finished_model, job_of, trained_model

TARGETS = (
    ForecastTarget("s0", "s0_3", ("s0_0", "s0_1", "s0_2")),
    ForecastTarget("s0", "s0_1", ("s0_0",)),
    ForecastTarget("s1", "s1_2", ("s1_0", "s1_1")),
)


def raw(paths, case):
    return read_scan((paths.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array[0].astype(np.float64)


def nrmse(prediction, reference):
    return np.sqrt(np.mean((prediction - reference) ** 2)) / (reference.max() - reference.min())


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
    last, reference = raw(dataset, "s1_1"), raw(dataset, "s1_2")
    scale = load_prepared(cache(dataset), "s1").properties.scale[1][0]
    assert score.nrmse["better"] == pytest.approx(nrmse(last + 0.5 * scale, reference), rel=1e-5)
    assert score.nrmse["worse"] == pytest.approx(nrmse(last + 5 * scale, reference), rel=1e-5)
    assert score.best == score.nrmse["better"]


def test_a_matched_reference_is_compared_in_the_units_of_the_last_context_scan(dataset):
    """The normal forms of the last scan and the target differ by their units alone."""
    plans = read_plans(dataset.plans())
    series = load_prepared(cache(dataset), "s1")
    (channel,) = plans.channels
    matched = [channel.model_copy(update={"normal_form": "matched"})]
    target, scale = np.asarray(series.images[2]), series.properties.scale[1][0]
    assert prepared_nrmse(target, series, TARGETS[2], matched) == 0
    error = np.sqrt(np.mean((0.3 * scale) ** 2)) / (scale * np.ptp(target))
    assert prepared_nrmse(target + 0.3, series, TARGETS[2], matched) == pytest.approx(error, rel=1e-4)
    assert prepared_nrmse(target, series, TARGETS[2], plans.channels) > 0


def test_a_context_longer_than_planned_is_taken_by_the_rule_and_the_baselines_use_all_of_it(dataset):
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = 2
    method = Brighter(plans, "3d_fullres")
    series = load_prepared(cache(dataset), "s0")
    assert contexts_of(method, series, TARGETS[0]) == [[0, 2]]
    # of the scans that are given, by their positions in the series
    assert contexts_of(method, series, ForecastTarget("s0", "s0_3", ("s0_1", "s0_2"))) == [[1, 2]]
    kept = {}
    score = validate(method, cache(dataset), TARGETS[:1], torch.device("cpu"), kept)
    mean = np.mean([series.images[index] for index in range(3)], axis=0)
    assert score.context_mean == pytest.approx(prepared_nrmse(mean, series, TARGETS[0], plans.channels))
    assert kept == {TARGETS[0]: {"lci": score.lci, "context_mean": score.context_mean}}
    assert score.reduction == "better"


def test_a_constant_target_has_no_nrmse_and_does_not_spoil_the_others(dataset):
    plans = read_plans(dataset.plans())
    method = build_method("cronos", plans, "3d_fullres").eval()
    expected = validate(method, cache(dataset), TARGETS[1:], torch.device("cpu"))
    series = load_prepared(cache(dataset), "s0")
    series.images = series.images[:]
    series.images[3] = 1.0
    assert np.isnan(prepared_nrmse(np.asarray(series.images[2]), series, TARGETS[0], plans.channels))
    save_prepared(series, cache(dataset))
    assert validate(method, cache(dataset), TARGETS, torch.device("cpu")) == expected
    with pytest.raises(DataError, match=r"Every validation target .s0_3. is constant"):
        validate(method, cache(dataset), TARGETS[:1], torch.device("cpu"))


def validation_of(dataset, method="cronos", targets=TARGETS) -> ForecastValidation:
    """A validation on chosen targets."""
    job = job_of(dataset, method)
    validation = ForecastValidation(job, cohorts_of_fold(job)[1], torch.device("cpu"))
    validation.targets = list(targets)
    return validation


def test_out_of_fold_forecasts_are_written_as_predictions_are(dataset):
    validation = validation_of(dataset)
    plans, paths = validation.job.plans, validation.job.paths
    validation.finish(build_method("cronos", plans, "3d_fullres").eval())
    for reduction in ("last", "mean"):
        assert sorted(path.name for path in paths.validation(reduction).iterdir()) == sorted(
            ["dataset.json", "scans.csv"]
            + [name for target in TARGETS for name in (f"{target.target}_0000.nii.gz", f"{target.target}.json")]
        )
    # an untrained flow under `last` is the last context scan: bit-identical, in its geometry and type
    written = read_scan((paths.validation("last") / "s0_3_0000.nii.gz",))
    original = read_scan((dataset.raw / "imagesTr" / "s0_2_0000.nii.gz",))
    assert np.array_equal(written.array, original.array)
    assert written.data_type == "int16" and not written.geometry.differences(original.geometry)
    sidecar = read_json(paths.validation("mean") / "s0_3.json")
    assert sidecar.pop("versions") and sidecar.pop("longflow_version")
    assert "research only" in sidecar.pop("intended_use")
    assert list(sidecar.pop("digests")["inputs"]) == [f"s0_{index}_0000.nii.gz" for index in range(3)]
    assert sidecar == {
        "case": "s0_3",
        "subject": "s0",
        "target_time": 40.0,
        "time_unit": "days",
        "horizon": 15.0,
        "context": ["s0_0", "s0_1", "s0_2"],
        "context_times": [0.0, 10.0, 25.0],
        "context_rule": "spread",
        "context_used": ["s0_0", "s0_1", "s0_2"],
        "hide_context": None,
        "test_protocol": None,
        "dataset": "Dataset001_Test",
        "method": ["cronos"],
        "configuration": ["3d_fullres"],
        "plans": ["longflowPlans"],
        "plan_identity": [plans.identity("3d_fullres")],
        "folds": [[0]],
        "mirror": False,
        "reduction": "mean",
        "shrinkage": 1.0,
        "solver": plans.inference.solver,
        "steps": plans.inference.steps,
        "function_evaluations": plans.inference.steps,
        "horizon_outside_training": False,
        "warnings": [],
    }


def test_out_of_fold_forecasts_have_the_fields_of_longflow_predict(dataset, tmp_path):
    validation = validation_of(dataset)
    trained_model(dataset, validation.job.plans)
    validation.finish(build_method("cronos", validation.job.plans, "3d_fullres").eval())
    out = tmp_path / "out"
    arguments = ("-d", "1", "-m", "cronos", "-f", "0", "-t", "50", "--device", "cpu")
    assert predict.main(["-i", str(dataset.raw / "imagesTr"), "-o", str(out), *arguments]) == 0
    predicted, written = (
        read_json(path) for path in (out / "s0_t50.json", validation.job.paths.validation("last") / "s0_3.json")
    )
    predicted.pop("fitness")  # validation writes sidecars without a verdict: its subjects are of the training data
    assert predicted.keys() == written.keys()
    inputs = [sidecar["digests"].pop("inputs") for sidecar in (predicted, written)]
    assert inputs[1].items() < inputs[0].items() and len(inputs[0]) == 4
    own = {"case", "target_time", "horizon", "context", "context_times", "context_used"}
    assert {key: predicted[key] for key in predicted.keys() - own} == {
        key: written[key] for key in written.keys() - own
    }


def test_evaluating_out_of_fold_forecasts_gives_the_logged_numbers(dataset):
    """The prepared grid is the files' grid here. Files hold integers: a forecast is rounded by 0.5 at most.

    The context mean is another number: validation averages in the normal form, evaluation in the files' units.
    """
    rounding = 0.5 / min(np.ptp(raw(dataset, target.target)) for target in TARGETS)
    validation = validation_of(dataset)
    method = Brighter(validation.job.plans, "3d_fullres").eval()
    score = validation.score(method)
    validation.finish(method)
    folder = validation.job.paths.validation("better")
    assert evaluate.main(["-d", "1", "-i", str(folder), "-np", "1"]) == 0
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row_method, column in (("forecast", "nrmse"), ("lci", "lci_nrmse")):
        of_method = [row for row in rows if row["method"] == row_method]
        assert sorted(row["case"] for row in of_method) == sorted(target.target for target in TARGETS)
        means = [
            np.mean([float(row["nrmse"]) for row in of_method if row["subject"] == subject]) for subject in ("s0", "s1")
        ]
        assert np.mean(means) == pytest.approx(
            score.columns[column], abs=rounding if row_method == "forecast" else 1e-6
        )


def test_out_of_fold_forecasts_can_be_forecast_from(dataset, tmp_path):
    validation = validation_of(dataset)
    validation.finish(build_method("cronos", validation.job.plans, "3d_fullres").eval())
    finished_model(dataset, validation.job.plans)
    out = tmp_path / "out"
    arguments = ("-d", "1", "-m", "cronos", "-f", "0", "-t", "90", "--device", "cpu")
    assert predict.main(["-i", str(validation.job.paths.validation("last")), "-o", str(out), *arguments]) == 0
    assert sorted(row.case for row in read_rows(out / "scans.csv")) == ["s0_t90", "s1_t90"]
    assert read_json(out / "s0_t90.json")["context"] == ["s0_1", "s0_3"]
