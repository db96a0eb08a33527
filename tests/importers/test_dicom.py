import csv
import json

import numpy as np
import pytest

from longflow.cli.import_dataset import main
from longflow.data.dataset import read_description, read_rows
from longflow.data.images import read_array
from longflow.dicom.files import read_export
from longflow.dicom.sources import files_by_uid, read_series, read_sources, slices_in_order
from longflow.dicom.table import COLUMNS
from longflow.importers.dicom import IMPORTER, Options
from longflow.importers.scans import Destination, HeldOut
from tests.conftest import outside_data
from tests.dicom.helpers import MR, SECONDARY, phantom, write_series
from tests.dicom.test_labels import masks, rectangle, write_rtstruct, write_seg

DAYS = ("20200110", "20200209", "20200820")


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "raw" / "Dataset101_Liver"


def write_cohort(folder, patients=("17", "18"), **values):
    """Two patients of one name, three visits each, a localiser and a capture at every visit."""
    for number, patient in enumerate(patients):
        for visit, day in enumerate(DAYS):
            when = {"patient": patient, "study": day, "StudyDate": day, "AcquisitionDate": day, **values}
            write_series(folder, phantom(seed=10 * number + visit), **when)
            write_series(folder, phantom()[:3], series="2", SeriesDescription="Topogram", **when)
            write_series(folder, phantom()[:1], series="3", SOPClassUID=SECONDARY, **when)


def run(source, raw, task="forecast", held_out=None, **options):
    return IMPORTER.run(source, Destination(raw, task, processes=1), held_out or HeldOut(), accept=True, **options)


def propose(source, raw, task="forecast", overwrite=False, **options):
    return IMPORTER.propose(source, Options(**options), Destination(raw, task, overwrite, processes=1))


def edit_table(raw, change):
    """Apply ``change(row)`` to every row."""
    path = raw.with_name(f"review_{raw.name}") / "series.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        change(row)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_two_steps_on_the_command_line(raw, tmp_path, capsys):
    write_cohort(tmp_path / "export")
    (tmp_path / "export" / "notes.txt").write_text("Ms Miller came late")
    command = ["dicom", str(tmp_path / "export"), "-d", "101", "-n", "Liver", "-np", "1"]
    assert main([*command, "--accept"]) == 1
    assert "without --accept first" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "No image was written" in said and "series.csv" in said and not raw.exists()
    assert f"longflow_import dicom {tmp_path}/export -d 101 --name Liver --accept" in said
    assert main([*command, "--accept"]) == 0
    said = capsys.readouterr().out
    for text in ("2", "6, 3 of each subject", "30 to 193 days", "6 rows: a localiser", "6 rows: a secondary capture"):
        assert text in said
    rows = read_rows(raw / "scans.csv")
    assert [row.case for row in rows[:3]] == ["P001_day0000", "P001_day0030", "P001_day0223"]
    assert [row.subject for row in rows] == ["P001"] * 3 + ["P002"] * 3
    assert [float(row.time) for row in rows] == [0, 30, 223] * 2
    array, geometry = read_array(raw / "imagesTr" / "P002_day0030_0000.nii.gz")
    np.testing.assert_array_equal(array, phantom(seed=11))
    assert geometry.spacing == pytest.approx((0.5, 0.8, 3)) and geometry.origin == pytest.approx((-20, -30, 40))
    assert read_description(raw / "dataset.json").is_ct == [True]
    assert main([*command, "--accept"]) == 0
    assert "Imported before" in capsys.readouterr().out


def test_nothing_of_a_patient_is_in_the_dataset(raw, tmp_path):
    folder = tmp_path / "Miller_Anna_20200110"
    write_cohort(folder, patients=("Xq17",))
    propose(folder, raw)
    run(folder, raw)
    texts = [path.read_text() for path in raw.rglob("*") if path.is_file() and path.suffix in (".json", ".csv")]
    assert len(texts) == 3
    for secret in ("Miller", "Xq17", "20200110", "2020-01-10", "19600102", "Abdomen"):
        assert not [text for text in texts if secret in text], secret


def test_the_key_folder_says_from_which_slices_an_image_was_made(raw, tmp_path):
    write_cohort(tmp_path / "export")
    propose(tmp_path / "export", raw)
    run(tmp_path / "export", raw)
    sources = read_sources(raw.with_name(f"review_{raw.name}"))
    assert set(sources) == {f"{row.case}_0000" for row in read_rows(raw / "scans.csv")}
    array, geometry = read_array(raw / "imagesTr" / "P002_day0030_0000.nii.gz")
    series = read_series(sources["P002_day0030_0000"], files_by_uid(read_export(tmp_path / "export", processes=1)))
    np.testing.assert_array_equal(slices_in_order(array, geometry, series), array)
    assert not list(raw.rglob("*sources*"))


def test_an_edited_table_decides(raw, tmp_path):
    write_cohort(tmp_path / "in", patients=("17",))
    propose(tmp_path / "in", raw)

    def change(row):
        row["subject"] = "anna"
        row["use"] = "no" if row["time"] == "30" else row["use"]
        row["time"] = "100.5" if row["time"] == "223" else row["time"]

    edit_table(raw, change)
    run(tmp_path / "in", raw)
    assert [(row.case, float(row.time)) for row in read_rows(raw / "scans.csv")] == [
        ("anna_day0000", 0),
        ("anna_day100.5", 100.5),
    ]


