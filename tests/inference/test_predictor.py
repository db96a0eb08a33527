import hashlib
import logging
import shutil
from dataclasses import dataclass

import nibabel
import numpy as np
import pytest
import torch

from longflow.data.dataset import (
    Scan,
    image_path,
    read_description,
    read_rows,
    series_of_folder,
    write_description,
    write_scans,
)
from longflow.data.images import read_scan, write_volume
from longflow.errors import ConfigurationError, DataError, InUseError, ModelError, NotFoundError
from longflow.files import write_json
from longflow.inference.models import PredictionSettings
from longflow.inference.predictor import Predictor, load_predictor, memory_of_input, predict_folder
from longflow.inference.selection import select
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.paths import lock_in
from longflow.plans import TrainingData, read_plans
from longflow.reading import read_json
from longflow.task import TASKS, Words, get_task
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.segment.predictor import Segmenter
from tests.conftest import another_process_holds
from tests.inference.helpers import segmentation_model
from tests.training.helpers import SHAPE, TIMES, finished_model, geometry, make_dataset, scan_array

SUBJECTS = ("a", "b")


@pytest.fixture
def forecaster(dataset):
    finished_model(dataset, read_plans(dataset.plans()))
    return Forecaster.load(device="cpu")


@pytest.fixture
def folder(dataset, tmp_path):
    """Two subjects of three scans, with a requested one at day 40 each."""
    return make_input(dataset, tmp_path / "in")


def make_input(dataset, folder, shape=SHAPE, spacing=(1.0, 1.0, 1.0), requested=True):
    description = read_description(dataset.raw / "dataset.json")
    rows = []
    for number, subject in enumerate(SUBJECTS):
        for index, time in enumerate(TIMES[: 4 if requested else 3]):
            case = f"{subject}_{index}"
            files = tuple(
                image_path(folder, case, channel, description) for channel in range(len(description.channels))
            )
            rows.append(Scan(case, subject, time, files))
            if index < 3:
                for channel, file in enumerate(files):
                    array = scan_array(50 + number, index, shape, channel)
                    write_volume(array, geometry(shape, spacing), "int16", file)
    write_scans(rows, folder / "scans.csv")
    return folder


def test_the_plans_of_the_model_decide_the_predictor(dataset):
    finished_model(dataset, read_plans(dataset.plans()))
    predictor = load_predictor(select(), PredictionSettings("cpu", "midpoint", 2, mirror=True))
    assert isinstance(predictor, Forecaster) and predictor.models.mirror
    assert (predictor.settings()["solver"], predictor.settings()["steps"]) == ("midpoint", 2)
    segmentation_model(dataset)
    assert isinstance(load_predictor(select(method="unet")), Segmenter)


def test_every_task_has_its_predictor():
    for name in TASKS.names():
        assert get_task(name).predictor().task == name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_rows_without_an_image_are_forecast(forecaster, folder, tmp_path):
    requests = predict_folder(forecaster, folder, tmp_path / "out")
    assert [item.target.case for item in requests] == ["a_3", "b_3"]
    assert names(tmp_path / "out") == [
        "a_3.json", "a_3_0000.nii.gz", "b_3.json", "b_3_0000.nii.gz", "dataset.json", "scans.csv",
    ]  # fmt: skip
    for subject in SUBJECTS:  # an untrained flow is the last context scan
        found = read_scan((tmp_path / "out" / f"{subject}_3_0000.nii.gz",))
        last = read_scan((folder / f"{subject}_2_0000.nii.gz",))
        assert np.array_equal(found.array, last.array) and found.data_type == "int16"
        assert not found.geometry.differences(last.geometry)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_sidecar_says_what_was_made_from_what(forecaster, folder, tmp_path):
    predict_folder(forecaster, folder, tmp_path / "out")
    content = read_json(tmp_path / "out" / "a_3.json")
    model = forecaster.models.members[0].member.model
    assert content.pop("digests") == {
        "inputs": {name: sha256(folder / name) for name in (f"a_{index}_0000.nii.gz" for index in range(3))},
        "plans": [sha256(model.plans)],
        "weights": [[sha256(model.fold(0).final)]],
    }
    versions = content.pop("versions")
    assert set(versions) == {"torch", "nnunetv2", "torchdiffeq", "SimpleITK"}
    assert content.pop("intended_use").startswith("research") and content.pop("longflow_version")
    assert len(content.pop("plan_identity")[0]) == 16
    assert content.pop("fitness")["verdict"] == "unknown"  # the plans are of an earlier version
    assert content == {
        "case": "a_3",
        "subject": "a",
        "target_time": 40.0,
        "time_unit": "days",
        "horizon": 15.0,
        "horizon_outside_training": False,
        "context": ["a_0", "a_1", "a_2"],
        "context_times": [0.0, 10.0, 25.0],
        "context_rule": "spread",
        "context_used": ["a_0", "a_1", "a_2"],
        "hide_context": None,
        "test_protocol": None,
        "dataset": "Dataset001_Test",
        "method": ["cronos"],
        "configuration": ["3d_fullres"],
        "plans": ["longflowPlans"],
        "folds": [[0]],
        "reduction": "last",
        "shrinkage": 1.0,
        "solver": "euler",
        "steps": 10,
        "function_evaluations": 10,
        "mirror": False,
        "warnings": [],
    }


