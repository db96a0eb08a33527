import csv
import logging

import numpy as np
import pytest

from longflow.data.body import body_mask
from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.evaluation.evaluation import EvaluationJob
from longflow.evaluation.intervals import mean_interval
from longflow.reading import read_json
from longflow.tasks.translate.evaluation import (
    FURTHER_DEFINITIONS,
    INPUT,
    TRANSLATION,
    evaluate_translation_pairs,
    evaluate_translations,
    summarise_direction,
)
from longflow.tasks.translate.task import TASK
from tests.data.helpers import phase_label, write_image, write_phase_dataset
from tests.tasks.translate.test_metrics import translation_metrics

SPACING = (1.5, 1.5, 5.0)


@pytest.fixture
def raw(tmp_path):
    """Three subjects of two times, native and arterial; the vessel is 250 HU brighter in the arterial phase."""
    return write_phase_dataset(tmp_path / "raw", subjects=("p1", "p2", "p3"), times=(0, 30))


@pytest.fixture
def out(tmp_path, raw, write_translation):
    """Translations into the native phase: 10 HU off in p1 (first time) and p2, 30 HU in p1 (second time)."""
    for source, error in (("p1_0_arterial", 10.0), ("p1_30_arterial", 30.0), ("p2_0_arterial", 10.0)):
        write_translation(tmp_path / "out", source, "native", error, seconds=4.0 if "p2" in source else 2.0)
    return tmp_path / "out"


@pytest.fixture
def evaluate(raw):
    def run(folder, *further):
        description = read_description(raw / "dataset.json")
        results = evaluate_translations(EvaluationJob(folder, further, raw, description, processes=1)).results
        return results, read_rows(folder / "metrics.csv")

    return run


