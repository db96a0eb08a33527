import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import training_series
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.files import write_json
from longflow.inference.predictor import predict_folder
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.tasks.forecast.context import DEFAULT_RULE, choose_contexts
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.windows import Times
from tests.training.helpers import SHAPE, finished_model, make_dataset, scan_array


@pytest.fixture
def untrained(dataset):
    finished_model(dataset, read_plans(dataset.plans()))
    return Forecaster.load(device="cpu")


@pytest.fixture
def awake(dataset):
    """Random weights: everything matters."""
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    return Forecaster.load(device="cpu", steps=2)


def arrays(count=3, shape=SHAPE, kind="int16"):
    return [scan_array(9, index, shape).astype(kind) for index in range(count)]


SPACING = (1.0, 1.0, 1.0)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 0.7, 0.7)])
@pytest.mark.parametrize("kind", ["int16", "float32", "uint8"])
def test_an_untrained_flow_returns_the_last_scan_bit_identically(untrained, spacing, kind):
    """On the grid that it was planned for and on another one."""
    scans = arrays(kind=kind)
    found = untrained.predict(scans, times=[0, 10, 20], target=35, spacing=spacing)
    assert found.dtype == kind and np.array_equal(found, scans[-1])


def test_images_come_back_as_images_with_their_geometry(awake):
    images = []
    for array in arrays():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 1.0, 2.0))
        image.SetOrigin((1.0, 2.0, 3.0))
        image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
        images.append(image)
    found = awake.predict(images, [0, 10, 20], 35)
    assert found.GetPixelID() == sitk.sitkInt16
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, name)() == getattr(images[0], name)()
    same = awake.predict(arrays(), [0, 10, 20], 35, spacing=(2.0, 1.0, 1.0))
    assert np.array_equal(sitk.GetArrayFromImage(found), same)
    assert not np.array_equal(same, arrays()[-1])


def test_dates_do_not_matter_but_the_horizon_and_the_order_of_scans_in_time_do(awake):
    scans = arrays(kind="float32")
    first = awake.predict(scans, [0, 10, 20], 35, SPACING)
    assert np.array_equal(awake.predict(scans, [700, 710, 720], 735, SPACING), first)
    assert np.array_equal(awake.predict([scans[2], scans[0], scans[1]], [20, 0, 10], 35, SPACING), first)
    assert not np.array_equal(awake.predict(scans, [0, 10, 20], 55, SPACING), first)
    assert not np.array_equal(awake.predict([scans[1], scans[0], scans[2]], [0, 10, 20], 35, SPACING), first)


@pytest.mark.parametrize(
    ("rule", "period", "taken"),
    [
        ("spread", None, [[0, 3, 4, 5]]),
        ("latest", None, [[2, 3, 4, 5]]),
        ("subsets", None, [[0, 2, 4, 5], [0, 3, 4, 5]]),
        # 80 minus one period of 32 is just before 50, minus two of them after 10
        ("spread", 32.0, [[0, 1, 4, 5]]),
    ],
)
def test_of_more_scans_than_it_was_planned_for_some_are_taken_by_the_rule(awake, rule, period, taken):
    scans, times = arrays(6, kind="float32"), [10.0 * index for index in range(6)]
    assert awake.rule == DEFAULT_RULE and awake.models.plans.temporal.sequence_length == 4
    awake.rule = rule
    expected = [
        awake.predict([scans[index] for index in some], [times[index] for index in some], 80, SPACING, period)
        for some in taken
    ]
    found = awake.predict(scans, times, 80, SPACING, period)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5)
    assert awake.choose(Times(times, 80.0, period)).contexts == [taken]


def test_only_the_taken_scans_of_a_folder_are_read_and_the_sidecar_names_them(dataset, tmp_path):
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = 2
    finished_model(dataset, plans, random=True)
    forecaster, folder = Forecaster.load(device="cpu", steps=1), dataset.raw / "imagesTr"
    for path in folder.glob("*_2_0000.nii.gz"):
        path.write_bytes(b"no image")
    (first, *_) = predict_folder(forecaster, folder, tmp_path / "out", {"times": (90,)})
    sidecar = read_json(tmp_path / "out" / f"{first.target.case}.json")
    assert sidecar["context"] == ["s0_0", "s0_1", "s0_2", "s0_3"] and sidecar["context_times"] == [0, 10, 25, 40]
    assert (sidecar["context_rule"], sidecar["context_used"]) == ("spread", ["s0_0", "s0_3"])
    assert list(sidecar["digests"]["inputs"]) == ["s0_0_0000.nii.gz", "s0_3_0000.nii.gz"]
    assert forecaster.inputs(first) == [scan.images[0] for scan in (first.context[0], first.context[3])]


