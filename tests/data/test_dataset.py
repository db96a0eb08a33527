import json
import logging
import unicodedata

import pytest

from longflow.data.dataset import (
    Scan,
    Series,
    _warn_once,
    image_path,
    label_path,
    parse_time,
    read_description,
    read_rows,
    rows_of_folder,
    series_of_folder,
    sidecar_path,
    spelled_alike,
    training_series,
    write_description,
    write_scans,
)
from longflow.errors import ConfigurationError, DataError
from tests.data.helpers import edit_description, edit_table, write_dataset


@pytest.fixture
def raw(tmp_path):
    return write_dataset(tmp_path / "Dataset001_Tiny")


def test_series_are_sorted_by_subject_and_time(raw):
    edit_table(raw, "p1_0,p1,0", "p1_0,p1,99")
    description, series = training_series(raw)
    assert description.time_unit == "days"
    assert [one.subject for one in series] == ["p1", "p2"]
    assert series[0].times == [30, 75, 99]
    assert [scan.case for scan in series[0].scans] == ["p1_1", "p1_2", "p1_0"]
    assert series[0].scans[0].images == (raw / "imagesTr" / "p1_1_0000.nii.gz",)
    assert series[0].scans[0].label == raw / "labelsTr" / "p1_1.nii.gz"
    assert series[0].with_images() == series[0]
    series[0].scans[1].images[0].unlink()
    assert series[0].with_images().times == [30, 99]


def test_hounsfield_units_are_known_by_the_name_of_the_channel(raw):
    edit_description(raw, channel_names={"0": "CT", "1": "T1"})
    assert read_description(raw / "dataset.json").is_ct == [True, False]


def test_wanted_targets_and_missing_labels(raw):
    (raw / "imagesTr" / "p1_2_0000.nii.gz").unlink()
    (raw / "labelsTr" / "p1_2.nii.gz").unlink()
    scan = training_series(raw)[1][0].scans[2]
    assert not scan.exists and scan.label is None


def test_further_columns_are_covariates_and_a_byte_order_mark_is_no_column(raw):
    (raw / "scans.csv").write_text("\ufeffcase, subject,time,age\np1_0,p1, 0 ,71\n", encoding="utf-8")
    (row,) = read_rows(raw / "scans.csv")
    assert (row.case, row.subject, row.time, row.covariates) == ("p1_0", "p1", "0", {"age": "71"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("p1_1,p1,30", "p1_1,p1,2024-01-31", "'2024-01-31', not a number"),
        ("p1_1,p1,30", "p1_1,p1,75", "two scans at time 75"),
        ("p1_1,p1,30", "p1_0,p1,30", "lines 2 and 3"),
        ("p1_1,p1,30", "p1_1,,30", "empty case or subject"),
        ("case,subject,time", "case,subject,day", "no column time"),
        ("case,subject,time", "case;subject;time", "separated by semicolons"),
        ("p1_1,p1,30", "p1_1,p1,30,5", r"Line 3 .* more cells .*30,5. Write decimals with a point"),
        ("p1_1,p1,30", "../../p1_1,p1,30", r"'../../p1_1' in line 3 .* cannot be part of a file's name"),
        ("p1_1,p1,30", "/p1_1,p1,30", r"'/p1_1' in line 3"),
        ("p1_1,p1,30", "p1_1,../p1,30", r"'../p1' in line 3"),
        ("p1_1,p1,30", r"p1_1,..\p1,30", r"cannot be part of a file's name"),
        ("p1_1,p1,30", "p1\x1b[2J,p1,30", r"cannot be part of a file's name"),
        ("p1_1,p1,30", "a" * 300 + ",p1,30", r"at most 160 bytes"),
        ("p1_1,p1,30", "p1_1,p1,2019_01", "'2019_01', not a number"),
        ("p1_1,p1,30", "p1_1,p1,\uff13\uff10", "not a number"),
        ("p1_1,p1,30", "\n\np1_1,p1,x", r"\(line 5 of the table"),
        ("case,subject,time", "case,subject,time, Time", "2 columns called time: columns 3, 4"),
        ("case,subject,time", "case,subject,time,age,age", "2 columns called age: columns 4, 5"),
    ],
)
def test_a_table_that_cannot_be_used(raw, old, new, message):
    edit_table(raw, old, new)
    with pytest.raises(DataError, match=message):
        training_series(raw)


