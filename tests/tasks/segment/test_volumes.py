import csv

import numpy as np
import pytest

from longflow.data.dataset import Scan, write_scans
from longflow.data.labels import structures
from longflow.errors import DataError
from longflow.files import write_json
from longflow.inference.predictor import predict_folder
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.volumes import structure_volumes, write_volumes
from tests.inference.helpers import REGIONS, plans_to_segment, segmentation_model
from tests.inference.test_predictor import make_input
from tests.training.helpers import SHAPE, geometry, scan_array


def table(folder):
    with open(folder / "volumes.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_voxels_are_counted_by_structure_and_measured_by_the_grid():
    labels = np.zeros(SHAPE, np.int16)
    labels[0, 0, :5], labels[1, 1, :2] = 1, 2
    found = structure_volumes(labels, geometry(spacing=(5.0, 2.0, 0.5)), structures({**REGIONS, "rest": 3}))
    assert found == {
        "whole": {"voxels": 7, "volume_ml": pytest.approx(7 * 0.005)},
        "core": {"voxels": 2, "volume_ml": pytest.approx(2 * 0.005)},
        "rest": {"voxels": 0, "volume_ml": 0},
    }


def test_the_table_is_sorted_by_subject_time_as_a_number_and_structure(tmp_path):
    scans = [Scan(f"{subject}_{time}", subject, float(time), ()) for subject in "ba" for time in (100, 20)]
    write_scans(scans, tmp_path / "scans.csv")
    for number, scan in enumerate(scans):
        volumes = {name: {"voxels": number, "volume_ml": number / 1000} for name in ("z", "y")}
        write_json({"volumes": volumes}, tmp_path / f"{scan.case}.json")
    write_volumes(tmp_path)
    rows = table(tmp_path)
    assert list(rows[0]) == ["subject", "case", "time", "structure", "voxels", "volume_ml"]
    assert [(row["case"], row["structure"]) for row in rows[:4]] == [
        ("a_20", "z"), ("a_20", "y"), ("a_100", "z"), ("a_100", "y"),
    ]  # fmt: skip
    assert rows[0]["voxels"] == "3" and float(rows[0]["volume_ml"]) == 0.003 and len(rows) == 8


def test_scans_of_earlier_commands_stay_in_the_table(dataset, tmp_path):
    """The volumes are those of the label maps in the files."""
    segmentation_model(dataset, plans_to_segment(REGIONS, [1, 2]))
    segmenter = Segmenter.load(device="cpu", mirror=False)
    first = make_input(dataset, tmp_path / "first", requested=False)
    second = make_input(dataset, tmp_path / "second", requested=False)
    text = (second / "scans.csv").read_text()
    (second / "scans.csv").write_text(text.replace("a_", "c_").replace(",a,", ",c,"))
    for path in second.glob("a_*"):
        path.rename(path.with_name(path.name.replace("a_", "c_")))
    out = tmp_path / "out"
    predict_folder(segmenter, first, out)
    predict_folder(segmenter, second, out)
    rows = table(out)
    assert [row["subject"] for row in rows] == ["a"] * 6 + ["b"] * 6 + ["c"] * 6
    found = {(row["case"], row["structure"]): int(row["voxels"]) for row in rows}
    labels = segmenter.predict(scan_array(50, 1), (1, 1, 1))
    assert found["a_1", "whole"] == np.count_nonzero(labels) and found["a_1", "core"] == np.sum(labels == 2)


@pytest.mark.parametrize("volumes", [3, [1], {"whole": 3}, {"whole": {"voxels": 1}}])
def test_a_sidecar_without_volumes_is_named(tmp_path, volumes):
    write_scans([Scan("a_0", "a", 0.0, ())], tmp_path / "scans.csv")
    write_json({"volumes": volumes}, tmp_path / "a_0.json")
    with pytest.raises(DataError, match=r"a_0\.json has no volumes of structures"):
        write_volumes(tmp_path)


def test_corrected_volumes_stand_next_to_the_raw_ones(tmp_path):
    write_scans([Scan("a_0", "a", 0.0, ())], tmp_path / "scans.csv")
    volumes = {name: {"voxels": 4, "volume_ml": 4.0} for name in ("core", "rim")}
    write_json({"volumes": volumes}, tmp_path / "a_0.json")
    line = {"slope": 1.5, "intercept": -1.0, "half_width": 2.0}
    write_volumes(tmp_path, {"core": line, "rim": {"refused": "3 subjects, expected 5 or more"}})
    core, rim = table(tmp_path)
    assert (core["voxels"], core["volume_ml"], core["volume_calibrated_ml"]) == ("4", "4.0", "5.0")
    assert (core["calibrated_low_ml"], core["calibrated_high_ml"]) == ("3.0", "7.0")
    assert (rim["volume_ml"], rim["volume_calibrated_ml"], rim["calibrated_high_ml"]) == ("4.0", "", "")
    write_volumes(tmp_path)
    assert "volume_calibrated_ml" not in table(tmp_path)[0]


def test_prediction_writes_corrected_volumes_by_the_record_of_its_weights(dataset, tmp_path):
    model = segmentation_model(dataset, plans_to_segment())
    segmenter = Segmenter.load(device="cpu", mirror=False)
    folder, out = make_input(dataset, tmp_path / "in", requested=False), tmp_path / "out"
    line = {"slope": 2.0, "intercept": 1.0, "half_width": 0.5}
    found = {"weights": list(segmenter.models.members[0].weights), "structures": {"core": line}}
    write_json({"candidate": model.folder.name, "volume_calibration": found}, dataset.best)
    predict_folder(segmenter, folder, out)
    rows = {(row["case"], row["structure"]): row for row in table(out)}
    for (_, structure), row in rows.items():
        expected = f"{round(1 + 2 * float(row['volume_ml']), 6)}" if structure == "core" else ""
        assert row["volume_calibrated_ml"] == expected
