import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.sr.codedict import codes

from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import Geometry, write_volume
from longflow.dicom.export import Exported, Settings, export_folder, model_digest
from longflow.dicom.sources import Source, read_series, write_sources
from longflow.errors import DataError
from longflow.files import write_json
from tests.dicom.phantom import files_in, make_series, phantom_array, phantom_geometry, phantom_labels
from tests.dicom.test_segmentation import read_volume

COMMON = {
    "time_unit": "days",
    "method": ["cronos"],
    "digests": {"weights": [["ab", "cd"]]},
    "longflow_version": "0.1",
}


def description(**further):
    return DatasetDescription(
        **{"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "time_unit": "days", **further}
    )


def write_predictions(folder, scans, sidecars, sources, of_folder=None):
    """Write what makes images in a folder predictions: table, description, sidecars, sources."""
    write_scans([Scan(case, subject, time, ()) for case, subject, time in scans], folder / "scans.csv")
    write_description(of_folder or description(), folder / "dataset.json")
    for case, sidecar in sidecars.items():
        write_json({"case": case, **COMMON, **sidecar}, folder / f"{case}.json")
    write_sources(folder, sources)


def label_folder(root, source: tuple[Source, Path] | None = None):
    """Write label maps of two scans of a patient, a year apart; of a given source, of that scan alone.

    :returns: the folder of predictions, and that of the DICOM series.
    """
    predictions, export = root / "predictions", source[1] if source else root / "export"
    predictions.mkdir(parents=True)
    dates = {"a": (0.0, "20200102"), "b": (366.0, "20210102")}
    sources = {"a_0000": source[0]} if source else {}
    for case, (_, date) in {} if source else dates.items():
        sources[f"{case}_0000"] = make_series(export / case, date=date)
    scans, sidecars = [], {}
    for name, one in sources.items():
        case, geometry = name[0], read_series(one, files_in(export)).geometry
        labels = phantom_labels() if source is None else _blocks(geometry)
        write_volume(labels, geometry, "uint8", predictions / f"{case}.nii.gz")
        scans.append((case, "S1", dates[case][0]))
        counts = {"liver": int((labels == 1).sum()), "spleen": int((labels == 2).sum())}
        volumes = {structure: {"voxels": count, "volume_ml": count / 1000} for structure, count in counts.items()}
        sidecars[case] = {"volumes": volumes, "method": ["unet"]}
    labelled = description(task="segment", labels={"background": 0, "liver": 1, "spleen": 2})
    write_predictions(predictions, scans, sidecars, sources, labelled)
    return predictions, export


def _blocks(geometry: Geometry):
    labels = np.zeros(geometry.size[::-1], np.uint8)
    rows, columns = (number // 4 for number in labels.shape[1:])
    labels[:, rows : 2 * rows, columns : 2 * columns] = 1
    labels[0, 2 * rows : 3 * rows, columns : 2 * columns] = 2
    return labels


def forecast_folder(root, make=make_series, patient="P1", values_from=-1000, source: tuple[Source, Path] | None = None):
    """Write a forecast of 180 days after the last of two scans; the first scan is in no export."""
    predictions, export = root / "predictions", source[1] if source else root / "export"
    predictions.mkdir(parents=True)
    one = source[0] if source else make(export, patient=patient)
    geometry = read_series(one, files_in(export)).geometry
    values = phantom_array() + 1000 + values_from
    if source:
        values = np.resize(values, geometry.size[::-1])
    write_volume(values, geometry, "int16", predictions / "S1_t380_0000.nii.gz")
    sidecar = {"context": ["first", "last"], "horizon": 180.0, "target_time": 380.0}
    write_predictions(predictions, [("S1_t380", "S1", 380.0)], {"S1_t380": sidecar}, {"last_0000": one})
    return predictions, export


def test_label_maps_become_segmentations_a_report_and_a_curve(tmp_path):
    predictions, export = label_folder(tmp_path)
    written = export_folder(predictions, tmp_path / "out", files_in(export))
    assert written == Exported(2, 0, 1)
    assert str(written) == "2 segmentations, 1 volume report"
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["S1_volume_curve.dcm", "S1_volumes.dcm", "a_labels.dcm", "b_labels.dcm", "export.json"]
    found, _ = read_volume(segread(tmp_path / "out" / "a_labels.dcm"), combine_segments=True)
    np.testing.assert_array_equal(found, phantom_labels()[1:])
    report = srread(tmp_path / "out" / "S1_volumes.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    values = [group.get_measurements(name=codes.SCT.Volume)[0].value for group in groups]
    assert values == pytest.approx([0.096, 0.096, 0.096, 0.096])
    numbers = {path: dcmread(tmp_path / "out" / path).SeriesNumber for path in files[:-1]}
    assert numbers == {"a_labels.dcm": 9001, "b_labels.dcm": 9001, "S1_volumes.dcm": 9002, "S1_volume_curve.dcm": 9003}


def test_a_forecast_becomes_a_series_of_the_last_scan(tmp_path):
    predictions, export = forecast_folder(tmp_path)
    written = export_folder(predictions, tmp_path / "out", files_in(export), settings=Settings(burned_in=False))
    assert written == Exported(0, 1, 0)
    slices = [dcmread(path) for path in sorted((tmp_path / "out" / "S1_t380_0000").iterdir())]
    np.testing.assert_array_equal(np.stack([one.pixel_array for one in slices]), phantom_array())
    assert slices[0].SeriesDescription == "Synthetic, research only: forecast +180 days, 82c776c0"
    assert "180 days after the last of 2 scans" in slices[0].DerivationDescription
    assert slices[0].StudyInstanceUID == dcmread(export / "100.dcm").StudyInstanceUID


def test_a_translation_names_its_phases(tmp_path):
    predictions, export = forecast_folder(tmp_path)
    sidecar = {**COMMON, "source": "last", "source_phase": "arterial", "target_phase": "native"}
    write_json(sidecar, predictions / "S1_t380.json")
    export_folder(predictions, tmp_path / "out", files_in(export))
    first = dcmread(tmp_path / "out" / "S1_t380_0000" / "0001.dcm")
    assert first.SeriesDescription == "Synthetic, research only: arterial to native, 82c776c0"


def test_finished_files_are_kept_and_changed_predictions_written_again(tmp_path):
    predictions, export = label_folder(tmp_path)
    out, files = tmp_path / "out", files_in(export)
    export_folder(predictions, out, files)
    before = {path.name: path.read_bytes() for path in out.glob("*.dcm")}
    assert export_folder(predictions, out, files) == Exported(2, 0, 1)
    assert {path.name: path.read_bytes() for path in out.glob("*.dcm")} == before
    write_volume(phantom_labels() % 2, phantom_geometry(), "uint8", predictions / "a.nii.gz")
    export_folder(predictions, out, files)
    changed = {path.name for path in out.glob("*.dcm") if path.read_bytes() != before[path.name]}
    assert changed == {"a_labels.dcm", "S1_volumes.dcm", "S1_volume_curve.dcm"}


def test_codes_that_are_added_to_the_raw_dataset_count(tmp_path):
    predictions, export = label_folder(tmp_path)
    described = json.loads((predictions / "dataset.json").read_text())
    described["segments"] = {"liver": {"type": ["1", "99X", "My liver"]}}
    raw = tmp_path / "raw"
    write_json(described, raw / "dataset.json")
    (tmp_path / "review").mkdir()
    (predictions / "dicom_sources.json").rename(tmp_path / "review" / "dicom_sources.json")
    export_folder(predictions, tmp_path / "out", files_in(export), raw, tmp_path / "review")
    made = segread(tmp_path / "out" / "a_labels.dcm")
    assert made.get_segment_description(1).segmented_property_type.value == "1"


def test_a_forecast_from_registered_scans_has_a_grid_of_its_own(tmp_path, caplog):
    predictions, export = forecast_folder(tmp_path)
    grid = Geometry((10, 12, 5), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    write_volume(np.zeros((5, 12, 10)), grid, "int16", predictions / "S1_t380_0000.nii.gz")
    export_folder(predictions, tmp_path / "out", files_in(export))
    slices = [dcmread(path) for path in sorted((tmp_path / "out" / "S1_t380_0000").iterdir())]
    assert len(slices) == 5
    assert slices[0].FrameOfReferenceUID != dcmread(export / "100.dcm").FrameOfReferenceUID
    assert "registered" in slices[0].DerivationDescription
    assert "on no grid of a DICOM series" in caplog.text


def test_what_cannot_be_written_costs_no_other(tmp_path):
    predictions, export = label_folder(tmp_path)
    write_volume(np.zeros((5, 12, 10)), phantom_geometry(), "uint8", predictions / "a.nii.gz")
    with pytest.raises(DataError, match=r"(?s)1 of 2 predictions.*  a: it is not on the grid.*size"):
        export_folder(predictions, tmp_path / "out", files_in(export))
    assert (tmp_path / "out" / "b_labels.dcm").is_file()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "dicom_sources.json").unlink(), "dicom_sources.json: the DICOM series"),
        (lambda folder: (folder / "S1_t380.json").unlink(), "holds no prediction"),
        (lambda folder: (folder / "scans.csv").unlink(), "has no scans.csv"),
        (lambda folder: write_json({"horizon": 1.0}, folder / "S1_t380.json"), "from which scan"),
        (lambda folder: write_json({"context": ["x"], "horizon": 1}, folder / "S1_t380.json"), "series of x_0000"),
    ],
)
def test_a_folder_that_cannot_be_used_is_explained(tmp_path, change, says):
    predictions, export = forecast_folder(tmp_path)
    change(predictions)
    with pytest.raises(DataError, match=says):
        export_folder(predictions, tmp_path / "out", files_in(export))


def test_output_among_the_predictions_is_refused(tmp_path):
    predictions, export = forecast_folder(tmp_path)
    with pytest.raises(DataError, match="holds the predictions"):
        export_folder(predictions, predictions, files_in(export))


def test_the_digest_of_a_model_depends_on_its_weights():
    assert model_digest({}) == ""
    assert model_digest({"digests": {"weights": [["ab", "ce"]]}}) != model_digest(COMMON)


def test_pydicom_decodes_what_was_written_without_a_warning(tmp_path, recwarn):
    predictions, export = forecast_folder(tmp_path)
    export_folder(predictions, tmp_path / "out", files_in(export))
    one = dcmread(tmp_path / "out" / "S1_t380_0000" / "0001.dcm")
    pydicom.dcmwrite(tmp_path / "again.dcm", one, enforce_file_format=True)
    assert [str(warning.message) for warning in recwarn if "value" in str(warning.message).lower()] == []