def test_times_for_every_subject_instead(forecaster, folder, tmp_path):
    """A time between scans is forecast from the earlier ones alone; a time given twice is made once."""
    requests = predict_folder(forecaster, folder, tmp_path / "out", {"times": (35, 12.5, 35)})
    assert [item.target.case for item in requests] == ["a_t35", "a_t12.5", "b_t35", "b_t12.5"]
    assert [len(item.context) for item in requests] == [3, 2, 3, 2]
    assert read_json(tmp_path / "out" / "a_t12.5.json")["context"] == ["a_0", "a_1"]


def test_the_memory_of_the_input_is_that_of_its_voxels(dataset, forecaster, folder):
    """In float32; a file that cannot be read counts as nothing, and its own error is said later."""
    requests = forecaster.requests(folder, forecaster.models.description)
    item = requests[0]
    scans = len(forecaster.inputs(item))
    assert scans > 1 and memory_of_input(forecaster, item) == scans * 4 * np.prod(SHAPE)
    forecaster.inputs(item)[0].write_bytes(b"no image")
    assert memory_of_input(forecaster, item) == (scans - 1) * 4 * np.prod(SHAPE)


def test_the_output_is_a_valid_input(dataset, forecaster, folder, tmp_path):
    """Further commands into one folder add to its table; from all that, later times can be forecast."""
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    predict_folder(forecaster, folder, out, {"times": (50.0,)})
    rows = {row.case: float(row.time) for row in read_rows(out / "scans.csv")}
    assert rows == {"a_3": 40, "b_3": 40, "a_t50": 50, "b_t50": 50}
    assert read_description(out / "dataset.json") == read_description(dataset.raw / "dataset.json")
    series = series_of_folder(out, read_description(out / "dataset.json"))
    assert [len(one.scans) for one in series] == [2, 2] and all(scan.exists for one in series for scan in one.scans)
    again = predict_folder(forecaster, out, tmp_path / "later", {"times": (60.0,)})
    assert [scan.case for scan in again[0].context] == ["a_3", "a_t50"]


def test_finished_forecasts_are_kept(forecaster, folder, tmp_path, caplog):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*_3*")}
    calls = []
    with caplog.at_level(logging.INFO):
        predict_folder(forecaster, folder, out, progress=lambda *call: calls.append(call))
    assert calls == [(0, 0, "")] and "2 of 2 forecasts are finished and kept" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in out.glob("*_3*")} == before
    (out / "a_3.json").unlink()
    (out / "b_3_0000.nii.gz").unlink()
    predict_folder(forecaster, folder, out, progress=lambda *call: calls.append(call))
    assert calls[1:] == [(0, 2, "a_3"), (1, 2, "b_3"), (2, 2, "")]
    predict_folder(forecaster, folder, out, overwrite=True, progress=lambda *call: calls.append(call))
    assert len(calls) == 7


def test_a_forecast_is_made_again_where_its_scans_have_changed(forecaster, folder, tmp_path):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    table = folder / "scans.csv"
    table.write_text(table.read_text().replace("a_2,a,25.0", "a_2,a,30.0"))
    predict_folder(forecaster, folder, out)
    assert read_json(out / "a_3.json")["context_times"] == [0, 10, 30]


def test_a_scan_that_was_replaced_is_predicted_from_and_that_is_said(forecaster, folder, tmp_path, caplog):
    """The forecast of an untrained flow is the last scan, so a kept one would show the old scan."""
    out, replaced = tmp_path / "out", folder / "a_2_0000.nii.gz"
    predict_folder(forecaster, folder, out)
    before = (out / "b_3_0000.nii.gz").stat().st_mtime_ns
    shutil.copy(folder / "b_0_0000.nii.gz", replaced)
    with caplog.at_level(logging.INFO):
        predict_folder(forecaster, folder, out)
    assert "Made again, because a_2_0000.nii.gz changed: a_3." in caplog.text
    assert np.array_equal(read_scan((out / "a_3_0000.nii.gz",)).array, read_scan((replaced,)).array)
    assert (out / "b_3_0000.nii.gz").stat().st_mtime_ns == before and "1 of 2 forecasts are finished" in caplog.text