def read_rows(path):
    """Rows of a CSV; numbers, flags and empty cells are read as what they are."""
    texts = ("case", "subject", "source", "source_phase", "target_phase", "image")
    flags = {"True": True, "False": False, "": None}
    with open(path, newline="") as file:
        return [
            {
                name: value if name in texts else flags[value] if value in flags else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def image(raw, case):
    return read_scan((raw / "imagesTr" / f"{case}_0000.nii.gz",)).array


def test_mean_over_a_subjects_scans_then_over_subjects(out, evaluate):
    results, _ = evaluate(out)
    found = results["by_direction"]["native"]
    assert (found["translations"], found["subjects"], found["source_phases"]) == (3, 2, ["arterial"])
    mae = found["translation"]["body_mae"]
    assert mae["mean"] == pytest.approx((20 + 10) / 2, abs=1e-3)
    assert (mae["subjects"], mae["undefined"]) == (2, 0)
    assert mae["interval"] == pytest.approx(mean_interval([20.0, 10.0]), abs=1e-3)
    assert results["round_trip"] == {}


def test_every_number_is_compared_with_that_of_the_untranslated_input(raw, out, evaluate):
    results, rows = evaluate(out)
    found = results["by_direction"]["native"]
    assert list(found["input"]) == list(found["translation"]) == list(found["difference"]) == list(TASK.metrics)
    native, arterial = image(raw, "p2_0_native"), image(raw, "p2_0_arterial")
    expected = translation_metrics(arterial, native, body_mask(native[0], True), (5.0, 1.5, 1.5), [True])
    (row,) = (row for row in rows if row["case"] == "p2_0_arterial_native" and row["image"] == INPUT)
    assert {name: row[name] for name in TASK.metrics} == expected
    assert expected["body_mae"] > 10
    paired = [
        np.mean([own[TRANSLATION] - own[INPUT] for own in of_subject.values()])
        for of_subject in by_subject_and_case(rows).values()
    ]
    assert found["difference"]["body_mae"]["mean"] == pytest.approx(np.mean(paired))


def by_subject_and_case(rows):
    found = {}
    for row in rows:
        found.setdefault(row["subject"], {}).setdefault(row["case"], {})[row["image"]] = row["body_mae"]
    return found


def test_the_body_is_that_of_the_reference(raw, tmp_path, evaluate, write_translation):
    """100 HU too much in the air alone."""
    body = body_mask(image(raw, "p1_0_native")[0], True)
    write_translation(tmp_path / "out", "p1_0_arterial", "native", np.where(body, 0, 100))
    found = evaluate(tmp_path / "out")[0]["by_direction"]["native"]["translation"]
    assert found["body_mae"]["mean"] == 0
    assert found["mae"]["mean"] == pytest.approx(100 * (1 - body.mean()), rel=0.03)  # but for what is clipped


def test_structures_of_the_reference(raw, out, evaluate):
    results, rows = evaluate(out)
    vessel = results["by_direction"]["native"]["by_label"]["vessel"]
    assert vessel["translation"]["mean"] == pytest.approx(15, abs=1e-3)
    difference = np.abs(image(raw, "p2_0_arterial") - image(raw, "p2_0_native"))[0][phase_label() > 0].mean()
    (row,) = (row for row in rows if row["case"] == "p2_0_arterial_native" and row["image"] == INPUT)
    assert row["mae vessel"] == pytest.approx(difference)
    assert vessel["input"]["mean"] > 200


def test_a_reference_without_labels_is_counted(raw, out, evaluate):
    (raw / "labelsTr" / "p1_0_native.nii.gz").unlink()
    vessel = evaluate(out)[0]["by_direction"]["native"]["by_label"]["vessel"]["translation"]
    assert vessel["undefined"] == 1
    assert vessel["mean"] == pytest.approx((30 + 10) / 2, abs=1e-3)


def test_a_dataset_without_labels(tmp_path, evaluate, write_translation):
    write_phase_dataset(tmp_path / "raw", labelled=False)
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
    results, _ = evaluate(tmp_path / "out")
    assert results["by_direction"]["native"]["by_label"] == {}


def test_structures_that_no_reference_has_are_excluded(raw, out, evaluate):
    for label in (raw / "labelsTr").iterdir():
        write_image(0 * phase_label(), label, SPACING)
    assert evaluate(out)[0]["by_direction"]["native"]["by_label"] == {}


def test_both_directions_and_the_way_back_are_separate(raw, tmp_path, evaluate, write_translation):
    out = tmp_path / "out"
    write_translation(tmp_path / "there", "p1_0_arterial", "native", 5.0)
    write_translation(out, "p1_0_arterial", "native", 5.0)
    write_translation(out, "p1_0_native", "arterial", 7.0)
    write_translation(out, "p1_0_arterial_native", "arterial", 9.0, round_trip=True)
    results, rows = evaluate(out, tmp_path / "there")
    means = {phase: found["translation"]["body_mae"]["mean"] for phase, found in results["by_direction"].items()}
    assert means == {"arterial": pytest.approx(7, abs=1e-2), "native": pytest.approx(5, abs=1e-2)}
    back = results["round_trip"]["arterial"]
    assert back["translation"]["body_mae"]["mean"] == pytest.approx(9, abs=1e-2)
    assert back["source_phases"] == ["native"]
    assert [row["round_trip"] for row in rows].count(True) == 2


def test_seconds_per_slice_and_per_volume(out, evaluate):
    """p1: 2 seconds for each of two scans of 4 slices; p2: 4 seconds."""
    found = evaluate(out)[0]["by_direction"]["native"]
    assert found["seconds_per_volume"]["mean"] == pytest.approx(3)
    assert found["seconds_per_slice"]["mean"] == pytest.approx(3 / 4)


def test_seconds_that_a_sidecar_does_not_say_are_counted(tmp_path, raw, evaluate, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0, seconds=None)
    found = evaluate(tmp_path / "out")[0]["by_direction"]["native"]
    assert found["seconds_per_slice"] == {"mean": None, "median": None, "interval": None, "subjects": 0, "undefined": 1}


def test_files(out, evaluate):
    results, rows = evaluate(out)
    assert read_json(out / "metrics.json") == results
    assert set(TASK.metrics) | set(FURTHER_DEFINITIONS) == set(results["definitions"])
    with open(out / "metrics.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows) == 6
    assert [row["image"] for row in written[:2]] == [TRANSLATION, INPUT]
    assert float(written[0]["body_mae"]) == rows[0]["body_mae"]
    assert (written[0]["seconds"], written[1]["seconds"]) == ("2.0", "")
    assert written[0]["source"] == "p1_0_arterial" and "mae vessel" in written[0]


def test_a_number_that_is_not_defined_is_none_and_counted(tmp_path, raw, evaluate, write_translation):
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 0.0)
    write_translation(tmp_path / "out", "p2_0_arterial", "native", 5.0)
    results, rows = evaluate(tmp_path / "out")
    psnr = results["by_direction"]["native"]["translation"]["psnr"]
    assert rows[0]["psnr"] is None
    assert (psnr["undefined"], psnr["subjects"], psnr["mean"]) == (1, 1, rows[2]["psnr"])


def test_mr_has_no_hounsfield_units(tmp_path, evaluate, write_translation):
    write_phase_dataset(tmp_path / "raw", channel="T1")
    write_translation(tmp_path / "out", "p1_0_arterial", "native", -500.0)
    _, rows = evaluate(tmp_path / "out")
    assert rows[0]["psnr_mfm"] is None and rows[0]["ssim_mfm"] is not None
    assert rows[0]["mae"] == pytest.approx(500)  # the air of the phantom is not clipped


def test_training_subjects_are_named(out, evaluate, caplog):
    with caplog.at_level(logging.WARNING):
        results, _ = evaluate(out)
    assert results["subjects_of_training"] == ["p1", "p2"]
    assert "are in imagesTr (p1, p2)" in caplog.text


def test_translations_without_reference_are_named(out, raw, evaluate, caplog):
    for path in (raw / "imagesTr").glob("p2_0_native*"):
        path.unlink()
    results, _ = evaluate(out)
    assert results["without_truth"] == ["p2_0_arterial_native"]
    assert "1 of 3 translations have no reference" in caplog.text


def test_phases_on_different_grids(raw, out, evaluate):
    """The native scan of p1 is coarser."""
    path = raw / "imagesTr" / "p1_0_native_0000.nii.gz"
    write_image(np.zeros((4, 12, 10), np.int16), path, (3.0, 3.0, 5.0))
    with pytest.raises(DataError, match=r"p1_0_arterial_native_0000.*size is 20 x 24 x 4, but .*longflow_register"):
        evaluate(out)


def test_a_label_map_on_another_grid(raw, out, evaluate):
    write_image(np.zeros((4, 12, 10), np.uint8), raw / "labelsTr" / "p1_0_native.nii.gz", (3.0, 3.0, 5.0))
    with pytest.raises(DataError, match=r"labelsTr/p1_0_native.nii.gz: size is 10 x 12 x 4"):
        evaluate(out)


def test_a_label_value_that_is_not_known(raw, out, evaluate):
    write_image(7 * phase_label(), raw / "labelsTr" / "p1_0_native.nii.gz", SPACING)
    with pytest.raises(DataError, match=r"label value 7, which dataset\.json does not name"):
        evaluate(out)


def test_summary_of_nothing_defined():
    row = {"subject": "p1", "source_phase": "arterial", "seconds": None, "slices": None, **dict.fromkeys(TASK.metrics)}
    found = summarise_direction([{**row, "image": TRANSLATION}, {**row, "image": INPUT}], list(TASK.metrics))
    assert found["difference"]["ssim"]["mean"] is None and found["difference"]["ssim"]["undefined"] == 1


def test_no_pairs_no_rows(raw):
    assert evaluate_translation_pairs([], read_description(raw / "dataset.json"), processes=1) == []
