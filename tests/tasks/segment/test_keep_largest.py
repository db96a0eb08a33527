import numpy as np
import pytest

from longflow.errors import DataError
from longflow.files import write_json
from longflow.tasks.segment.keep_largest import choose_steps, keep_largest, recorded_steps

STRUCTURES = {"liver": (1,), "spleen": (2,)}


def map_of(*boxes):
    """A label map of boxes: (label, start, stop) along x."""
    labels = np.zeros((4, 4, 20), np.uint8)
    for label, start, stop in boxes:
        labels[1:3, 1:3, start:stop] = label
    return labels


def test_the_largest_component_stays():
    labels = map_of((1, 1, 8), (1, 12, 14), (2, 16, 19))
    found = keep_largest(labels, [("liver",)], STRUCTURES)
    assert np.array_equal(found, map_of((1, 1, 8), (2, 16, 19))) and found.dtype == np.uint8
    assert np.array_equal(labels, map_of((1, 1, 8), (1, 12, 14), (2, 16, 19)))  # the input is unchanged


def test_structures_together_are_one_mask():
    """The spleen touches the liver and stays; apart from it, a component of both is lost."""
    labels = map_of((1, 1, 6), (2, 6, 9), (2, 12, 14))
    assert np.array_equal(keep_largest(labels, [("liver", "spleen")], STRUCTURES), map_of((1, 1, 6), (2, 6, 9)))


def test_touching_by_a_corner_is_one_component_and_equal_ones_all_stay():
    corner = np.zeros((3, 3, 3), np.uint8)
    corner[0, 0, 0] = corner[1, 1, 1] = 1
    assert np.array_equal(keep_largest(corner, [("liver",)], STRUCTURES), corner)
    equal = map_of((1, 1, 3), (1, 8, 10))
    assert np.array_equal(keep_largest(equal, [("liver",)], STRUCTURES), equal)


def test_nothing_to_remove():
    empty = map_of()
    assert np.array_equal(keep_largest(empty, [("liver",)], STRUCTURES), empty)
    labels = map_of((1, 1, 3), (1, 8, 9))
    assert keep_largest(labels, [], STRUCTURES) is labels


def test_the_function_of_nnunet_does_the_same():
    from nnunetv2.postprocessing.remove_connected_components import (
        remove_all_but_largest_component_from_segmentation as of_nnunet,
    )

    labels = np.random.default_rng(0).integers(0, 12, (6, 12, 12)).astype(np.uint8)
    labels[labels > 3] = 0
    structures = {"whole": (1, 2, 3), "core": (2,)}
    for step, regions in ((("whole",), [(1, 2, 3)]), (("core",), 2)):
        assert np.array_equal(keep_largest(labels, [step], structures), of_nnunet(labels, regions))


def rows(**dice):
    """One subject each: Dice by structure."""
    return [
        {"subject": f"s{number}", "structure": name, "dice": value}
        for name, values in dice.items()
        for number, value in enumerate(values)
    ]


def measuring(answers):
    """A measurement with given answers, by step; what it was called with is kept."""
    calls = []

    def measure(accepted, tried):
        calls.append((tuple(accepted), tuple(tried)))
        before = answers[accepted[-1]] if accepted else answers[None]
        return {None: before, **{step: answers[step] for step in tried}}

    return measure, calls


BOTH, LIVER, SPLEEN = ("liver", "spleen"), ("liver",), ("spleen",)


def test_kept_where_dice_rises():
    better, same = rows(liver=[0.9, 0.9]), rows(spleen=[0.5, 0.5])
    answers = {None: rows(liver=[0.8, 0.8], spleen=[0.5, 0.5]), LIVER: better, SPLEEN: same}
    answers[BOTH] = rows(liver=[0.9, 0.9], spleen=[0.49, 0.5])  # the mean rises, but the spleen falls
    measure, calls = measuring(answers)
    steps, _ = choose_steps(STRUCTURES, measure, 6)
    assert steps == [LIVER]
    assert calls == [((), (BOTH,)), ((), (LIVER, SPLEEN)), ((LIVER,), ())]


def test_all_structures_together_come_first():
    answers = {None: rows(liver=[0.8], spleen=[0.5]), BOTH: rows(liver=[0.9], spleen=[0.5])}
    answers |= {LIVER: rows(liver=[0.9]), SPLEEN: rows(spleen=[0.4])}
    measure, calls = measuring(answers)
    assert choose_steps(STRUCTURES, measure, 6)[0] == [BOTH]
    assert calls[1] == ((BOTH,), (LIVER, SPLEEN))


def test_regions_are_tried_one_after_the_other():
    """They share voxels, so the result of one depends on the other."""
    whole, core = ("whole",), ("core",)
    answers = {None: rows(whole=[0.8], core=[0.5]), ("whole", "core"): rows(whole=[0.8], core=[0.5])}
    answers |= {whole: rows(whole=[0.9], core=[0.5]), core: rows(core=[0.6])}
    measure, calls = measuring(answers)
    assert choose_steps({"whole": (1, 2), "core": (2,)}, measure, 6)[0] == [whole, core]
    assert [tried for _, tried in calls] == [(("whole", "core"),), (whole,), (core,), ()]


def test_a_single_structure_is_tried_once():
    measure, calls = measuring({None: rows(liver=[0.8]), LIVER: rows(liver=[0.8])})
    assert choose_steps({"liver": (1,)}, measure, 6)[0] == []
    assert [tried for _, tried in calls] == [(LIVER,), ()]


def test_an_invention_that_is_removed_counts():
    """In the second subject the liver is absent; its Dice is 0 where it is invented, and undefined where it is not."""
    measure, _ = measuring({None: rows(liver=[0.8, 0.0]), LIVER: rows(liver=[0.8, None])})
    assert choose_steps({"liver": (1,)}, measure, 6)[0] == [LIVER]
    measure, _ = measuring({None: rows(liver=[None]), LIVER: rows(liver=[None])})
    assert choose_steps({"liver": (1,)}, measure, 6)[0] == []


def test_few_subjects_say_too_little():
    measure, calls = measuring({None: rows(liver=[0.5]), LIVER: rows(liver=[1.0])})
    assert choose_steps({"liver": (1,)}, measure, 5) == ([], rows(liver=[0.5]))
    assert calls == [((), ())]


def test_a_record_is_for_its_own_model_and_weights(tmp_path):
    best = tmp_path / "best.json"
    assert recorded_steps(best, "unet", ["w"], STRUCTURES) == ()
    record = {"candidate": "unet", "keep_largest": {"weights": ["w"], "steps": [["liver", "spleen"], ["liver"]]}}
    write_json(record, best)
    assert recorded_steps(best, "unet", ["w"], STRUCTURES) == (BOTH, LIVER)
    assert recorded_steps(best, "unet", ["other"], STRUCTURES) == recorded_steps(best, "2d", ["w"], STRUCTURES) == ()
    write_json({"candidate": "unet"}, best)  # of an earlier version
    assert recorded_steps(best, "unet", ["w"], STRUCTURES) == ()


@pytest.mark.parametrize("steps", [None, "liver", ["liver"], [["kidney"]], [[]], [[1]]])
def test_a_record_that_was_changed(tmp_path, steps):
    best = tmp_path / "best.json"
    write_json({"candidate": "unet", "keep_largest": {"weights": [], "steps": steps}}, best)
    with pytest.raises(DataError, match=r"keep_largest in .*best.json is not what longflow_find_best writes"):
        recorded_steps(best, "unet", [], STRUCTURES)
