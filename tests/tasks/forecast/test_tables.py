from io import StringIO

import pytest
from rich.console import Console

from longflow.tasks.forecast.comparison import compare
from longflow.tasks.forecast.structures import structure_rows, summarise_structure
from longflow.tasks.forecast.tables import show_best, show_forecasts
from tests.tasks.forecast.test_comparison import ROWS, rows_of
from tests.tasks.forecast.test_structures import box, target

BEST = {
    "dataset": "Dataset101_Tiny",
    "candidate": "cronos__longflowPlans__3d_fullres (last)",
    "shrinkage": 0.8,
    "nrmse": 0.03,
    "lci_nrmse": 0.05,
    "best_rung": "linear",
    "best_rung_nrmse": 0.045,
    "advantage": {"baseline": "linear", "probability": 0.97, "level": 0.9, "subjects": 8, "recommended": "choice"},
    "nested": {"nrmse": 0.031, "lci_nrmse": 0.05, "optimism": 0.001, "choices": []},
    "folds": [0, 1],
    "subjects": 4,
    "targets": 8,
    "undefined_targets": 0,
    "table": [
        {
            "candidate": name,
            "shrinkage": shrinkage,
            "nrmse": value,
            "relative_to_lci": value / 0.05,
            "nrmse_unshrunk": value,
        }
        for name, shrinkage, value in (
            ("cronos__longflowPlans__3d_fullres (last)", 0.8, 0.03),
            ("lci", 0.0, 0.05),
        )
    ],
}


AVERAGE = {"shrinkage_of_a_fold": 0.46, "own_share": 0.58, "measured_on": "imagesTs", "forecasts": 6, "nrmse": 0.028}


def shown(show, content, width=200):
    console = Console(file=StringIO(), width=width, soft_wrap=True)
    show(content, console)
    return console.file.getvalue()


def results(rows):
    return {"methods": ["cronos", "tfm"], "time_unit": "months", **compare(rows)}


def test_forecasts_are_shown_with_lci_and_the_best_rung():
    text = shown(show_forecasts, results(ROWS))
    assert "4 targets of 2 subjects" in text and "(cronos, tfm)" in text
    for cell in ("0.4000", "0.5833", "0.3000", "image (LCI)", "PSNR [dB]", "[months]", "changed region"):
        assert cell in text
    assert "(context mean)" in text and "context mean (best)" in text and "skill against" in text
    assert "Better than LCI in 3 of 4 targets (75%" in text
    assert "Better than context mean in 2 of 4 targets (50%" in text
    assert text.count("too few subjects for a verdict, which takes 6") == 2


def test_where_lci_is_the_best_rung_it_is_shown_once():
    rows = rows_of(*((f"{subject}1", subject, 0.1, 0.2, 0.3, 1.0) for subject in "abc"))
    text = shown(show_forecasts, results(rows))
    assert "LCI (best)" in text and "best rung" not in text and text.count("Better than") == 1


def test_the_changed_region_is_compared_with_a_forecast_of_no_change():
    assert "Changed region: " not in shown(show_forecasts, results(ROWS))
    rows = [{**row, "changed_nrmse": 0.1, "changed_null": 0.125} for row in ROWS]
    text = shown(show_forecasts, results(rows))
    assert "NRMSE of the forecast 0.1000; LCI without its noise, a forecast of no change, would have 0.1250." in text


def test_numbers_that_are_not_defined_are_counted():
    text = shown(show_forecasts, results(ROWS))
    assert "not defined" in text
    assert "SSIM [%] of LCI: 4" in text and "NRMSE of" not in text.split("Targets excluded")[1]


def test_one_horizon_has_no_table_of_its_own():
    assert "By horizon" in shown(show_forecasts, results(ROWS))
    assert "By horizon" not in shown(show_forecasts, results(rows_of(("a1", "a", 0.1, 0.2, 0.3, 1.0))))


@pytest.mark.parametrize(
    ("forecast", "verdict"), [(0.1, "better than LCI"), (0.3, "worse than LCI"), (0.2, "a tie with LCI")]
)
def test_the_difference_to_lci_is_judged_by_its_test(forecast, verdict):
    rows = rows_of(*((f"{subject}1", subject, forecast, 0.2, 0.3, 1.0) for subject in "abcdef"))
    p = 1 if "tie" in verdict else 0.031
    assert f"sign-flip test p = {p}: {verdict})." in shown(show_forecasts, results(rows))


def test_too_few_subjects_have_no_verdict():
    rows = rows_of(*((f"{subject}1", subject, 0.1, 0.2, 0.3, 1.0) for subject in "abc"))
    assert "p = 0.25: too few subjects for a verdict, which takes 6)." in shown(show_forecasts, results(rows))