def test_targets_that_take_the_same_scans_are_prepared_once(awake, dataset):
    folder, description = dataset.raw / "imagesTr", awake.models.description
    one, two, *_ = awake.requests(folder, description, (90, 95))
    first, second = awake.read(one), awake.read(two)
    assert first.members is second.members and (first.given.target, second.given.target) == (90, 95)
    assert not np.array_equal(awake.make(one, first).array, awake.make(two, second).array)


def test_a_method_without_training_takes_every_scan(dataset):
    """It was planned for no number of scans, and longflow_find_best judged it on all that are given."""
    mean = dataset.model("context_mean", "longflowPlans", "3d_fullres")
    write_plans(read_plans(dataset.plans()), mean.plans)
    recorded(dataset, member(mean, []), reduction=None, shrinkage=1.0)
    forecaster = Forecaster.load(dataset=1, device="cpu")
    assert forecaster.choose(Times(list(range(6)), 9.0)).taken == list(range(6))


def test_the_scans_of_a_request_are_chosen_once(awake, dataset, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        "longflow.tasks.forecast.predictor.choose_contexts", lambda *given: chosen.append(1) or choose_contexts(*given)
    )
    items = predict_folder(awake, dataset.raw / "imagesTr", tmp_path / "out", {"times": (90, 95)})
    assert len(chosen) == len(items) == 12
    predict_folder(awake, dataset.raw / "imagesTr", tmp_path / "out", {"times": (90, 95)})
    assert len(chosen) == 24  # the files may have changed since


def test_motion_that_folds_is_said_once_and_in_the_sidecars(awake, dataset, tmp_path, monkeypatch, caplog):
    shares = iter([0.0, 0.5, 0.25, 0.0, 0.0, 0.0])
    monkeypatch.setattr(Forecaster, "folded", property(lambda _: next(shares)))
    items = predict_folder(awake, dataset.raw / "imagesTr", tmp_path / "out", {"times": (90,)})
    (message,) = (record.message for record in caplog.records if "folds" in record.message)
    warned = [
        item.target.subject for item in items if read_json(tmp_path / "out" / f"{item.target.case}.json")["warnings"]
    ]
    assert f"in 2 of {len(items)} forecasts, at worst in 50 % of the voxels ({warned[0]})" in message
    assert len(warned) == 2


def test_the_folds_of_the_latest_forecast_count_alone(awake):
    method, forecasts = awake.models.members[0].methods[0], []
    predict = method.predict

    def folding(batch):
        method.folded = 0.0 if forecasts else 0.5
        return predict(batch)

    method.predict = folding
    for expected in (0.5, 0.0):
        awake.predict(arrays(), [0, 10, 20], 35, SPACING)
        assert awake.folded == expected
        forecasts.append(expected)


def test_the_recorded_rule_is_used_and_an_unknown_one_refused(dataset):
    model = finished_model(dataset, read_plans(dataset.plans()))
    recorded(dataset, member(model, [0]), reduction="last", shrinkage=1.0, context_rule="latest")
    forecaster = Forecaster.load(dataset=1, device="cpu")
    assert forecaster.rule == forecaster.settings()["context_rule"] == "latest"
    recorded(dataset, member(model, [0]), reduction="last", shrinkage=1.0, context_rule="newest")
    with pytest.raises(ConfigurationError, match=r"context rule 'newest' .* latest, spread, subsets"):
        Forecaster.load(dataset=1, device="cpu")


def test_the_reduction_that_chose_the_weights_of_most_folds_is_used(dataset):
    plans = read_plans(dataset.plans())
    for fold, reduction in enumerate(("mean", "last", "mean")):
        path = finished_model(dataset, plans, random=True, fold=fold, seed=fold).fold(fold).final
        checkpoint = read_checkpoint(path)
        checkpoint.header["reduction"] = reduction
        write_checkpoint(checkpoint, path)
    forecaster = Forecaster.load(device="cpu", steps=1)
    assert forecaster.settings()["reduction"] == "mean"
    expected = replace(forecaster.models.selection, reduction="mean")
    found = forecaster.predict(arrays(2, kind="float32"), [0, 10], 20, SPACING)
    explicit = Forecaster(replace(forecaster.models, selection=expected))
    assert np.array_equal(found, explicit.predict(arrays(2, kind="float32"), [0, 10], 20, SPACING))


