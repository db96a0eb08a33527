"""Structures and labels, by nnU-Net's label handling: plain labels, regions, the ignore label."""

import re
from collections.abc import Mapping, Sequence

from longflow.errors import ConfigurationError
from longflow.nnunet import LabelManager, build_label_manager

Labels = Mapping[str, int | Sequence[int]]

#: names in ``labels`` of dataset.json that are no structures
NO_STRUCTURE = ("background", "ignore")

#: words of a name that say on which side of the body a structure is, with their counterparts
SIDES = {"left": "right", "l": "r", "lh": "rh"}


def label_manager(labels: Labels, regions_class_order: Sequence[int]) -> LabelManager:
    """Return nnU-Net's label handling.

    :param labels: as in dataset.json.
    :param regions_class_order: as in dataset.json; empty without regions.
    :returns: nnU-Net's object.
    :raises ConfigurationError: the labels of dataset.json are invalid.
    """
    if not structures(labels):
        raise ConfigurationError(
            "dataset.json names no structure in 'labels'. Expected for example "
            '{"background": 0, "left ventricle": 1}, with the values in the label images.'
        )
    content = {name: list(value) if isinstance(value, Sequence) else value for name, value in labels.items()}
    try:
        manager = build_label_manager(content, list(regions_class_order) or None)
        if sorted(manager.all_labels) != list(range(len(manager.all_labels))):
            raise KeyError(f"found the labels {[int(label) for label in sorted(manager.all_labels)]}")
        return manager
    except (AssertionError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigurationError(
            f"'labels' in dataset.json cannot be used: {content}, regions_class_order {list(regions_class_order)}. "
            "Expected a 'background' with 0, labels counted without a gap, 'ignore' (if any) the highest, and "
            f"regions_class_order where a label is a list ({error})."
        ) from error


def structures(labels: Labels) -> dict[str, tuple[int, ...]]:
    """List the structures to segment.

    :param labels: as in dataset.json.
    :returns: label values of every structure by its name; several values for a region.

    >>> structures({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3})
    {'whole': (1, 2), 'core': (2,)}
    """
    return {
        name: tuple(value) if isinstance(value, Sequence) else (value,)
        for name, value in labels.items()
        if name not in NO_STRUCTURE
    }


def sides(labels: Labels) -> list[tuple[str, str]]:
    """List the pairs of structures whose names differ in the side of the body alone.

    :param labels: as in dataset.json.
    :returns: the left structure of each pair and the right one.

    >>> sides({"background": 0, "Left-Thalamus": 1, "Right-Thalamus": 2, "kidney_l": 3, "lesion": 4})
    [('Left-Thalamus', 'Right-Thalamus')]
    """
    by_words = {tuple(re.split(r"[^a-z0-9]+", name.lower())): name for name in structures(labels)}
    pairs = []
    for words, name in by_words.items():
        other = tuple(SIDES.get(word, word) for word in words)
        if other != words and other in by_words:
            pairs.append((name, by_words[other]))
    return pairs
