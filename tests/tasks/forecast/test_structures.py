import csv

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.cli import train
from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.errors import DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.intervals import mean_interval
from longflow.files import write_json
from longflow.inference.selection import select
from longflow.paths import DatasetPaths
from longflow.plans import write_plans
from longflow.reading import read_json
from longflow.tasks.forecast.evaluation import evaluate_forecasts
from longflow.tasks.forecast.structures import (
    COLUMNS,
    ERRORS,
    LABELS,
    SEGMENTED_SCAN,
    TargetMaps,
    correct_p_values,
    structure_rows,
    summarise_structure,
)
from tests.inference.helpers import plans_to_segment
from tests.tasks.conftest import GEOMETRY, SHAPE
from tests.tasks.forecast.segmenting import EDGES, segment_by_threshold, segmenter_dataset
from tests.training.helpers import prepare_all

#: ml of a voxel of GEOMETRY
VOXEL = 1.0 * 1.0 * 3.0 / 1000


def box(size: int, value: int = 1) -> np.ndarray:
    """A label map with so many voxels of a value, the first ones."""
    array = np.zeros(SHAPE, np.int32)
    array.ravel()[:size] = value
    return array


def target(labels=None, context_labels=None, known=None, **segmented) -> TargetMaps:
    known = np.ones(SHAPE, bool) if known is None else known
    return TargetMaps(segmented, labels, context_labels, known, GEOMETRY.array_spacing)


def rows_of(maps, values=(1,), label_values=(1,)):
    return {row["method"]: row for row in structure_rows(maps, "chamber", values, label_values)}


def test_the_ejection_fraction_is_the_change_from_diastole_to_systole():
    """A chamber of 120 voxels at end diastole and 48 at end systole: 60 %. Its forecast has 60, so 50 %."""
    maps = target(labels=box(48), context_labels=box(120), forecast=box(60), lci=box(120), acquired=box(54))
    rows = rows_of(maps)
    forecast = rows["forecast"]
    assert forecast["volume_ml"] == pytest.approx(60 * VOXEL) and forecast["true_volume_ml"] == pytest.approx(
        48 * VOXEL
    )
    assert forecast["volume_error_ml"] == pytest.approx(12 * VOXEL)
    assert forecast["relative_volume_error"] == pytest.approx(0.25)
    assert forecast["dice"] == pytest.approx(2 * 48 / (60 + 48))
    assert (forecast["volume_change"], forecast["true_volume_change"]) == pytest.approx((0.5, 0.6))
    assert forecast["volume_change_error"] == pytest.approx(0.1)
    assert rows["lci"]["volume_change"] == 0 and rows["lci"]["volume_change_error"] == pytest.approx(0.6)
    assert rows["acquired"]["dice"] == pytest.approx(2 * 48 / (54 + 48))
    assert rows["acquired"]["volume_change_error"] == pytest.approx(0.6 - (120 - 54) / 120)
    assert {row["reference"] for row in rows.values()} == {row["change_reference"] for row in rows.values()} == {LABELS}


def test_a_bias_of_the_segmenter_cancels_in_the_change():
    """It draws everything at 1.1 of the size: both volumes of a change are its own."""
    maps = target(labels=box(50), context_labels=box(100), forecast=box(55), lci=box(110), acquired=box(55))
    assert rows_of(maps)["forecast"]["volume_change_error"] == pytest.approx(0)
    assert rows_of(maps)["forecast"]["relative_volume_error"] == pytest.approx(0.1)


def test_without_labels_the_segmented_scan_is_the_reference():
    maps = target(forecast=box(60), lci=box(120), linear=box(80), acquired=box(50))
    rows = rows_of(maps)
    assert list(rows) == ["forecast", "lci", "linear"]  # the acquired scan would be compared with itself
    assert {row["reference"] for row in rows.values()} == {SEGMENTED_SCAN}
    assert rows["linear"]["true_volume_ml"] == pytest.approx(50 * VOXEL)
    assert rows["linear"]["dice"] == pytest.approx(100 / 130)
    assert rows["forecast"]["true_volume_change"] == pytest.approx(70 / 120)


def test_label_maps_that_do_not_name_the_structure_are_no_reference():
    maps = target(labels=box(10), context_labels=box(20), forecast=box(60), lci=box(120), acquired=box(50))
    rows = rows_of(maps, label_values=None)
    assert "acquired" not in rows and rows["forecast"]["true_volume_ml"] == pytest.approx(50 * VOXEL)