def test_what_was_copied_again_unchanged_is_kept(forecaster, folder, tmp_path, caplog):
    predict_folder(forecaster, folder, tmp_path / "out")
    (folder / "a_2_0000.nii.gz").touch()
    model = forecaster.models.members[0].member.model
    shutil.copy(model.plans, tmp_path / "plans.json")
    shutil.copy(tmp_path / "plans.json", model.plans)
    with caplog.at_level(logging.INFO):
        predict_folder(Forecaster.load(device="cpu"), folder, tmp_path / "out")
    assert "2 of 2 forecasts are finished and kept" in caplog.text


def test_weights_and_plans_of_the_same_name_that_changed(dataset, forecaster, folder, tmp_path, caplog):
    out, plans = tmp_path / "out", read_plans(dataset.plans())
    predict_folder(forecaster, folder, out)
    finished_model(dataset, plans, random=True)
    retrained = Forecaster.load(device="cpu")
    with caplog.at_level(logging.INFO):
        predict_folder(retrained, folder, out)
    assert "Made again, because the weights of the model changed: a_3, b_3." in caplog.text
    predict_folder(retrained, folder, tmp_path / "new")
    made, new = (read_scan((place / "a_3_0000.nii.gz",)).array for place in (out, tmp_path / "new"))
    assert np.array_equal(made, new)
    plans.inference.tile_step_size = 1.0
    finished_model(dataset, plans, random=True)
    with caplog.at_level(logging.INFO):
        predict_folder(Forecaster.load(device="cpu"), folder, out)
    assert "Made again, because the plans of the model changed: a_3, b_3." in caplog.text


@pytest.mark.parametrize("sidecar", ["{}", "[1]", "{", '{"case": "a_3"}'])
def test_a_sidecar_that_says_nothing_proves_nothing(forecaster, folder, tmp_path, sidecar):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    whole = read_json(out / "a_3.json")
    (out / "a_3.json").write_text(sidecar)
    predict_folder(forecaster, folder, out)
    assert read_json(out / "a_3.json") == whole


def test_predictions_of_an_earlier_version_are_made_again(forecaster, folder, tmp_path, caplog):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    write_json({key: value for key, value in read_json(out / "a_3.json").items() if key != "digests"}, out / "a_3.json")
    with caplog.at_level(logging.INFO):
        predict_folder(forecaster, folder, out)
    assert "an earlier version of longflow did not note what they were made from: a_3." in caplog.text


@pytest.mark.parametrize(("text", "kept"), [("first:1", [1, 2]), ("last:2", [0])])
def test_hidden_scans_are_as_good_as_not_there(dataset, folder, tmp_path, text, kept):
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    forecaster, hidden = Forecaster.load(device="cpu", steps=1), tmp_path / "hidden"
    predict_folder(forecaster, folder, hidden, {"hide_context": text})
    for subject in SUBJECTS:
        for index in {0, 1, 2} - set(kept):
            (folder / f"{subject}_{index}_0000.nii.gz").unlink()
    table = folder / "scans.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(row for row in rows if not row[2:3].isdigit() or int(row[2]) in [*kept, 3]))
    predict_folder(forecaster, folder, tmp_path / "missing")
    for subject in SUBJECTS:
        found, expected = (
            read_scan((out / f"{subject}_3_0000.nii.gz",)).array for out in (hidden, tmp_path / "missing")
        )
        assert np.array_equal(found, expected)
        sidecar = read_json(hidden / f"{subject}_3.json")
        assert sidecar["hide_context"] == text and sidecar["context"] == [f"{subject}_{index}" for index in kept]


def test_forecasts_with_and_without_hidden_scans_are_not_mixed(forecaster, folder, tmp_path):
    hiding = {"hide_context": "last:1"}
    predict_folder(forecaster, folder, tmp_path / "all")
    with pytest.raises(ConfigurationError, match=r"a_3.json was made with hide_context None, .* has last:1"):
        predict_folder(forecaster, folder, tmp_path / "all", hiding)
    predict_folder(forecaster, folder, tmp_path / "hidden", hiding)
    with pytest.raises(ConfigurationError, match=r"a_3.json was made with hide_context last:1, .* has None"):
        predict_folder(forecaster, folder, tmp_path / "hidden")


