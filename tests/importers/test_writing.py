import os
from dataclasses import replace

import pytest

from longflow.data.dataset import read_description
from longflow.errors import ConfigurationError, DataError, InUseError
from longflow.files import read_json
from longflow.importers.scans import Destination, ImportedDataset, ImportedScan
from longflow.importers.writing import named_labels, write_dataset
from longflow.paths import lock_beside
from tests.conftest import another_process_holds
from tests.data.helpers import tiny_array, tiny_label, write_image


@pytest.fixture
def scans(tmp_path):
    result = []
    for subject in ("a", "b"):
        for time in (0, 1):
            image = tmp_path / "source" / f"{subject}{time}.nii.gz"
            label = tmp_path / "source" / f"{subject}{time}_gt.nii.gz"
            write_image(tiny_array(time), image)
            write_image(tiny_label() * 2, label)
            result.append(ImportedScan(f"{subject}_{time}", subject, float(time), image, label=label))
    return result


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset103_Test"


def run(scans, raw, overwrite=False, **changes):
    content = {"time_unit": "days", "channel": "T1", "settings": {"source": "here"}, **changes}
    return write_dataset(ImportedDataset(scans, **content), Destination(raw, overwrite=overwrite, processes=1))


def test_a_broken_source_leaves_no_dataset_and_the_next_run_goes_on(scans, raw):
    good = scans[3].image.read_bytes()
    scans[3].image.write_bytes(good[:100])
    write_image(tiny_label() * 7, scans[0].label)
    with pytest.raises(DataError, match=r"b1\.nii\.gz is truncated"):
        run(scans, raw)
    assert [path.name for path in raw.parent.iterdir()] == [".unfinished-import-Dataset103_Test"]
    finished = raw.parent / ".unfinished-import-Dataset103_Test" / "imagesTr" / "a_0_0000.nii.gz"
    before = finished.stat().st_mtime_ns
    scans[3].image.write_bytes(good)
    assert run(scans, raw)
    assert [path.name for path in raw.parent.iterdir()] == ["Dataset103_Test"]
    assert (raw / "imagesTr" / "a_0_0000.nii.gz").stat().st_mtime_ns == before
    assert len(list((raw / "imagesTr").iterdir())) == len(list((raw / "labelsTr").iterdir())) == 4
    # labels of the scans that the first run finished count too, and no others
    assert read_description(raw / "dataset.json").label_values == set(range(8))


def test_other_settings_start_afresh(scans, raw):
    scans[3].image.write_bytes(b"")
    with pytest.raises(DataError):
        run(scans, raw)
    leftover = raw.parent / ".unfinished-import-Dataset103_Test" / "imagesTr" / "x_0000.nii.gz"
    leftover.touch()
    with pytest.raises(DataError):
        run(scans, raw, settings={"source": "there"})
    assert not leftover.exists()


def test_run_again_and_overwrite(scans, raw):
    assert run(scans, raw)
    assert run(scans, raw) is False
    with pytest.raises(DataError, match="was made differently"):
        run(scans, raw, settings={"source": "there"})
    (raw / "imagesTr" / "extra.txt").touch()
    assert run(scans, raw, settings={"source": "there"}, overwrite=True)
    assert not (raw / "imagesTr" / "extra.txt").exists()
    assert [path.name for path in raw.parent.iterdir()] == ["Dataset103_Test"]


def test_excluded_parts_of_the_source_do_not_make_another_dataset(scans, raw, caplog):
    assert run(scans, raw, excluded=["x: no image"]) and "Excluded: x: no image" in caplog.text
    assert read_json(raw / "import.json")["settings"]["left_out"] == ["x: no image"]
    assert run(scans, raw, excluded=["x: no file"]) is False


@pytest.mark.parametrize(("task", "part"), [("forecast", "targetsTs"), ("segment", "imagesTs")])
def test_a_task_that_predicts_no_new_scans_has_no_targets(scans, raw, task, part):
    scans[3] = replace(scans[3], part="target")
    write_dataset(ImportedDataset(scans, "days", "T1", {}), Destination(raw, task, processes=1))
    assert (raw / part / "b_1_0000.nii.gz").is_file()
    assert read_description(raw / "dataset.json").task == task


def test_a_dataset_made_by_hand_is_not_replaced(scans, raw):
    raw.mkdir(parents=True)
    (raw / "scans.csv").write_text("mine")
    with pytest.raises(DataError, match="--overwrite"):
        run(scans, raw)
    assert (raw / "scans.csv").read_text() == "mine"


def test_a_full_disk_leaves_no_dataset(scans, raw, monkeypatch):
    def full(source, target):
        if str(target).endswith("b_0_0000.nii.gz"):
            raise OSError(28, "No space left on device")
        return move(source, target)

    move = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DataError, match="No space left on device"):
            run(scans, raw)
    assert not raw.exists()
    assert run(scans, raw)


def test_nothing_to_train_on(scans, raw):
    with pytest.raises(ConfigurationError, match="none is left to train on"):
        run([ImportedScan("a_0", "a", 0.0, scans[0].image, part="context")], raw)


def test_empty_labels_are_not_written(scans, raw):
    write_image(tiny_label() * 0, scans[0].label)
    run(scans, raw)
    assert not (raw / "labelsTr" / "a_0.nii.gz").exists()


def test_label_values_must_be_whole(scans, raw):
    write_image(tiny_label() * 0.4, scans[0].label)
    with pytest.raises(DataError, match=r"label values from 0 to 0\.4"):
        run(scans, raw)


def test_named_labels():
    assert named_labels(set(), []) == {}
    assert named_labels({0, 3}, []) == {"background": 0, "label_1": 1, "label_2": 2, "label_3": 3}
    assert named_labels({0, 1}, ["a", "b"]) == {"background": 0, "a": 1, "b": 2}


def test_one_process_writes_a_dataset_at_a_time(scans, raw):
    with (
        another_process_holds(lock_beside(raw)),
        pytest.raises(InUseError, match="Dataset103_Test is being written by another process"),
    ):
        run(scans, raw)
    assert not raw.exists() and not (raw.parent / ".unfinished-import-Dataset103_Test").exists()
    assert run(scans, raw)
