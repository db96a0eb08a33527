"""Balls that grow, shrink, appear, vanish, merge and split, on grids of unequal spacing."""

import numpy as np
import pytest

from longflow.data.images import Geometry
from longflow.tasks.segment.lesion_changes import (
    ChangeRule,
    Visit,
    find_lesions,
    follow,
    index_of,
    link,
    point_of,
)

#: size, spacing (x, y, z) mm; direction with the axes of the file along -y, x, z
GRIDS = {
    "isotropic": Geometry((60, 50, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)),
    "thick": Geometry((80, 70, 16), (0.8, 0.8, 3.0), (10.0, -20.0, 5.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)),
    "turned": Geometry((60, 50, 40), (1.0, 1.2, 1.0), (3.0, 4.0, -50.0), (0.0, 1.0, 0, -1.0, 0, 0, 0, 0, 1.0)),
}
ISOTROPIC = GRIDS["isotropic"]


def points(grid):
    """Place of every voxel, (z, y, x, 3), mm, RAS."""
    index = np.stack(np.meshgrid(*(np.arange(size) for size in grid.size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    return point_of(index, grid)


def balls(grid, *of):
    """A mask of balls: (place in the middle of the grid + offset in mm along x, radius in mm)."""
    middle = point_of((np.array(grid.size) - 1) / 2, grid)
    places, mask = points(grid), np.zeros(grid.size[::-1], bool)
    for offset, radius in of:
        mask |= np.linalg.norm(places - middle - (offset, 0, 0), axis=-1) <= radius
    return mask


def followed(grid, *visits, rule=None) -> list[Visit]:
    rule = rule or ChangeRule()
    return list(follow((find_lesions(balls(grid, *one), grid, rule.smallest_ml) for one in visits), rule))


def called(visit):
    return {call.name: call.change for call in visit.calls}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_volume_and_centre_of_a_ball(grid):
    lesions = find_lesions(balls(grid, (4, 9)), grid)
    assert lesions.number == 1
    assert lesions.ml[0] == pytest.approx(4 / 3 * np.pi * 9**3 / 1000, rel=0.03)
    middle = point_of((np.array(grid.size) - 1) / 2, grid)
    np.testing.assert_allclose(lesions.centres[0], np.add(middle, (4, 0, 0)), atol=0.5)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_places_and_voxels_are_inverse(grid):
    assert index_of(point_of((7, 11, 3), grid), grid) == (3, 11, 7)
    assert index_of(point_of((-1, 0, 0), grid), grid) is None
    assert index_of(point_of(grid.size, grid), grid) is None


def test_coordinates_are_those_of_nifti():
    """LPS of SimpleITK, (10, -20, 5) for the first voxel, is (-10, 20, 5) in a viewer of NIfTI files."""
    assert point_of((0, 0, 0), GRIDS["thick"]).tolist() == [-10, 20, 5]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("radius", "change"), [(7, "grown"), (6.1, "stable"), (5.9, "stable"), (5, "shrunk")])
def test_a_ball_that_changes_its_size(grid, radius, change):
    """(7/6)^3 = 1.59, (6.1/6)^3 = 1.05, (5.9/6)^3 = 0.95, (5/6)^3 = 0.58."""
    first, second = followed(grid, [(0, 6)], [(0, radius)])
    assert called(first) == {1: "first visit"}
    assert called(second) == {1: change}
    (call,) = second.calls
    assert call.before_ml == first.calls[0].ml and call.ml == second.lesions.ml[0]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_balls_that_appear_and_vanish_keep_their_names(grid):
    visits = followed(grid, [(-15, 6), (12, 4)], [(-15, 6), (12, 4), (0, 4)], [(0, 4), (12, 4)], [(-15, 6), (0, 4)])
    assert [called(visit) for visit in visits] == [
        {1: "first visit", 2: "first visit"},
        {1: "stable", 2: "stable", 3: "new"},
        {1: "gone", 2: "stable", 3: "stable"},
        {2: "gone", 3: "stable", 4: "new"},  # a lesion that comes back is a new one: between, nobody saw it
    ]
    gone = visits[2].calls[-1]
    assert (gone.ml, gone.before_ml, gone.is_present) == (0, visits[1].calls[0].ml, False)
    np.testing.assert_allclose(gone.centre, visits[1].calls[0].centre)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_two_balls_that_grow_together_are_merged_and_come_apart_again(grid):
    apart, together = [(-6, 5), (6, 4)], [(-6, 7), (6, 6)]
    visits = followed(grid, apart, together, apart)
    merged, absorbed = visits[1].calls
    assert (merged.name, merged.change, merged.others) == (1, "merged", (2,))
    assert merged.before_ml == pytest.approx(visits[0].lesions.ml.sum())
    assert (absorbed.name, absorbed.change, absorbed.others, absorbed.ml) == (2, "merged", (1,), None)
    larger, smaller = visits[2].calls
    assert (larger.name, larger.change, larger.others) == (1, "split", (3,))
    assert (smaller.name, smaller.change, smaller.others) == (3, "split", (1,))
    assert larger.before_ml == smaller.before_ml == merged.ml


def test_neighbours_are_not_confused():
    """Two balls 2 mm apart that both grow towards each other, and still are two."""
    visits = followed(ISOTROPIC, [(-7, 6), (7, 6)], [(-7.5, 6), (6.5, 6)])
    assert called(visits[1]) == {1: "stable", 2: "stable"}


@pytest.mark.parametrize(("shift", "change"), [(11, {1: "stable"}), (13, {1: "stable"}), (16, {1: "gone", 2: "new"})])
def test_badly_registered_lesions_are_linked_over_a_small_gap(shift, change):
    """Balls of 5 mm, whose voxels are 11 mm wide: no gap, 2 mm, 5 mm."""
    visits = followed(ISOTROPIC, [(-8, 5)], [(-8 + shift, 5)])
    assert called(visits[1]) == change


def test_a_slice_is_no_gap():
    """A lesion in the next slice of a thick stack touches, whatever the slice spacing is."""
    grid = Geometry((30, 30, 6), (1.0, 1.0, 7.0), (0.0, 0.0, 0.0), ISOTROPIC.direction)
    mask = np.zeros((6, 30, 30), bool)
    mask[2, 10:15, 10:15] = True
    one, touching, apart = (find_lesions(np.roll(mask, by, 0), grid) for by in (0, 1, 2))
    assert link(one, touching).linked.all()
    assert not link(one, apart).linked.any()


def test_few_common_voxels_are_no_link():
    """The second lesion of the first visit shares one of 25 voxels with the other, which has moved a little."""
    before, after = np.zeros((3, 30, 30), bool), np.zeros((3, 30, 30), bool)
    before[1, 5:10, 5:10] = before[1, 5:10, 12:17] = True
    after[1, 5:10, 6:11] = after[1, 5:10, 12:17] = True
    after[1, 9, 10:13] = True  # joins the two, by a bridge
    before[1, 9, 12] = True
    grid = Geometry((30, 30, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ISOTROPIC.direction)
    assert link(find_lesions(before, grid), find_lesions(after, grid)).linked.tolist() == [[True], [True]]
    after[1, 9, 10:12] = False
    after[1, 5:10, 12:17] = False
    after[1, 9, 11] = after[1, 9, 12] = True  # one voxel in the second lesion
    links = link(find_lesions(before, grid), find_lesions(after, grid))
    assert links.shared.tolist() == [[20], [1]] and links.linked.tolist() == [[True], [False]]


def test_small_components_are_no_lesions():
    mask = np.zeros((10, 10, 10), bool)
    mask[0, 0, :3], mask[5, 5, :4] = True, True
    grid = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ISOTROPIC.direction)
    assert find_lesions(mask, grid, 0.003).ml.tolist() == pytest.approx([0.004, 0.003])
    assert find_lesions(mask, grid, 0.0031).ml.tolist() == pytest.approx([0.004])


def test_a_visit_without_lesions():
    visits = followed(ISOTROPIC, [], [(0, 5)], [])
    assert [called(visit) for visit in visits] == [{}, {1: "new"}, {1: "gone"}]
    assert called(followed(ISOTROPIC, [], [])[1]) == {}


def test_both_thresholds_have_to_be_reached():
    rule = ChangeRule(relative=0.5, absolute_ml=2)
    assert [rule.change(2, after) for after in (3.9, 4, 0.1, 0)] == ["stable", "grown", "stable", "shrunk"]
    assert [rule.change(10, after) for after in (14.9, 15, 5.1, 5)] == ["stable", "grown", "stable", "shrunk"]
