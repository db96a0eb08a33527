import re
from io import StringIO

import pytest
from rich.console import Console

from longflow.tasks.segment.tables import show_best, show_segmentations


def number(mean, interval=None, undefined=0):
    return {"mean": mean, "median": mean, "interval": interval, "undefined": undefined}


def structure(**changes):
    consistency = {
        name: number(value)
        for name, value in {
            "stcs": 0.95,
            "true_stcs": 0.9,
            "stcs_difference": 0.05,
            "aspc": 2.5,
            "true_aspc": 7.5,
            "aspc_difference": -5.0,
        }.items()
    }
    return {
        "dice": number(0.9, [0.85, 0.95]),
        "iou": number(0.8),
        "hd95": number(1.5),
        "missed": 0,
        "invented": 0,
        "in_neither": 0,
        "lesions": None,
        "consistency": {**consistency, "verdict": "over-smoothed"},
        "trajectories": {
            "slope_error": number(-0.25),
            "relative_slope_error": number(0.125),
            "change_correlation": {"r": 0.75, "interval": [0.5, 0.9]},
            "calibration_slope": {"slope": 0.875, "interval": [0.8, 0.95]},
            "bland_altman": {
                "bias": -0.5,
                "bias_interval": [-0.75, -0.25],
                "limits": [-1.5, 0.5],
                "limits_intervals": [[-2.25, -1.25], [0.25, 1.25]],
            },
        },
        **changes,
    }


def results(by_structure, **changes):
    return {
        "methods": ["unet"],
        "time_unit": "months",
        "scans": 6,
        "subjects": 3,
        "pairs": 3,
        "pairs_on_other_grids": 0,
        "subjects_with_one_scan": [],
        "without_truth": [],
        "truth_from": {"labels[x]": 6},
        "overall": {name: number(0.5) for name in ("dice", "iou", "hd95")},
        "by_structure": by_structure,
        **changes,
    }