def test_a_missing_dataset_and_an_empty_one(raw, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        training_series(tmp_path / "nowhere")
    (raw / "scans.csv").write_text("case,subject,time\n")
    with pytest.raises(DataError, match="no scans"):
        training_series(raw)


def test_scans_csv_beside_or_inside_the_image_folder(raw):
    inside = "case,subject,time\np1_0,p1,5\n"
    (raw / "imagesTr" / "scans.csv").write_text(inside)
    assert [row.time for row in rows_of_folder(raw / "imagesTr")] == ["5"]


def test_longiseg_positions_are_times_in_visits(raw):
    (raw / "scans.csv").unlink()
    (raw / "patientsTr.json").write_text(json.dumps({"p1": ["p1_2", "p1_0"], "p2": ["p2_0"]}))
    content = json.loads((raw / "dataset.json").read_text())
    del content["time_unit"]
    (raw / "dataset.json").write_text(json.dumps(content))
    description, series = training_series(raw)
    assert description.time_unit == "visits"
    assert [(scan.case, scan.time) for scan in series[0].scans] == [("p1_2", 0), ("p1_0", 1)]


def decomposed(text):
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(("rows", "files"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_letters_with_accents_are_one_name_in_both_forms_of_unicode(tmp_path, rows, files):
    raw = write_dataset(tmp_path / "Dataset001_Tiny", ("M\u00fcller", "p2"))
    for path in [*raw.glob("images*/*"), *raw.glob("labels*/*")]:
        path.rename(path.with_name(unicodedata.normalize(files, path.name)))
    text = (raw / "scans.csv").read_text()
    (raw / "scans.csv").write_text(
        unicodedata.normalize(rows, text).replace("M\u00fcller_1,M\u00fcller", decomposed("M\u00fcller_1,M\u00fcller"))
    )
    series = training_series(raw)[1]
    assert [one.subject for one in series] == ["M\u00fcller", "p2"]
    assert all(scan.exists and scan.label for one in series for scan in one.scans)


def test_spellings_of_one_subject():
    alike = [
        ("P01", "p01"),
        ("001", "1"),
        ("p 01", "p\u00a001", "p1"),
        ("p-2", "p\u20112"),
        ("x", "x\u200b"),
        ("\u212b", "\u00c5"),
    ]
    for names in alike:
        assert spelled_alike([*names, "other"]) == [tuple(sorted(names))], names
    different = ["p1", "p2", "p10", "p11", "p1-1", "p1_1", "1 1", "11", "1", "10", "100", "a", "ab", "a b c"]
    assert spelled_alike(different + different) == []


def test_subjects_that_may_be_one_patient_are_named_once(raw, caplog):
    edit_table(raw, "p1_1,p1,30", "p1_1,P01,30")
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        training_series(raw)
        training_series(raw)
    (record,) = caplog.records
    assert "one patient each: 'P01' and 'p1'. If they are, give all scans one spelling" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (
            {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "numTraining": 3},
            '"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"',
        ),
        ({"modality": {"0": "CT"}, "labels": {"background": 0}}, '"channel_names": {"0": "CT"}, "file_ending"'),
        (
            {"channel_names": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "file_ending": ".mha"},
            'by "labels": {"background": 0, "liver": 1}, and add time_unit',
        ),
    ],
)
def test_a_description_of_nnunet_1_is_told_what_to_write(tmp_path, content, keys):
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="of nnU-Net v1") as raised:
        read_description(tmp_path / "dataset.json")
    assert keys in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": ["native", "../../x"]}, "phases: .*without slashes"),
        ({"labels": {"a\x1b]8;;http://x": 1}}, "labels.*control characters"),
        ({"channel_names": {"0": "a\nb"}}, "channel_names.0: .*line breaks"),
        ({"file_ending": ".nii\n"}, "file_ending: .*control characters"),
        ({"file_ending": ".nii.gz.and.so.on"}, "file_ending"),
    ],
)
def test_names_in_a_description(raw, changes, message):
    edit_description(raw, **changes)
    with pytest.raises(ConfigurationError, match=message):
        read_description(raw / "dataset.json")


