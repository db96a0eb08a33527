import numpy as np
import pytest
import SimpleITK as sitk

from longflow.registration.motion import as_image, carried_on, exponential, folded_voxels, motion_between

SHAPE, SPACING = (5, 48, 48), (8.0, 1.5, 1.5)


def blob(centre, shape=SHAPE, spacing=SPACING, sigma=6.0, edge=2.0):
    """A bright ball with a sharp edge at ``centre``, mm, on a textured ground that does not move."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * size for n, size in zip(shape, spacing, strict=True)), indexing="ij"))
    distance = np.sqrt(((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2)[1:].sum(0))
    ground = 100 + 5 * np.sin(grid[1] / 3) * np.cos(grid[2] / 4)
    return (ground + 400 / (1 + np.exp((distance - 2 * sigma) / edge))).astype(np.float32)


def centre_of(volume, spacing=SPACING):
    """Centre of the bright ball, voxels (y, x)."""
    bright = np.clip(volume - 300, 0, None)
    return [float((bright * np.arange(bright.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])).sum()
                  / bright.sum()) for axis in (1, 2)]  # fmt: skip


def vectors(array, spacing=(1.0, 1.0, 1.0)):
    """A field of (z, y, x, 3), mm."""
    field = sitk.GetImageFromArray(np.asarray(array, np.float64), isVector=True)
    field.SetSpacing(spacing[::-1])
    return field


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_ball_that_moves_steadily_is_carried_to_its_place_with_its_edges(factor):
    step = np.array([0.0, 3.0, -4.5])  # mm: 2 and 3 voxels
    start = np.array([0.0, 30.0, 45.0])
    before, last = blob(start), blob(start + step)
    target = blob(start + (1 + factor) * step)
    found = carried_on(last[None], motion_between(before, last, SPACING), factor).scan[0]
    assert np.abs(np.subtract(centre_of(found), centre_of(target))).max() < 0.3
    assert np.abs(np.subtract(centre_of(last), centre_of(target))).max() > 0.9
    assert np.abs(np.gradient(found, axis=2)).max() > 0.9 * np.abs(np.gradient(target, axis=2)).max()
    assert np.sqrt(np.mean((found - target) ** 2)) < 0.5 * np.sqrt(np.mean((last - target) ** 2))


def test_motion_in_space_where_voxels_are_cubes():
    shape, spacing = (24, 32, 32), (2.0, 2.0, 2.0)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))

    def ball(z):
        return (1000 * np.exp(-((grid - np.reshape([z, 16, 16], (3, 1, 1, 1))) ** 2).sum(0) / 40)).astype(np.float32)

    found = carried_on(ball(12)[None], motion_between(ball(10), ball(12), spacing), 1.0).scan[0]
    height = (found * grid[0]).sum() / found.sum()
    assert height == pytest.approx((ball(14) * grid[0]).sum() / ball(14).sum(), abs=0.3)


def test_an_identical_pair_does_not_move_a_bit():
    scan = np.random.default_rng(0).normal(size=(3, 24, 24)).astype(np.float32)
    velocity = motion_between(scan, scan, SPACING)
    assert not sitk.GetArrayViewFromImage(velocity).any()
    assert np.array_equal(carried_on(scan[None], velocity, 2.0).scan[0], scan)


def test_other_units_of_one_scan_are_no_motion():
    """Visits whose scanner has another gain: intensities are compared by their percentiles in the body."""
    last = blob((0.0, 36.0, 36.0))
    velocity = motion_between(3 * last + 50, last, SPACING)
    assert np.abs(sitk.GetArrayViewFromImage(velocity)).max() < 0.15


def test_the_exponential_of_a_rotation_is_the_rotation():
    """exp of v(x) = omega x about the middle turns by the angle omega; the straight displacement would not."""
    size, omega = 41, 0.4
    y, x = np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2, indexing="ij")
    field = np.zeros((1, size, size, 3))
    field[0, ..., 0], field[0, ..., 1] = -omega * y, omega * x
    found = sitk.GetArrayFromImage(exponential(vectors(field), 2.0))[0, 15:26, 15:26]
    angle = 2 * omega
    turned_x, turned_y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    expected = np.stack([turned_x - x, turned_y - y], -1)[15:26, 15:26]
    np.testing.assert_allclose(found[..., :2], expected, atol=0.1)
    assert np.abs(2 * field[0, 15:26, 15:26, :2] - expected).max() > 1


def test_folds_are_counted_by_the_jacobian():
    field = np.zeros((3, 4, 10, 3))
    assert folded_voxels(vectors(field)) == 0
    field[..., 0] = -1.5 * np.arange(10)  # x + u(x) = -x / 2: the axis is turned round
    assert folded_voxels(vectors(field)) == 96  # at both ends of the axis a derivative counts half: 1 - 0.75


def test_the_share_of_voxels_that_fold(monkeypatch):
    from longflow.registration import motion

    field = np.zeros((3, 4, 10, 3))
    field[..., 0] = -1.5 * np.arange(10)
    monkeypatch.setattr(motion, "exponential", lambda velocity, factor: vectors(factor * field))
    scan = np.ones((1, 3, 4, 10), np.float32)
    assert carried_on(scan, vectors(field), 1.0).folded == 96 / 120
    assert carried_on(scan, vectors(field), 0.1).folded == 0


def test_a_single_slice():
    before, last = (blob(centre, (1, 48, 48)) for centre in ((0.0, 30.0, 36.0), (0.0, 33.0, 36.0)))
    found = carried_on(last[None], motion_between(before, last, SPACING), 1.0).scan[0]
    assert centre_of(found)[0] == pytest.approx(24, abs=0.3)


def test_an_image_has_the_axes_of_its_array():
    image = as_image(np.zeros((2, 3, 4)), (5.0, 2.0, 1.0))
    assert image.GetSize() == (4, 3, 2) and image.GetSpacing() == (1.0, 2.0, 5.0)
