import hashlib
import os
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import read_description
from longflow.errors import ConfigurationError, DataError, InUseError
from longflow.files import write_json
from longflow.importers.scans import Destination, ImportedDataset, ImportedScan
from longflow.importers.writing import label_array, named_labels, write_dataset
from longflow.paths import lock_beside
from longflow.reading import read_json
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
    assert run(scans, raw, settings={"source": "there"}, overwrite=True)
    assert read_json(raw / "import.json")["settings"]["source"] == "there"
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


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("record", [None, "[]", "{", '{"settings": 1}'])
def test_a_dataset_made_by_hand_is_never_replaced(scans, raw, overwrite, record):
    raw.mkdir(parents=True)
    (raw / "scans.csv").write_text("mine")
    if record:
        (raw / "import.json").write_text(record)
    with pytest.raises(DataError, match=r"was not written by longflow_import .*: it is never replaced"):
        run(scans, raw, overwrite=overwrite)
    assert (raw / "scans.csv").read_text() == "mine"


def test_an_import_of_an_earlier_version_is_kept_and_not_deleted(scans, raw):
    run(scans, raw)
    record = read_json(raw / "import.json")
    write_json({"settings": record["settings"]}, raw / "import.json")
    assert run(scans, raw) is False
    with pytest.raises(DataError, match="Delete the folder yourself"):
        run(scans, raw, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_the_import_did_not_write_are_never_deleted(scans, raw, overwrite):
    run(scans, raw)
    mine = raw / "labelsTr" / "mine.nii.gz"
    mine.touch()
    (raw / ".DS_Store").touch()
    write_image(tiny_array(9), scans[3].image)
    with pytest.raises(DataError, match=r"files that longflow_import did not write \(labelsTr/mine\.nii\.gz\)"):
        run(scans, raw, overwrite=overwrite)
    assert mine.exists()
    mine.unlink()
    assert run(scans, raw, overwrite=overwrite)


def test_a_replaced_source_is_imported_again_and_that_is_said(scans, raw, caplog):
    run(scans, raw)
    image = raw / "imagesTr" / "b_1_0000.nii.gz"
    for source, other in ((scans[3].image, tiny_array(9)), (scans[3].label, tiny_label())):
        write_image(other, source)
        caplog.clear()
        with caplog.at_level("INFO"):
            assert run(scans, raw)
        assert f"Dataset103_Test is imported again, because its source changed: {source.name}." in caplog.text
        assert run(scans, raw) is False
    assert np.array_equal(nibabel.load(image).get_fdata().T, tiny_array(9))
    assert nibabel.load(raw / "labelsTr" / "b_1.nii.gz").get_fdata().max() == 1
    assert [path.name for path in raw.parent.iterdir()] == ["Dataset103_Test"]


def test_what_only_tables_say_counts_too(scans, raw, caplog):
    run(scans, raw)
    scans[3] = replace(scans[3], time=2.5)
    with caplog.at_level("INFO"):
        assert run(scans, raw)
    assert "because its source changed: the table of scans." in caplog.text
    assert "b_1,b,2.5" in (raw / "scans.csv").read_text()
    assert run(scans[:3], raw)
    assert not (raw / "imagesTr" / "b_1_0000.nii.gz").exists() and run(scans[:3], raw) is False


def test_sources_that_were_only_copied_are_the_same(scans, raw):
    run(scans, raw)
    for scan in scans:
        scan.image.write_bytes(scan.image.read_bytes())
    assert run(scans, raw) is False


def test_what_was_edited_is_replaced_on_request_alone(scans, raw):
    run(scans, raw)
    (raw / "dataset.json").write_text((raw / "dataset.json").read_text().replace("label_1", "lesion"))
    assert run(scans, raw) is False
    write_image(tiny_array(9), scans[3].image)
    with pytest.raises(DataError, match=r"files were edited since \(dataset\.json\)"):
        run(scans, raw)
    assert "lesion" in (raw / "dataset.json").read_text()
    assert run(scans, raw, overwrite=True) and "lesion" not in (raw / "dataset.json").read_text()


def test_a_stopped_import_keeps_nothing_of_a_source_that_changed(scans, raw):
    good = scans[3].image.read_bytes()
    scans[3].image.write_bytes(good[:100])
    with pytest.raises(DataError):
        run(scans, raw)
    write_image(tiny_array(9), scans[0].image)
    scans[1].label.unlink()
    scans[1] = replace(scans[1], label=None)
    scans[3].image.write_bytes(good)
    assert run(scans, raw)
    assert np.array_equal(nibabel.load(raw / "imagesTr" / "a_0_0000.nii.gz").get_fdata().T, tiny_array(9))
    assert not (raw / "labelsTr" / "a_1.nii.gz").exists()


def test_the_record_names_sources_and_files(scans, raw):
    run(scans, raw)
    record = read_json(raw / "import.json")
    files = [path for scan in scans for path in (scan.image, scan.label)]
    assert record["sources"] == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert record["written"] == {
        path.relative_to(raw).as_posix(): path.stat().st_size
        for path in raw.rglob("*")
        if path.is_file() and path.name != "import.json"
    }


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


@pytest.mark.parametrize(("value", "kind"), [(65535, "uint16"), (255, "uint8")])
def test_label_values_keep_their_numbers(tmp_path, value, kind):
    array = label_array(sitk.GetImageFromArray(np.array([[[0, value]]], dtype=np.int32)), tmp_path / "a.nii.gz")
    assert array.tolist() == [[[0, value]]] and array.dtype == kind


def test_label_values_beyond_16_bits_are_refused(tmp_path):
    label = sitk.GetImageFromArray(np.array([[[0, 65536]]], dtype=np.int32))
    with pytest.raises(DataError, match=r"a\.nii\.gz holds the label value 65536, expected at most 65535"):
        label_array(label, tmp_path / "a.nii.gz")


@pytest.mark.parametrize("case", ["../../x", "a\nb"])
def test_a_case_that_leads_out_of_the_dataset_is_refused(tmp_path, case):
    write_image(tiny_array(), tmp_path / "source.nii.gz")
    scan = ImportedScan(case, "a", 0.0, tmp_path / "source.nii.gz")
    dataset = ImportedDataset([scan], "days", "T1", {})
    with pytest.raises(DataError, match="cannot be a file name"):
        write_dataset(dataset, Destination(tmp_path / "raw" / "Dataset101_X", processes=1))
    assert not list(tmp_path.glob("x*")) and not (tmp_path / "raw" / "Dataset101_X").exists()


def test_one_process_writes_a_dataset_at_a_time(scans, raw):
    with (
        another_process_holds(lock_beside(raw)),
        pytest.raises(InUseError, match="Dataset103_Test is being written by another process"),
    ):
        run(scans, raw)
    assert not raw.exists() and not (raw.parent / ".unfinished-import-Dataset103_Test").exists()
    assert run(scans, raw)