def test_one_label_is_no_reference_for_a_change():
    maps = target(labels=box(48), forecast=box(60), lci=box(120), acquired=box(54))
    rows = rows_of(maps)
    assert rows["forecast"]["true_volume_ml"] == pytest.approx(48 * VOXEL)
    assert rows["forecast"]["true_volume_change"] == pytest.approx((120 - 54) / 120)
    assert (rows["forecast"]["reference"], rows["forecast"]["change_reference"]) == (LABELS, SEGMENTED_SCAN)
    assert rows["acquired"]["volume_change_error"] is None  # it is its own reference


def test_values_of_labels_and_of_the_segmenter_may_differ():
    maps = target(
        labels=box(48, 7), context_labels=box(120, 7), forecast=box(60, 2), lci=box(120, 2), acquired=box(48, 2)
    )
    rows = rows_of(maps, values=(2,), label_values=(7,))
    assert rows["acquired"]["dice"] == 1 and rows["forecast"]["dice"] == pytest.approx(2 * 48 / 108)


def test_voxels_that_nobody_knows_are_excluded():
    known = box(40) == 0  # the first 40 voxels
    maps = target(
        labels=box(48), context_labels=box(120), known=known, forecast=box(60), lci=box(120), acquired=box(48)
    )
    row = rows_of(maps)["forecast"]
    assert row["volume_ml"] == pytest.approx(20 * VOXEL) and row["true_volume_ml"] == pytest.approx(8 * VOXEL)
    assert row["dice"] == pytest.approx(2 * 8 / 28) and row["true_volume_change"] == pytest.approx(1 - 8 / 80)


def test_what_is_not_defined():
    empty = box(0)
    row = rows_of(target(labels=empty, context_labels=empty, forecast=empty, lci=empty, acquired=empty))["forecast"]
    undefined = {"relative_volume_error", "dice", "volume_change", "true_volume_change", "volume_change_error"}
    assert {name for name, value in row.items() if value is None} == undefined
    row = rows_of(target(labels=empty, context_labels=box(9), forecast=box(3), lci=box(9), acquired=empty))["forecast"]
    assert row["dice"] == 0 and row["relative_volume_error"] is None and row["true_volume_change"] == 1


def test_the_summary_is_over_subjects():
    rows = []
    for subject, truth, forecast in (("a", 50, 60), ("a", 40, 60), ("b", 80, 70)):
        maps = target(
            labels=box(truth), context_labels=box(100), forecast=box(forecast), lci=box(100), acquired=box(truth)
        )
        rows += [{"subject": subject, **row} for row in structure_rows(maps, "chamber", (1,), (1,))]
    found = summarise_structure(rows, "lci")
    assert (found["targets"], found["subjects"], found["targets_with_labels"]) == (3, 2, 3)
    of_subjects = [100 * (10 / 50 + 20 / 40) / 2, 100 * 10 / 80]
    assert 100 * found["forecast"]["relative_volume_error"]["mean"] == pytest.approx(np.mean(of_subjects))
    assert found["forecast"]["volume_change_error"]["mean"] == pytest.approx((0.15 + 0.1) / 2)
    assert found["reference"]["volume_change"]["mean"] == pytest.approx((0.55 + 0.2) / 2)
    gained = [(10 - 50 + 20 - 60) / 2 * VOXEL, (10 - 20) * VOXEL]
    assert found["difference_to_lci"]["volume_error_ml"]["mean"] == pytest.approx(np.mean(gained))
    assert found["difference_to_lci"]["volume_error_ml"]["interval"] == pytest.approx(mean_interval(gained))
    assert found["acquired"]["dice"]["mean"] == 1


def difference(p):
    return {name: {"mean": -1.0, "p": p} for name in ERRORS}


def test_p_values_are_corrected_for_structures_and_baselines():
    found = {
        "x": {"difference_to_lci": difference(0.01), "difference_to_best_rung": difference(0.02)},
        "y": {"difference_to_lci": difference(0.03), "difference_to_best_rung": difference(None)},
    }
    correct_p_values(found)
    corrected = [one[key]["dice"]["p_holm"] for one in found.values() for key in one]
    assert corrected == [pytest.approx(0.03), pytest.approx(0.04), pytest.approx(0.04), None]


def test_lci_that_is_the_best_rung_is_one_test():
    found = {"x": {"difference_to_lci": difference(0.02), "difference_to_best_rung": difference(0.02)}}
    correct_p_values(found)
    assert [one["dice"]["p_holm"] for one in found["x"].values()] == [0.02, 0.02]


# ---- through files


