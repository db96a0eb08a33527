import logging
from dataclasses import replace
from unicodedata import normalize

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription
from longflow.errors import ConfigurationError, DataError
from longflow.evaluation.references import dataset_folders
from longflow.files import write_json
from longflow.tasks.segment.label_maps import (
    LABEL_FOLDERS,
    LabelPrediction,
    Structures,
    find_label_pairs,
    methods_of,
    read_label_maps,
)
from tests.tasks.conftest import GEOMETRY, SHAPE

BLANK = np.zeros(SHAPE, np.uint8)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def raw(tmp_path, write_labels, write_table):
    """A raw dataset with reference label maps of three scans of two subjects."""
    raw = tmp_path / "raw"
    for case in ("a_0", "a_1", "b_0"):
        write_labels(raw / "labelsTr", case, BLANK)
    (raw / "imagesTr").mkdir()
    write_table(raw / "scans.csv", ("a_0", "a", 0.0), ("a_1", "a", 5.0), ("b_0", "b", 1.0))
    return raw


def find(out, raw, labelled, references=None):
    return find_label_pairs(out, references or dataset_folders(raw, LABEL_FOLDERS), raw, labelled)


def test_structures(labelled):
    structures = Structures.of(labelled)
    assert structures.values == {"whole": (1, 2), "core": (2,)}
    assert (structures.ignore, structures.known) == (3, {0, 1, 2, 3})


def test_a_dataset_without_structures_is_refused(description):
    with pytest.raises(ConfigurationError, match="names no structure"):
        Structures.of(description)


def test_names_on_disk_may_be_in_another_form_of_unicode(out, tmp_path, labelled, write_labels, write_table):
    raw = tmp_path / "other"
    (raw / "imagesTr").mkdir(parents=True)
    for form, folder in (("NFD", out), ("NFC", raw / "labelsTr")):
        write_labels(folder, normalize(form, "M\u00fcller_0"), BLANK)
    write_table(raw / "scans.csv", ("M\u00fcller_0", "M\u00fcller", 3.0))
    scans, without = find(out, raw, labelled)
    assert [(scan.case, scan.time, scan.images[0].is_file(), without) for scan in scans] == [
        ("M\u00fcller_0", 3.0, True, [])
    ]


def test_scans_in_order_of_time_by_the_folders_own_table(out, raw, labelled, write_labels, write_table):
    for case in ("a_0", "a_1", "new"):
        write_labels(out, case, BLANK)
    write_table(out / "scans.csv", ("a_0", "x", 9.0), ("a_1", "x", 7.0), ("new", "y", 0.0))
    scans, without = find(out, raw, labelled)
    assert [(scan.case, scan.subject, scan.time) for scan in scans] == [("a_1", "x", 7.0), ("a_0", "x", 9.0)]
    assert scans[0].reference == (raw / "labelsTr" / "a_1.nii.gz",)
    assert without == ["new"]


def test_a_folder_of_another_program_is_read_by_the_datasets_table(out, raw, labelled, write_labels):
    write_labels(out, "a_1", BLANK)
    (scan,), _ = find(out, raw, labelled)
    assert (scan.subject, scan.time) == ("a", 5.0)


def test_the_first_folder_with_a_reference_counts(out, raw, labelled, write_labels, tmp_path):
    for folder in (out, tmp_path / "mine", raw / "labelsTs"):
        write_labels(folder, "a_0", BLANK)
    assert find(out, raw, labelled)[0][0].reference[0].parent == raw / "labelsTs"
    assert (
        find(out, raw, labelled, [tmp_path / "mine", *dataset_folders(raw, LABEL_FOLDERS)])[0][0].reference[0].parent
        == tmp_path / "mine"
    )


def test_scans_without_a_label_map_are_named(out, raw, labelled, write_labels, write_table, caplog, monkeypatch):
    write_labels(out, "a_0", BLANK)
    write_table(out / "scans.csv", ("a_0", "a", 0.0), ("a_1", "a", 5.0))
    with caplog.at_level(logging.WARNING, logger="longflow"):
        monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)
        find(out, raw, labelled)
    assert "1 scans" in caplog.text
    assert "a_1" in caplog.text


def test_an_empty_folder(out, raw, labelled):
    with pytest.raises(DataError, match="does not exist"):
        find(out, raw, labelled)
    out.mkdir()
    with pytest.raises(DataError, match=r"holds no label maps: found no file \{case\}.nii.gz"):
        find(out, raw, labelled)


def test_no_reference_at_all(out, raw, labelled, write_labels):
    write_labels(out, "new", BLANK)
    with pytest.raises(DataError, match=r"None of the 1 label maps .* new.nii.gz in: .*labelsTr.* -r FOLDER"):
        find(out, raw, labelled)


