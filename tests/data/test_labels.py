import pytest

from longflow.data.labels import label_manager, sides, structures
from longflow.errors import ConfigurationError


def test_structures_are_neither_background_nor_ignored():
    assert structures({"background": 0, "left": 1, "ignore": 2}) == {"left": (1,)}
    assert structures({"background": 0, "whole": [1, 2], "core": [2]}) == {"whole": (1, 2), "core": (2,)}
    assert structures({}) == {}


def test_labels_as_nnunet_handles_them():
    plain = label_manager({"background": 0, "left": 1, "right": 2, "ignore": 3}, [])
    assert (plain.num_segmentation_heads, plain.has_regions, plain.ignore_label) == (3, False, 3)
    regions = label_manager({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    assert (regions.num_segmentation_heads, regions.has_regions, regions.ignore_label) == (2, True, None)


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({}, [], "names no structure"),
        ({"background": 0, "ignore": 1}, [], "names no structure"),
        ({"background": 0, "left": 1, "right": 3}, [], r"counted without a gap.*\[0, 1, 3\]"),
        ({"left": 1}, [], "Expected a 'background' with 0"),
        ({"background": 0, "ignore": 1, "left": 2}, [], "cannot be used"),
        ({"background": 0, "whole": [1, 2], "core": [2]}, [], "regions_class_order where a label is a list"),
    ],
)
def test_labels_that_cannot_be_used(labels, order, message):
    with pytest.raises(ConfigurationError, match=message):
        label_manager(labels, order)


def test_sides_are_pairs_of_names_that_differ_in_one_word():
    names = [
        "left kidney",
        "right kidney",
        "Left-Thalamus",
        "Right-Thalamus",
        "lh.white",
        "rh.white",
        "lung_L",
        "lung_R",
    ]
    labels = {"background": 0, **{name: value for value, name in enumerate(names, start=1)}}
    assert sides(labels) == [(names[first], names[first + 1]) for first in (0, 2, 4, 6)]
    assert sides({"background": 0, "left": 1, "right": 2}) == [("left", "right")]


def test_a_word_that_begins_like_a_side_is_none():
    assert sides({"background": 0, "left kidney": 1, "liver": 2, "leftover": 3, "rightover": 4}) == []
