"""Every kind of problem, on volumes of 8 x 8 x 6 voxels."""

import gzip
import json
import unicodedata

import nibabel
import numpy as np
import pytest

from longflow.integrity.dataset import verify_dataset
from tests.data.helpers import (
    SHAPE,
    edit_description,
    edit_table,
    tiny_array,
    tiny_label,
    write_dataset,
    write_image,
)

IMAGE = "imagesTr/p1_1_0000.nii.gz"
LABEL = "labelsTr/p1_1.nii.gz"


@pytest.fixture
def raw(tmp_path):
    return write_dataset(tmp_path / "Dataset001_Tiny")


def check(raw):
    return verify_dataset(raw, processes=1)


def only(problems, severity="error"):
    """The one problem that there should be."""
    assert len(problems) == 1, "\n".join(map(str, problems))
    assert problems[0].severity == severity
    return problems[0]


def test_a_good_dataset_has_no_problem(raw):
    assert check(raw) == []


def test_worker_processes_find_the_same_and_report_progress(raw):
    write_image(np.full(SHAPE, 7, np.int16), raw / IMAGE)
    seen = []
    problems = verify_dataset(raw, processes=2, progress=lambda done, total, name: seen.append((done, total)))
    assert problems == check(raw)
    assert seen == [(1, 2), (2, 2)]


def test_all_problems_are_found_at_once(raw):
    write_image(np.full(SHAPE, 7, np.int16), raw / IMAGE)
    (raw / "imagesTr" / "p2_0_0000.nii.gz").write_bytes(b"no image")
    edit_table(raw, "p2_1,p2,30", "p2_1,p2,2024-01-31")
    fields = {(problem.file, problem.field) for problem in check(raw)}
    assert fields == {
        (IMAGE, "voxels"),
        ("imagesTr/p2_0_0000.nii.gz", "file"),
        ("scans.csv", "line 6: time"),
    }


def test_truncated_file(raw):
    path = raw / IMAGE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problem = only(check(raw))
    assert (problem.file, problem.found) == (IMAGE, "truncated, damaged or not an image")


def test_truncated_uncompressed_file(tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", file_ending=".nii")
    for path in list(raw.rglob("*.nii.gz")):
        write_image(tiny_array() if "images" in str(path.parent) else tiny_label(), path.with_suffix(""))
        path.unlink()
    assert check(raw) == []
    path = raw / "imagesTr" / "p1_1_0000.nii"
    path.write_bytes(path.read_bytes()[:500])
    assert only(check(raw)).found == "truncated, damaged or not an image"


def test_row_without_file(raw):
    (raw / IMAGE).unlink()
    problem = only(check(raw))
    assert (problem.file, problem.field, problem.found) == ("scans.csv", "line 3: case", "p1_1")
    assert IMAGE in problem.expected


def test_file_without_row(raw):
    write_image(tiny_array(), raw / "imagesTr" / "p9_0_0000.nii.gz")
    write_image(tiny_label(), raw / "labelsTr" / "p9_0.nii.gz")
    problems = check(raw)
    assert [problem.severity for problem in problems] == ["warning", "warning"]
    assert [problem.file for problem in problems] == ["imagesTr/p9_0_*.nii.gz", "labelsTr/p9_0.nii.gz"]


def test_file_with_another_ending_but_hidden_files_are_ignored(raw):
    (raw / "imagesTr" / "notes.txt").write_text("x")
    (raw / "imagesTr" / ".unfinished-1-p1_1_0000.nii.gz").write_text("x")
    assert only(check(raw), "warning").file == "imagesTr/notes.txt"


def test_sidecars_stand_beside_the_images_that_longflow_made(raw):
    (raw / "imagesTr" / "p1_1.json").write_text("{}")
    assert not check(raw)
    (raw / "imagesTr" / "p9.json").write_text("{}")
    assert only(check(raw), "warning").file == "imagesTr/p9.json"


def test_four_dimensions(raw):
    write_image(np.zeros((2, *SHAPE), np.int16), raw / IMAGE)
    problem = only(check(raw))
    assert (problem.field, problem.found, problem.expected) == ("dimensions", "4 (8 x 8 x 6 x 2)", "3")
    assert "longflow_import nifti4d" in problem.advice


@pytest.mark.parametrize(("value", "name"), [(np.nan, "1 NaN"), (np.inf, "1 infinite")])
def test_voxels_that_are_not_finite(raw, value, name):
    array = tiny_array().astype(np.float32)
    array[1, 2, 3] = value
    write_image(array, raw / IMAGE)
    problem = only(check(raw))
    assert problem.found == f"{name}, the first at (3, 2, 1)"


def test_constant_image(raw):
    write_image(np.full(SHAPE, 7, np.int16), raw / IMAGE)
    assert only(check(raw)).found == "all 7"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"spacing": (1.5, 1.5, 4.0)}, "spacing"),
        ({"origin": (10.0, -20.0, 31.0)}, "origin"),
        ({"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}, "direction"),
    ],
)
def test_geometry_that_differs_within_a_subject(raw, change, field):
    (raw / LABEL).unlink()
    write_image(tiny_array(), raw / IMAGE, **change)
    errors = [problem for problem in check(raw) if problem.severity == "error"]
    problem = only(errors)
    assert (problem.file, problem.field) == (IMAGE, field)
    assert "p1_0_0000.nii.gz" in problem.expected
    assert "longflow_register" in problem.advice