def test_forecasts_of_another_model_are_not_mixed_in(dataset, forecaster, folder, tmp_path):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    finished_model(dataset, read_plans(dataset.plans()), "tfm")
    other = Forecaster.load(method="tfm", device="cpu")
    with pytest.raises(ConfigurationError, match=r"a_3.json was made with method \['cronos'\], .* has \['tfm'\]"):
        predict_folder(other, folder, out)
    assert read_json(out / "a_3.json")["method"] == ["cronos"]
    predict_folder(other, folder, out, overwrite=True)
    assert read_json(out / "a_3.json")["method"] == ["tfm"]


def test_a_horizon_that_was_never_trained_on_is_a_warning(forecaster, folder, tmp_path, caplog):
    """Training saw at most 60 days."""
    with caplog.at_level(logging.WARNING):
        predict_folder(forecaster, folder, tmp_path / "out", {"times": (85.0, 86.0)})
    inside, outside = (read_json(tmp_path / "out" / f"a_t{time}.json") for time in (85, 86))
    assert not inside["horizon_outside_training"] and inside["warnings"] == []
    assert (
        outside["horizon_outside_training"] and "longer than any that the model was trained" in outside["warnings"][0]
    )
    assert "a_t86: The horizon of 61 days" in caplog.text and "a_t85" not in caplog.text


def test_two_transforms_are_a_warning_and_the_forecast_keeps_both(forecaster, folder, tmp_path, caplog):
    for path in folder.glob("a_*.nii.gz"):
        image = nibabel.load(path)
        moved = image.affine.copy()
        moved[:3, 3] += 3, 4, 0
        image.set_sform(moved, 2)
        nibabel.save(image, path)
    predict_folder(forecaster, folder, tmp_path / "out")
    warned = [read_json(tmp_path / "out" / f"{subject}_3.json")["warnings"] for subject in SUBJECTS]
    assert "a_2_0000.nii.gz: qform and sform place its corners up to 5 mm apart. The qform is used" in str(warned[0])
    assert "a_2_0000.nii.gz: qform and sform" in caplog.text and warned[1] == []
    last, made = (nibabel.load(path).header for path in (folder / "a_2_0000.nii.gz", tmp_path / "out/a_3_0000.nii.gz"))
    for name in ("qform_code", "sform_code", "srow_x", "srow_y", "qoffset_x", "quatern_b"):
        np.testing.assert_array_equal(made[name], last[name])


@pytest.mark.parametrize(
    ("shape", "spacing"), [((5, 20, 24), (1.0, 0.5, 0.5)), ((3, 7, 9), (2.0, 1.7, 1.3)), (SHAPE, (1.0, 1.0, 1.0))]
)
def test_another_spacing_than_that_of_training(dataset, tmp_path, shape, spacing):
    """Forecasts are on the input's grid, whatever the grid of the model."""
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    folder = make_input(dataset, tmp_path / "in", shape, spacing)
    predict_folder(Forecaster.load(device="cpu", steps=1), folder, tmp_path / "out")
    found, last = read_scan((tmp_path / "out" / "a_3_0000.nii.gz",)), read_scan((folder / "a_2_0000.nii.gz",))
    assert found.array.shape == last.array.shape == (1, *shape) and not found.geometry.differences(last.geometry)
    assert not np.array_equal(found.array, last.array)


