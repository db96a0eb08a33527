import json

import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.body import body_mask
from longflow.data.dataset import Scan, Series
from longflow.data.images import Geometry
from longflow.demo.abdomen import LABELS, abdomen_scan, draw_patient, voxel_spacing
from longflow.errors import DataError
from longflow.integrity.dataset import verify_dataset
from longflow.registration.agreement import agreement_of_dataset
from longflow.registration.checks import RegistrationError
from longflow.registration.dataset import register_dataset
from longflow.registration.linear import matrix_of
from longflow.registration.pairs import _shown_by_all, excluded_scans, scans_of_pairs

SHAPE = (12, 48, 64)
SPACING = voxel_spacing(SHAPE)[::-1]
SHIFT = (6.0, -4.0, 5.0)


def phantom(seed=1, phase="native", breathing=0.0, shift=(0, 0, 0), shape=SHAPE):
    """Image and label; what lay at x lies at x + shift."""
    volumes = []
    for array in abdomen_scan(draw_patient(seed), phase, shape, breathing=breathing):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(voxel_spacing(shape)[::-1])
        image.SetOrigin(shift)
        volumes.append(image)
    return volumes


def write_phases(raw, scans, **description):
    """A dataset to translate. :param scans: for each case (subject, time, phase, (image, label))."""
    lines = ["case,subject,time,phase"]
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case, (subject, time, phase, (image, label)) in scans.items():
        lines.append(f"{case},{subject},{time},{phase}")
        sitk.WriteImage(image, str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
        sitk.WriteImage(label, str(raw / "labelsTr" / f"{case}.nii.gz"))
    (raw / "scans.csv").write_text("\n".join(lines) + "\n")
    content = {
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
        "time_unit": "days",
        "task": "translate",
        "labels": LABELS,
        **description,
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def by_headers(scan, reference):
    """A scan on the grid of another, air where it shows nothing."""
    return sitk.GetArrayFromImage(sitk.Resample(scan, reference, sitk.Transform(), sitk.sitkLinear, -1000.0))


def mae(one, other, mask):
    return np.abs(one.astype(float) - other)[mask].mean()


def dice(one, other, value):
    return 2 * ((one == value) & (other == value)).sum() / ((one == value).sum() + (other == value).sum())


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """One subject with two pairs, in positions that the headers do not tell, and a venous scan; only to be read."""
    folder = tmp_path_factory.mktemp("registered")
    scans = {
        "n": ("p", 0, "native", phantom()),
        "a": ("p", 0, "arterial", phantom(phase="arterial", shift=SHIFT)),
        "v": ("p", 0, "venous", phantom(phase="arterial")),
        "n1": ("p", 30, "native", phantom(shift=(9, 0, -4))),
        "a1": ("p", 30, "arterial", phantom(phase="arterial", shift=(9, 0, -4))),
        "n2": ("p", 60, "native", phantom()),
        "a2": ("p", 60, "arterial", phantom(phase="arterial")),
        "late": ("p", 90, "arterial", phantom(phase="arterial")),
    }
    raw = write_phases(folder / "Dataset104_Abdomen", scans, phases=["native", "arterial"])
    target = folder / "Dataset105_AbdomenRegistered"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    return raw, target


def test_the_native_scan_stays_as_it_is_to_the_bit(registered):
    raw, target = registered
    for case in ("n", "n2"):  # of a later time, too, where it lies on the same grid
        for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
            assert (target / name).read_bytes() == (raw / name).read_bytes()


def test_a_known_shift_is_found_and_kept(registered):
    matrix = matrix_of(sitk.ReadTransform(str(registered[1] / "transforms/a.tfm")))
    middle = np.append(np.array(SHAPE[::-1]) / 2 * SPACING, 1)
    np.testing.assert_allclose((matrix @ middle - middle)[:3], SHIFT, atol=0.6)
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3), atol=0.01)
    record = json.loads((registered[1] / "transforms/p.json").read_text())
    assert record["reference"] == "n" and record["phases"] == ["native", "arterial"] and record["slices"] == [0, 12, 12]
    agreement = record["pairs"]["n and a"]["correlation ratio"]
    assert agreement["after"] > 0.9 > agreement["by the headers"]


