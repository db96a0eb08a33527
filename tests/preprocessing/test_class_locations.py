import numpy as np
import pytest

from longflow.preprocessing.class_locations import find_locations, values_to_locate
from longflow.preprocessing.series import RawSeries, prepare_volumes
from tests.preprocessing.helpers import make_plans, make_volume, segmentation_plans


def test_every_voxel_of_a_small_structure_is_found():
    segmentation = np.zeros((4, 5, 6), np.int16)
    segmentation[1, 2, 3] = segmentation[3, 4, 5] = 2
    segmentation[0, 0] = 1
    locations = find_locations({1: segmentation}, [1, 2, 7])
    assert set(locations) == {1} and set(locations[1]) == {1, 2}
    assert sorted(map(tuple, locations[1][2].tolist())) == [(1, 2, 3), (3, 4, 5)]
    assert len(locations[1][1]) == 6
    assert locations[1][1].dtype == np.int32


def test_of_a_large_structure_a_sample_is_kept_the_same_each_time():
    segmentation = np.ones((30, 30, 30), np.int16)
    first, second = (find_locations({0: segmentation}, [1])[0][1] for _ in range(2))
    assert first.shape == (10_000, 3)
    assert np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 10_000
    # all parts of it, not its first slices
    assert np.allclose(first.mean(0), 14.5, atol=0.5)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"background": 0, "a": 1, "b": 2}, [1, 2]),
        ({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2]),
        ({"background": 0, "a": 1, "ignore": 2}, [0, 1]),
        ({}, []),
    ],
)
def test_values_to_locate(labels, values):
    assert values_to_locate(labels) == values


def test_places_are_those_of_the_prepared_segmentation():
    volume = make_volume(shape=(6, 20, 24), border=2)
    label = (volume.array[0] > 700).astype(np.int16)
    plans = segmentation_plans({"background": 0, "bright": 1}, spacing=(3.0, 1.5, 0.8), transpose=(1, 0, 2))
    prepared = prepare_volumes(RawSeries("s", ["a", "b"], [0, 1], [volume] * 2, [None, label]), plans, "3d_fullres")
    assert set(prepared.class_locations) == {1}
    places = prepared.class_locations[1][1]
    assert len(places) == (prepared.segmentations[1] == 1).sum()
    assert (prepared.segmentations[1][tuple(places.T)] == 1).all()


def test_a_label_that_marks_nothing_has_no_places():
    volume, plans = make_volume(), segmentation_plans({"background": 0, "bright": 1})
    empty = np.zeros(volume.array.shape[1:], np.int16)
    assert prepare_volumes(RawSeries("s", ["a"], [0], [volume], [empty]), plans, "3d_fullres").class_locations == {
        0: {}
    }
    assert prepare_volumes(RawSeries("s", ["a"], [0], [volume]), plans, "3d_fullres").class_locations is None


def test_forecasting_needs_none():
    volume = make_volume()
    label = (volume.array[0] > 700).astype(np.int16)
    assert (
        prepare_volumes(RawSeries("s", ["a"], [0], [volume], [label]), make_plans(), "3d_fullres").class_locations
        is None
    )
