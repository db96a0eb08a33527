import numpy as np
import pytest

from longflow.errors import DataError
from longflow.tasks.segment.overlap import dice, hd95, iou

SPACING = (4.0, 1.0, 2.0)
EMPTY = np.zeros((20, 22, 24), bool)


def cube(z=5, y=5, x=5, shape=EMPTY.shape):
    """A cube of 10 voxels along each axis."""
    mask = np.zeros(shape, bool)
    mask[z : z + 10, y : y + 10, x : x + 10] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_shifted_cubes(shift):
    """Of 10 planes, 10 - shift are shared."""
    found, true = cube(x=5 + shift), cube()
    assert dice(found, true) == pytest.approx((10 - shift) / 10)
    assert iou(found, true) == pytest.approx((10 - shift) / (10 + shift))


@pytest.mark.parametrize(("axis", "spacing"), list(enumerate(SPACING)))
def test_hausdorff_distance_of_shifted_cubes_is_the_shift_in_mm(axis, spacing):
    """A face shifted by 3 voxels is 3 spacings away; it is far more than 5 % of the surface."""
    shifted = np.roll(cube(), 3, axis=axis)
    assert hd95(shifted, cube(), SPACING) == pytest.approx(3 * spacing)
    assert hd95(cube(), shifted, SPACING) == pytest.approx(3 * spacing)


def test_a_few_voxels_far_away_do_not_count():
    """One voxel more, of less than 5 % of the surface, is what the 95th percentile is for."""
    found = cube()
    found[0, 0, 0] = True
    assert hd95(found, cube(), SPACING) == 0


def test_the_larger_of_both_directions():
    """Half of the structure was missed: every found voxel is right, but the true surface is far away."""
    found = cube()
    found[:, :, 8:] = False
    assert hd95(found, cube(), (1.0, 1.0, 1.0)) == pytest.approx(7)


def test_a_single_slice_is_compared_by_its_contours():
    """One of 30 columns was missed: over 20 % of the contour, but less than 5 % of the faces of the slice."""
    true = np.zeros((1, 40, 40), bool)
    true[:, 5:35, 5:35] = True
    found = true.copy()
    found[:, :, 34] = False
    assert hd95(found, true, (0.01, 1.0, 3.0)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("found", "true", "overlap"), [(EMPTY, EMPTY, None), (EMPTY, cube(), 0.0), (cube(), EMPTY, 0.0)]
)
def test_absent_structures(found, true, overlap):
    """In neither: nothing to say. In one alone: no overlap, and no distance that could be averaged."""
    assert dice(found, true) == overlap
    assert iou(found, true) == overlap
    assert hd95(found, true, SPACING) is None


@pytest.mark.parametrize("compare", [dice, iou, lambda found, true: hd95(found, true, SPACING)])
def test_masks_on_different_grids_are_refused(compare):
    with pytest.raises(DataError, match=r"\(20, 22, 24\).*\(20, 22, 23\)"):
        compare(EMPTY, EMPTY[..., 1:])
