import csv
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import read_description
from longflow.data.images import read_array
from longflow.errors import DataError
from longflow.tasks.translate.reader_study import ReaderStudy, export_reader_study
from tests.data.helpers import write_phase_dataset

SUBJECTS = tuple(f"p{number}" for number in range(8))


@pytest.fixture
def study(tmp_path, write_translation):
    """Eight translations to native, float32, 0.25 HU above the acquired scans, which are int16."""
    raw = write_phase_dataset(tmp_path / "raw", subjects=SUBJECTS)
    for subject in SUBJECTS:
        write_translation(tmp_path / "out", f"{subject}_0_arterial", "native", 1.25)
    return ReaderStudy(tmp_path / "out", tmp_path / "study", raw, read_description(raw / "dataset.json"))


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def acquired(study, row):
    return read_array(study.raw / "imagesTr" / f"{row['subject']}_0_native_0000.nii.gz")[0]


def test_pairs_and_their_key(study):
    assert export_reader_study(study) == 8
    key, images = table(study.output / "key.csv"), study.output / "for_readers"
    assert [row["item"] for row in key[::2]] == [f"item_{number:03d}" for number in range(1, 9)]
    assert sorted(row["subject"] for row in key[::2]) == list(SUBJECTS)
    assert [row["subject"] for row in key[::2]] != list(SUBJECTS)
    assert {row["is"] for row in key if row["image"] == "A"} == {"real", "synthetic"}
    for one, other in zip(key[::2], key[1::2], strict=True):
        assert (one["image"], other["image"]) == ("A", "B") and {one["is"], other["is"]} == {"real", "synthetic"}
    for row in key:
        found, real = read_array(images / f"{row['item']}_{row['image']}.nii")[0], acquired(study, row)
        expected = real if row["is"] == "real" else np.minimum(real + 1, real.max())
        np.testing.assert_array_equal(found, expected)


def test_nothing_but_the_voxels_tells_them_apart(study):
    export_reader_study(study)
    images = study.output / "for_readers"
    for number in range(1, 9):
        one, other = (images / f"item_{number:03d}_{letter}.nii" for letter in "AB")
        assert one.stat().st_size == other.stat().st_size
        headers = [nibabel.load(path).header for path in (one, other)]
        assert headers[0].binaryblock == headers[1].binaryblock
        assert headers[0].get_data_dtype() == np.int16
        assert one.read_bytes()[:352] == other.read_bytes()[:352]
    named = {path.name for path in images.iterdir()}
    assert named == {f"item_{number:03d}_{letter}.nii" for number in range(1, 9) for letter in "AB"} | {"sheet.csv"}
    sheet = (images / "sheet.csv").read_text()
    assert sheet.splitlines()[:2] == [
        "item,synthetic_image_A_or_B,confidence_1_to_5,seen_where,remarks",
        "item_001,,,,",
    ]
    assert not any(subject in sheet for subject in SUBJECTS)


def test_single_images_are_half_synthetic(study):
    assert export_reader_study(replace(study, design="single", items=6)) == 6
    key = table(study.output / "key.csv")
    assert sorted(row["is"] for row in key) == ["real"] * 3 + ["synthetic"] * 3
    assert len({row["subject"] for row in key}) == 6
    for row in key:
        found, real = read_array(study.output / "for_readers" / f"{row['item']}.nii")[0], acquired(study, row)
        assert np.array_equal(found, real) == (row["is"] == "real")


def test_the_seed_decides(study, tmp_path):
    keys = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        export_reader_study(replace(study, output=tmp_path / name, seed=seed))
        keys.append((tmp_path / name / "key.csv").read_text())
    assert keys[0] == keys[1] != keys[2]


def test_a_second_draw_does_not_mix_with_the_first(study):
    export_reader_study(study)
    with pytest.raises(DataError, match=r"study is not empty.*another folder"):
        export_reader_study(replace(study, seed=1))


def test_translations_without_an_acquired_scan(study, tmp_path):
    other = write_phase_dataset(tmp_path / "other", subjects=("q1",))
    with pytest.raises(DataError, match="None of the 8 translations has an acquired scan"):
        export_reader_study(replace(study, raw=other))
