import base64
import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry, write_volume
from longflow.report import frames
from longflow.report.frames import Content, _labels, content_of
from longflow.report.timeline import Moment, Predicted, Subject, read_results

MR = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="days")


def opened(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def series(folder, number, shape=(4, 32, 32)) -> Subject:
    grid = Geometry(shape[::-1], (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    generator, scans = np.random.default_rng(0), []
    for index in range(number):
        path = folder / f"s_{index:03d}_0000.nii.gz"
        write_volume(generator.random(shape), grid, "float32", path)
        scans.append(Moment(case=f"s_{index:03d}", time=float(index), images=(path,)))
    return Subject("s", tuple(scans), (), ())


def test_frames_and_what_they_are_compared_with(evaluated):
    results = read_results(evaluated)
    content = content_of(results.subjects[1], results.description)
    kinds = [(frame["kind"], frame["time"]) for frame in content.frames]
    assert kinds == [("acquired", 0), ("acquired", 1.5), ("acquired", 4), ("prediction", 4), ("difference", 4)]
    assert content.targets == [{"case": "s1_4", "time": 4.0, "forecast": 3, "reference": 2, "last": 1, "difference": 4}]
    difference = opened(content.files["volume-4-0"]).get_fdata()
    np.testing.assert_allclose(difference, 0.1, atol=2e-3)
    assert content.frames[2]["labels"] == "labels-2" and content.frames[3]["labels"] is None
    truth = nibabel.load(results.subjects[1].predicted[0].reference.label).get_fdata()
    np.testing.assert_array_equal(opened(content.files["labels-2"]).get_fdata(), truth)
    assert not content.warnings


def test_a_page_that_is_too_large_is_scaled_down_and_says_so(tmp_path):
    subject = series(tmp_path, 3)
    whole = content_of(subject, MR)
    small = content_of(subject, MR, most_bytes=4000)
    volumes = [text for name, text in small.files.items() if name.startswith("volume")]
    assert sum(len(base64.b64decode(text)) for text in volumes) <= 4000
    assert opened(whole.files["volume-0-0"]).shape == (32, 32, 4)
    assert opened(small.files["volume-0-0"]).shape[2] == 4  # thick slices stay
    assert not any("averaged" in note for note in whole.notes)
    assert any("averaged" in note for note in small.notes)


def test_of_very_many_scans_some_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MOST_SCANS", 3)
    content = content_of(series(tmp_path, 9, (2, 8, 8)), MR)
    assert [frame["time"] for frame in content.frames] == [0, 4, 8]
    assert "3 of 9 scans" in content.notes[0]


def test_a_damaged_scan_is_said_and_the_others_are_shown(tmp_path):
    subject = series(tmp_path, 3)
    subject.acquired[1].images[0].write_bytes(b"no image")
    content = content_of(subject, MR)
    assert [frame["case"] for frame in content.frames] == ["s_000", "s_002"]
    assert content.warnings[0].startswith("s_001 is not shown.")


def test_a_subject_without_any_image_has_no_frames():
    assert content_of(Subject("s", (), (), (Moment(case="s_1", time=1.0),)), MR).frames == []


@pytest.mark.parametrize(
    "channel, air, first", [("CT", -1000, "soft tissue"), ("CT", 0, "automatic"), ("MR", 0, "automatic")]
)
def test_windows_by_modality(tmp_path, channel, air, first):
    """The windows of CT fit where there is air; a CT in other units is shown as an MR is."""
    description = MR.model_copy(update={"channel_names": {"0": channel}})
    subject = series(tmp_path, 1)
    values = np.full((4, 32, 32), air, np.float32)
    values[:, 8:24, 8:24] = np.linspace(0, 100, 16)
    grid = Geometry((32, 32, 4), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    write_volume(values, grid, "float32", subject.acquired[0].images[0])
    windows = content_of(subject, description).windows[""][0]
    assert windows[0]["name"] == first
    assert windows[-1] == {"name": "full range", "low": air, "high": 100}
    assert ("lung" in [one["name"] for one in windows]) is (channel == "CT")


def test_phases_that_are_other_modalities_have_their_own_levels_and_windows(tmp_path):
    """MR and CT share no units: one range over both would show the MR in a few levels."""
    channels = {"mr": {"0": "T1"}, "ct": {"0": "CT"}}
    description = MR.model_copy(update={"phases": ["mr", "ct"], "phase_channels": channels})
    subject = series(tmp_path, 2)
    grid = Geometry((32, 32, 4), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    values = np.random.default_rng(0).uniform(-1000, 3000, (4, 32, 32))
    write_volume(values, grid, "float32", subject.acquired[1].images[0])
    scans = tuple(replace(one, phase=phase) for one, phase in zip(subject.acquired, channels, strict=True))
    content = content_of(replace(subject, acquired=scans), description)
    assert [frame["modality"] for frame in content.frames] == ["mr", "ct"]
    assert content.levels["mr"][0]["high"] <= 1 < content.levels["ct"][0]["high"]
    assert [content.windows[phase][0][0]["name"] for phase in channels] == ["automatic", "soft tissue"]


def test_different_grids_have_no_difference(evaluated):
    path = evaluated / "s1_4_0000.nii.gz"
    grid = Geometry((6, 6, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    write_volume(np.zeros((6, 6, 6)), grid, "float32", path)
    results = read_results(evaluated)
    content = content_of(results.subjects[1], results.description)
    assert content.targets[0]["difference"] is None
    assert "different grids" in content.warnings[0]


def test_colours_begin_again_after_the_last_one(tmp_path):
    label = tmp_path / "s_000.nii.gz"
    geometry = Geometry((4, 4, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    values = np.array([0, 1, 7, 8, 255, 1035, 0, 0] * 4).reshape(2, 4, 4)
    write_volume(values, geometry, "int16", label)
    content = Content()
    assert _labels(Moment(case="s_000", time=0.0, label=label), 0, 1.0, content) == "labels-0"
    shown = opened(content.files["labels-0"]).get_fdata()
    np.testing.assert_array_equal(shown.T, np.array([0, 1, 7, 1, 3, 6, 0, 0] * 4).reshape(2, 4, 4))


def test_a_predicted_label_map_is_compared_with_that_of_the_rater(tmp_path):
    subject = series(tmp_path, 2)
    geometry = Geometry((32, 32, 4), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    for name, value in (("predicted", 2), ("rater", 1)):
        write_volume(np.full((4, 32, 32), value), geometry, "uint8", tmp_path / f"{name}.nii.gz")
    first = replace(subject.acquired[0], label=tmp_path / "rater.nii.gz")
    predicted = [
        Predicted(case=one.case, time=one.time, label=tmp_path / "predicted.nii.gz") for one in subject.acquired
    ]
    content = content_of(Subject("s", (first, subject.acquired[1]), tuple(predicted), ()), MR, {2: "tumour"})
    kinds = [(frame["kind"], frame["case"], frame["labels"]) for frame in content.frames]
    assert kinds[:2] == [("acquired", "s_000", "labels-0"), ("acquired", "s_001", None)]
    assert kinds[2:] == [("label map", "s_000", "labels-2"), ("label map", "s_001", "labels-3")]
    assert content.frames[2]["volumes"] == content.frames[0]["volumes"]
    assert [(one["forecast"], one["reference"]) for one in content.targets] == [(2, 0), (3, None)]
    assert opened(content.files["labels-2"]).get_fdata().min() == 2
    assert [one["name"] for one in content.labels.values()] == ["label 1", "tumour"]
