import gzip
import json

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import read_description, read_rows
from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.importers.nifti4d import subjects_of_folder
from longflow.integrity.dataset import verify_dataset
from longflow.reading import read_json
from tests.conftest import outside_data
from tests.data.helpers import tiny_array, tiny_label
from tests.importers.helpers import run_import

COSINE, SINE = np.cos(0.3), np.sin(0.3)
TURN = np.array([[-1, 0, 0], [0, -COSINE, -SINE], [0, -SINE, COSINE]])
AFFINE = nibabel.affines.from_matvec(TURN * [1.5, 1.5, 5], [5, 6, 7])


def write_cine(folder, subject, frames=5, step=40.0, unit="msec", labelled=(1, 3), spacing_of_mask=1.0):
    """``{subject}_cine.nii.gz``, frame n is ``tiny_array(n)``; ``{subject}_mask.nii.gz``; ``{subject}.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.stack([tiny_array(frame).T for frame in range(frames)], axis=-1)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    nibabel.save(image, folder / f"{subject}_cine.nii.gz")
    mask = np.stack([tiny_label().T * (frame in labelled) for frame in range(frames)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE * [spacing_of_mask, 1, 1, 1]), folder / f"{subject}_mask.nii.gz")
    (folder / f"{subject}.json").write_text(json.dumps({"trigger": [10.0 + 41 * frame for frame in range(frames)]}))


@pytest.fixture
def source(tmp_path):
    for subject in ("s1", "s2"):
        write_cine(tmp_path / "cine", subject)
    return tmp_path / "cine"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw" / "Dataset102_Cine"


def run(source, raw, **options):
    return run_import("nifti4d", source, raw, **{"images": "{subject}_cine.nii.gz", **options})


def times(raw, subject="s1"):
    return [float(row.time) for row in read_rows(raw / "scans.csv") if row.subject == subject]


def test_every_frame_becomes_a_scan_with_its_geometry_and_type(source, raw):
    assert run(source, raw, channel="cine MRI")
    for frame in range(5):
        image = nibabel.load(raw / "imagesTr" / f"s1_frame{frame:03d}_0000.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, tiny_array(frame))
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)
        assert image.get_data_dtype() == np.int16
    description = read_description(raw / "dataset.json")
    assert (description.channels, description.time_unit, description.labels) == (["cine MRI"], "ms", {})
    assert verify_dataset(raw, processes=1) == []


def test_times_of_the_header(source, raw):
    run(source, raw)
    assert times(raw) == pytest.approx([0, 40, 80, 120, 160], abs=1e-5)


@pytest.mark.parametrize(("unit", "step", "requested", "expected"), [("sec", 0.5, None, 2), ("sec", 0.5, "ms", 2000)])
def test_times_of_the_header_in_other_units(tmp_path, raw, unit, step, requested, expected):
    write_cine(tmp_path / "cine", "s1", step=step, unit=unit)
    run(tmp_path / "cine", raw, time_unit=requested)
    assert times(raw)[-1] == pytest.approx(expected)
    assert read_description(raw / "dataset.json").time_unit == (requested or "s")


@pytest.mark.parametrize(("step", "unit"), [(0.0, "msec"), (40.0, "unknown")])
def test_a_header_without_times(tmp_path, raw, step, unit):
    write_cine(tmp_path / "cine", "s1", step=step, unit=unit)
    with pytest.raises(DataError, match="no usable time between frames"):
        run(tmp_path / "cine", raw)
    assert run(tmp_path / "cine", raw, times="frames")
    assert times(raw) == [0, 1, 2, 3, 4]


def test_a_start_that_is_no_number(tmp_path, raw):
    write_cine(tmp_path / "cine", "s1")
    path = tmp_path / "cine" / "s1_cine.nii.gz"
    image = nibabel.load(path)
    image.header["toffset"] = np.nan
    path.write_bytes(gzip.compress(image.to_bytes()))
    with pytest.raises(DataError, match=r"s1_cine\.nii\.gz: its header has no usable time .* toffset nan"):
        run(tmp_path / "cine", raw)


@pytest.mark.parametrize(
    ("step", "unit", "likely"), [(33.0, "sec", "ms"), (0.03, "msec", "s"), (2.5, "sec", None), (33.0, "msec", None)]
)
def test_a_step_that_is_likely_in_another_unit_is_a_warning(tmp_path, raw, caplog, step, unit, likely):
    write_cine(tmp_path / "cine", "s1", step=step, unit=unit)
    run(tmp_path / "cine", raw)
    assert ("unit of time in the header may be wrong: s1_cine.nii.gz (5 frames" in caplog.text) == (likely is not None)
    assert likely is None or f"probably in {likely}:" in caplog.text


def test_frames_keep_both_transforms(tmp_path, raw):
    write_cine(tmp_path / "cine", "s1")
    path = tmp_path / "cine" / "s1_cine.nii.gz"
    image = nibabel.load(path)
    turned = image.affine.copy()
    turned[:3, 3] += 3, 4, 0
    image.set_qform(image.affine, 1)
    image.set_sform(turned, 2)
    nibabel.save(image, path)
    run(tmp_path / "cine", raw)
    frame = nibabel.load(raw / "imagesTr" / "s1_frame001_0000.nii.gz").header
    for one, other in zip(image.header.get_qform(coded=True), frame.get_qform(coded=True), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(frame.get_sform(), turned, atol=1e-5)
    assert frame["sform_code"] == 2


def test_times_of_a_json(source, raw):
    run(source, raw, times="{subject}.json", key="trigger", time_unit="ms")
    assert times(raw) == [10, 51, 92, 133, 174]
    with pytest.raises(DataError, match=r"no key 'triger'\. Found: trigger"):
        run(source, raw, times="{subject}.json", key="triger", time_unit="ms", overwrite=True)
    (source / "s1.json").write_text('{"trigger": [1, 2]}')
    with pytest.raises(DataError, match="has 2 times, but the image has 5 frames"):
        run(source, raw, times="{subject}.json", key="trigger", time_unit="ms", overwrite=True)
    assert times(raw) == [10, 51, 92, 133, 174]


def test_times_of_a_table(source, raw, tmp_path):
    table = tmp_path / "times.csv"
    lines = [f"{subject},{frame},{frame * 7.5}" for subject in ("s2", "s1") for frame in range(5)]
    table.write_text("\n".join(["subject,frame,time", *lines]))
    run(source, raw, times=str(table), time_unit="days")
    assert times(raw) == [0, 7.5, 15, 22.5, 30]
    assert read_description(raw / "dataset.json").time_unit == "days"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("s1,4,", "s1,5,"), "0 to 4, and each needs a line. Found 5, from 0 to 5"),
        (("s1,4,", "s1,3,"), "frame 3 of subject s1 has two lines"),
        (("s1,4,30.0", "s1,4,soon"), "line 6: frame '4' and time 'soon' must be numbers"),
        (("s1,4,30.0", "s1,4,0.0"), "two frames at time 0"),
        (("subject,frame", "subject,number"), "no column frame"),
    ],
)
def test_a_table_that_cannot_be_used(source, raw, tmp_path, change, message):
    lines = [f"{subject},{frame},{frame * 7.5}" for subject in ("s1", "s2") for frame in range(5)]
    text = "\n".join(["subject,frame,time", *lines])
    assert change[0] in text
    (tmp_path / "times.csv").write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        run(source, raw, times=str(tmp_path / "times.csv"), time_unit="days")


def test_labels_are_written_for_the_frames_that_have_one(source, raw):
    run(source, raw, labels="{subject}_mask.nii.gz", label_names=["cavity", "muscle"])
    names = sorted(path.name for path in (raw / "labelsTr").iterdir())
    assert names == [f"{subject}_frame{frame:03d}.nii.gz" for subject in ("s1", "s2") for frame in (1, 3)]
    label = nibabel.load(raw / "labelsTr" / "s1_frame001.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj).T, tiny_label())
    assert read_description(raw / "dataset.json").labels == {"background": 0, "cavity": 1, "muscle": 2}


def test_labels_that_cannot_be_used(tmp_path, source, raw):
    with pytest.raises(DataError, match=r"No file of .* has a name as --labels"):
        run(source, raw, labels="{subject}_lv.nii.gz")
    write_cine(source, "s1", spacing_of_mask=2.0)
    with pytest.raises(DataError, match=r"s1_mask\.nii\.gz: spacing is 3 x 1.5 x 5"):
        run(source, raw, labels="{subject}_mask.nii.gz")
    assert not raw.exists()


def test_a_test_subject_keeps_its_last_frames_as_targets(source, raw):
    run(source, raw, labels="{subject}_mask.nii.gz", test=["s2"], test_targets=2)
    assert {row.subject for row in read_rows(raw / "scans.csv")} == {"s1"}
    assert len(read_rows(raw / "imagesTs" / "scans.csv")) == 5
    assert len(list((raw / "imagesTs").glob("*.nii.gz"))) == 3
    targets = sorted(path.name for path in (raw / "targetsTs").iterdir())
    assert targets == ["s2_frame003_0000.nii.gz", "s2_frame004_0000.nii.gz"]
    assert sorted(path.name for path in (raw / "labelsTs").iterdir()) == ["s2_frame001.nii.gz", "s2_frame003.nii.gz"]
    assert [problem for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == []


def test_flags_that_cannot_be_used(source, raw):
    with pytest.raises(NotFoundError, match="Did you mean"):
        run(source, raw, test=["s3"])
    with pytest.raises(ConfigurationError, match="of which at least one must be context"):
        run(source, raw, test=["s2"], test_targets=5)
    with pytest.raises(ConfigurationError, match="Every subject is a test subject"):
        run(source, raw, test=["s1", "s2"])
    with pytest.raises(ConfigurationError, match=r"must hold \{subject\}, as in"):
        run(source, raw, images="*.nii.gz")
    with pytest.raises(ConfigurationError, match="--time_unit ms"):
        run(source, raw, times="{subject}.json", key="trigger")
    with pytest.raises(ConfigurationError, match="expected header, frames"):
        run(source, raw, times="dicom", time_unit="ms")
    with pytest.raises(DataError, match=r"no file with a name as .* It holds s1.json"):
        run(source, raw, images="{subject}_film.nii.gz")


def test_a_3d_file_is_no_series(source, raw):
    nibabel.save(nibabel.Nifti1Image(tiny_array().T, AFFINE), source / "s3_cine.nii.gz")
    with pytest.raises(DataError, match=r"s3_cine\.nii\.gz has 3 dimensions \(8 x 8 x 6\), expected 4"):
        run(source, raw)


def test_subjects_of_nested_folders(tmp_path):
    for subject in ("a", "b"):
        (tmp_path / subject).mkdir()
        (tmp_path / subject / "cine.nii.gz").touch()
    assert list(subjects_of_folder(tmp_path, "{subject}/cine.nii.gz")) == ["a", "b"]


def test_real_header_agrees_with_the_trigger_times(raw):
    sunnybrook = outside_data("sunnybrook/nifti")
    run(sunnybrook, raw)
    trigger = json.loads((sunnybrook / "SCD0000101.json").read_text())["trigger_time_ms_mean"]
    found = np.array(times(raw, "SCD0000101"))
    np.testing.assert_allclose(found, np.array(trigger) - trigger[0], atol=0.02)


def periods(raw):
    return {row.subject: row.covariates.get("period") for row in read_rows(raw / "scans.csv")}


@pytest.mark.parametrize(("times", "expected"), [("frames", ("5.0", "8.0")), ("header", ("200.0", "320.0"))])
def test_the_period_of_whole_cycles_is_as_many_intervals_as_frames(source, raw, times, expected):
    write_cine(source, "s2", frames=8)
    assert run(source, raw, times=times, period="cycle")
    assert periods(raw) == dict(zip(("s1", "s2"), expected, strict=True))
    assert read_description(raw / "dataset.json").period == "period"
    assert [one for one in verify_dataset(raw, processes=1) if one.field == "period"] == []


def test_one_period_for_all_stands_in_dataset_json_and_none_where_it_is_not_known(source, raw, tmp_path):
    assert run(source, raw, period="812.5")
    assert read_description(raw / "dataset.json").period == 812.5 and periods(raw) == {"s1": None, "s2": None}
    other = tmp_path / "raw" / "Dataset103_Other"
    assert run(source, other)
    assert "period" not in read_json(other / "dataset.json")
    assert "period" not in read_json(other / "import.json")["settings"]


def test_the_period_of_a_table(source, raw, tmp_path):
    (tmp_path / "rr.csv").write_text("subject,period\ns2,900\ns1,631\nother,1\n")
    assert run(source, raw, period=str(tmp_path / "rr.csv"))
    assert periods(raw) == {"s1": "631.0", "s2": "900.0"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("s1,631", "no line for s2"),
        ("s1,631\ns2,0", "line 3: period '0' must be a number above 0"),
        ("s1,631\ns2,fast", "line 3: period 'fast' must be"),
        ("s1,631\ns1,640\ns2,700", "line 3: subject s1 has two lines"),
    ],
)
def test_a_table_of_periods_that_cannot_be_used(source, raw, tmp_path, table, message):
    (tmp_path / "rr.csv").write_text(f"subject,period\n{table}\n")
    with pytest.raises(DataError, match=message):
        run(source, raw, period=str(tmp_path / "rr.csv"))


@pytest.mark.parametrize("period", ["0", "-800", "beat", "nan"])
def test_a_period_that_is_none(source, raw, period):
    with pytest.raises(ConfigurationError, match=f"--period {period}: expected cycle, a number above 0, or a table"):
        run(source, raw, period=period)


def test_one_frame_is_no_cycle(tmp_path, raw):
    write_cine(tmp_path / "cine", "s1", frames=1)
    with pytest.raises(DataError, match="subject s1 has one frame, which is no cycle"):
        run(tmp_path / "cine", raw, period="cycle")
