import numpy as np
import pytest
import SimpleITK as sitk
from scipy.linalg import expm, logm

from longflow.data.images import Geometry
from longflow.errors import DataError
from longflow.registration import linear as registration_linear
from longflow.registration.linear import (
    centre_of_mass,
    matrix_of,
    mean_transform,
    mid_grid,
    nearest_rotation,
    pyramid,
    rigid,
    scan_of_reference,
    scans_of_mid,
    transform_of,
)
from tests.registration.helpers import SHAPE, SPACING, as_image, blobs, farthest, moved


def test_a_known_rigid_motion_is_recovered_and_the_order_does_not_matter():
    truth = moved(8, (5, -3, 4), axis=(0.3, 0.2, 1))
    still, turned = pyramid(blobs()), pyramid(blobs(truth))
    found = scan_of_reference(still, turned, affine=False)
    assert farthest(found, truth) < SPACING[0] / 2
    assert farthest(np.eye(4), truth) > 4 * SPACING[0]
    assert farthest(scan_of_reference(turned, still, affine=False), np.linalg.inv(found)) < 1e-6


def test_a_known_scaling_is_recovered_by_affine_alone():
    truth = moved(4, (2, 0, -2))
    truth[:3, :3] = truth[:3, :3] @ np.diag([1.08, 0.95, 1.0])
    still, scaled = pyramid(blobs()), pyramid(blobs(truth))
    found = scan_of_reference(still, scaled, affine=True)
    np.testing.assert_allclose(np.linalg.svd(found[:3, :3])[1], [1.08, 1.0, 0.95], atol=0.03)
    assert farthest(found, truth) < SPACING[0]
    rigid = scan_of_reference(still, scaled, affine=False)
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-9)


def test_scans_far_apart_in_the_scanner_are_found_by_their_centres():
    truth = moved(3, (400, 0, -250))
    elsewhere = blobs(moved(3))
    elsewhere.SetOrigin((400, 0, -250))
    assert farthest(scan_of_reference(pyramid(blobs()), pyramid(elsewhere), affine=False), truth) < SPACING[0] / 2


def test_a_search_that_leads_astray_ends_where_it_began(monkeypatch):
    truth = moved(8, (5, -3, 4))
    still, turned = pyramid(blobs())[-1], pyramid(blobs(truth))[-1]
    at_truth = rigid(still, turned, truth)[1]
    monkeypatch.setattr(registration_linear, "_radius", lambda image: 0.05)  # turns of many radians at once
    found, value = rigid(still, turned, truth)
    assert farthest(found, truth) < SPACING[0] and value < 0.9 * at_truth < 0


def test_two_scans_meet_halfway():
    truth = moved(20, (6, 2, -4), axis=(1, 2, 3))
    first, second = scans_of_mid([np.eye(4), truth])
    np.testing.assert_allclose(first @ second, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(second @ np.linalg.inv(first), truth, atol=1e-9)
    np.testing.assert_allclose(second, expm(np.real(logm(truth)) / 2), atol=1e-9)


def test_the_mid_space_of_many_is_the_same_from_every_reference():
    of_first = [np.eye(4), moved(10, (3, 0, 0)), moved(-15, (0, 5, 1), axis=(1, 0, 0)), moved(5, axis=(0, 1, 0))]
    mid = scans_of_mid(of_first)
    assert np.abs(sum(np.real(logm(matrix)) for matrix in mid)).max() < 1e-8
    of_third = [matrix @ np.linalg.inv(of_first[2]) for matrix in of_first]
    np.testing.assert_allclose(scans_of_mid(of_third), mid, atol=1e-8)


def test_the_mean_of_turns_about_one_axis_is_the_turn_by_the_mean_angle():
    middle = moved(20)
    np.testing.assert_allclose(mean_transform([moved(0), moved(10), moved(50)]), middle, atol=1e-9)


def test_the_grid_of_scans_that_lie_alike_is_theirs():
    geometry = Geometry((30, 20, 10), (1.0, 1.0, 5.0), (3.0, -4.0, 5.0), (1, 0, 0, 0, -1, 0, 0, 0, -1))
    assert mid_grid([geometry, geometry], [np.eye(4), np.eye(4)]).differences(geometry) == []


def test_the_grid_takes_the_finest_spacing_and_covers_all():
    one = Geometry((20, 20, 10), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    # acquired with its axes permuted and mirrored, 10 mm further up
    other = Geometry((14, 20, 20), (3.0, 1.5, 1.0), (19.0, 0.0, 10.0), (0, 0, -1, 0, 1, 0, 1, 0, 0))
    grid = mid_grid([one, other], [np.eye(4), np.eye(4)])
    assert grid.spacing == pytest.approx((1.0, 1.0, 3.0))
    assert grid.direction == pytest.approx(one.direction)
    assert grid.size == (20, 29, 17)  # y: from 0 to 28.5 mm; z: from 0 to 49 mm
    assert grid.origin == pytest.approx((0, 0.25, 0.5))  # 17 slices are 48 mm from centre to centre: half on each side


def test_the_grid_of_two_lies_halfway():
    geometry = Geometry.of(blobs())
    first, second = scans_of_mid([np.eye(4), moved(10)])
    grid = mid_grid([geometry, geometry], [first, second])
    np.testing.assert_allclose(np.reshape(grid.direction, (3, 3)), np.eye(3), atol=1e-9)


def test_matrices_and_transforms():
    matrix = moved(12, (1, 2, 3), axis=(1, 1, 0))
    np.testing.assert_allclose(matrix_of(transform_of(matrix)), matrix, atol=1e-12)
    np.testing.assert_allclose(nearest_rotation(matrix[:3, :3] @ np.diag([2, 2, 2])), matrix[:3, :3], atol=1e-12)


def test_the_centre_of_mass_is_in_mm():
    array = np.zeros(SHAPE, np.float32)
    array[3, 5, 7] = 2
    image = as_image(array)
    image.SetOrigin((100, 0, 0))
    np.testing.assert_allclose(centre_of_mass(image), [114, 10, 6])
    with pytest.raises(DataError, match="same value"):
        centre_of_mass(as_image(np.ones(SHAPE, np.float32)))


def test_the_pyramid_makes_cubes_of_thick_slices():
    image = sitk.Image([256, 256, 9], sitk.sitkInt16)
    image.SetSpacing((1.5, 1.5, 10))
    assert [level.GetSize() for level in pyramid(image)] == [(32, 32, 9), (64, 64, 9), (128, 128, 9)]
    assert len(pyramid(blobs())) == 1
