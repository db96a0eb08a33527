import numpy as np
import pytest
import SimpleITK as sitk

from longflow.registration.checks import correlation, folded_share
from longflow.registration.deformable import centred, deformations, has_ants, on_grid, warped, zero_field
from tests.registration.helpers import SHAPE, blobs, moved


def constant_field(*shift):
    array = np.broadcast_to(np.array(shift, float), (*SHAPE, 3)).copy()
    field = sitk.GetImageFromArray(array, isVector=True)
    field.CopyInformation(blobs())
    return field


def wave(height):
    """A smooth displacement along x, mm, that fades towards the borders."""
    z, y, x = np.meshgrid(*(np.sin(np.pi * np.arange(size) / (size - 1)) for size in SHAPE), indexing="ij")
    array = np.zeros((*SHAPE, 3))
    array[..., 0] = height * z * y * x
    field = sitk.GetImageFromArray(array, isVector=True)
    field.CopyInformation(blobs())
    return field


@pytest.mark.parametrize("backend", ["demons", pytest.param("syn", marks=pytest.mark.skipif(
    not has_ants(), reason="antspyx is not installed"))])  # fmt: skip
def test_a_deformed_scan_and_its_original_meet_in_the_middle(backend):
    scans = [blobs(), warped(blobs(), wave(5))]
    fields = deformations(scans, backend)
    arrays = [sitk.GetArrayFromImage(scan) for scan in scans]
    found = [sitk.GetArrayFromImage(warped(scan, field)) for scan, field in zip(scans, fields, strict=True)]
    assert correlation(*found) > 0.995 > 0.98 > correlation(*arrays)
    assert max(folded_share(field) for field in fields) == 0
    # nearer to neither: their displacements cancel
    of_first, of_second = (sitk.GetArrayFromImage(field)[4:-4, 4:-4, 4:-4, 0] for field in fields)
    assert np.abs(of_first).max() > 1
    assert np.abs(of_first + of_second).mean() < 0.1


def test_the_mean_displacement_is_taken_out():
    fields = [wave(6), wave(-2), zero_field(blobs())]
    arrays = [sitk.GetArrayFromImage(field) for field in centred(fields)]
    assert np.abs(np.mean(arrays, axis=0)).max() < 0.05
    # what separates two scans at a point of the template stays: 8 mm in the middle
    assert (arrays[0] - arrays[1])[..., 0].max() == pytest.approx(8, abs=0.1)


def test_warping_takes_the_scan_from_where_the_field_points():
    scan = blobs()
    shifted = sitk.GetArrayFromImage(warped(scan, constant_field(4.0, 0, 0)))  # two voxels along x
    np.testing.assert_allclose(shifted[..., :-2], sitk.GetArrayFromImage(scan)[..., 2:], atol=1e-3)


def test_a_field_goes_on_beyond_its_grid():
    larger = sitk.Image([40, 40, 40], sitk.sitkFloat32)
    larger.SetOrigin((-20, -20, -20))
    larger.SetSpacing((3, 3, 3))
    array = sitk.GetArrayFromImage(on_grid(constant_field(1.0, 2.0, 3.0), larger))
    np.testing.assert_allclose(array.reshape(-1, 3), np.broadcast_to([1, 2, 3], (40**3, 3)), atol=1e-9)


def test_scans_that_agree_stay_where_they_are():
    fields = deformations([blobs(), blobs(moved())], "demons")
    assert max(np.abs(sitk.GetArrayFromImage(field)).max() for field in fields) < 1e-6