def test_size_that_differs_within_a_subject(raw):
    (raw / LABEL).unlink()
    write_image(tiny_array()[:5], raw / IMAGE)
    problem = next(problem for problem in check(raw) if problem.severity == "error")
    assert (problem.field, problem.found) == ("size", "8 x 8 x 5")


def test_geometry_within_tolerance_is_no_problem(raw):
    write_image(tiny_array(), raw / IMAGE, origin=(10.0005, -20.0, 30.0), spacing=(1.5003, 1.5, 5.0))
    assert check(raw) == []


def test_subjects_may_have_different_grids(raw):
    for index in range(3):
        write_image(tiny_array(index), raw / "imagesTr" / f"p2_{index}_0000.nii.gz", spacing=(1.0, 1.0, 3.0))
        write_image(tiny_label(), raw / "labelsTr" / f"p2_{index}.nii.gz", spacing=(1.0, 1.0, 3.0))
    assert check(raw) == []


def test_label_on_another_grid(raw):
    write_image(tiny_label(), raw / LABEL, spacing=(1.5, 1.5, 4.0))
    problem = only(check(raw))
    assert (problem.file, problem.field) == (LABEL, "spacing")
    assert "label image must be on the grid of its scan" in problem.advice


def test_label_value_that_dataset_json_does_not_name(raw):
    label = tiny_label()
    label[0, 0, 0] = 3
    write_image(label, raw / LABEL)
    problem = only(check(raw))
    assert (problem.field, problem.found, problem.expected) == ("label values", "3", "0, 1")


def test_label_values_that_are_not_whole(raw):
    write_image(tiny_label() * np.float32(0.5), raw / LABEL)
    assert only(check(raw)).found == "0.5"


def test_missing_label_is_a_warning(raw):
    (raw / LABEL).unlink()
    assert only(check(raw), "warning").found == "1 of 6 scans have none (p1_1)"


def test_named_label_that_never_occurs(raw):
    edit_description(raw, labels={"background": 0, "lesion": 1, "cyst": 2})
    assert only(check(raw), "warning").found == "2 in no label image"


def test_two_scans_at_one_time(raw):
    edit_table(raw, "p1_1,p1,30", "p1_1,p1,75")
    problem = only(check(raw))
    assert (problem.field, problem.found) == ("line 4: time", "75 of subject p1, as in line 3")


def test_one_case_twice(raw):
    edit_table(raw, "p1_1,p1,30", "p1_1,p1,30\np1_1,p1,40")
    problem = only(check(raw))
    assert (problem.field, problem.found) == ("line 4: case", "p1_1, as in line 3")


@pytest.mark.parametrize("time", ["2024-01-31", "31.01.2024", "1/31/2024", "soon", "nan", "inf", ""])
def test_time_that_is_not_a_number(raw, time):
    edit_table(raw, "p1_1,p1,30", f"p1_1,p1,{time}")
    problem = only(check(raw))
    assert problem.field == "line 3: time"
    assert "count from any fixed day" in problem.advice


def test_decimal_comma_is_not_cut_silently(raw):
    edit_table(raw, "p1_1,p1,30", "p1_1,p1,30,5")
    problem = only(check(raw))
    assert (problem.field, problem.found) == ("line 3: cells", "4 (p1_1,p1,30,5)")
    edit_table(raw, "p1_1,p1,30,5", 'p1_1,p1,"30,5"')
    assert only(check(raw)).advice == "Write decimals with a point."