def test_the_arterial_scan_lies_on_the_native_one_with_its_label(registered):
    raw, target = registered
    native, arterial = (sitk.ReadImage(str(raw / f"imagesTr/{case}_0000.nii.gz")) for case in ("n", "a"))
    fixed, moved = sitk.GetArrayFromImage(native), read(target / "imagesTr/a_0000.nii.gz")
    body = body_mask(fixed, is_ct=True)
    assert moved.dtype == np.int16
    assert mae(moved, fixed, body) < 0.5 * mae(by_headers(arterial, native), fixed, body)
    labels = [read(folder / f"labelsTr/{case}.nii.gz") for folder, case in ((raw, "n"), (target, "a"))]
    assert all(dice(*labels, value) > 0.85 for name, value in LABELS.items() if value)


def test_later_times_come_to_the_grid_of_the_first(registered):
    raw, target = registered
    grids = [Geometry.of(sitk.ReadImage(str(path))) for path in sorted((target / "imagesTr").iterdir())]
    assert len(grids) == 6 and all(grid == grids[0] for grid in grids)
    first, second = (read(target / f"imagesTr/{case}_0000.nii.gz") for case in ("n", "n1"))
    body = body_mask(first, is_ct=True)
    assert mae(first, second, body) < 20  # interpolated noise; shifted by a voxel it is 80
    assert [problem.field for problem in verify_dataset(raw, processes=1) if problem.severity == "error"]
    assert [problem for problem in verify_dataset(target, processes=1) if problem.severity == "error"] == []


def test_scans_without_a_pair_are_excluded(registered):
    cases = {line.split(",")[0] for line in (registered[1] / "scans.csv").read_text().splitlines()[1:]}
    assert (
        cases
        == {"n", "a", "n1", "a1", "n2", "a2"}
        == {path.name[:-12] for path in (registered[1] / "imagesTr").iterdir()}
    )


def scan_of(case, time, phase, tmp_path):
    path = tmp_path / f"{case}_0000.nii.gz"
    path.touch()
    return Scan(case, "p", time, (path,), covariates={"phase": phase})


def test_excluded_scans_are_reported(tmp_path):
    scans = [
        scan_of("n", 0, "native", tmp_path),
        scan_of("a", 0, "arterial", tmp_path),
        scan_of("v", 0, "venous", tmp_path),
        scan_of("late", 9, "arterial", tmp_path),
        Scan("requested", "p", 5, (tmp_path / "requested_0000.nii.gz",)),
    ]
    phases = ("native", "arterial")
    series = Series("p", tuple(scans))
    assert [scan.case for scan in scans_of_pairs(series, phases).scans] == ["n", "a", "requested"]
    assert excluded_scans([series], phases) == [
        "scans in phases other than native and arterial (1: v).",
        "scans without a counterpart in the other phase at their time (1: late); both scans of a pair share subject "
        "and time.",
    ]
    # a test subject in one phase is the input of a prediction
    alone = Series("p", tuple(scans[1:4]))
    assert [scan.case for scan in scans_of_pairs(alone, phases).scans] == ["a", "late"]
    assert excluded_scans([alone], phases) == ["scans in phases other than native and arterial (1: v)."]