@pytest.fixture
def labelled_description(description):
    """The forecasts' dataset calls the core 5 and the rim 1."""
    labels = {"background": 0, "whole": [1, 5], "core": 5}
    return DatasetDescription(**{**description.model_dump(), "labels": labels, "regions_class_order": [1, 5]})


@pytest.fixture
def cohort(tmp_path, paths, write_scan, write_forecast, write_labels, monkeypatch):
    """Three subjects, their scans and labels as arrays; the labels disagree with the segmenter in some voxels."""
    segment_by_threshold(monkeypatch)
    segmenter_dataset()
    generator = np.random.default_rng(0)
    arrays = {}
    for subject in ("s1", "s2", "s3"):
        scans = [3 * generator.random(SHAPE).astype(np.float32) for _ in range(3)]
        forecast = (scans[1] + 2 * scans[2]) / 3
        for position, scan in enumerate(scans):
            write_scan(paths.raw / "imagesTr", f"{subject}_{position}", scan)
        write_forecast(tmp_path / "out", f"{subject}_2", forecast, [f"{subject}_0", f"{subject}_1"])
        labels = [np.array([0, 1, 5])[np.digitize(scan + 0.2, EDGES)] for scan in scans]
        if subject != "s3":
            for position in (1, 2):
                write_labels(paths.raw / "labelsTr", f"{subject}_{position}", labels[position])
        arrays[subject] = (*scans, forecast, labels[1], labels[2])
    return arrays


@pytest.fixture
def evaluate(cohort, tmp_path, paths, labelled_description):
    def run(**further):
        settings = {"processes": 1, "segmenter": select("103"), "device": "cpu", **further}
        return evaluate_forecasts(EvaluationJob(tmp_path / "out", (), paths.raw, labelled_description, **settings))

    return run


def csv_rows(tmp_path):
    with open(tmp_path / "out" / "metrics_structures.csv", newline="") as file:
        return {(row["subject"], row["method"], row["structure"]): row for row in csv.DictReader(file)}


def test_numbers_of_the_files_are_those_of_the_volumes(cohort, evaluate, tmp_path):
    evaluation = evaluate()
    best = evaluation.results["overall"]["best_rung"]["name"]
    assert best == "context_mean"
    rows = csv_rows(tmp_path)
    # no label map of s3, so its acquired scan is the reference itself
    assert len(rows) == 2 * 2 * 4 + 2 * 3 and list(rows["s1", "lci", "core"]) == list(COLUMNS)
    for subject, (first, last, truth, forecast, last_labels, true_labels) in cohort.items():
        scans = {"forecast": forecast, "lci": last, best: (first + last) / 2, "acquired": truth}
        for structure, edge, values in (("whole", 1.0, (1, 5)), ("core", 2.0, (5,))):
            labelled = subject != "s3"
            reference = np.isin(true_labels, values) if labelled else truth >= edge
            before = np.isin(last_labels, values) if labelled else last >= edge
            true_change = 1 - reference.sum() / before.sum()
            for method, scan in scans.items():
                if method == "acquired" and not labelled:
                    continue
                row, mask = rows[subject, method, structure], scan >= edge
                change = 1 - mask.sum() / (last >= edge).sum()
                expected = {
                    "volume_ml": mask.sum() * VOXEL,
                    "true_volume_ml": reference.sum() * VOXEL,
                    "volume_error_ml": abs(int(mask.sum()) - int(reference.sum())) * VOXEL,
                    "relative_volume_error": abs(mask.sum() / reference.sum() - 1),
                    "dice": 2 * (mask & reference).sum() / (mask.sum() + reference.sum()),
                    "volume_change": change,
                    "true_volume_change": true_change,
                    "volume_change_error": abs(change - true_change),
                }
                assert {name: float(row[name]) for name in expected} == pytest.approx(expected, abs=1e-12)
                assert row["reference"] == (LABELS if labelled else SEGMENTED_SCAN)


def test_json_holds_the_summary_with_the_segmenter_and_its_digests(evaluate, tmp_path):
    evaluation = evaluate()
    assert {"metrics_structures.csv", "segmented/"} < set(evaluation.written)
    found = evaluation.results["structures"]
    assert read_json(tmp_path / "out" / "metrics.json")["structures"] == found
    assert found["segmenter"]["dataset"] == "Dataset103_Segment" and found["segmenter"]["digests"]["weights"][0][0]
    assert "ejection fraction" in found["definitions"]["volume_change"]
    core = found["by_structure"]["core"]
    assert (core["targets"], core["targets_with_labels"], core["changes_with_labels"]) == (3, 2, 2)
    rows = csv_rows(tmp_path)
    for method in ("forecast", "lci", "context_mean", "acquired"):
        values = [
            float(row["dice"]) for (_, one, structure), row in rows.items() if (one, structure) == (method, "core")
        ]
        assert core[method]["dice"]["mean"] == pytest.approx(np.mean(values)) and core[method]["dice"]["interval"]
    assert core["acquired"]["dice"]["subjects"] == 2


