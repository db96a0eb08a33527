from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import DatasetDescription, read_rows, write_description
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.files import write_json
from longflow.inference.selection import select
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.tasks.forecast.evaluation import evaluate_forecasts
from longflow.tasks.forecast.pairs import find_pairs, forecasts_of_folder
from longflow.tasks.forecast.segmented import (
    acquired_scans,
    find_labels,
    load_segmenter,
    segment_scans,
    segmented_path,
)
from tests.methods.helpers import minimal_plans
from tests.tasks.conftest import SHAPE
from tests.tasks.forecast.segmenting import EDGES, segment_by_threshold, segmenter_dataset
from tests.training.helpers import finished_model


@pytest.fixture
def cohort(tmp_path, paths, write_scan, write_forecast):
    """Two subjects with three scans: the last is forecast; of s1 the second, too, from the first."""
    generator = np.random.default_rng(0)
    for subject in ("s1", "s2"):
        scans = [3 * generator.random(SHAPE) for _ in range(3)]
        for position, scan in enumerate(scans):
            write_scan(paths.raw / "imagesTr", f"{subject}_{position}", scan)
        write_forecast(tmp_path / "out", f"{subject}_2", (scans[1] + scans[2]) / 2, [f"{subject}_0", f"{subject}_1"])
        if subject == "s1":
            write_forecast(tmp_path / "out", "s1_1", (scans[0] + scans[1]) / 2, ["s1_0"])
    return paths


@pytest.fixture
def job(cohort, tmp_path, description):
    segmenter_dataset()
    return EvaluationJob(tmp_path / "out", (), cohort.raw, description, 1, select("103"), "cpu")


@pytest.fixture
def pairs(job):
    return find_pairs(forecasts_of_folder(job.predictions, job.description), [job.raw / "imagesTr"], job.description)[0]


def array_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def test_every_scan_is_segmented_once_and_kept(job, pairs, monkeypatch, write_forecast):
    labelled, segmenter = segment_by_threshold(monkeypatch), load_segmenter(job)
    segment_scans(job, segmenter, pairs, "context_mean", 0.5)
    # three forecasts, three rungs; s1_1 is a target and a last context scan
    assert len(labelled) == 3 + 3 + len({"s1_0", "s1_1", "s1_2", "s2_1", "s2_2"})
    scan = array_of(job.raw / "imagesTr" / "s2_1_0000.nii.gz")
    assert np.array_equal(array_of(segmented_path(job, "acquired", "s2_1")), np.digitize(scan, EDGES))

    segment_scans(job, segmenter, pairs, "context_mean", 0.5)
    assert len(labelled) == 11
    changed = np.random.default_rng(1).uniform(1, 1.9, SHAPE)
    write_forecast(job.predictions, "s2_2", changed, ["s2_0", "s2_1"])
    segment_scans(job, segmenter, pairs, "context_mean", 0.5)
    assert len(labelled) == 12 and np.allclose(labelled[-1], changed)


def test_another_segmenter_makes_all_label_maps_again(job, pairs, monkeypatch):
    labelled = segment_by_threshold(monkeypatch)
    segment_scans(job, load_segmenter(job), pairs, "lci", 0.5)
    assert len(labelled) == 8
    segmenter_dataset(seed=1)
    segment_scans(job, load_segmenter(job), pairs, "lci", 0.5)
    assert len(labelled) == 16


def test_a_rung_is_segmented_as_it_is_forecast(job, pairs, monkeypatch):
    segment_by_threshold(monkeypatch)
    segmenter = load_segmenter(job)
    segment_scans(job, segmenter, pairs, "context_mean", 0.5)
    scans = [array_of(job.raw / "imagesTr" / f"s2_{position}_0000.nii.gz") for position in (0, 1)]
    expected = np.digitize(np.mean(scans, axis=0).astype(np.float32), EDGES)
    assert np.array_equal(array_of(segmented_path(job, "context_mean", "s2_2")), expected)
    sidecar = read_json(job.predictions / "segmented" / "context_mean" / "s2_2.json")
    assert sidecar["rung"] == "context_mean" and sidecar["context_times"] == [0.0, 1.0]
    assert set(sidecar["digests"]["inputs"]) == {"s2_0_0000.nii.gz", "s2_1_0000.nii.gz"}


def test_another_step_of_motion_is_another_rung(job, pairs, monkeypatch):
    labelled, segmenter = segment_by_threshold(monkeypatch), load_segmenter(job)
    segment_scans(job, segmenter, pairs, "motion", 0.5)
    segment_scans(job, segmenter, pairs, "motion", 0.5)
    assert len(labelled) == 11
    segment_scans(job, segmenter, pairs, "motion", 1.0)
    assert len(labelled) == 14


