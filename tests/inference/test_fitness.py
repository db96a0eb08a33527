import pytest

from longflow.data.images import Volume, read_scan, write_volume
from longflow.errors import DataError
from longflow.fingerprint.fingerprint import extract_fingerprint
from longflow.inference.fitness import judge_scan, judge_series, look_at, reference_of
from longflow.inference.predictor import predict_folder
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.segment.predictor import Segmenter
from tests.inference.helpers import segmentation_model
from tests.inference.test_predictor import make_input
from tests.training.helpers import SHAPE, finished_model, geometry, scan_array


def volume(seed, spacing=(1.0, 1.0, 1.0)):
    return Volume(scan_array(seed, 0)[None], geometry(SHAPE, spacing), "int16")


@pytest.fixture
def plans(dataset):
    """Plans of the dataset, with what its fingerprint says of the training scans."""
    found = read_plans(dataset.plans())
    found.training_data = extract_fingerprint(dataset.name, processes=1).training_data()
    write_plans(found, dataset.plans())
    return found


@pytest.fixture
def forecaster(dataset, plans):
    finished_model(dataset, plans)
    return Forecaster.load(device="cpu")


def unfit(path):
    """Store one scan with another pattern, brighter a hundred times."""
    scan = read_scan((path,))
    write_volume(100 * scan.array[0] + 5, scan.geometry, "int16", path)


def test_plans_of_an_earlier_version_leave_fitness_unknown(dataset):
    plans = read_plans(dataset.plans())
    assert reference_of(plans) is None and look_at(volume(0), plans) is None
    assert judge_scan(volume(0), plans, "a").level == "unknown"
    assert judge_series([None], [0.0], 10.0, plans, ["a"]).level == "unknown"


def test_a_scan_like_the_training_is_fit_and_one_of_another_spacing_is_not(plans):
    assert judge_scan(volume(77), plans, "a").level == "fit"
    verdict = judge_scan(volume(77, (1.0, 1.0, 2.0)), plans, "a")
    assert verdict.level == "unfit" and any("a: the voxel size along x is 2 mm" in one for one in verdict.reasons)


def test_the_sidecar_has_the_verdict(dataset, forecaster, tmp_path, caplog):
    folder = make_input(dataset, tmp_path / "in")
    unfit(folder / "b_1_0000.nii.gz")
    predict_folder(forecaster, folder, tmp_path / "out")
    good, bad = (read_json(tmp_path / "out" / f"{name}_3.json")["fitness"] for name in "ab")
    assert good["verdict"] != "unfit" and good["training_subjects"] == 6  # by the rank rule, 1 of 7 is doubtful
    assert bad["verdict"] == "unfit" and any(reason.startswith("b_1: ") for reason in bad["reasons"])
    assert "b_3 is unfit: b_1: " in caplog.text and "a_3 is unfit" not in caplog.text


def test_unfit_subjects_are_refused_and_the_others_made(dataset, forecaster, tmp_path):
    folder = make_input(dataset, tmp_path / "in")
    unfit(folder / "b_1_0000.nii.gz")
    with pytest.raises(DataError, match=r"(?s)1 of 2 forecasts could not be made.*b_3: refused.*unfit.*b_1: "):
        predict_folder(forecaster, folder, tmp_path / "out", refuse_unfit=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "a_3_0000.nii.gz" in names and not any(name.startswith("b_3") for name in names)
    assert "b_3" not in (tmp_path / "out" / "scans.csv").read_text()


def test_a_forecast_that_was_made_before_is_refused_too(dataset, forecaster, tmp_path):
    folder = make_input(dataset, tmp_path / "in")
    unfit(folder / "b_1_0000.nii.gz")
    predict_folder(forecaster, folder, tmp_path / "out")
    with pytest.raises(DataError, match="b_3: refused"):
        predict_folder(forecaster, folder, tmp_path / "out", refuse_unfit=True)
    assert not (tmp_path / "out" / "b_3_0000.nii.gz").exists() and (tmp_path / "out" / "a_3.json").exists()


def test_a_horizon_beyond_the_training_is_a_reason(dataset, forecaster, tmp_path):
    folder = make_input(dataset, tmp_path / "in", requested=False)
    predict_folder(forecaster, folder, tmp_path / "out", {"times": (25 + 3650,)})
    fitness = read_json(tmp_path / "out" / "a_t3675.json")["fitness"]
    assert fitness["verdict"] == "unfit" and "3.65e+03 days after the last scan" in fitness["reasons"][0]


def test_models_without_a_reference_predict_also_with_the_flag(dataset, tmp_path):
    finished_model(dataset, read_plans(dataset.plans()))
    folder = make_input(dataset, tmp_path / "in")
    predict_folder(Forecaster.load(device="cpu"), folder, tmp_path / "out", refuse_unfit=True)
    assert read_json(tmp_path / "out" / "a_3.json")["fitness"]["verdict"] == "unknown"


def test_scans_to_segment_are_judged_one_by_one(dataset, plans, tmp_path):
    segmentation_model(dataset)
    folder = make_input(dataset, tmp_path / "in", requested=False)
    predict_folder(Segmenter.load(device="cpu", method="unet"), folder, tmp_path / "out")
    fitness = read_json(tmp_path / "out" / "a_0.json")["fitness"]
    assert set(fitness) == {
        "verdict",
        "reasons",
        "score",
        "doubtful_above",
        "unfit_above",
        "training_subjects",
        "false_alarms",
    }