def test_evaluating_twice_gives_the_same(evaluate):
    assert evaluate().results == evaluate().results


def test_nothing_is_segmented_where_nobody_asks(evaluate, tmp_path):
    results = evaluate(segmenter=None).results
    assert "structures" not in results and not (tmp_path / "out" / "segmented").exists()
    assert not (tmp_path / "out" / "metrics_structures.csv").exists()


def test_ignored_voxels_of_both_label_maps_are_excluded(cohort, evaluate, tmp_path, paths, write_labels, monkeypatch):
    """One row of voxels is ignored at the target, another one in the last context scan."""
    labels = {"background": 0, "whole": [1, 5], "core": 5, "ignore": 9}
    further = {"labels": labels, "regions_class_order": [1, 5]}
    *_, last, true = cohort["s1"]
    last, true = last.copy(), true.copy()
    last[:, 0], true[:, 1] = 9, 9
    write_labels(paths.raw / "labelsTr", "s1_1", last)
    write_labels(paths.raw / "labelsTr", "s1_2", true)
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months", **further)
    evaluate_forecasts(EvaluationJob(tmp_path / "out", (), paths.raw, description, 1, select("103"), "cpu"))
    row = csv_rows(tmp_path)["s1", "forecast", "core"]
    assert float(row["volume_ml"]) == pytest.approx((cohort["s1"][3][:, 2:] >= 2).sum() * VOXEL)
    assert float(row["true_volume_ml"]) == pytest.approx((true[:, 2:] == 5).sum() * VOXEL)
    assert float(row["true_volume_change"]) == pytest.approx(1 - (true[:, 2:] == 5).sum() / (last[:, 2:] == 5).sum())


def test_a_label_map_on_another_grid(evaluate, paths, write_labels):
    moved = Geometry(GEOMETRY.size, GEOMETRY.spacing, (5.0, 0.0, 0.0), GEOMETRY.direction)
    write_labels(paths.raw / "labelsTr", "s1_2", np.zeros(SHAPE), moved)
    with pytest.raises(DataError, match=r"labelsTr/s1_2.nii.gz: origin is 5 x 0 x 0, but .*imagesTr/s1_2_0000"):
        evaluate()


def test_a_label_map_with_a_value_without_a_name(evaluate, paths, write_labels):
    write_labels(paths.raw / "labelsTr", "s1_2", np.full(SHAPE, 4))
    with pytest.raises(DataError, match=r"labelsTr/s1_2.nii.gz holds the label value 4"):
        evaluate()


def test_subjects_that_the_segmenter_was_trained_on_are_said(evaluate, caplog):
    write_json([{"train": ["s1", "s9"], "val": ["s2"]}], DatasetPaths("Dataset103_Segment").splits)
    results = evaluate().results
    assert results["structures"]["subjects_of_segmenter_training"] == ["s1"]
    assert "1 of the subjects have names of subjects that the segmenter was trained on (s1)" in caplog.text


def test_a_trained_network_segments(tmp_path, paths, labelled_description, write_scan, write_forecast):
    """The numbers are those of the label maps that the real segmenter wrote, with random weights."""
    segmenter_dataset()
    generator = np.random.default_rng(2)
    scans = [3 * generator.random(SHAPE) for _ in range(2)]
    for position, scan in enumerate(scans):
        write_scan(paths.raw / "imagesTr", f"s1_{position}", scan)
    write_forecast(tmp_path / "out", "s1_1", sum(scans) / 2, ["s1_0"])
    job = EvaluationJob(tmp_path / "out", (), paths.raw, labelled_description, 1, select("103"), "cpu")
    evaluate_forecasts(job)
    folder = tmp_path / "out" / "segmented"
    cases = {"forecast": "s1_1", "acquired": "s1_1"}
    made = {
        kind: sitk.GetArrayFromImage(sitk.ReadImage(folder / kind / f"{case}.nii.gz")) for kind, case in cases.items()
    }
    assert len(np.unique(made["forecast"])) > 1
    for structure, values in (("whole", (1, 2)), ("core", (2,))):
        row = csv_rows(tmp_path)["s1", "forecast", structure]
        forecast, acquired = (np.isin(made[kind], values) for kind in cases)
        assert float(row["volume_ml"]) == pytest.approx(forecast.sum() * VOXEL)
        assert float(row["true_volume_ml"]) == pytest.approx(acquired.sum() * VOXEL)
        assert float(row["dice"]) == pytest.approx(2 * (forecast & acquired).sum() / (forecast.sum() + acquired.sum()))