@pytest.mark.parametrize("case", ["", "a/b"])
def test_case_that_is_no_name(raw, case):
    edit_table(raw, "p1_1,p1,30", f"{case},p1,30")
    assert ("error", "line 3: case") in {(problem.severity, problem.field) for problem in check(raw)}


def test_subject_with_one_scan(raw):
    edit_table(raw, "p1_2,p1,75", "p1_2,p3,75")
    problem = only(check(raw), "warning")
    assert (problem.field, problem.found) == ("subject p3", "1 scan")


@pytest.mark.parametrize(
    ("unit", "times", "severity", "word"),
    [
        ("days", (20240131, 20240301, 20250102), "error", "yyyymmdd"),
        ("ms", (20240131, 20240301, 20250102), "warning", "yyyymmdd"),
        ("days", (2019, 2020, 2023), "warning", "years?"),
        ("years", (0, 30, 200), "warning", "200 years"),
        ("s", (0, 30, 1e6), "warning", "1e+06 s"),
        ("ms", (0.0, 0.3, 0.7), "warning", "0.7 ms"),
        ("frames", (0, 1, 2.5), "warning", "2.5"),
    ],
)
def test_times_in_a_doubtful_unit(tmp_path, unit, times, severity, word):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", times=times, time_unit=unit)
    assert word in only(check(raw), severity).found


@pytest.mark.parametrize(("unit", "times"), [("years", (2019, 2020, 2023)), ("days", (45321, 45400, 46001.5))])
def test_times_without_doubt(tmp_path, unit, times):
    assert check(write_dataset(tmp_path / "Dataset001_Tiny", times=times, time_unit=unit)) == []


def test_wrong_number_of_channels(raw):
    write_image(tiny_array(), raw / "imagesTr" / "p1_1_0001.nii.gz")
    problem = only(check(raw))
    assert (problem.field, problem.found, problem.expected) == ("channels", "0000, 0001", "0000")
    edit_description(raw, channel_names={"0": "T1", "1": "T2"})
    assert {problem.found for problem in check(raw)} == {"0000"}
    assert len(check(raw)) == 5


def test_channels_on_different_grids(tmp_path):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", channel_names={"0": "T1", "1": "T2"})
    for path in list((raw / "imagesTr").iterdir()):
        write_image(tiny_array(), path.with_name(path.name.replace("_0000", "_0001")))
    assert check(raw) == []
    write_image(tiny_array(), raw / "imagesTr" / "p1_1_0001.nii.gz", spacing=(1.5, 1.5, 4.0))
    assert "channels of a scan" in only(check(raw)).advice


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"time_unit": "fortnights"}, "time_unit"),
        ({"channel_names": {"1": "T1"}}, "channel_names"),
        ({"labels": {"background": 0, "lesion": 1, "cyst": 3}}, "labels"),
        ({"normalization": {"1": "absolute"}}, "normalization.1"),
        ({"normalization": {"0": "sometimes"}}, "normalization.0"),
        ({"channel_names": {}}, "channel_names"),
        ({"labels": {"background": 0, "lesion": "one"}}, "labels.lesion"),
    ],
)
def test_dataset_json(raw, changes, field):
    edit_description(raw, **changes)
    errors = [problem for problem in check(raw) if problem.severity == "error"]
    assert (only(errors).file, errors[0].field) == ("dataset.json", field)


def test_file_ending_without_a_point(raw):
    edit_description(raw, file_ending="nii.gz")
    assert [(problem.file, problem.field) for problem in check(raw)] == [("dataset.json", "file_ending")]


def test_lines_are_in_order_of_their_numbers(raw):
    lines = [f"x_{number},x,{number}" for number in range(12)]
    (raw / "scans.csv").write_text("case,subject,time\n" + "\n".join(lines) + "\n")
    fields = [problem.field for problem in check(raw) if problem.field.startswith("line")]
    assert fields == [f"line {number}: case" for number in range(2, 14)]


def test_a_key_of_dataset_json_that_is_nearly_right(raw):
    edit_description(raw, normalisation={"0": "absolute"}, licence="CC0", numTraining=6)
    problem = only(check(raw), "warning")
    assert (problem.field, problem.expected) == ("normalisation", "normalization?")