def test_all_channels_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    dataset = make_dataset(subjects=1, channels=2, prepare=False)
    finished_model(dataset, read_plans(dataset.plans()))
    folder = make_input(dataset, tmp_path / "in")
    predict_folder(Forecaster.load(device="cpu"), folder, tmp_path / "out")
    for channel in ("0000", "0001"):
        found, last = (
            read_scan((tmp_path / name,)).array for name in (f"out/a_3_{channel}.nii.gz", f"in/a_2_{channel}.nii.gz")
        )
        assert np.array_equal(found, last)
    (folder / "b_1_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b_1_\*\.nii\.gz: channels: found 0000; expected 0000, 0001"):
        predict_folder(Forecaster.load(device="cpu"), folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_one_broken_subject_does_not_cost_the_others(forecaster, folder, tmp_path):
    broken = folder / "a_1_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=r"(?s)1 of 2 forecasts could not be made\. .*a_3: .*a_1_0000.nii.gz is trunc"):
        predict_folder(forecaster, folder, tmp_path / "out")
    out = tmp_path / "out"
    assert names(out) == ["b_3.json", "b_3_0000.nii.gz", "dataset.json", "scans.csv"]
    assert [row.case for row in read_rows(out / "scans.csv")] == ["b_3"]
    shutil.copy(folder / "a_0_0000.nii.gz", broken)  # mended: only the missing one is made
    before = (out / "b_3_0000.nii.gz").stat().st_mtime_ns
    predict_folder(forecaster, folder, out)
    assert (out / "a_3.json").is_file() and (out / "b_3_0000.nii.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("no such thing"), ValueError("negative")])
def test_whatever_fails_for_one_subject_does_not_cost_the_others(forecaster, folder, tmp_path, monkeypatch, failure):
    def fails_for_a(paths):
        if paths[0].name.startswith("a_"):
            raise failure
        return read_scan(paths)

    monkeypatch.setattr("longflow.tasks.forecast.predictor.read_scan", fails_for_a)
    with pytest.raises(DataError, match=r"1 of 2 forecasts could not be made(?s:.)*a_3: ") as raised:
        predict_folder(forecaster, folder, tmp_path / "out")
    assert ("memory of this machine" if isinstance(failure, MemoryError) else str(failure)) in str(raised.value)
    assert [row.case for row in read_rows(tmp_path / "out" / "scans.csv")] == ["b_3"]


@pytest.mark.parametrize("step", ["read", "make", "write"])
def test_a_step_that_runs_out_of_memory_is_done_again_alone(forecaster, folder, tmp_path, monkeypatch, step):
    """Other subjects that are read or written at the same time may have taken the memory."""
    tried, done = [], getattr(forecaster, step)

    def has_no_memory_at_first(item, *further):
        tried.append(item.target.case)
        if item.target.case == "a_3" and tried.count("a_3") == 1:
            raise MemoryError
        return done(item, *further)

    monkeypatch.setattr(forecaster, step, has_no_memory_at_first)
    predict_folder(forecaster, folder, tmp_path / "out")
    assert tried == ["a_3", "b_3", "a_3"]
    assert [row.case for row in read_rows(tmp_path / "out" / "scans.csv")] == ["a_3", "b_3"]


def test_a_folder_that_is_interrupted_holds_whole_forecasts_and_goes_on(forecaster, folder, tmp_path, monkeypatch):
    whole, out, times = tmp_path / "whole", tmp_path / "out", {"times": (50, 60, 70)}
    predict_folder(forecaster, folder, whole, times)
    make = forecaster.make

    def is_interrupted_at_b(item, scans):
        if item.target.case == "b_t60":
            raise KeyboardInterrupt
        return make(item, scans)

    monkeypatch.setattr(forecaster, "make", is_interrupted_at_b)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(forecaster, folder, out, times)
    cases = ["a_t50", "a_t60", "a_t70", "b_t50"]
    assert names(out) == sorted([f"{case}.json" for case in cases] + [f"{case}_0000.nii.gz" for case in cases])
    monkeypatch.undo()
    predict_folder(forecaster, folder, out, times)
    assert names(out) == names(whole)
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names(whole))


def test_a_scan_without_content_is_an_error_of_its_subject(forecaster, folder, tmp_path):
    write_volume(np.full(SHAPE, 7), geometry(), "int16", folder / "a_1_0000.nii.gz")
    with pytest.raises(DataError, match=r"1 of 2 forecasts(?s:.)*a_3: a_1_0000.nii.gz: voxels: found all 7; expected"):
        predict_folder(forecaster, folder, tmp_path / "out")


def test_scans_unlike_the_training_data_are_warnings_on_screen_and_in_the_sidecar(dataset, folder, tmp_path, caplog):
    plans = read_plans(dataset.plans())
    ranges = {"spacing": [(1, 1)] * 3, "field_of_view": [(5, 5), (10, 10), (12, 12)], "shortest_interval": 10}
    intensities = [{"percentile_00_5": 100, "median": 150, "percentile_99_5": 400}]
    plans.training_data = TrainingData(**ranges, intensities=intensities, foreground="bodies")
    finished_model(dataset, plans)
    forecaster = Forecaster.load(device="cpu")
    with caplog.at_level(logging.WARNING):
        predict_folder(forecaster, folder, tmp_path / "like")
    assert not caplog.text and read_json(tmp_path / "like" / "a_3.json")["warnings"] == []
    for index in range(3):  # metres
        write_volume(scan_array(50, index), geometry(spacing=(1e-3,) * 3), "int16", folder / f"a_{index}_0000.nii.gz")
    rewrite(folder, "a_3,a,40.0", "a_3,a,30.0")
    with caplog.at_level(logging.WARNING):
        predict_folder(forecaster, folder, tmp_path / "unlike", {"times": (30.0, 31.0)})
    one, other = (read_json(tmp_path / "unlike" / f"a_t{time}.json") for time in (30, 31))
    assert one["horizon_outside_training"] and "5 days is shorter than any" in one["warnings"][0]
    found = "a_0_0000.nii.gz: spacing: found 0.001 x 0.001 x 0.001 mm (z, y, x); expected about 1 x 1 x 1 mm"
    assert len(one["warnings"]) == len(other["warnings"]) == 4 and one["warnings"][1].startswith(found)
    assert caplog.text.count(found) == 1  # read once for both
    assert [
        warning for warning in read_json(tmp_path / "unlike" / "b_t30.json")["warnings"] if "spacing" in warning
    ] == []


def test_times_in_another_unit_are_a_warning_on_screen_and_in_every_sidecar(forecaster, folder, tmp_path, caplog):
    """0, 10, 25 and 40 days in years, where training had intervals of 5 to 60 days."""
    text = (folder / "scans.csv").read_text()
    for days in (0, 10, 25, 40):
        text = text.replace(f",{float(days)}", f",{days / 365.25:.4f}")
    (folder / "scans.csv").write_text(text)
    with caplog.at_level(logging.WARNING):
        predict_folder(forecaster, folder, tmp_path / "out")
    for case in ("a_3", "b_3"):
        (warning,) = (text for text in read_json(tmp_path / "out" / f"{case}.json")["warnings"] if "median" in text)
        assert "scans.csv: time: found a median interval of 0.041;" in warning
        assert "may be in years (0.041 years are 15 days)" in warning
    assert caplog.text.count("may be in years") == 1


def test_weights_that_are_no_numbers_and_predictions_that_are_none(dataset, folder, tmp_path):
    plans = read_plans(dataset.plans())
    model = finished_model(dataset, plans)
    forecaster = Forecaster.load(device="cpu")
    with torch.no_grad():
        next(forecaster.models.members[0].methods[0].parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=r"a_3: The network's outputs of .*fold_0/checkpoint_final.safetensors are not"):
        predict_folder(forecaster, folder, tmp_path / "out")
    assert list((tmp_path / "out").glob("*.nii.gz")) == []
    checkpoint = read_checkpoint(model.fold(0).final)
    name = next(iter(checkpoint.part("weights")))
    checkpoint.tensors[f"weights.{name}"].view(-1)[0] = float("inf")
    write_checkpoint(checkpoint, model.fold(0).final)
    with pytest.raises(ModelError, match=f"fold_0/checkpoint_final.safetensors holds .* no finite numbers, in {name}"):
        Forecaster.load(device="cpu")


def test_scans_of_a_subject_on_different_grids(forecaster, folder, tmp_path):
    write_volume(scan_array(50, 1), geometry(spacing=(1.0, 1.0, 1.2)), "int16", folder / "a_1_0000.nii.gz")
    with pytest.raises(DataError, match=r"a_3: .*a_1_0000.nii.gz: spacing is 1.2 x 1 x 1, but .*a_0_0000.nii.gz"):
        predict_folder(forecaster, folder, tmp_path / "out")


def rewrite(folder, old, new):
    text = (folder / "scans.csv").read_text()
    assert old in text
    (folder / "scans.csv").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b_3,b,40.0", "b_3,b,-5", r"b_3: subject b is requested at time -5, but its first scan is at 0"),
        ("b_3,b,40.0", "b_3,c,40", r"b_3: subject c is requested at time 40, but it has no scan with an image"),
        ("b_3,b,40.0", "b_3,b,25", "line 9: time: found 25 of subject b, as in line 8; expected one scan"),
        ("b_3,b,40.0", "b_3,b,2024-05-01", "line 9: time: found '2024-05-01', a date; expected a number"),
        ("a_3,a,40.0\n", "", None),
        ("case,subject,time", "case,patient,time", "has no column subject"),
    ],
)
def test_tables_that_cannot_be_forecast(forecaster, folder, tmp_path, old, new, message):
    rewrite(folder, old, new)
    if message is None:  # a subject without a requested scan is no error
        assert [item.target.case for item in predict_folder(forecaster, folder, tmp_path / "out")] == ["b_3"]
        return
    with pytest.raises(DataError, match=message):
        predict_folder(forecaster, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_requested_or_exists(forecaster, dataset, tmp_path):
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        predict_folder(forecaster, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"scans.csv does not exist"):
        predict_folder(forecaster, tmp_path / "empty", tmp_path / "out")
    folder = make_input(dataset, tmp_path / "in", requested=False)
    with pytest.raises(DataError, match=r"requests no forecast: .*give times for every subject with -t"):
        predict_folder(forecaster, folder, tmp_path / "out")


@pytest.mark.parametrize("times", [[-3.0], [0.0]])
def test_a_requested_time_before_the_context(forecaster, folder, tmp_path, times):
    with pytest.raises(DataError, match=r"a_t.*A forecast needs at least one earlier scan(?s:.)*b_t"):
        predict_folder(forecaster, folder, tmp_path / "out", {"times": times})


def test_a_phase_is_for_translations(forecaster, folder, tmp_path):
    message = r"A phase \(--to\) is for translations, but cronos__.* forecasts\. Remove --to, or .* translates with"
    with pytest.raises(ConfigurationError, match=message):
        predict_folder(forecaster, folder, tmp_path / "out", {"to": "native"})
    with pytest.raises(NotFoundError, match=r"no option 'time'\. Did you mean 'times'"):
        predict_folder(forecaster, folder, tmp_path / "out", {"time": [50.0]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_requested_time_that_is_no_number(forecaster, folder, tmp_path, time):
    with pytest.raises(DataError, match="is not a finite number"):
        predict_folder(forecaster, folder, tmp_path / "out", {"times": (time,)})


@pytest.mark.parametrize("place", ["in", "."])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_unit": "months"}, "time_unit is months, but the model was trained with days"),
        ({"channel_names": {"0": "T2"}}, r"channels is \['T2'\], but the model was trained with \['channel 0'\]"),
        ({"file_ending": ".mha"}, "file_ending is .mha, but the model was trained with .nii.gz"),
    ],
)
def test_another_unit_channel_or_ending(forecaster, dataset, tmp_path, place, changes, message):
    """Said by the input's dataset.json, or by that of the dataset whose imagesTs it is."""
    name = "in" if place == "in" else "imagesTs"
    folder = make_input(dataset, tmp_path / "other" / name)
    description = read_description(dataset.raw / "dataset.json").model_copy(update=changes)
    write_description(description, (folder if place == "in" else folder.parent) / "dataset.json")
    with pytest.raises(DataError, match=message):
        predict_folder(forecaster, folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["imagesTr", "targetsTs", "."])
def test_forecasts_are_not_written_among_acquired_scans(dataset, forecaster, folder, name):
    (dataset.raw / name).mkdir(exist_ok=True)
    before = names(dataset.raw / name)
    with pytest.raises(ConfigurationError, match="belongs to a raw dataset"):
        predict_folder(forecaster, folder, dataset.raw / name, overwrite=True)
    assert names(dataset.raw / name) == before


def test_a_table_of_other_scans_is_not_replaced(forecaster, folder, tmp_path):
    (tmp_path / "out").mkdir()
    text = "case,subject,time\nx_0,x,0\n"
    (tmp_path / "out" / "scans.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=r"scans.csv names x_0, which is no forecast"):
        predict_folder(forecaster, folder, tmp_path / "out")
    assert (tmp_path / "out" / "scans.csv").read_text() == text and names(tmp_path / "out") == ["scans.csv"]


def test_an_output_that_is_a_file(forecaster, folder, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"out is a file. Give another folder"):
        predict_folder(forecaster, folder, tmp_path / "out" / "forecasts")


@pytest.mark.parametrize("case", ["../../b_3", "/tmp/b_3"])
def test_a_case_that_leads_out_of_the_output_is_refused(forecaster, folder, tmp_path, case):
    rewrite(folder, "b_3,b,40.0", f"{case},b,40.0")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"line 9: case: found '.*b_3'; expected a name without slashes"):
        predict_folder(forecaster, folder, tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_without_its_images_is_said_once(forecaster, folder, tmp_path):
    for path in folder.glob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    message = r"a_0_0000.NII.GZ: name: found other capital letters; expected the file a_0_0000.nii.gz, by line 2 of"
    with pytest.raises(DataError, match=message) as raised:
        predict_folder(forecaster, folder, tmp_path / "out")
    assert "... and 1 more like these" in str(raised.value)
    for path in folder.glob("*.NII.GZ"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of its images; the folder holds scans.csv; expected a_0_0000.nii.gz"):
        predict_folder(forecaster, folder, tmp_path / "out")


class Doubler(Predictor):
    """A task that nobody knows: the volume of every scan twice, as ``{case}_twice``."""

    task = "translate"
    words = Words("twice", "double", "doubles", "doubled", "Doubling", "double", "doubles", "1 scan")

    def requests(self, folder, description):
        scans = [scan for series in series_of_folder(folder, description) for scan in series.with_images().scans]
        return [Doubled(Scan(f"{scan.case}_twice", scan.subject, scan.time, ()), scan) for scan in scans]

    def files(self, item, folder, description):
        return [image_path(folder, item.target.case, 0, description)]

    def read(self, item):
        return read_scan(item.source.images)

    def make(self, item, scans):
        return 2 * scans.array[0], scans.geometry

    def write(self, item, made, folder, description):
        write_volume(*made, "int16", *self.files(item, folder, description))
        return {"warnings": ["twice"], "factor": 2}

    def finish(self, folder):
        (folder / "finished").touch()


@dataclass(frozen=True)
class Doubled:
    target: Scan
    source: Scan

    def provenance(self):
        return {"case": self.target.case, "source": self.source.case}


def test_a_new_task_needs_no_change_here(forecaster, folder, tmp_path, caplog):
    out = tmp_path / "out"
    doubler = Doubler(forecaster.models)
    assert len(predict_folder(doubler, folder, out)) == 6
    assert np.array_equal(
        read_scan((out / "a_1_twice_0000.nii.gz",)).array, 2 * read_scan((folder / "a_1_0000.nii.gz",)).array
    )
    content = read_json(out / "a_1_twice.json")
    assert (content["factor"], content["warnings"], content["source"]) == (2, ["twice"], "a_1")
    assert "a_1_twice: twice" in caplog.text and (out / "finished").is_file()
    again = predict_folder(doubler, out, tmp_path / "again")  # the output is a valid input
    assert again[0].target.case == "a_0_twice_twice"


def test_covariates_of_earlier_rows_are_kept(forecaster, folder, tmp_path):
    out = tmp_path / "out"
    predict_folder(forecaster, folder, out)
    text = (out / "scans.csv").read_text().splitlines()
    (out / "scans.csv").write_text("\n".join([text[0] + ",site", *(line + ",B" for line in text[1:])]) + "\n")
    predict_folder(forecaster, folder, out, {"times": (50,)})
    assert {row.case: row.covariates for row in read_rows(out / "scans.csv")}["a_3"] == {"site": "B"}


def test_scans_are_read_once_for_all_times_of_a_subject(forecaster, folder, tmp_path, monkeypatch):
    read = []

    def noted(paths):
        read.append(paths[0].name)
        return read_scan(paths)

    monkeypatch.setattr("longflow.tasks.forecast.predictor.read_scan", noted)
    predict_folder(forecaster, folder, tmp_path / "out", {"times": (50, 60, 70)})
    assert sorted(read) == [f"{subject}_{index}_0000.nii.gz" for subject in SUBJECTS for index in range(3)]


def test_a_context_that_grows_reads_only_its_new_scans(dataset, folder, tmp_path, monkeypatch):
    """A time after each scan; the forecasts are those of a context that was read for itself."""
    finished_model(dataset, read_plans(dataset.plans()), random=True)
    forecaster, times, read = Forecaster.load(device="cpu", steps=1), (5, 12, 50, 60), []
    for time in times:
        predict_folder(forecaster, folder, tmp_path / "alone", {"times": (time,)})

    def noted(paths):
        read.append(paths[0].name)
        return read_scan(paths)

    monkeypatch.setattr("longflow.tasks.forecast.predictor.read_scan", noted)
    predict_folder(forecaster, folder, tmp_path / "together", {"times": times})
    assert sorted(read) == [f"{subject}_{index}_0000.nii.gz" for subject in SUBJECTS for index in range(3)]
    files = sorted((tmp_path / "alone").glob("*_t*"))
    assert len(files) == 16
    assert all(file.read_bytes() == (tmp_path / "together" / file.name).read_bytes() for file in files)


def test_input_and_output_are_two_folders(forecaster, folder):
    with pytest.raises(ConfigurationError, match="Input and output are the same folder; forecasts would stand"):
        predict_folder(forecaster, folder, folder / ".." / folder.name, overwrite=True)


def test_one_process_predicts_into_a_folder_at_a_time(forecaster, folder, tmp_path):
    out = tmp_path / "out"
    with another_process_holds(lock_in(out)), pytest.raises(InUseError, match="out is being written by another"):
        predict_folder(forecaster, folder, out)
    assert len(predict_folder(forecaster, folder, out)) == 2
    assert not lock_in(out).exists()