def shown(content, width=80, show=show_segmentations):
    console = Console(file=StringIO(), width=width, soft_wrap=True)
    show(content, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_prediction_and_reference_are_shown_together(width):
    text = shown(results({"liver": structure()}), width)
    assert "6 scans of 3 subjects (unet)" in text
    for cell in ("0.9000", "0.8500 to 0.9500", "0.950", "0.900", "+0.050", "2.50", "7.50", "-5.00", "over-smoothed"):
        assert cell in text
    for cell in ("-0.25", "12.5%", "0.50 to 0.90", "0.80 to 0.95", "ml / months"):
        assert cell in text
    for cell in ("-0.75 to -0.25", "-1.5 to +0.5", "(-2.25 to +1.25)"):
        assert cell in text
    assert "Over-smoothed: liver." in text
    assert "mean over structures" not in text
    assert "Reference: 6 in labels[x]." in text


def test_the_mean_over_structures_stands_below_several():
    text = " ".join(shown(results({"liver": structure(), "spleen": structure()}), 200).split())
    assert "mean over structures 0.5000" in text


def test_what_is_absent_or_undefined_is_said_not_averaged():
    absent = structure(dice=number(None, undefined=6), hd95=number(None, undefined=6), missed=1, in_neither=2)
    text = " ".join(shown(results({"tumour": absent}), 200).split())
    assert "tumour: missed in 1, in neither reference nor prediction of 2 of 6 scans." in text
    assert "Dice of tumour: 6, HD95 of tumour: 6" in text
    assert "nan" not in text.lower()


def test_few_subjects_are_said_to_be_few():
    few = shown(results({"liver": structure()}), 200)
    assert "3 subjects: intervals over so few are wide" in few
    assert "over-smoothed takes 6 subjects with several scans" in few
    one = shown(results({"liver": structure()}, subjects=1, scans=1, pairs=1), 200)
    assert "One subject: there are no intervals" in one
    assert "1 scan of 1 subject (unet)" in one and "over 1 pair of consecutive" in one
    assert "too narrow" not in shown(results({"liver": structure()}, subjects=10), 200)
    several = shown(results({"liver": structure()}, subjects=7, subjects_with_one_scan=["s0"]), 200)
    assert "over-smoothed takes" not in several


def test_a_torn_verdict_is_not_summed_up_as_smoothing():
    torn = structure()
    torn["consistency"]["verdict"] = "STCS: less consistent; ASPC: over-smoothed"
    text = shown(results({"liver": torn, "spleen": structure()}), 200)
    assert "STCS and ASPC disagree on liver" in text
    assert "Over-smoothed: spleen." in text


def test_one_scan_for_each_subject():
    alone = structure(consistency=None, trajectories=None)
    text = shown(results({"liver": alone}, pairs=0, subjects_with_one_scan=["a", "b", "c"]))
    assert "Every subject has one scan" in text
    assert "STCS of" not in text and "Volumes over time" not in text


def test_some_subjects_with_one_scan_and_pairs_on_other_grids():
    text = shown(
        results({"liver": structure()}, subjects_with_one_scan=["a"], pairs_on_other_grids=2, without_truth=["x"])
    )
    assert "Subjects with one scan, excluded from everything over time: 1." in text
    assert "2 of 3 pairs are not on one grid" in text
    assert "longflow_register" in text
    assert "Label maps without a reference, not evaluated: 1." in text


def test_lesions_where_there_are_several():
    lesions = {f"lesion_{name}": number(value) for name, value in (("precision", 0.5), ("recall", 0.75), ("f1", 0.6))}
    text = shown(results({"ms": structure(lesions={"median_number": 4.0, **lesions}), "[b]": structure()}))
    assert "0.750" in text and "0.600" in text
    assert "[b]" in text


def test_without_limits_or_a_slope_to_compare():
    trajectories = structure()["trajectories"]
    trajectories |= {"relative_slope_error": number(None, undefined=1)}
    trajectories |= {
        "change_correlation": {"r": None, "interval": None},
        "bland_altman": {"bias": 0.5, "bias_interval": None, "limits": None},
    }
    trajectories |= {"calibration_slope": {"slope": None, "interval": None}}
    text = shown(results({"liver": structure(trajectories=trajectories)}))
    assert "relative slope error of liver: 1" in text
    assert "+0.5" in text


BEST = {
    "dataset": "Dataset101_Tiny",
    "candidate": "unet__longflowPlans__3d_fullres",
    "dice": 0.9,
    "folds": [0],
    "subjects": 4,
    "scans": 8,
    "table": [
        {
            "candidate": f"{name}__longflowPlans__3d_fullres",
            "dice": value,
            "from": value - 0.01,
            "to": value + 0.01,
            "difference_to_best": value - 0.9,
            "difference_from": difference,
            "difference_to": difference,
            "p": None if name == "unet" else 0.25,
        }
        for name, value, difference in (("unet", 0.9, 0.0), ("unet_consistent", 0.85, None))
    ],
}


def test_models_are_ranked_by_dice():
    text = shown(BEST, 200, show_best)
    assert "8 validation scans of 4 subjects, fold 0" in text
    assert "0.8900 to 0.9100" in text and "-0.0500" in text
    assert "Chosen: unet 3d_fullres, Dice 0.9000" in text
    assert (
        "Fewer than 6 subjects cannot tell any models apart" in text
        and "0.25" in text
        and "slightly optimistic" in text
    )


def test_which_components_are_kept_and_what_the_choice_is_worth():
    nested = {"dice": 0.885, "optimism": 0.015, "choices": []}
    kept = {"weights": [], "steps": [["[a]", "b"], ["[a]"]], "dice": 0.912}
    text = " ".join(shown({**BEST, "nested": nested, "keep_largest": kept}, 200, show_best).split())
    assert "Chosen without the fold it is judged on: Dice 0.8850; the choice on all subjects looks +0.0150" in text
    assert "kept of: all structures together, [a]. Dice 0.9120, without this 0.9000" in text
    assert "--keep_all_components" in text
    text = shown({**BEST, "nested": None, "keep_largest": {**kept, "steps": []}}, 200, show_best)
    assert "All components are kept" in text and "without the fold" not in text


def test_how_volumes_are_corrected_is_shown_and_why_others_are_not():
    line = {"error": 3.25, "calibrated_error": 1.5, "slope": 1.2, "intercept": -0.75}
    structures = {"[a]": line, "lesion": {"refused": "3 subjects, expected 5 or more"}}
    text = shown({**BEST, "volume_calibration": {"weights": [], "structures": structures}}, 200, show_best)
    assert "[a]" in text and "3.25" in text and "1.5" in text and "-0.75 + 1.2 x volume_ml" in text
    assert "no: 3 subjects, expected 5 or more" in text
    assert "volume_calibrated_ml" not in shown(BEST, 200, show_best)  # a record of an earlier version


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": BEST["table"][:1]}, "nothing was compared"),
        ({"subjects": 1, "scans": 1}, "1 validation scan of 1 subject, .*One subject tells models apart by chance"),
    ],
)
def test_an_uncertain_choice_is_said_to_be_one(changes, words):
    text = " ".join(shown({**BEST, **changes}, 200, show_best).split())
    assert re.search(words, text) and "tell these models apart" not in text