def test_label_maps_are_predictions_like_any_other(job, pairs, monkeypatch):
    segment_by_threshold(monkeypatch)
    segment_scans(job, load_segmenter(job), pairs, "lci", 0.5)
    folder = job.predictions / "segmented" / "forecast"
    assert [row.case for row in read_rows(folder / "scans.csv")] == ["s1_1", "s1_2", "s2_2"]
    sidecar = read_json(folder / "s1_2.json")
    assert sidecar["dataset"] == "Dataset103_Segment" and sidecar["method"] == ["unet"]
    assert sidecar["digests"]["weights"] and sidecar["digests"]["inputs"].keys() == {"s1_2_0000.nii.gz"}
    assert sidecar["time_unit"] == "months"  # that of the forecasts, not of the segmenter
    assert read_json(folder / "dataset.json")["time_unit"] == "months"
    assert "whole" in (folder / "volumes.csv").read_text()
    assert not (job.predictions / "segmented" / "lci").exists()  # it is an acquired scan


def test_two_scans_of_one_case(job, pairs, write_scan, tmp_path):
    write_scan(tmp_path / "further", "s1_1", np.zeros(SHAPE))
    elsewhere = (tmp_path / "further" / "s1_1_0000.nii.gz",)
    other = [replace(pairs[0], reference=elsewhere), *pairs[1:]]
    with pytest.raises(DataError, match=r"imagesTr/s1_1_0000.nii.gz and .*further/s1_1.* are two scans of one case"):
        acquired_scans(job, other)


@pytest.mark.parametrize("channels", [("MR", "T2"), ("CT",), ("mr",)])
def test_other_channels(job, channels):
    segmenter_dataset(channels)
    with pytest.raises(ConfigurationError, match=r"segments scans of .*, but the forecasts of Dataset101_Tiny have 1"):
        load_segmenter(job)


def test_a_model_that_does_not_segment(cohort, job, description):
    other = DatasetPaths("Dataset104_Other")
    write_description(description, other.raw / "dataset.json")
    finished_model(other, minimal_plans())
    further = EvaluationJob(job.predictions, (), job.raw, description, 1, select("104"), "cpu")
    with pytest.raises(ConfigurationError, match="a model for the task 'forecast', not for 'segment'"):
        evaluate_forecasts(further)
    assert not (job.predictions / "metrics.csv").exists()  # said before anything is measured


def test_nothing_is_trained(job, description):
    write_description(description, DatasetPaths("Dataset104_Other").raw / "dataset.json")
    with pytest.raises(NotFoundError, match="No model has been trained for Dataset104_Other"):
        select("104")


@pytest.mark.parametrize("folder", ["imagesTs", "targetsTs"])
def test_label_maps_are_found_in_the_dataset_and_in_folders_of_the_user(job, tmp_path, write_labels, folder):
    segmenter, cases = load_segmenter(job), ["s1_1", "s1_2", "s2_2"]
    assert find_labels(job, segmenter, cases).paths == {}
    array = np.zeros(SHAPE)
    write_labels(job.raw / "labelsTr", "s1_2", array)
    write_labels(tmp_path / "other" / "labelsTs", "s2_2", array)
    write_labels(tmp_path / "drawn", "s1_2", array)
    write_labels(tmp_path / "drawn", "s1_1", array)
    write_json({}, tmp_path / "drawn" / "s1_1.json")  # predicted, not drawn
    references = tmp_path / "drawn", tmp_path / "other" / folder
    references[1].mkdir()
    further = EvaluationJob(job.predictions, references, job.raw, job.description, 1, job.segmenter, "cpu")
    found = find_labels(further, segmenter, cases).paths
    places = {case: path.relative_to(tmp_path).as_posix() for case, path in found.items()}
    assert places == {"s1_2": "drawn/s1_2.nii.gz", "s2_2": "other/labelsTs/s2_2.nii.gz"}


def test_label_maps_of_other_structures(job, write_labels):
    write_labels(job.raw / "labelsTr", "s1_2", np.zeros(SHAPE))
    named = DatasetDescription(**{**job.description.model_dump(), "labels": {"background": 0, "heart": 1}})
    other = EvaluationJob(job.predictions, (), job.raw, named, 1, job.segmenter, "cpu")
    with pytest.raises(
        ConfigurationError, match="structures of Dataset101_Tiny are heart, those of Dataset103_Segment"
    ):
        find_labels(other, load_segmenter(other), ["s1_2"])
    assert find_labels(other, load_segmenter(other), ["s2_2"]).paths == {}
