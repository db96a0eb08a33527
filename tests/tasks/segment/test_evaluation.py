import csv
import logging
from dataclasses import replace

import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.errors import DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.paths import METRICS_CSV
from longflow.reading import read_json
from longflow.tasks.segment.evaluation import (
    PAIR_COLUMNS,
    PAIRS_CSV,
    SUBJECT_COLUMNS,
    SUBJECTS_CSV,
    Rows,
    evaluate_segmentations,
    mean_over_structures,
    scan_columns,
)
from longflow.tasks.segment.overlap import DICE, HD95, IOU

SHAPE = (6, 20, 20)
GRID = Geometry((20, 20, 6), (2.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
VOXEL = 2.0 * 1.0 * 5.0 / 1000


def block(width, value=1, x=2, core=0):
    """A block of 3 x 4 x width voxels along x; ``core`` columns of it are the core."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:4, 3:7, x : x + width] = value
    array[1:4, 3:7, x : x + core] = 2
    return array


@pytest.fixture
def case_of(tmp_path, write_labels, write_table):
    """Write subjects of scans (time, prediction, reference) as a folder of predictions and a raw dataset."""

    def write(geometries=None, **subjects):
        rows = []
        for subject, scans in subjects.items():
            for number, (time, predicted, reference) in enumerate(scans):
                case, grid = f"{subject}_{number}", (geometries or {}).get(f"{subject}_{number}", GRID)
                write_labels(tmp_path / "out", case, predicted, grid)
                if reference is not None:
                    write_labels(tmp_path / "raw" / "labelsTs", case, reference, grid)
                rows.append((case, subject, time))
        write_table(tmp_path / "out" / "scans.csv", *rows)

    return write


@pytest.fixture
def evaluate(tmp_path, labelled):
    def run():
        job = EvaluationJob(tmp_path / "out", (), tmp_path / "raw", labelled, processes=1)
        results = evaluate_segmentations(job).results
        files = (METRICS_CSV, PAIRS_CSV, SUBJECTS_CSV)
        return results, Rows(*(read_rows(tmp_path / "out" / name) for name in files))

    return run


def read_rows(path):
    """Rows of a CSV; numbers, flags and empty cells are read as what they are."""
    texts = ("case", "subject", "structure", "first", "second")
    flags = {"True": True, "False": False, "": None}
    with open(path, newline="") as file:
        return [
            {
                name: value if name in texts else flags[value] if value in flags else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def of(rows, structure, **given):
    return [row for row in rows if row["structure"] == structure and all(row[k] == v for k, v in given.items())]


def test_a_subject_by_hand(case_of, evaluate):
    """The reference grows by 2 columns of 12 voxels a month, the prediction by 1; at the end it is shifted by 2."""
    case_of(
        a=[(0.0, block(4), block(4)), (1.0, block(5), block(6)), (3.0, block(7, x=4), block(10))],
        b=[(0.0, block(4), block(4)), (1.0, block(4), block(6))],
    )
    results, rows = evaluate()
    first, second, third = of(rows.scans, "whole", subject="a")
    assert (first["dice"], first["iou"], first["hd95"]) == (1, 1, 0)
    assert second["dice"] == pytest.approx(2 * 5 / 11)
    assert third["iou"] == pytest.approx(7 / 10)
    # columns 2 and 3 are missing at one end, column 11 at the other: x spacing is 2 mm
    assert third["hd95"] == pytest.approx(4)
    assert third["volume_ml"] == pytest.approx(7 * 12 * VOXEL)

    one, two = of(rows.pairs, "whole", subject="a")
    assert (one["first"], one["second"], one["same_grid"]) == ("a_0", "a_1", True)
    assert one["stcs"] == pytest.approx(2 * 4 / 9)
    assert one["true_stcs"] == pytest.approx(2 * 4 / 10)
    assert one["aspc"] == pytest.approx(100 / 4.5)
    assert one["true_aspc"] == pytest.approx(100 * 2 / 5)
    assert two["stcs"] == pytest.approx(2 * 3 / 12)  # columns 4 to 6 are shared by 2-6 and 4-10
    assert two["true_change"] == pytest.approx(4 * 12 * VOXEL)

    (subject,) = of(rows.subjects, "whole", subject="a")
    assert subject["slope"] == pytest.approx(12 * VOXEL)
    assert subject["true_slope"] == pytest.approx(2 * 12 * VOXEL)
    assert subject["relative_slope_error"] == pytest.approx(0.5)

    assert (results["subjects"], results["scans"], results["pairs"]) == (2, 5, 3)
    whole = results["by_structure"]["whole"]
    dice_a, dice_b = np.mean([1, 10 / 11, 14 / 17]), np.mean([1, 8 / 10])
    assert whole["dice"]["mean"] == pytest.approx((dice_a + dice_b) / 2)
    assert whole["consistency"]["aspc"]["mean"] < whole["consistency"]["true_aspc"]["mean"]
    assert whole["trajectories"]["bland_altman"]["bias"] == pytest.approx(np.mean([-1.5, -2]) * 12 * VOXEL)


def test_a_prediction_that_never_changes_is_over_smoothed(case_of, evaluate):
    still = [(float(month), block(5), block(4 + month)) for month in range(3)]
    case_of(**dict.fromkeys("abcdefgh", still))
    results, _ = evaluate()
    consistency = results["by_structure"]["whole"]["consistency"]
    assert (consistency["aspc"]["mean"], consistency["stcs"]["mean"]) == (0, 1)
    assert consistency["verdict"] == "over-smoothed"


def test_absent_structures_are_counted_not_averaged(case_of, evaluate):
    """core: in neither at first, then missed, then invented, then right."""
    scans = [
        (0.0, block(4), block(4)),
        (1.0, block(4), block(4, core=2)),
        (2.0, block(4, core=1), block(4)),
        (3.0, block(4, core=2), block(4, core=2)),
    ]
    case_of(a=scans, b=[(0.0, block(4), block(4)), (1.0, block(4), block(4))])
    results, rows = evaluate()
    assert [row["dice"] for row in of(rows.scans, "core", subject="a")] == [None, 0, 0, 1]
    assert [row["hd95"] for row in of(rows.scans, "core", subject="a")] == [None, None, None, 0]
    core = results["by_structure"]["core"]
    assert (core["missed"], core["invented"], core["in_neither"]) == (1, 1, 3)
    assert core["dice"]["mean"] == pytest.approx(1 / 3)
    assert (core["dice"]["subjects"], core["dice"]["undefined"]) == (1, 3)
    assert (core["hd95"]["mean"], core["hd95"]["undefined"]) == (0, 5)
    # b has no core: neither consistency nor slope
    assert [row["aspc"] for row in of(rows.pairs, "core", subject="b")] == [None]
    assert of(rows.subjects, "core", subject="b")[0]["slope"] is None
    assert [row["aspc"] for row in of(rows.pairs, "core", subject="a")] == [None, 200, pytest.approx(200 / 3)]


def test_ignored_voxels_are_excluded_from_everything(case_of, evaluate):
    """The reference of half of the block is unknown at the second scan; a prediction there does not count."""
    reference = block(8)
    reference[:, :, 6:] = 3
    case_of(a=[(0.0, block(8), block(8)), (1.0, block(8), reference)])
    _, rows = evaluate()
    _, second = of(rows.scans, "whole")
    assert (second["dice"], second["hd95"]) == (1, 0)
    assert second["volume_ml"] == second["true_volume_ml"] == pytest.approx(4 * 12 * VOXEL)
    (pair,) = of(rows.pairs, "whole")
    assert (pair["stcs"], pair["true_stcs"], pair["aspc"], pair["true_aspc"]) == (1, 1, 0, 0)


def test_pairs_on_different_grids_have_volumes_but_no_overlap(case_of, evaluate):
    moved = replace(GRID, origin=(30.0, 0.0, 0.0), spacing=(1.0, 1.0, 5.0))
    case_of(geometries={"a_1": moved}, a=[(0.0, block(4), block(4)), (1.0, block(4), block(6))])
    results, rows = evaluate()
    (pair,) = of(rows.pairs, "whole")
    assert (pair["same_grid"], pair["stcs"], pair["true_stcs"]) == (False, None, None)
    assert pair["aspc"] == pytest.approx(100 * 2 / 3)  # 4 columns of 1 mm after 4 of 2 mm
    assert results["pairs_on_other_grids"] == 1
    assert results["by_structure"]["whole"]["consistency"]["stcs"]["undefined"] == 1


def test_one_scan_for_each_subject(case_of, evaluate):
    case_of(a=[(0.0, block(4), block(4))], b=[(2.0, block(4), block(5))])
    results, rows = evaluate()
    assert rows.pairs == []
    assert results["subjects_with_one_scan"] == ["a", "b"]
    assert [row["slope"] for row in of(rows.subjects, "whole")] == [None, None]
    whole = results["by_structure"]["whole"]
    assert (whole["consistency"], whole["trajectories"]) == (None, None)
    assert whole["dice"]["mean"] == pytest.approx((1 + 8 / 9) / 2)


def test_lesions_are_reported_where_there_are_several(case_of, evaluate):
    several = block(2) | block(2, x=8) | block(2, x=14)
    case_of(a=[(0.0, block(2) | block(2, x=11), several), (1.0, several, several)])
    results, rows = evaluate()
    first, _ = of(rows.scans, "whole")
    counted = [first[name] for name in ("lesions", "lesions_detected", "lesions_found", "lesions_correct")]
    assert counted == [3, 1, 2, 1]
    lesions = results["by_structure"]["whole"]["lesions"]
    assert lesions["median_number"] == 3
    assert lesions["lesion_f1"]["mean"] == pytest.approx((2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3) + 1) / 2)
    assert results["by_structure"]["core"]["lesions"] is None


def test_a_single_structure_has_no_lesions(case_of, evaluate):
    case_of(a=[(0.0, block(2), block(2))])
    assert evaluate()[0]["by_structure"]["whole"]["lesions"] is None


def test_files(case_of, evaluate, tmp_path):
    case_of(a=[(0.0, block(4), block(4)), (1.0, block(4), block(5)), (2.0, block(4), None)])
    results, rows = evaluate()
    assert results["without_truth"] == ["a_2"]
    assert read_json(tmp_path / "out" / "metrics.json") == results
    for name, columns, content, count in (
        (METRICS_CSV, scan_columns(), rows.scans, 2),
        (PAIRS_CSV, PAIR_COLUMNS, rows.pairs, 1),
        (SUBJECTS_CSV, SUBJECT_COLUMNS, rows.subjects, 1),
    ):
        assert (tmp_path / "out" / name).read_text().splitlines()[0] == ",".join(columns)
        assert len(content) == count * len(results["by_structure"])


def test_columns_of_metrics_csv():
    """The metrics of the task stand between the scan and its volumes."""
    assert scan_columns() == [
        *("case", "subject", "time", "structure", DICE.name, IOU.name, HD95.name, "volume_ml", "true_volume_ml"),
        *("lesions", "lesions_detected", "lesions_found", "lesions_correct"),
        *("lesion_precision", "lesion_recall", "lesion_f1"),
    ]


def test_subjects_of_training_are_named(case_of, evaluate, tmp_path, write_table, caplog, monkeypatch):
    case_of(a=[(0.0, block(4), block(4))])
    (tmp_path / "raw" / "imagesTr").mkdir()
    write_table(tmp_path / "raw" / "scans.csv", ("a_0", "a", 0.0))
    with caplog.at_level(logging.WARNING, logger="longflow"):
        monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)
        assert evaluate()[0]["subjects_of_training"] == ["a"]
    assert "are in imagesTr" in caplog.text


def test_an_error_in_a_worker_names_the_file(case_of, evaluate):
    case_of(a=[(0.0, np.full(SHAPE, 9, np.uint8), block(4))])
    with pytest.raises(DataError, match=r"a_0.nii.gz holds the label value 9"):
        evaluate()


def test_structures_weigh_alike_within_a_subject():
    rows = [
        {"subject": "a", "structure": "x", "dice": 1.0},
        {"subject": "a", "structure": "x", "dice": 0.5},
        {"subject": "a", "structure": "y", "dice": 0.25},
        {"subject": "b", "structure": "x", "dice": 0.1},
        {"subject": "b", "structure": "y", "dice": None},
    ]
    result = mean_over_structures(rows, "dice")
    assert result["mean"] == pytest.approx(((0.75 + 0.25) / 2 + 0.1) / 2)
    assert (result["subjects"], result["undefined"]) == (2, 1)