def test_several_channels(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=1, scans=2, channels=2, prepare=False)
    finished_model(dataset, read_plans(dataset.plans()))
    forecaster = Forecaster.load(device="cpu")
    scans = [np.stack([scan_array(1, index, channel=channel) for channel in (0, 1)]) for index in (0, 1)]
    found = forecaster.predict(scans, [0, 10], 20, SPACING)
    assert found.shape == (2, *SHAPE) and np.array_equal(found, scans[1])
    images = [sitk.Compose(*[sitk.GetImageFromArray(channel) for channel in scan]) for scan in scans]
    found = forecaster.predict(images, [0, 10], 20)
    assert found.GetNumberOfComponentsPerPixel() == 2
    assert np.array_equal(np.moveaxis(sitk.GetArrayFromImage(found), -1, 0), scans[1])
    with pytest.raises(DataError, match=r"has 1 channels, but the model has 2: channel 0, channel 1"):
        forecaster.predict(arrays(), [0, 10, 20], 35, SPACING)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": [0, 10]}, "There are 3 scans and 2 times"),
        ({"scans": [], "times": []}, "There are 0 scans and 0 times"),
        ({"target": 20}, "requested time 20 of subject is not after its last context scan .20 days"),
        ({"target": -5}, "requested time -5 of subject is not after"),
        ({"target": float("nan")}, "different finite numbers"),
        ({"target": float("inf")}, "different finite numbers"),
        ({"times": [0, 20, 20]}, "different finite numbers"),
        ({"spacing": None}, "a spacing of three numbers"),
        ({"spacing": (1, 1)}, "a spacing of three numbers"),
        ({"scans": [array[0] for array in arrays()]}, "Arrays need the shape"),
        ({"scans": [arrays()[0][:, :-1], *arrays()[1:]]}, "must lie on one grid"),
        ({"scans": [np.full(SHAPE, np.nan), *arrays()[1:]]}, "NaN or infinite"),
    ],
)
def test_what_cannot_be_forecast(untrained, changes, message):
    arguments = {"scans": arrays(), "times": [0, 10, 20], "target": 35, "spacing": SPACING, **changes}
    with pytest.raises(DataError, match=message):
        untrained.predict(**arguments)


def recorded(dataset, *members, **choices):
    write_json({"members": list(members), **choices}, dataset.best)


def member(model, folds):
    return {
        "method": model.method,
        "plans_name": model.plans_name,
        "configuration": model.configuration,
        "folds": folds,
    }


def test_shrinkage_rounding_and_a_method_without_training(dataset):
    """LCI + 0.5 (context mean - LCI), rounded to the whole numbers of the input; the method needs no fold."""
    plans = read_plans(dataset.plans())
    mean = dataset.model("context_mean", "longflowPlans", "3d_fullres")
    write_plans(plans, mean.plans)
    recorded(dataset, member(mean, []), reduction=None, shrinkage=0.5)
    finished_model(dataset, plans)
    scans = arrays(2)
    found = Forecaster.load(device="cpu").predict(scans, [0, 10], 20, SPACING)
    assert found.dtype == np.int16
    # the mean is taken in the normal form, in which each scan has its own map
    normal = [(scan - scan[scan > 0].mean()) / scan[scan > 0].std() for scan in scans]
    change = 0.5 * (np.mean(normal, axis=0) - normal[1]) * scans[1].std()
    assert np.abs(found - (scans[1] + change)).max() <= 0.51


def test_a_method_without_training_takes_all_scans(dataset):
    """The plan's sequence length is what a network was trained with; the first scan may be a period back."""
    plans = read_plans(dataset.plans())
    plans.temporal.period, plans.temporal.sequence_length = 40.0, 2
    model = dataset.model("periodic", "longflowPlans", "3d_fullres")
    write_plans(plans, model.plans)
    recorded(dataset, member(model, []), reduction="forecast", shrinkage=1.0)
    finished_model(dataset, read_plans(dataset.plans()))
    scans = [arrays(1, kind="float32")[0] * (1 + number) for number in range(4)]
    found = Forecaster.load(device="cpu").predict(scans, [0, 10, 20, 30], 40, SPACING)
    first, last = ((scan - scan[scan > 0].mean()) / scan[scan > 0].std() for scan in (scans[0], scans[-1]))
    expected = scans[-1] + (first - last) * scans[-1].std()
    assert np.abs(found - expected).max() < 1e-2 * np.abs(scans[-1]).max()