def test_a_description_of_nnunet_1_is_one_problem(raw):
    (raw / "dataset.json").write_text('{"modality": {"0": "T1"}, "labels": {"0": "background", "1": "lesion"}}')
    problem = only(check(raw))
    assert (problem.file, problem.field) == ("dataset.json", "file")
    assert '"labels": {"background": 0, "lesion": 1}' in problem.found


def test_a_byte_order_mark_in_dataset_json_is_read(raw):
    (raw / "dataset.json").write_bytes(b"\xef\xbb\xbf" + (raw / "dataset.json").read_bytes())
    assert check(raw) == []


def test_a_key_twice_in_dataset_json(raw):
    text = (raw / "dataset.json").read_text()
    (raw / "dataset.json").write_text(text.replace("{", '{"time_unit": "years",\n', 1))
    assert "line 2: the key 'time_unit' a second time" in only(check(raw)).found


@pytest.mark.parametrize(("rows", "files"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_both_forms_of_unicode_are_no_problem(tmp_path, rows, files):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", ("M\u00fcller", "p2"))
    for path in [*raw.glob("images*/*"), *raw.glob("labels*/*")]:
        path.rename(path.with_name(unicodedata.normalize(files, path.name)))
    (raw / "scans.csv").write_text(unicodedata.normalize(rows, (raw / "scans.csv").read_text()))
    assert check(raw) == []
    image = np.zeros(SHAPE, np.int16)
    write_image(image, next(raw.glob("imagesTr/M*_1_0000.nii.gz")))
    assert only(check(raw)).field == "voxels"


@pytest.mark.parametrize("other", ["P1", "p01", "p\u00a01", "p1\u200b"])
def test_one_subject_in_two_spellings_is_a_warning(raw, other):
    edit_table(raw, "p1_2,p1,75", f"\n\np1_2,{other},75")
    problems = [problem for problem in check(raw) if problem.field.endswith("subject")]
    assert only(problems, "warning").field == "line 6: subject"
    assert f"{other!r} (line 6)" in problems[0].found and "'p1' (line 2)" in problems[0].found


def test_a_test_subject_in_another_spelling_is_trained_on(raw):
    (raw / "imagesTs").mkdir()
    write_image(tiny_array(), raw / "imagesTs" / "x_0_0000.nii.gz")
    (raw / "imagesTs" / "scans.csv").write_text("case,subject,time\nx_0,P01,0\n")
    problem = only(check(raw), "warning")
    assert (problem.field, problem.found) == ("subject P01", "also in imagesTr, as 'p1'")


def test_dataset_json_that_is_none(raw):
    (raw / "dataset.json").write_text("{")
    edit_table(raw, "p1_1,p1,30", "p1_1,p1,soon")
    assert [problem.file for problem in check(raw)] == ["dataset.json", "scans.csv"]


def test_missing_folder_missing_table_and_empty_table(raw, tmp_path):
    assert only(check(tmp_path / "nowhere")).found == "no such folder"
    (tmp_path / "empty").mkdir()
    assert only(check(tmp_path / "empty")).found == "holds nothing"
    (raw / "scans.csv").write_text("case,subject,time\n")
    assert check(raw)[0].found == "no line"
    (raw / "scans.csv").write_text("case,time\n")
    (problem,) = check(raw)  # and not that every file lacks its line
    assert "has no column subject" in problem.found
    (raw / "scans.csv").unlink()
    assert "does not exist" in check(raw)[0].found


def test_test_scans(raw):
    (raw / "imagesTs").mkdir()
    (raw / "imagesTs" / "scans.csv").write_text("case,subject,time\np8_0,p8,0\np8_1,p8,30\np8_2,p8,-5\np1_9,p1,8\n")
    for path in ("imagesTs/p8_0", "targetsTs/p8_1", "targetsTs/p8_7", "imagesTs/p1_9"):
        write_image(tiny_array(), raw / f"{path}_0000.nii.gz")
    found = {(problem.severity, problem.file, problem.field) for problem in check(raw)}
    assert found == {
        ("error", "imagesTs/scans.csv", "line 4: time"),
        ("warning", "imagesTs/scans.csv", "subject p1"),
        ("warning", "targetsTs/p8_7_0000.nii.gz", "case"),
    }


def test_targets_are_read_too(raw):
    (raw / "imagesTs").mkdir()
    (raw / "imagesTs" / "scans.csv").write_text("case,subject,time\np8_0,p8,0\np8_1,p8,30\n")
    write_image(tiny_array(), raw / "imagesTs" / "p8_0_0000.nii.gz")
    write_image(tiny_array(), raw / "targetsTs" / "p8_1_0000.nii.gz", spacing=(1, 1, 5))
    problem = only(check(raw))
    assert (problem.file, problem.field) == ("targetsTs/p8_1_0000.nii.gz", "spacing")


def test_header_with_two_spacings(raw):
    image = nibabel.Nifti1Image(tiny_array().T, np.eye(4))
    image.header["pixdim"][1:4] = 1.5, 1.5, 5.0
    (raw / LABEL).unlink()
    content = bytearray(image.to_bytes())
    (raw / IMAGE).write_bytes(gzip.compress(bytes(content)))
    problem = next(problem for problem in check(raw) if "sform" in problem.found)
    assert problem.severity == "warning"
    assert problem.found == "1.5 x 1.5 x 5 in pixdim, but 1 x 1 x 1 in the sform"


def test_header_that_simpleitk_refuses(raw):
    (raw / LABEL).unlink()
    sheared = np.array([[1.0, 0.6, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(tiny_array().T, sheared), raw / IMAGE)
    problem = next(problem for problem in check(raw) if problem.severity == "error")
    assert (problem.file, problem.field) == (IMAGE, "header")
    assert "orthonormal" in problem.found


def test_longiseg_dataset_is_read_as_it_is(raw):
    (raw / "scans.csv").unlink()
    (raw / "patientsTr.json").write_text(json.dumps({s: [f"{s}_{i}" for i in range(3)] for s in ("p1", "p2")}))
    description = json.loads((raw / "dataset.json").read_text())
    del description["time_unit"]
    (raw / "dataset.json").write_text(json.dumps(description))
    assert check(raw) == []


def test_two_transforms_are_a_warning_that_says_which_is_used(raw):
    for path in sorted(raw.glob("*/p1_*")):
        image = nibabel.load(path)
        turned = image.affine.copy()
        turned[:3, 3] += 3, 4, 0
        image.set_sform(turned, 2)
        nibabel.save(image, path)
    problems = check(raw)
    assert {(problem.severity, problem.field) for problem in problems} == {("warning", "header")}
    assert len(problems) == 6 and problems[0].found == "qform and sform place its corners up to 5 mm apart"
    assert problems[0].advice.startswith("The qform is used")


def test_labels_on_the_other_transform_must_not_be_resampled(raw):
    image = nibabel.load(raw / IMAGE)
    turned = image.affine.copy()
    turned[:3, 3] += 3, 4, 0
    image.set_sform(turned, 2)
    nibabel.save(image, raw / IMAGE)
    nibabel.save(nibabel.Nifti1Image(tiny_label().T, turned), raw / LABEL)
    problem = next(problem for problem in check(raw) if problem.file == LABEL)
    assert (problem.severity, problem.field) == ("error", "origin")
    assert "Do not resample the label image" in problem.advice and "l.set_sform" in problem.advice


def test_a_flat_image_is_no_series(raw):
    nibabel.save(nibabel.Nifti1Image(tiny_array()[0], np.eye(4)), raw / IMAGE)
    problem = only(check(raw))
    assert (problem.field, problem.found) == ("dimensions", "2 (8 x 8)")
    assert "nifti4d" not in problem.advice and "third axis of size 1" in problem.advice


def test_a_spacing_of_zero_without_an_sform(raw):
    image = nibabel.load(raw / IMAGE)
    image.set_sform(None, 0)
    content = bytearray(image.to_bytes())
    content[88:92] = np.float32(0).tobytes()
    (raw / IMAGE).write_bytes(gzip.compress(bytes(content)))
    problem = only(check(raw))
    assert (problem.field, problem.expected) == ("spacing", "three finite numbers above 0, mm")


@pytest.mark.parametrize("ending", [".img", ".mhd", ".mgz"])
def test_formats_that_are_not_read_are_refused_at_once(raw, ending):
    edit_description(raw, file_ending=ending)
    problem = only(check(raw))
    assert (problem.file, problem.field) == (
        "dataset.json",
        "file_ending",
    ) and "Convert every image" in problem.expected