def test_slices_that_one_phase_does_not_show_are_cut_from_both(tmp_path, caplog):
    short = [image[:, :, 3:11] for image in phantom(phase="arterial")]
    scans = {"n": ("p", 0, "native", phantom()), "a": ("p", 0, "arterial", short), "b": ("q", 0, "native", phantom(2))}
    raw = write_phases(tmp_path / "Dataset104_A", scans)
    target = tmp_path / "Dataset105_B"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    start, stop, count = json.loads((target / "transforms/p.json").read_text())["slices"]
    assert start in (3, 4) and stop in (10, 11) and count == 12
    assert f"Cut to the slices that both phases show: p: {stop - start} of 12" in caplog.text
    for folder, name in (("imagesTr", "n_0000.nii.gz"), ("labelsTr", "n.nii.gz")):
        assert np.array_equal(read(target / folder / name), read(raw / folder / name)[start:stop])
    assert read(target / "imagesTr/a_0000.nii.gz").shape[0] == stop - start
    # who has no pair has nothing to be registered to
    assert (
        "1 of 2 subjects have no pair of native and arterial. There is nothing to register; the files are copied (q)"
        in (caplog.text)
    )
    assert (target / "imagesTr/b_0000.nii.gz").read_bytes() == (raw / "imagesTr/b_0000.nii.gz").read_bytes()


def test_the_longest_run_of_slices_along_the_patient():
    body = np.ones((6, 4, 4), bool)
    images = [np.zeros((6, 4, 4)), np.zeros((6, 4, 4))]
    images[1][2] = np.nan
    axial = Geometry((4, 4, 6), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert _shown_by_all(body, images, axial) == [[3, 6], [0, 4], [0, 4]]
    coronal = Geometry((4, 4, 6), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 0, 1, 0, -1, 0))
    images[1][:] = 0
    images[1][:, 3] = np.nan
    assert _shown_by_all(body, images, coronal) == [[0, 6], [0, 3], [0, 4]]
    with pytest.raises(RegistrationError, match="in no slice, all scans of the subject show 99% of the body"):
        _shown_by_all(body, [np.full((6, 4, 4), np.nan)], axial)


def test_what_cannot_be_believed_is_reported_and_not_written(tmp_path):
    noise = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.int16)
    mirrored = sitk.GetArrayFromImage(phantom(phase="arterial")[0])[..., ::-1]
    bad = {"noise": noise, "mirrored": mirrored, "air": np.full(SHAPE, -1000, np.int16)}
    scans = {}
    for subject, array in bad.items():
        image, label = phantom(phase="arterial")
        wrong = sitk.GetImageFromArray(np.ascontiguousarray(array))
        wrong.CopyInformation(image)
        scans[f"{subject}_n"] = (subject, 0, "native", phantom())
        scans[f"{subject}_a"] = (subject, 0, "arterial", (wrong, label))
    scans |= {"good_n": ("good", 0, "native", phantom()), "good_a": ("good", 0, "arterial", phantom(phase="arterial"))}
    raw = write_phases(tmp_path / "Dataset104_A", scans)
    target = tmp_path / "Dataset105_B"
    failures = {one.subject: one.cause for one in register_dataset(raw, target, "rigid", processes=1)}
    assert sorted(failures) == ["air", "mirrored", "noise"]
    assert "noise_n and noise_a: the registered scans hardly agree" in failures["noise"]
    assert "mirrored_n and mirrored_a: one of the two scans is mirrored (left-right)" in failures["mirrored"]
    assert "air_a_0000.nii.gz shows no body: no voxel is above -500 HU" in failures["air"]
    assert {path.name for path in (target / "imagesTr").iterdir()} == {"good_n_0000.nii.gz", "good_a_0000.nii.gz"}