def test_the_choice_and_its_honest_estimate():
    text = shown(show_best, BEST)
    assert "8 validation targets of 4 subjects, folds 0, 1" in text
    assert "Chosen: cronos 3d_fullres (last) with s = 0.80" in text
    assert "0.03100" in text and "0.600 x" in text
    assert "differs by +0.00100 from the NRMSE of the same choice made on all targets" in text
    assert "LCI 0.05000, best rung without training (linear) 0.04500." in text


def test_the_probability_of_being_better_than_the_best_rung():
    sentence = "On new subjects, the choice is better than linear with a probability of"
    assert f"{sentence} 97%" in shown(show_best, BEST)
    doubtful = {**BEST["advantage"], "probability": 0.6, "recommended": "baseline"}
    assert "less than 90%: recommended is linear." in shown(show_best, {**BEST, "advantage": doubtful})
    assert sentence not in shown(show_best, {**BEST, "nrmse": 0.045})  # the choice is the rung


def test_a_single_fold_is_said_to_be_optimistic():
    text = shown(show_best, {**BEST, "nested": None, "folds": [0]})
    assert "Without subjects of another fold" in text and "slightly optimistic" in text


def test_constant_lci_leaves_the_ratio_empty():
    table = [{**row, "relative_to_lci": None} for row in BEST["table"]]
    text = shown(show_best, {**BEST, "table": table * 15})
    assert "and 10 more in the file" in text and " x" not in text


def test_the_shrinkage_of_the_average_of_folds_is_explained():
    text = shown(show_best, {**BEST, "average_of_folds": AVERAGE})
    assert "averages 2 folds, so s = 0.80 and not 0.46" in text
    assert "58% of the squared change in a forecast is a fold's own (measured on 6 forecasts of imagesTs)" in text
    bound = {**AVERAGE, "measured_on": "training subjects"}
    assert "of training subjects, where folds agree more, so at least)" in shown(
        show_best, {**BEST, "average_of_folds": bound}
    )


def test_the_context_rules_are_shown():
    table = [{"rule": "latest", "nrmse": 0.02}, {"rule": "spread", "nrmse": 0.01}]
    rules = {"targets": 1, "subjects": 1, "lci_nrmse": 0.03, "table": table}
    text = shown(show_best, {**BEST, "context_rule": "spread", "context_rules": rules})
    assert "Context rule: spread. NRMSE on 1 validation target with more scans than the model takes" in text
    assert "latest 0.02000, spread 0.01000 (LCI 0.03000)" in text


def structure_results(rung="linear", labelled=("a", "b")):
    """Two subjects; a chamber of 100 voxels at the last scan, of which the truth loses half and the forecast 40 %."""
    rows = []
    for subject in ("a", "b"):
        made = {"forecast": box(60), "lci": box(100), rung: box(80 if rung != "lci" else 100), "acquired": box(55)}
        labels = {"labels": box(50), "context_labels": box(100)} if subject in labelled else {}
        rows += [
            {"subject": subject, **row} for row in structure_rows(target(**labels, **made), "[chamber]", (1,), (1,))
        ]
    segmenter = {"dataset": "Dataset103_Segment", "method": ["unet"], "configuration": ["2d"]}
    by_structure = {"[chamber]": summarise_structure(rows, rung)}
    further = {"subjects_of_segmenter_training": ["a"], "best_rung": rung, "by_structure": by_structure}
    return {**results(ROWS), "structures": {"segmenter": segmenter, **further}}


def cells_of(text, first):
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{first}  "))
    return line.split(first)[1].split()


def test_structures_are_shown_with_the_baselines_and_the_error_of_the_segmenter():
    text = shown(show_forecasts, structure_results())
    assert "Segmented by Dataset103_Segment unet 2d" in text and "[chamber]" in text
    table = text[text.index("Segmented by") :]
    assert cells_of(table, "reference") == ["0.15", "50.0"]
    assert cells_of(table, "forecast") == ["0.18", "0.03", "20.0", "0.909", "40.0", "10.0"]
    assert cells_of(table, "linear") == ["0.24", "0.09", "60.0", "0.769", "20.0", "30.0"]
    assert cells_of(table, "LCI") == ["0.3", "0.15", "100.0", "0.667", "0.0", "50.0"]
    assert cells_of(table, "acquired scan") == ["0.165", "0.015", "10.0", "0.952", "45.0", "5.0"]
    assert cells_of(table, "forecast − LCI") == ["-0.12", "-80.0", "+0.242", "-40.0"]
    assert cells_of(table, "forecast − linear") == ["-0.06", "-40.0", "+0.140", "-20.0"]
    assert "trained on 1 of the subjects" in text and "Without a label map" not in text


def test_structures_without_label_maps_say_so():
    text = shown(show_forecasts, structure_results("lci", labelled=("b",)))
    assert "Without a label map: [chamber] in 1 target. There the reference is the acquired scan" in text
    assert "forecast − LCI" in text and text.count("forecast − ") == 1