def test_the_lci_runs_no_network(dataset, monkeypatch):
    """As longflow 0.1 recorded it: the first model with shrinkage 0."""
    model = finished_model(dataset, read_plans(dataset.plans()), random=True)
    recorded(dataset, member(model, [0]), reduction="last", shrinkage=0.0)
    forecaster, scans = Forecaster.load(device="cpu"), arrays(kind="float32")
    (method,) = forecaster.models.members[0].methods
    monkeypatch.setattr(method, "predict", None)  # called, it would be an error
    assert np.array_equal(forecaster.predict(scans, [0, 10, 20], 35, SPACING), scans[-1])
    with pytest.raises(DataError, match="not after its last context scan"):
        forecaster.predict(scans, [0, 10, 20], 15, SPACING)


def test_the_recorded_lci_needs_no_weights(dataset):
    model = dataset.model("lci", "longflowPlans", "3d_fullres")
    write_plans(read_plans(dataset.plans()), model.plans)
    recorded(dataset, member(model, []), reduction="forecast", shrinkage=1.0)
    scans = arrays(kind="float32")
    forecaster = Forecaster.load(dataset=1, device="cpu")
    assert np.array_equal(forecaster.predict(scans, [0, 10, 20], 35, (2.5, 0.7, 0.7)), scans[-1])
    assert forecaster.settings()["folds"] == [[]] and not list(forecaster.models.members[0].methods[0].parameters())


def test_ensembles_and_reductions(dataset):
    """The mean of two models is the mean of their forecasts; the recorded reduction is the one that is taken."""
    plans = read_plans(dataset.plans())
    one = finished_model(dataset, plans, "cronos", random=True, seed=1)
    two = finished_model(dataset, plans, "tfm", random=True, seed=2)
    scans = arrays(2, kind="float32")

    def forecast(*members, reduction):
        recorded(dataset, *members, reduction=reduction, shrinkage=1.0)
        return Forecaster.load(device="cpu", steps=1).predict(scans, [0, 10], 20, SPACING)

    first, second = (forecast(member(model, [0]), reduction="mean") for model in (one, two))
    both = forecast(member(one, [0]), member(two, [0]), reduction="mean")
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5)
    assert not np.allclose(first, forecast(member(one, [0]), reduction="last"))
    with pytest.raises(ConfigurationError, match=r"reduction 'median' is not one of cronos: last, mean"):
        forecast(member(one, [0]), reduction="median")


def test_a_rung_in_an_ensemble_has_its_own_reduction_and_takes_every_scan(dataset):
    plans = read_plans(dataset.plans())
    plans.temporal.sequence_length = 2
    trained = finished_model(dataset, plans, "cronos", random=True)
    rung = dataset.model("context_mean", "longflowPlans", "3d_fullres")
    write_plans(plans, rung.plans)
    scans = arrays(4, kind="float32")

    def forecast(*members, reduction, **settings):
        recorded(dataset, *members, reduction=reduction, shrinkage=1.0)
        return Forecaster.load(device="cpu", **settings).predict(scans, [0, 10, 20, 30], 40, SPACING)

    one = forecast(member(trained, [0]), reduction="last", steps=1)
    mean = forecast(member(rung, []), reduction="forecast")
    both = forecast(member(trained, [0]), member(rung, []), reduction="last", steps=1)
    np.testing.assert_allclose(both, (one + mean) / 2, rtol=1e-4)


def test_folds_solver_and_steps(dataset):
    plans = read_plans(dataset.plans())
    for fold in (0, 1):
        finished_model(dataset, plans, random=True, fold=fold, seed=fold)
    scans = arrays(2, kind="float32")

    def forecast(**settings):
        return Forecaster.load(device="cpu", **settings).predict(scans, [0, 10], 20, SPACING)

    zero, one, both = (forecast(folds=folds, steps=1) for folds in ([0], [1], None))
    np.testing.assert_allclose(both, (zero + one) / 2, rtol=1e-5)
    assert not np.allclose(forecast(folds=[0], steps=2), zero)
    assert not np.allclose(forecast(folds=[0], steps=1, solver="midpoint"), zero)


def test_a_model_is_found_without_its_raw_data(dataset):
    """A shipped model is its results folder alone."""
    finished_model(dataset, read_plans(dataset.plans()))
    assert training_series(dataset.raw)
    shutil.rmtree(dataset.raw)
    shutil.rmtree(dataset.preprocessed)
    assert Forecaster.load("Dataset001_Test", device="cpu").predict(arrays(), [0, 10, 20], 35, SPACING) is not None


def test_an_unknown_solver_names_the_nearest(untrained):
    with pytest.raises(NotFoundError, match="Did you mean 'euler'"):
        Forecaster.load(device="cpu", solver="eular")
