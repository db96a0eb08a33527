"""What is written, as the field's own programs see it: Orthanc stores it, dciodvfy checks it, SimpleITK reads it."""

import shutil
import subprocess

import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread

from longflow.data.images import read_array
from longflow.dicom.deidentify import deidentify_export
from longflow.dicom.export import Settings, export_folder
from longflow.dicom.sources import read_series, slices_in_order
from tests.conftest import outside_data
from tests.dicom.orthanc.server import PATH, NotStarted, running, why_not
from tests.dicom.phantom import files_in as files_of
from tests.dicom.phantom import make_enhanced, phantom_geometry, phantom_labels, series_of
from tests.dicom.test_derived import read_back
from tests.dicom.test_export import forecast_folder, label_folder
from tests.dicom.test_segmentation import read_volume


@pytest.fixture(scope="module")
def orthanc():
    try:
        with running() as server:
            yield server
    except NotStarted as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Everything that longflow writes for two patients: segmentations, report, curve, forecasts of CT and MR."""
    root = tmp_path_factory.mktemp("written")
    made = {}
    for kind, make in (("labels", label_folder), ("ct", forecast_folder), ("mr", forecast_folder)):
        further = {} if kind != "mr" else {"make": make_enhanced, "patient": "P2", "values_from": 0}
        predictions, export = make(root / kind, **further)
        export_folder(predictions, root / kind / "dicom", files_of(export))
        made[kind] = root / kind / "dicom"
    return made


def files_in(written, *kinds):
    return sorted(path for kind in kinds or written for path in written[kind].rglob("*.dcm"))


#: dciodvfy of Debian 12 is from 2022, before the standard had the attribute Synthetic Data
YOUNGER_THAN_DCIODVFY = "not a recognized standard attribute - (0x0008,0x001c)"


def errors_of_dciodvfy(path):
    result = subprocess.run(
        [str(shutil.which("dciodvfy", path=PATH)), str(path)], capture_output=True, text=True, errors="replace"
    )
    lines = (result.stdout + result.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and YOUNGER_THAN_DCIODVFY not in line]


@pytest.mark.skipif(bool(why_not("dciodvfy")), reason=why_not("dciodvfy") or "-")
def test_dciodvfy_finds_no_error(written):
    files = files_in(written)
    assert {dcmread(path).Modality for path in files} == {"CT", "MR", "SEG", "SR", "OT"}
    assert {path.name: errors for path in files if (errors := errors_of_dciodvfy(path))} == {}


@pytest.mark.skipif(bool(why_not("dciodvfy")), reason=why_not("dciodvfy") or "-")
def test_dciodvfy_finds_errors_where_there_are_some(written, tmp_path):
    broken = dcmread(files_in(written, "ct")[0])
    del broken.PatientID, broken.ImagePositionPatient
    broken.save_as(tmp_path / "broken.dcm")
    assert len(errors_of_dciodvfy(tmp_path / "broken.dcm")) >= 2


@pytest.mark.parametrize("way", ["c_store", "stow"])
def test_orthanc_stores_everything_and_finds_it_by_patient(orthanc, written, way):
    orthanc.forget_all()
    files = files_in(written)
    getattr(orthanc, way)(files)
    by_uid = {}
    for patient in ("P1", "P2"):
        for instance in orthanc.find("Instance", PatientID=patient):
            assert orthanc.tags(instance)["PatientID"] == patient
            by_uid[orthanc.tags(instance)["SOPInstanceUID"]] = orthanc.file(instance)
    assert set(by_uid) == {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    for path in files:
        sent = dcmread(path)
        kept = by_uid[str(sent.SOPInstanceUID)]
        if way == "stow":
            assert kept == path.read_bytes()
        else:  # the sender writes the file's first part, group 0002, for the association; all else is as it was
            (path.parent / "kept").write_bytes(kept)
            back = dcmread(path.parent / "kept")
            (path.parent / "kept").unlink()
            assert back == sent
            assert back.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def test_a_dicom_label_map_is_stored_and_read_back(orthanc, tmp_path):
    orthanc.forget_all()
    predictions, export = label_folder(tmp_path)
    export_folder(predictions, tmp_path / "dicom", files_of(export), settings=Settings("LABELMAP"))
    files = sorted((tmp_path / "dicom").glob("*_labels.dcm"))
    orthanc.stow(files)
    assert len(orthanc.find("Series", PatientID="P1", Modality="SEG")) == len(files) == 2
    found, _ = read_volume(segread(files[0]), combine_segments=True)
    np.testing.assert_array_equal(found, phantom_labels()[1:])


def test_simpleitk_reads_the_series_on_the_grid_of_the_source(written):
    for kind in ("ct", "mr"):
        (folder,) = {path.parent for path in files_in(written, kind)}
        _, geometry = read_back(folder)
        assert geometry.differences(phantom_geometry()) == []
        np.testing.assert_allclose(geometry.corners, phantom_geometry().corners, atol=1e-3)


#: the UIDs of Sunnybrook's files have leading zeros: references must repeat them as they are
UIDS_OF_THE_SOURCE = ("Leading zeroes in embedded numeric component", "invalid data values for Value Representations")


@pytest.mark.skipif(bool(why_not("dciodvfy")), reason=why_not("dciodvfy") or "-")
@pytest.mark.parametrize(
    ("folder", "of_the_source"),
    [
        ("dicom/ge/anatomical/001", ()),
        ("dicom/hitachi/anatomical/001", ()),
        ("dicom/hyperfine/anatomical/001", ()),
        ("dicom/siemens_multiframe/anatomical/001", ()),
        ("sunnybrook/dicom/SCD0000301", UIDS_OF_THE_SOURCE),
    ],
)
def test_labels_and_forecasts_of_scans_of_real_scanners(tmp_path, folder, of_the_source):
    source = series_of(outside_data(folder))
    for kind, make in (("forecast", forecast_folder), ("labels", label_folder)):
        predictions, export = make(tmp_path / kind, source=source)
        export_folder(predictions, tmp_path / kind / "dicom", files_of(export))
    files = sorted(tmp_path.glob("*/dicom/**/*.dcm"))
    assert len(files) > 3
    found = {(path.name, error) for path in files for error in errors_of_dciodvfy(path)}
    assert {one for one in found if not any(known in one[1] for known in of_the_source)} == set()
    _, geometry = read_back(tmp_path / "forecast" / "dicom" / "S1_t380_0000")
    of_source = read_series(source[0], files_of(source[1])).geometry
    np.testing.assert_allclose(geometry.corners, of_source.corners, atol=1e-3)
    labels, of_labels = read_array(tmp_path / "labels" / "predictions" / "a.nii.gz")
    voxels, _ = read_volume(segread(tmp_path / "labels" / "dicom" / "a_labels.dcm"), combine_segments=True)
    in_order = slices_in_order(labels, of_labels, read_series(source[0], files_of(source[1])))
    assert np.array_equal(voxels, in_order) or np.array_equal(voxels[::-1], in_order)


@pytest.mark.skipif(bool(why_not("dciodvfy")), reason=why_not("dciodvfy") or "-")
@pytest.mark.parametrize("folder", ["dicom/ge", "dicom/hitachi", "dicom/siemens_multiframe", "sunnybrook/dicom"])
def test_files_without_identities_have_no_error_that_their_source_has_not(tmp_path, folder):
    """Emptied elements and replaced UIDs are as valid as before."""
    source = tmp_path / "export"
    source.mkdir()
    for number, path in enumerate(sorted(path for path in outside_data(folder).rglob("*.dcm"))[::15]):
        shutil.copy(path, source / str(number))
    deidentify_export(source, tmp_path / "safe", tmp_path / "key.csv", 1)
    before = {error for path in source.iterdir() for error in errors_of_dciodvfy(path)}
    written = [path for path in (tmp_path / "safe").rglob("*") if path.is_file()]
    found = {error for path in written for error in errors_of_dciodvfy(path)}
    assert written and {error for error in found if "Missing attribute" not in error} <= before
    # the profile removes text of the hospital that a module would have, too; an element that must have a value stays
    assert not {error for error in found - before if "Type 1 " in error}