def beating(subject: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark noisy scan with a bright chamber of 6 x 6 voxels in so many slices, and its label."""
    label = np.zeros((8, 12, 12), np.uint8)
    label[1 : 1 + depth, 3:9, 3:9] = 1
    return np.random.default_rng([subject, depth]).normal(100, 5, label.shape) + 100 * label, label


def test_a_segmenter_that_was_trained_measures_the_ejection_fraction(tmp_path, monkeypatch):
    """A chamber of 6 slices at the last scan, 3 at the target, 4 in the forecast; numbers are counted in the files.

    After 40 steps the segmenter is far from perfect (Dice 0.75 of the acquired scan), which the numbers must show.
    """
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    segmenter, dataset, out = DatasetPaths("Dataset001_Test"), DatasetPaths("Dataset101_Tiny"), tmp_path / "out"
    grid = Geometry((12, 12, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), GEOMETRY.direction)
    labels = {"background": 0, "chamber": 1}
    plans = plans_to_segment(labels)
    common = {"channel_names": {"0": plans.channel_names[0]}, "file_ending": ".nii.gz", "labels": labels}
    description = DatasetDescription(**common, time_unit="frames")
    write_description(description, dataset.raw / "dataset.json")
    write_description(DatasetDescription(**common, time_unit="days", task="segment"), segmenter.raw / "dataset.json")

    def write(paths, case, subject, depth):
        scan, label = beating(subject, depth)
        write_volume(scan, grid, "float32", paths.raw / "imagesTr" / f"{case}_0000.nii.gz")
        write_volume(label, grid, "uint8", paths.raw / "labelsTr" / f"{case}.nii.gz")

    for subject in range(5):
        for depth in (2, 4, 6):
            write(segmenter, f"s{subject}_{depth}", subject, depth)
    scans = [
        Scan(f"s{subject}_{depth}", f"s{subject}", float(depth), ()) for subject in range(5) for depth in (2, 4, 6)
    ]
    write_scans(scans, segmenter.raw / "scans.csv")
    write_plans(plans, segmenter.plans())
    prepare_all(segmenter, plans)
    assert train.main(["1", "3d_fullres", "0", "-m", "unet", "--iterations", "40", "-np", "0", "--device", "cpu"]) == 0

    write(dataset, "h_diastole", 50, 6)
    write(dataset, "h_systole", 50, 3)
    write_volume(beating(51, 4)[0], grid, "float32", out / "h_systole_0000.nii.gz")
    sidecar = {"case": "h_systole", "subject": "h", "target_time": 1.0, "horizon": 1.0, "method": "cronos"}
    write_json({**sidecar, "context": ["h_diastole"], "context_times": [0.0]}, out / "h_systole.json")
    evaluate_forecasts(EvaluationJob(out, (), dataset.raw, description, 1, select("1"), "cpu"))

    with open(out / "metrics_structures.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["acquired"]["dice"]) > 0.5  # it has learned something of the chamber
    assert float(rows["forecast"]["true_volume_ml"]) == pytest.approx(3 * 36 / 1000)
    assert float(rows["forecast"]["true_volume_change"]) == 0.5
    assert float(rows["lci"]["volume_change"]) == 0 and float(rows["lci"]["volume_change_error"]) == 0.5

    def segmented(kind, case):
        return sitk.GetArrayFromImage(sitk.ReadImage(out / "segmented" / kind / f"{case}.nii.gz")) == 1

    truth, before = beating(50, 3)[1] == 1, segmented("acquired", "h_diastole").sum()
    for kind in ("forecast", "acquired"):
        mask = segmented(kind, "h_systole")
        assert float(rows[kind]["volume_ml"]) == pytest.approx(mask.sum() / 1000)
        assert float(rows[kind]["dice"]) == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        change = 1 - mask.sum() / before
        assert float(rows[kind]["volume_change"]) == pytest.approx(change)
        assert float(rows[kind]["volume_change_error"]) == pytest.approx(abs(change - 0.5))