def test_paths_of_names_stay_in_their_folder(raw):
    description = read_description(raw / "dataset.json")
    for lead_out in (
        lambda: image_path(raw, "../x", 0, description),
        lambda: label_path(raw, "../x", description),
        lambda: sidecar_path(raw, "../x"),
    ):
        with pytest.raises(DataError, match="cannot be a file name"):
            lead_out()


def test_time_unit_is_needed_where_there_is_a_table(raw):
    content = json.loads((raw / "dataset.json").read_text())
    del content["time_unit"]
    (raw / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="time_unit: missing"):
        read_description(raw / "dataset.json")


def test_description_lists_all_problems(raw):
    edit_description(raw, time_unit="fortnights", channel_names={"1": "T1"})
    with pytest.raises(ConfigurationError, match=r"(?s)channel_names.*time_unit.*'days'"):
        read_description(raw / "dataset.json")


def test_a_file_ending_stays_in_the_folder(raw):
    edit_description(raw, file_ending="/../../.nii.gz")
    with pytest.raises(ConfigurationError, match=r"file_ending: .*without slashes"):
        read_description(raw / "dataset.json")


def test_a_table_in_another_encoding(raw):
    (raw / "scans.csv").write_bytes("case,subject,time\nM\xfcller_0,M\xfcller,0\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as 'CSV UTF-8'"):
        training_series(raw)


def test_regions_are_expanded_to_label_values(raw):
    edit_description(raw, labels={"background": 0, "whole": [1, 2], "core": 2})
    assert read_description(raw / "dataset.json").label_values == {0, 1, 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("-0.5", -0.5), ("1e3", 1000), ("nan", None), ("inf", None), ("", None), ("x", None)],
)
def test_parse_time(text, value):
    assert parse_time(text) == value


def test_written_tables_are_read_back(tmp_path):
    scans = [
        Scan("a_0", "a", 0.1 + 0.2, (), None, {"age": "71"}),
        Scan("a_1", "a", 7.0, (), None, {"sex": "f, m"}),
    ]
    write_scans(scans, tmp_path / "imagesTs" / "scans.csv")
    rows = read_rows(tmp_path / "imagesTs" / "scans.csv")
    assert [float(row.time) for row in rows] == [0.1 + 0.2, 7.0]
    assert [row.covariates for row in rows] == [{"age": "71", "sex": ""}, {"age": "", "sex": "f, m"}]


def test_written_description_is_read_back_with_further_keys(raw, tmp_path):
    description = read_description(raw / "dataset.json")
    write_description(description, tmp_path / "dataset.json", licence="CC0")
    again = read_description(tmp_path / "dataset.json")
    assert (again.channels, again.labels, again.time_unit) == (["T1"], {"background": 0, "lesion": 1}, "days")
    assert again.licence == "CC0"


def test_series_of_a_test_folder(raw):
    (raw / "imagesTr").rename(raw / "imagesTs")
    (raw / "scans.csv").rename(raw / "imagesTs" / "scans.csv")
    series = series_of_folder(raw / "imagesTs", read_description(raw / "dataset.json"))
    assert isinstance(series[0], Series) and all(scan.exists for scan in series[0].scans)
