import csv

import numpy as np
import pytest

from longflow.data.images import read_scan, write_volume
from longflow.errors import ConfigurationError, DataError
from longflow.evaluation.horizon_intervals import ForecastError, calibrate_by_horizon
from longflow.files import write_json
from longflow.inference.selection import Member, Selection, select
from longflow.reading import read_json
from longflow.tasks.forecast.calibration import (
    COLUMNS,
    calibrate_structure,
    calibrate_volumes,
)
from longflow.tasks.forecast.calibration import (
    validated_model as model_of,
)
from longflow.tasks.forecast.calibration_record import Calibration
from tests.tasks.forecast.calibrating import THRESHOLDS, VOXEL, threshold_segmenter, volume_of


@pytest.fixture
def dataset(validated_dataset):
    return validated_dataset


@pytest.fixture
def segmented(dataset, monkeypatch):
    """The scans that were labelled."""
    return threshold_segmenter(monkeypatch, dataset)


def calibrate(level=0.8, retest=None, **further):
    return calibrate_volumes(select("1", **further), select("103"), level, "cpu", retest=retest)


def table_of(dataset):
    with open(dataset.calibration("Dataset103_Segment") / "calibration.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_errors_are_those_of_the_volumes_and_intervals_those_of_the_errors(dataset, segmented):
    record = calibrate()
    targets = [
        {**target, "fold": fold}
        for fold, of_fold in enumerate(read_json(dataset.validation_targets)["protocols"]["deployment"])
        for target in of_fold
    ]
    rows = table_of(dataset)
    assert len(rows) == len(targets) * 2 == record["targets"] * 2 and list(rows[0]) == list(COLUMNS)
    for structure in THRESHOLDS:
        own = {(row["case"], int(row["fold"])): row for row in rows if row["structure"] == structure}
        errors = []
        for target in targets:
            row = own[target["target"], target["fold"]]
            # the untrained flow forecasts the last context image
            error = volume_of(dataset, target["context"][-1], structure) - volume_of(
                dataset, target["target"], structure
            )
            assert float(row["error_ml"]) == pytest.approx(error, abs=1e-9)
            assert float(row["lci_error_ml"]) == pytest.approx(error, abs=1e-9)
            errors.append(ForecastError(target["subject"], target["fold"], float(row["horizon"]), error))
        found = record["by_structure"][structure]
        expected = calibrate_by_horizon(errors, 0.8, VOXEL)
        assert found["reference"] == "segmented scan"
        assert found["intervals"]["scale"] == pytest.approx(vars(expected.scale))
        assert [group["factor"] for group in found["intervals"]["groups"]] == pytest.approx(
            [group.factor for group in expected.groups]
        )
        (width,) = found["half_widths"]
        assert width["half_width_ml"] == pytest.approx(width["lci_half_width_ml"]) and width["subjects"] == 6
    assert record["attainable_level"] == pytest.approx(6 / 7) and record["folds"] == [0, 1, 2, 3, 4]


def test_the_repeatability_is_stored_where_pairs_are_given(dataset, segmented, tmp_path):
    assert calibrate()["by_structure"]["core"]["repeatability"] is None
    table = tmp_path / "pairs.csv"
    table.write_text("case,repeat\n" + "".join(f"s{subject}_0,s{subject}_1\n" for subject in range(1, 5)))
    record = calibrate(retest=table)
    found = Calibration.read(dataset.calibration("Dataset103_Segment") / "calibration.json").repeatability
    assert set(found) == set(THRESHOLDS) and found["core"].subjects == 4
    assert found["core"].record() == record["by_structure"]["core"]["repeatability"]


def test_pairs_are_checked_before_anything_is_forecast(dataset, segmented, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("case,repeat\ns1_0,s1_9\n")
    with pytest.raises(DataError, match="imagesTr has no scan 's1_9'"):
        calibrate(retest=table)
    assert not segmented and not dataset.calibration("Dataset103_Segment").exists()


def test_each_fold_forecasts_its_own_subjects_alone(dataset, segmented):
    calibrate()
    splits, folder = read_json(dataset.splits), dataset.calibration("Dataset103_Segment")
    for fold, split in enumerate(splits):
        sidecars = [read_json(path) for path in (folder / f"fold_{fold}").glob("s*_*.json")]
        assert {one["subject"] for one in sidecars} == set(split["val"])
        assert all(one["folds"] == [[fold]] for one in sidecars)


def test_finished_forecasts_and_label_maps_are_kept(dataset, segmented):
    first = calibrate()
    count = len(segmented)
    assert calibrate() == first and len(segmented) == count
    assert calibrate(0.5)["level"] == 0.5 and len(segmented) == count


def test_a_record_names_both_models(dataset, segmented):
    record = calibrate()
    assert read_json(dataset.calibration("Dataset103_Segment") / "calibration.json") == record
    assert record["model"]["folds"] == [[0, 1, 2, 3, 4]] and len(record["model"]["digests"]["weights"][0]) == 5
    assert record["segmenter"]["dataset"] == "Dataset103_Segment" and record["segmenter"]["digests"]["plans"]


def test_one_fold_is_calibrated_on_its_subjects(dataset, segmented):
    record = calibrate(0.6, folds=(0,))
    assert record["subjects"] == 2 and record["folds"] == [0]
    scale = record["by_structure"]["core"]["intervals"]["scale"]
    assert scale == {"at_zero": VOXEL, "per_time_unit": 0, "smallest": VOXEL}


def test_too_few_subjects_are_found_before_anything_is_forecast(dataset, segmented):
    with pytest.raises(DataError, match=r"validate 6 subjects; intervals of 90% need 9. The highest level .* is 85.7%"):
        calibrate(0.9)
    assert not segmented and not dataset.calibration("Dataset103_Segment").exists()


def test_a_fold_without_validation_forecasts(dataset, segmented):
    for path in sorted(dataset.model("cronos", "longflowPlans", "3d_fullres").fold(2).validations.rglob("*"))[::-1]:
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(DataError, match=r"has no validation predictions.*fold 2"):
        calibrate()


def test_a_scan_that_is_gone(dataset, segmented):
    table = dataset.raw / "scans.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("s1_")))
    with pytest.raises(DataError, match="was validated on scans that imagesTr does not have any more: s1_"):
        calibrate()


def test_a_model_that_does_not_segment(dataset):
    with pytest.raises(ConfigurationError, match="a model for the task 'forecast', not for 'segment'"):
        calibrate_volumes(select("1"), select("1"), 0.5, "cpu")


def test_members_with_different_folds(dataset):
    models = [dataset.model(name, "longflowPlans", "3d_fullres") for name in ("cronos", "tfm")]
    members = Member(models[0], (0, 1)), Member(models[1], (0,))
    with pytest.raises(ConfigurationError, match="have different folds"):
        model_of(Selection(dataset, members))


def test_a_forecast_without_training_has_the_targets_of_a_trained_model(dataset):
    untrained = Selection(dataset, (Member(dataset.model("lci", "longflowPlans", "3d_fullres"), ()),))
    model, folds = model_of(untrained)
    assert model.method == "cronos" and list(folds) == [0, 1, 2, 3, 4]


def rows(labelled):
    """Three targets of a structure: the segmenter finds 1 ml more than the rater."""
    found = []
    for fold, has_label in enumerate(labelled):
        place = {"case": f"c{fold}", "subject": f"s{fold}", "fold": fold, "horizon": 1.0, "structure": "core"}
        place |= {"voxel_ml": 0.001, "reference": "labels" if has_label else "segmented scan"}
        truth = 10.0 if has_label else 11.0
        found.append({**place, "method": "forecast", "volume_ml": 13.0, "true_volume_ml": truth})
        found.append({**place, "method": "lci", "volume_ml": 15.0, "true_volume_ml": truth})
        if has_label:
            found.append({**place, "method": "acquired", "volume_ml": 11.0, "true_volume_ml": truth})
    return found


@pytest.mark.parametrize(
    ("labelled", "reference", "error", "of_lci"),
    [((True, True, True), "labels", 3, 5), ((True, False, True), "segmented scan", 2, 4)],
)
def test_one_kind_of_reference_for_all(labelled, reference, error, of_lci):
    """Label maps are the reference where every target has one."""
    record, table = calibrate_structure(rows(labelled), "core", 0.5)
    assert record["reference"] == reference
    assert [row["error_ml"] for row in table] == pytest.approx([error] * 3)
    (width,) = record["half_widths"]
    assert (width["half_width_ml"], width["lci_half_width_ml"]) == pytest.approx((error, of_lci))


def test_labels_of_the_dataset_are_the_reference(dataset, segmented):
    content = read_json(dataset.raw / "dataset.json")
    write_json({**content, "labels": {"background": 0, "core": 1}}, dataset.raw / "dataset.json")
    for path in (dataset.raw / "imagesTr").glob("*.nii.gz"):
        scan = read_scan((path,))
        name = path.name.replace("_0000", "")
        write_volume((scan.array[0] >= 260).astype(np.uint8), scan.geometry, "uint8", dataset.raw / "labelsTr" / name)
    record = calibrate()
    assert record["by_structure"]["core"]["reference"] == "labels"
    assert record["by_structure"]["whole"]["reference"] == "segmented scan"
    row = next(row for row in table_of(dataset) if row["structure"] == "core")
    array = read_scan((dataset.raw / "imagesTr" / f"{row['case']}_0000.nii.gz",)).array[0]
    assert float(row["reference_ml"]) == pytest.approx((array >= 260).sum() * VOXEL)
