import numpy as np
import pytest

from longflow.data.images import read_scan
from longflow.errors import ConfigurationError, NotFoundError
from longflow.inference.predictor import predict_folder
from longflow.methods.registry import build_method
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.sampling import Moments, Sampling, TakenScans
from tests.training.helpers import finished_model


def forecaster_of(dataset, folds=1, source_noise=0.0, method="cronos", steps=2, sequence=None):
    """Random weights, different in each fold."""
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = sequence or plans.temporal.sequence_length
    for fold in range(folds):
        model = finished_model(dataset, plans, method, fold=fold, random=True, seed=fold)
        if source_noise:
            checkpoint = read_checkpoint(model.fold(fold).final)
            options = build_method(method, plans, "3d_fullres", {"source_noise": source_noise}).options
            checkpoint.header["options"] = dict(options)
            write_checkpoint(checkpoint, model.fold(fold).final)
    return Forecaster.load(device="cpu", steps=steps if method == "cronos" else None)


def predict(forecaster, dataset, out, **options):
    """Forecast one time of every subject; return the first request."""
    return predict_folder(forecaster, dataset.raw / "imagesTr", out, {"times": (90,), **options})[0]


def sample(out, case, name):
    return read_scan((out / "samples" / case / f"{case}_{name}_0000.nii.gz",)).array


def test_mean_and_deviation_are_those_of_the_samples_and_the_sidecar_says_how(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    forecaster, out = forecaster_of(dataset, folds=2, source_noise=0.5), tmp_path / "out"
    case = predict(forecaster, dataset, out, samples=5, seed=3).target.case
    samples = np.stack([sample(out, case, f"s{number:02d}") for number in range(5)]).astype(np.float64)
    mean, deviation = read_scan((out / f"{case}_0000.nii.gz",)).array, sample(out, case, "std")
    assert np.abs(mean - samples.mean(0)).max() <= 1  # both are rounded to whole numbers
    assert np.abs(deviation - samples.std(0, ddof=1)).max() <= 1 and deviation.max() > 1
    sidecar = read_json(out / f"{case}.json")
    sources = ["folds", "noise", "context"]
    assert sidecar["samples"] == {"number": 5, "sources": sources, "seed": 3, "sigma": 0.5}
    assert "They differ by: folds (2 networks" in caplog.text and "sigma 0.5" in caplog.text
    # more samples leave the first ones as they are, a second command keeps what is finished
    further = tmp_path / "further"
    predict(forecaster, dataset, further, samples=7, seed=3)
    assert all(np.array_equal(sample(further, case, f"s{number:02d}"), samples[number]) for number in range(5))
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    predict(forecaster, dataset, out, samples=5, seed=3)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")} == files
    with pytest.raises(ConfigurationError, match="was made with samples"):
        predict(forecaster, dataset, out, samples=4, seed=3)
    (out / "samples" / case / f"{case}_s03_0000.nii.gz").unlink()
    predict(forecaster, dataset, out, samples=5, seed=3)
    assert np.array_equal(sample(out, case, "s03"), samples[3])


def test_folds_give_the_forecast_of_one_network_each(dataset, tmp_path):
    forecaster = forecaster_of(dataset, folds=2)
    case = predict(forecaster, dataset, tmp_path / "all", samples=2, spread=["folds"]).target.case
    for fold in range(2):
        single = Forecaster.load(device="cpu", steps=2, folds=[fold])
        predict(single, dataset, tmp_path / str(fold))
        expected = read_scan((tmp_path / str(fold) / f"{case}_0000.nii.gz",)).array
        assert np.array_equal(sample(tmp_path / "all", case, f"s{fold:02d}"), expected)


def test_a_subset_has_half_of_the_scans_or_more_and_always_the_last():
    taken = TakenScans(None, [[0, 2, 3, 5, 6]])
    found = [taken.subset((0, number)).contexts for number in range(60)]
    assert all(len(one) == 1 and one[0][-1] == 6 and set(one[0]) <= {0, 2, 3, 5, 6} for one in found)
    assert {len(one[0]) for one in found} == {3, 4, 5}
    assert found == [taken.subset((0, number)).contexts for number in range(60)]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"samples": 1}, ConfigurationError, "--samples is 1, expected 2 or more"),
        ({"samples": 0}, ConfigurationError, "--samples is 0, expected 2 or more"),
        ({"samples": 3, "seed": -1}, ConfigurationError, "--seed is -1"),
        ({"samples": 3, "spread": ["nois"]}, NotFoundError, "no source of spread 'nois'. Did you mean 'noise'"),
        ({"samples": 3, "spread": ["noise"]}, ConfigurationError, "trained with sigma 0 at the source"),
        ({"samples": 3, "spread": ["folds", "context"]}, ConfigurationError, "folds: it has one network"),
        ({"spread": ["context"]}, ConfigurationError, "are for several samples"),
    ],
)
def test_what_is_refused(dataset, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        predict(forecaster_of(dataset), dataset, tmp_path / "out", **options)


def test_folds_alone_give_no_more_samples_than_there_are_networks(dataset):
    with pytest.raises(ConfigurationError, match=r"Folds alone give 2 different samples.*Give --samples 2"):
        Sampling.of(forecaster_of(dataset, folds=2).models, 3, ["folds"])


def test_a_method_without_spread(dataset):
    with pytest.raises(ConfigurationError, match=r"would all be alike. folds: .* noise: .* context: .*last scan alone"):
        Sampling.of(forecaster_of(dataset, sequence=1).models, 3)


def test_noise_needs_several_evaluations(dataset):
    with pytest.raises(ConfigurationError, match=r"euler with 1 step evaluates the network once.*--steps 10"):
        Sampling.of(forecaster_of(dataset, source_noise=0.5, steps=1).models, 3)


def test_moments_are_those_of_numpy():
    volumes, moments = np.random.default_rng(0).normal(1000, 0.1, (6, 2, 3)), Moments()
    for volume in volumes:
        moments.add(volume)
    np.testing.assert_allclose(moments.mean, volumes.mean(0))
    np.testing.assert_allclose(moments.deviation, volumes.std(0, ddof=1))