def test_the_reference_itself_is_not_a_prediction(raw, labelled):
    with pytest.raises(DataError, match="None of the 3 label maps"):
        find(raw / "labelsTr", raw, labelled)


def test_a_scan_that_no_table_knows(out, raw, labelled, write_labels, write_table):
    for case in ("a_0", "a_1"):
        write_labels(out, case, BLANK)
    write_table(out / "scans.csv", ("a_0", "a", 0.0))
    with pytest.raises(DataError, match=r"Subject and time of a_1 are not known.*case,subject,time"):
        find(out, raw, labelled)


def test_two_scans_of_a_subject_at_one_time(out, raw, labelled, write_labels, write_table):
    for case in ("a_0", "a_1"):
        write_labels(out, case, BLANK)
    write_table(out / "scans.csv", ("a_0", "a", 2.0), ("a_1", "a", 2.0))
    with pytest.raises(DataError, match="a has two scans at time 2: a_0 and a_1"):
        find(out, raw, labelled)


def prediction(case, path, reference):
    return LabelPrediction(case=case, subject="s", time=0.0, images=(path,), reference=(reference,))


def test_methods_are_those_of_the_sidecars(out):
    write_json({"method": ["unet", "unet_consistent"]}, out / "a.json")
    write_json({"method": "unet"}, out / "b.json")
    write_json(["something else"], out / "c.json")
    scans = [prediction(case, out / f"{case}.nii.gz", out) for case in "abcd"]
    assert methods_of(scans) == ["unet", "unet_consistent"]


@pytest.fixture
def scan(tmp_path):
    return prediction("a", tmp_path / "predicted" / "a.nii.gz", tmp_path / "reference" / "a.nii.gz")


def write_both(scan, write_labels, predicted, reference, **changes):
    write_labels(scan.images[0].parent, "a", predicted, **changes)
    write_labels(scan.reference[0].parent, "a", reference)


def test_masks_of_regions_without_ignored_voxels(scan, labelled, write_labels):
    predicted, reference = BLANK.copy(), BLANK.copy()
    predicted[0, 0, :4] = [1, 2, 1, 2]
    reference[0, 0, :4] = [2, 1, 3, 3]
    write_both(scan, write_labels, predicted, reference)
    maps = read_label_maps(scan, Structures.of(labelled))
    for values, expected in (((1, 2), ([0, 1], [0, 1])), ((2,), ([1], [0]))):
        masks = maps.masks(values)
        for mask, places in zip((masks.prediction, masks.reference), expected, strict=True):
            np.testing.assert_array_equal(np.flatnonzero(mask), places)
    assert np.count_nonzero(maps.known) == BLANK.size - 2


def test_prediction_on_another_grid(scan, labelled, write_labels):
    write_both(scan, write_labels, BLANK, BLANK, geometry=replace(GEOMETRY, spacing=(1.0, 1.0, 2.0)))
    with pytest.raises(
        DataError, match=r"predicted/a.nii.gz: spacing is .* but .*reference/a.nii.gz has .* on its own grid"
    ):
        read_label_maps(scan, Structures.of(labelled))


@pytest.mark.parametrize("value", [3, 7])
def test_unknown_value_in_a_prediction(scan, labelled, write_labels, value):
    """The ignore label is for references: nobody predicts it."""
    write_both(scan, write_labels, np.full_like(BLANK, value), BLANK)
    with pytest.raises(DataError, match=rf"predicted/a.nii.gz holds the label value {value}.* Expected: 0, 1, 2\."):
        read_label_maps(scan, Structures.of(labelled))


def test_unknown_value_in_the_reference(scan, labelled, write_labels):
    write_both(scan, write_labels, BLANK, np.full_like(BLANK, 7))
    with pytest.raises(DataError, match=r"reference/a.nii.gz holds the label value 7.* Expected: 0, 1, 2, 3\."):
        read_label_maps(scan, Structures.of(labelled))


def test_interpolated_labels(scan, labelled, write_labels):
    write_both(scan, write_labels, np.full(SHAPE, 0.5, np.float32), BLANK, kind="float32")
    with pytest.raises(DataError, match=r"holds 0.5; label values are whole numbers.*nearest neighbour"):
        read_label_maps(scan, Structures.of(labelled))


def test_label_maps_of_floats_are_read(scan, write_labels):
    write_both(scan, write_labels, np.ones(SHAPE, np.float32), BLANK, kind="float32")
    description = DatasetDescription(
        channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days", labels={"background": 0, "x": 1}
    )
    maps = read_label_maps(scan, Structures.of(description))
    assert maps.prediction.all() and maps.known.all()
