import json

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.errors import DataError, InUseError
from longflow.integrity.dataset import verify_dataset
from longflow.paths import lock_beside
from longflow.registration import dataset as registration
from longflow.registration.checks import correlation
from longflow.registration.dataset import register_dataset
from longflow.registration.linear import matrix_of
from tests.conftest import another_process_holds
from tests.registration.helpers import SHAPE, as_image, blobs, farthest, moved, write_moved

TRUTH = moved(8, (5, -3, 4))


def contents(raw):
    return {path.relative_to(raw).as_posix(): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Two subjects, one of a single scan, and what became of them; only to be read."""
    folder = tmp_path_factory.mktemp("registered")
    moving = blobs(TRUTH)
    moving.SetOrigin((0.5, 0, 0))  # on another grid, so that the dataset cannot be used as it is
    raw = write_moved(folder / "Dataset001_A", {"p1": [blobs(), moving], "p2": [blobs()]}, numTraining=3, licence="x")
    before = contents(raw)
    target = folder / "Dataset002_ARegistered"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    return raw, target, before


def test_the_registered_dataset_is_complete_and_the_original_untouched(registered):
    raw, target, before = registered
    assert contents(raw) == before
    assert [problem.field for problem in verify_dataset(raw, processes=1) if problem.severity == "error"] == ["origin"]
    assert [problem for problem in verify_dataset(target, processes=1) if problem.severity == "error"] == []
    assert json.loads((target / "dataset.json").read_text())["licence"] == "x"
    assert (target / "scans.csv").read_text() == "case,subject,time\np1_0,p1,0.0\np1_1,p1,30.0\np2_0,p2,0.0\n"
    assert sorted(path.name for path in (target / "labelsTr").iterdir()) == ["p1_0.nii.gz", "p2_0.nii.gz"]


def test_the_scans_agree_and_their_transforms_are_inverse(registered):
    _, target, _ = registered
    first, second = (read(target / "imagesTr" / f"p1_{scan}_0000.nii.gz") for scan in (0, 1))
    assert correlation(first, second) > 0.99
    of_first, of_second = (matrix_of(sitk.ReadTransform(str(target / f"transforms/p1_{scan}.tfm"))) for scan in (0, 1))
    assert farthest(of_first @ of_second, np.eye(4)) < 0.3  # the shift of the origin is a part of the truth
    assert farthest(of_second @ np.linalg.inv(of_first), moved(0, (0.5, 0, 0)) @ TRUTH) < 1
    record = json.loads((target / "transforms/p1.json").read_text())
    assert record["model"] == "rigid" and record["overlap of the fields of view"] > 0.7
    assert record["correlation after"]["p1_0 and p1_1"] > 0.95 > record["correlation by the headers"]["p1_0 and p1_1"]


def test_labels_stay_labels_and_lie_on_their_image(registered):
    _, target, _ = registered
    label, image = read(target / "labelsTr/p1_0.nii.gz"), read(target / "imagesTr/p1_0_0000.nii.gz")
    assert label.dtype == np.uint8 and set(np.unique(label)) == {0, 1, 2}
    assert np.array_equal(label > 0, label >= 1) and image[label == 0].mean() < 30 < 100 < image[label == 2].mean()


def test_a_single_scan_is_copied(registered):
    raw, target, _ = registered
    for name in ("imagesTr/p2_0_0000.nii.gz", "labelsTr/p2_0.nii.gz"):
        assert (target / name).read_bytes() == (raw / name).read_bytes()


def test_run_again_it_skips_what_is_finished_and_does_again_what_has_changed(registered, tmp_path, monkeypatch):
    raw, target, _ = registered
    done = []
    monkeypatch.setattr(registration, "register_subject", lambda subject: done.append(subject.series.subject))
    assert register_dataset(raw, target, "rigid", processes=1) == [] and done == []
    image, label = raw / "imagesTr/p1_0_0000.nii.gz", target / "labelsTr/p2_0.nii.gz"
    kept = image.read_bytes()
    image.write_bytes(kept[:4] + b"\1\1" + kept[6:])  # the time in the header of gzip: another file of the same size
    label.rename(label.with_suffix(".away"))
    register_dataset(raw, target, "rigid", processes=1)
    assert done == ["p1", "p2"]
    label.with_suffix(".away").rename(label)
    image.write_bytes(kept)


def test_what_cannot_be_believed_is_reported_and_not_written(tmp_path):
    noise = as_image(np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32))
    mirrored = as_image(np.ascontiguousarray(sitk.GetArrayFromImage(blobs())[..., ::-1]))
    subjects = {"good": [blobs()], "mirrored": [blobs(), mirrored], "noise": [blobs(), noise], "torn": [blobs()] * 2}
    raw = write_moved(tmp_path / "Dataset001_A", subjects)
    (raw / "imagesTr/torn_1_0000.nii.gz").write_bytes(b"no image")
    target = tmp_path / "Dataset002_B"
    failures = {one.subject: one.cause for one in register_dataset(raw, target, "rigid", processes=1)}
    assert sorted(failures) == ["mirrored", "noise", "torn"]
    assert "mirrored_0 and mirrored_1: one of the two scans is mirrored (left-right)" in failures["mirrored"]
    assert "noise_0 and noise_1: the registered scans hardly agree" in failures["noise"]
    assert "torn_1_0000.nii.gz" in failures["torn"]
    assert {path.name for path in (target / "imagesTr").iterdir()} == {"good_0_0000.nii.gz"}
    assert (target / "scans.csv").read_text() == "case,subject,time\ngood_0,good,0.0\n"


def test_no_dataset_without_a_subject(tmp_path):
    noise = as_image(np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32))
    raw = write_moved(tmp_path / "Dataset001_A", {"noise": [blobs(), noise]})
    with pytest.raises(DataError, match=r"No subject of .*: noise: noise_0 and noise_1: "):
        register_dataset(raw, tmp_path / "Dataset002_B", "rigid", processes=1)
    assert not (tmp_path / "Dataset002_B/dataset.json").exists()


def test_every_channel_is_resampled_alike_and_in_its_own_type(tmp_path):
    raw = write_moved(tmp_path / "Dataset001_A", {"p": [blobs(), blobs(moved(0, (4, 0, 0)))]})
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "T1", "1": "T2"}}))
    for scan in (0, 1):
        image = sitk.ReadImage(str(raw / f"imagesTr/p_{scan}_0000.nii.gz"))
        sitk.WriteImage(sitk.Cast(image * 10, sitk.sitkInt16), str(raw / f"imagesTr/p_{scan}_0001.nii.gz"))
    target = tmp_path / "Dataset002_B"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    for scan in (0, 1):
        first, second = (read(target / f"imagesTr/p_{scan}_{channel:04d}.nii.gz") for channel in (0, 1))
        assert second.dtype == np.int16
        np.testing.assert_allclose(second, first * 10, atol=2)


def test_deformable_keeps_its_displacements_and_test_subjects_come_along(tmp_path):
    still = blobs()
    grown = moved()
    grown[:3, :3] = np.diag([1.1, 1.1, 1.1])
    grown[:3, 3] = -0.1 * (np.array(SHAPE[::-1]) - 1)  # about the middle
    raw = write_moved(tmp_path / "Dataset001_A", {"one": [still]})
    (raw / "imagesTs").mkdir()
    (raw / "targetsTs").mkdir()
    sitk.WriteImage(still, str(raw / "imagesTs/t_0_0000.nii.gz"))
    sitk.WriteImage(blobs(grown), str(raw / "targetsTs/t_1_0000.nii.gz"))
    (raw / "imagesTs/scans.csv").write_text("case,subject,time\nt_0,t,0\nt_1,t,30\n")
    target = tmp_path / "Dataset002_B"
    assert register_dataset(raw, target, "deformable", processes=1) == []
    record = json.loads((target / "transforms/t_test.json").read_text())
    assert record["share of voxels that fold"] == 0
    assert (
        record["correlation with the mean after deformation"] > record["correlation with the mean before deformation"]
    )
    assert (target / "imagesTs/scans.csv").read_text() == "case,subject,time\nt_0,t,0.0\nt_1,t,30.0\n"
    # what is documented: y -> A(y + u(y)) gives the written scan
    field = sitk.ReadImage(str(target / "transforms/t_1_displacement.nii.gz"), sitk.sitkVectorFloat64)
    linear = sitk.ReadTransform(str(target / "transforms/t_1.tfm"))
    written = sitk.ReadImage(str(target / "targetsTs/t_1_0000.nii.gz"))
    transform = sitk.CompositeTransform([linear, sitk.DisplacementFieldTransform(field)])
    again = sitk.GetArrayFromImage(sitk.Resample(blobs(grown), written, transform, sitk.sitkBSpline))
    again = np.clip(again, 0, sitk.GetArrayFromImage(blobs(grown)).max())
    np.testing.assert_allclose(sitk.GetArrayFromImage(written), again, atol=0.05)


def test_the_label_beyond_the_field_of_view_is_the_ignore_label_where_there_is_one(tmp_path):
    labels = {"background": 0, "body": 1, "blob": 2, "ignore": 3}
    raw = write_moved(tmp_path / "Dataset001_A", {"p": [blobs(), blobs(moved(0, (8, 0, 0)))]}, labels=labels)
    target = tmp_path / "Dataset002_B"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    label = read(target / "labelsTr/p_0.nii.gz")
    assert (label == 3).any() and label[label.shape[0] // 2, label.shape[1] // 2, label.shape[2] // 2] != 3


def test_a_label_on_another_grid_is_refused(tmp_path):
    raw = write_moved(tmp_path / "Dataset001_A", {"good": [blobs()], "p": [blobs(), blobs()]})
    label = sitk.ReadImage(str(raw / "labelsTr/p_0.nii.gz"))
    label.SetOrigin((3, 0, 0))
    sitk.WriteImage(label, str(raw / "labelsTr/p_0.nii.gz"))
    (failure,) = register_dataset(raw, tmp_path / "Dataset002_B", "rigid", processes=1)
    assert failure.subject == "p" and "labelsTr/p_0.nii.gz: origin is" in failure.cause


def test_nothing_to_register_is_reported(tmp_path, caplog):
    raw = write_moved(tmp_path / "Dataset001_A", {"p": [blobs()], "q": [blobs()]})
    assert register_dataset(raw, tmp_path / "Dataset002_B", "rigid", processes=1) == []
    assert "2 of 2 subjects have one scan. There is nothing to register; the files are copied (p, q)" in caplog.text


def test_no_other_dataset_is_replaced(tmp_path):
    raw = write_moved(tmp_path / "Dataset001_A", {"p": [blobs()]})
    other = write_moved(tmp_path / "Dataset002_B", {"q": [blobs()]})
    with pytest.raises(DataError, match="was made differently"):
        register_dataset(raw, other, "rigid", processes=1)
    with pytest.raises(DataError, match="was not made by longflow_register"):
        register_dataset(raw, other, "rigid", processes=1, overwrite=True)
    with pytest.raises(DataError, match="is the dataset to register"):
        register_dataset(raw, raw, "rigid", processes=1, overwrite=True)
    target = tmp_path / "Dataset003_C"
    register_dataset(raw, target, "rigid", processes=1)
    with pytest.raises(DataError, match="was made differently"):
        register_dataset(raw, target, "affine", processes=1)
    (target / "stray").touch()
    register_dataset(raw, target, "affine", processes=1, overwrite=True)
    assert not (target / "stray").exists() and (other / "imagesTr/q_0_0000.nii.gz").is_file()


def test_one_process_writes_a_dataset_at_a_time(registered):
    """Also one that would replace it: the folder is as it was."""
    raw, target, _ = registered
    before = contents(target)
    for overwrite in (False, True):
        with (
            another_process_holds(lock_beside(target)),
            pytest.raises(InUseError, match="Dataset002_ARegistered is being written by another process"),
        ):
            register_dataset(raw, target, "rigid", processes=1, overwrite=overwrite)
    assert contents(target) == before
