import shutil

import pytest

from longflow.dicom.files import read_export
from longflow.errors import DataError
from tests.dicom.helpers import write_series


def test_files_are_found_by_content(tmp_path):
    paths = write_series(tmp_path / "a" / "b")
    paths[0].rename(tmp_path / "report.pdf")
    (tmp_path / "a" / "image.dcm").write_text("no DICOM at all")
    shutil.copy(paths[1], tmp_path / "a" / "copy.txt")
    seen = []
    export = read_export(tmp_path, 1, lambda *step: seen.append(step))
    assert len(export.frames) == len(export.instances) == 6
    assert (export.others, export.copies) == (1, 1)
    assert seen == [(1, 1, "8 of 8 files")]


def test_two_processes_find_the_same(tmp_path, monkeypatch):
    write_series(tmp_path)
    monkeypatch.setattr("longflow.dicom.files.AT_A_TIME", 2)
    assert read_export(tmp_path, 2).frames == read_export(tmp_path, 1).frames


def test_a_dicomdir_is_no_scan(tmp_path):
    from pydicom.fileset import FileSet

    paths = write_series(tmp_path / "in")
    files = FileSet()
    for path in paths:
        files.add(path)
    files.write(tmp_path / "out")
    assert (tmp_path / "out" / "DICOMDIR").is_file()
    export = read_export(tmp_path / "out", 1)
    assert len(export.frames) == 6 and export.others == 1


def test_an_issuer_that_some_files_omit(tmp_path):
    write_series(tmp_path, IssuerOfPatientID="north")
    write_series(tmp_path, series="2")
    write_series(tmp_path, study="s2", series="3")
    write_series(tmp_path, patient="p3", series="4", IssuerOfPatientID="north")
    write_series(tmp_path, patient="p3", series="5", IssuerOfPatientID="south")
    write_series(tmp_path, patient="p3", series="6")
    export = read_export(tmp_path, 1)
    of_series = {one.series_number: (one.patient_id, one.issuer) for one in export.instances}
    assert of_series["2"] == ("p1", "north") and of_series["3"] == ("p1", "") and of_series["6"] == ("p3", "")
    assert {frame.instance.issuer for frame in export.frames if frame.instance.series_number == "2"} == {"north"}


def test_sources_without_dicom(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        read_export(tmp_path, 1)
    with pytest.raises(DataError, match="does not exist"):
        read_export(tmp_path / "x", 1)
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="1 files, and none of them is DICOM"):
        read_export(tmp_path, 1)