def test_deformable_brings_back_what_has_breathed(tmp_path):
    shape = (22, 64, 84)
    arterial = phantom(phase="arterial", breathing=16 / abs(draw_patient(1).breath), shape=shape)
    scans = {"n": ("p", 0, "native", phantom(shape=shape)), "a": ("p", 0, "arterial", arterial)}
    raw = write_phases(tmp_path / "Dataset104_A", scans)
    target = tmp_path / "Dataset105_B"
    assert register_dataset(raw, target, "deformable", processes=1) == []
    record = json.loads((target / "transforms/p.json").read_text())
    report = record["pairs"]["n and a"]
    assert report["share of voxels that fold"] == 0
    assert report["correlation ratio after deformation"] > report["correlation ratio before deformation"]
    start, stop, _ = record["slices"]
    native, label = read(raw / "imagesTr/n_0000.nii.gz")[start:stop], read(raw / "labelsTr/n.nii.gz")[start:stop]
    assert np.array_equal(read(target / "imagesTr/n_0000.nii.gz"), native)
    before, after = sitk.GetArrayFromImage(arterial[0])[start:stop], read(target / "imagesTr/a_0000.nii.gz")
    plain = body_mask(native, is_ct=True) & (label == 0)  # where contrast changes nothing
    assert mae(after, native, plain) < 0.85 * mae(before, native, plain)
    aorta = read(target / "labelsTr/a.nii.gz") == LABELS["aorta"]
    assert aorta.sum() == pytest.approx((label == LABELS["aorta"]).sum(), rel=0.05)
    # what is documented: y -> A(y + u(y)) gives the written scan
    written = sitk.ReadImage(str(target / "imagesTr/a_0000.nii.gz"))
    field = sitk.ReadImage(str(target / "transforms/a_displacement.nii.gz"), sitk.sitkVectorFloat64)
    linear = sitk.ReadTransform(str(target / "transforms/a.tfm"))
    transform = sitk.CompositeTransform([linear, sitk.DisplacementFieldTransform(field)])
    moving = sitk.Cast(arterial[0], sitk.sitkFloat32)
    again = sitk.Resample(moving, written, transform, sitk.sitkBSpline, -1e4, sitk.sitkFloat32)
    again, range_of = sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(arterial[0])
    shown = again > -9000
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(written)[shown], np.clip(again, range_of.min(), range_of.max())[shown], atol=1.5
    )


def test_phases_that_cannot_be_told_are_an_error(tmp_path):
    scans = {case: ("p", 0, case, phantom()) for case in ("native", "arterial", "venous")}
    raw = write_phases(tmp_path / "Dataset104_A", scans)
    with pytest.raises(DataError, match="two contrast phases"):
        register_dataset(raw, tmp_path / "Dataset105_B", "rigid", processes=1)


def test_test_scans_in_one_phase_come_along_as_they_are(tmp_path, caplog):
    scans = {"n": ("p", 0, "native", phantom()), "a": ("q", 0, "arterial", phantom(2, "arterial"))}
    raw = write_phases(tmp_path / "Dataset104_A", scans)
    (raw / "imagesTs").mkdir()
    sitk.WriteImage(phantom(3, "arterial")[0], str(raw / "imagesTs/t_0000.nii.gz"))
    (raw / "imagesTs/scans.csv").write_text("case,subject,time,phase\nt,t,0,arterial\nt_native,t,0,native\n")
    target = tmp_path / "Dataset105_B"
    assert register_dataset(raw, target, "rigid", processes=1) == []
    for name in ("imagesTr/n_0000.nii.gz", "imagesTr/a_0000.nii.gz", "imagesTs/t_0000.nii.gz"):
        assert (target / name).read_bytes() == (raw / name).read_bytes()
    table = (target / "imagesTs/scans.csv").read_text()
    assert table == "case,subject,time,phase\nt,t,0.0,arterial\nt_native,t,0.0,native\n"
    assert "3 of 3 subjects have no pair of native and arterial" in caplog.text


def test_agreement_of_the_phases_is_recorded(registered):
    """Of the pairs, the first is shifted by 9 mm, the others are aligned by their headers."""
    _, target = registered
    rows = agreement_of_dataset(target)
    assert {row["pair"] for row in rows} == {"n and a", "n1 and a1", "n2 and a2"}
    by_pair = {row["pair"]: row for row in rows}
    shifted = by_pair["n and a"]
    assert shifted["mae_after"] < 0.8 * shifted["mae_before"] and shifted["mi_after"] > shifted["mi_before"]
    assert not any(row["stands_out"] for row in rows)
    assert (target / "registration.csv").read_text().startswith("subject,pair,mae_before,mae_after,mi_before,mi_after")