def test_two_scans_at_one_time_are_refused(raw, tmp_path):
    write_cohort(tmp_path / "in", patients=("17",))
    propose(tmp_path / "in", raw)
    edit_table(raw, lambda row: row.update(time="5"))
    with pytest.raises(Exception, match="subject P001 has two scans at time 5"):
        run(tmp_path / "in", raw)
    edit_table(raw, lambda row: row.update(use="no"))
    with pytest.raises(Exception, match="no series with use = yes"):
        run(tmp_path / "in", raw)


def test_phases_become_pairs(raw, tmp_path):
    for study in DAYS:
        for series, phase in enumerate(("nativ", "art.", "late")):
            if phase == "late" and study != DAYS[0]:
                continue
            when = {"study": study, "StudyDate": study, "AcquisitionDate": study}
            write_series(tmp_path / "in", series=str(series), SeriesDescription=f"Leber {phase}", **when)
    found = propose(tmp_path / "in", raw, "translate")
    assert found.questions == 0 and len(found.dataset.scans) == 6
    run(tmp_path / "in", raw, "translate")
    description = json.loads((raw / "dataset.json").read_text())
    assert description["phases"] == ["native", "arterial"] and description["task"] == "translate"
    assert {row.covariates["phase"] for row in read_rows(raw / "scans.csv")} == {"native", "arterial"}
    assert (raw / "imagesTr" / "P001_day0030_native_0000.nii.gz").is_file()


def test_a_cine_with_its_period(raw, tmp_path):
    for time in range(6):
        values = {"TriggerTime": 40 * time + 10, "NominalInterval": 900, "SOPClassUID": MR, "Modality": "MR"}
        write_series(tmp_path / "in", phantom(seed=time), first_number=100 * time, **values)
    propose(tmp_path / "in", raw)
    run(tmp_path / "in", raw, held_out=HeldOut())
    description = json.loads((raw / "dataset.json").read_text())
    assert (description["time_unit"], description["period"]) == ("ms", "period")
    rows = read_rows(raw / "scans.csv")
    assert [float(row.time) for row in rows] == [10, 50, 90, 130, 170, 210]
    assert {row.covariates["period"] for row in rows} == {"900.0"} and rows[3].case == "P001_frame003"
    np.testing.assert_array_equal(read_array(raw / "imagesTr" / "P001_frame003_0000.nii.gz")[0], phantom(seed=3))


def test_labels_of_two_kinds(raw, tmp_path):
    for day in DAYS:
        when = {"study": day, "StudyDate": day, "AcquisitionDate": day}
        files = write_series(tmp_path / "in", **when)
        if day == DAYS[0]:
            write_seg(tmp_path / "in" / "seg", files, {"Liver": masks()[0]})
        if day == DAYS[1]:
            write_rtstruct(tmp_path / "in" / "rt", files[0], {"GTV": [rectangle(2, (4, 6), (5, 8))]})
    propose(tmp_path / "in", raw)
    run(tmp_path / "in", raw, "segment")
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "gtv": 1, "liver": 2}
    np.testing.assert_array_equal(read_array(raw / "labelsTr" / "P001_day0000.nii.gz")[0], 2 * masks()[0])
    assert (read_array(raw / "labelsTr" / "P001_day0030.nii.gz")[0] == 1).sum() == 6
    assert len(list((raw / "labelsTr").iterdir())) == 2


def test_questions_are_counted(raw, tmp_path):
    write_cohort(tmp_path / "in", PatientID="")
    found = propose(tmp_path / "in", raw)
    assert found.questions == 6 and not found.dataset.scans
    with pytest.raises(Exception, match="use = ask"):
        run(tmp_path / "in", raw)


def test_a_choice_by_description(raw, tmp_path):
    for series, name in (("1", "thin"), ("2", "thick")):
        write_series(tmp_path / "in", series=series, SeriesDescription=name)
    assert propose(tmp_path / "in", raw).questions == 2
    found = propose(tmp_path / "in", raw, series="thick")
    assert found.questions == 0 and len(found.dataset.scans) == 1


def test_a_real_cine(raw):
    folder = outside_data("sunnybrook")
    source = folder / "dicom" / "SCD0000301"
    assert propose(source, raw).questions == 0
    run(source, raw)
    rows = read_rows(raw / "scans.csv")
    truth = json.loads((folder / "nifti" / "SCD0000301.json").read_text())["trigger_time_ms_mean"]
    np.testing.assert_allclose([float(row.time) for row in rows], truth, atol=1)
    assert {row.covariates["period"] for row in rows} == {"923.0"}


def test_an_export_is_only_read(raw, tmp_path):
    source = tmp_path / "export"
    write_cohort(source)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.rglob("*") if path.is_file()}
    propose(source, raw)
    run(source, raw)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.rglob("*") if path.is_file()}
    assert after == before
