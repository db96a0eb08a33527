import shutil

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, read_rows
from longflow.data.images import read_scan
from longflow.dicom.files import read_export
from longflow.dicom.input import write_input
from longflow.dicom.sources import read_sources
from longflow.errors import ConfigurationError, DataError
from tests.dicom.helpers import MR, phantom, write_series
from tests.dicom.phantom import make_series, phantom_array, phantom_geometry


def description(**further):
    return DatasetDescription(
        **{"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "time_unit": "days", **further}
    )


@pytest.fixture
def export(tmp_path):
    """Two visits of a patient, 366 days apart, and one of another."""
    make_series(tmp_path / "export" / "a", date="20200102")
    make_series(tmp_path / "export" / "b", date="20210102")
    make_series(tmp_path / "export" / "c", date="20210102", patient="P2")
    return tmp_path / "export"


def written(export, folder, **further):
    return write_input(read_export(export, processes=1), folder, description(**further))


def test_scans_have_times_in_the_unit_of_the_model_and_their_sources(export, tmp_path):
    assert written(export, tmp_path / "in", time_unit="years") == 3
    rows = {row.case: (row.subject, float(row.time)) for row in read_rows(tmp_path / "in" / "scans.csv")}
    assert rows == {
        "P001_day0000": ("P001", 0.0),
        "P001_day0366": ("P001", pytest.approx(366 / 365.25)),
        "P002_day0000": ("P002", 0.0),
    }
    volume = read_scan((tmp_path / "in" / "P001_day0366_0000.nii.gz",))
    np.testing.assert_array_equal(volume.array[0], phantom_array())
    assert volume.geometry.differences(phantom_geometry()) == []
    assert set(read_sources(tmp_path / "in")) == {f"{case}_0000" for case in rows}


def test_images_of_the_same_slices_are_kept_and_others_written_again(export, tmp_path):
    written(export, tmp_path / "in")
    first, second = (tmp_path / "in" / f"P001_day{day}_0000.nii.gz" for day in ("0000", "0366"))
    before = first.stat().st_mtime_ns, second.stat().st_mtime_ns
    shutil.rmtree(export / "b")
    make_series(export / "b", date="20210102", array=phantom_array() + 1)
    written(export, tmp_path / "in")
    assert first.stat().st_mtime_ns == before[0]
    assert second.stat().st_mtime_ns != before[1]
    np.testing.assert_array_equal(read_scan((second,)).array[0], phantom_array() + 1)


def test_a_question_for_a_person_is_asked(export, tmp_path):
    study = read_sources_of_study(export)
    make_series(export / "d", date="20200102", study=study)
    with pytest.raises(DataError, match=r"(?s)a person must say so.*longflow_import dicom.*phantom \(P001\)"):
        written(export, tmp_path / "in")


def read_sources_of_study(export):
    """Return the study of the first visit."""
    return next(one for one in read_export(export / "a", processes=1).instances).study_uid


def test_an_export_without_a_usable_series_is_refused(tmp_path):
    make_series(tmp_path / "export", ImagePositionPatient=None)
    with pytest.raises(DataError, match=r"(?s)No series of the export can be used.*position"):
        written(tmp_path / "export", tmp_path / "in")


@pytest.mark.parametrize(
    ("further", "says"),
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, "takes 2 channels"),
        ({"time_unit": "frames"}, "The model counts time in frames"),
    ],
)
def test_models_that_headers_do_not_serve_are_refused(export, tmp_path, further, says):
    with pytest.raises(ConfigurationError, match=says):
        written(export, tmp_path / "in", **further)


def test_a_cine_has_its_period_in_the_unit_of_the_model(tmp_path):
    for time in range(6):
        values = {"TriggerTime": 40 * time + 10, "NominalInterval": 900, "SOPClassUID": MR, "Modality": "MR"}
        write_series(tmp_path / "export", phantom(seed=time), first_number=100 * time, **values)
    assert written(tmp_path / "export", tmp_path / "in", time_unit="s", period="period") == 6
    rows = read_rows(tmp_path / "in" / "scans.csv")
    assert [(row.case, float(row.time)) for row in rows][:2] == [("P001_frame000", 0.01), ("P001_frame001", 0.05)]
    assert {float(row.covariates["period"]) for row in rows} == {0.9}
