import io

import pytest
from rich.console import Console

from longflow.tasks.translate.best_tables import show_best
from longflow.tasks.translate.task import TASK


def model(candidate, error, difference, interval=(None, None)):
    low, high = (None, None) if interval == (None, None) else (error - 1, error + 1)
    return {
        "candidate": candidate,
        "body_mae": error,
        "from": low,
        "to": high,
        "difference_to_best": difference,
        "difference_from": interval[0],
        "difference_to": interval[1],
        "p": 0.3,
        "body_mae to arterial": error + 2,
        "body_mae to native": error - 2,
    }


def solver(name, steps, evaluations, error, phase):
    numbers = dict.fromkeys(TASK.metrics, 0.5) | {"body_mae": error}
    how = {"solver": name, "steps": steps, "evaluations": evaluations}
    return {"target_phase": phase, **how, "seconds_per_slice": 0.25 if name else None, **numbers}


TRANSLATION = {
    "dataset": "Dataset101_Tiny",
    "ct": [True],
    "candidate": "mfm__longflowPlans__2d",
    "solver": "heun2",
    "steps": 1,
    "body_mae": 12.0,
    "body_mae_of_solver": 12.0,
    "input_body_mae": 30.0,
    "advantage": {"baseline": "input", "probability": 0.97, "level": 0.9, "subjects": 12, "recommended": "choice"},
    "folds": [0, 1],
    "subjects": 12,
    "translations": 24,
    "table": [
        model("mfm__longflowPlans__2d", 12.0, 0.0, (0.0, 0.0)),
        model("regression__longflowPlans__2d", 14.0, 2.0, (1.5, 2.5)),
        model("input", 30.0, 18.0, (17.0, 19.0)),
    ],
    "solvers": {
        "candidate": "mfm__longflowPlans__2d",
        "solver": "heun2",
        "steps": 1,
        "validated": ["heun2", 1],
        "difference": 0.0,
        "pairs": 8,
        "slices": [8, 8],
        "device": "cuda",
        "table": [
            solver(*one, phase)
            for phase in ("arterial", "native")
            for one in ((None, None, 0, 30.0), ("euler", 1, 1, 13.0), ("heun2", 1, 2, 11.5))
        ],
    },
}


def shown(**changes):
    console = Console(file=io.StringIO(), width=160, soft_wrap=True)
    show_best({**TRANSLATION, **changes}, console)
    return console.file.getvalue()


def row_of(text, start):
    return next(line.split() for line in text.splitlines() if line.strip().startswith(start))


def test_models_beside_the_untranslated_scans():
    text = shown()
    assert "24 validation translations of 12 subjects, folds 0, 1: MAE in the body [HU]" in text
    assert row_of(text, "mfm 2d")[2:] == ["12", "11", "to", "13", "14", "10"]
    assert row_of(text, "regression 2d")[2:] == ["14", "13", "to", "15", "16", "12", "+2", "+1.5", "to", "+2.5", "0.3"]
    assert row_of(text, "untranslated scans")[2] == "30"


def test_solvers_of_each_direction_and_the_choice():
    text = shown()
    assert "mfm 2d, to arterial: solvers" in text and "mfm 2d, to native: solvers" in text
    assert row_of(text, "heun2 (1)")[:4] == ["heun2", "(1)", "2", "11.5"]
    assert row_of(text, "untranslated ")[0:3] == ["untranslated", "scans", "30"]
    assert "Chosen: mfm 2d with heun2 (1), which longflow_predict uses now, MAE in the body 12 HU as validated" in text
    assert "8 validation pairs, both ways, the 8 middle slices of each" in text and "(cuda)" in text
    assert "Model and solver were chosen" in text and "judged: the figures are slightly optimistic" in text
    assert "intervals over so few" not in text and "No model is better" not in text


def test_the_error_of_the_solver_that_prediction_uses():
    assert "Models were compared as they were validated" not in shown()
    solvers = {**TRANSLATION["solvers"], "validated": ["euler", 5], "difference": -0.25}
    text = shown(solvers=solvers, body_mae_of_solver=11.75)
    assert "with euler (5). On the same slices, the chosen solver differs from it by -0.25 HU: expect 11.75 HU" in text


def test_an_ensemble_keeps_the_solvers_of_its_models():
    name = "mfm__longflowPlans__2d + regression__longflowPlans__2d"
    table = [model(name, 11.0, 0.0, (0.0, 0.0)), *TRANSLATION["table"]]
    nested = {"body_mae": 12.5, "optimism": 1.5, "choices": []}
    without = {"solver": None, "steps": None, "body_mae_of_solver": None}
    text = " ".join(shown(candidate=name, table=table, body_mae=11.0, nested=nested, **without).split())
    assert "Chosen: mfm 2d + regression 2d, MAE in the body 11 HU as validated" in text
    assert "An ensemble is used with the solvers with which its models were validated" in text
    assert "Chosen without the fold it is judged on: MAE in the body 12.5 HU; the choice on all" in text
    assert "looks +1.5 HU better" in text


def test_numbers_that_are_not_defined_for_these_units_have_no_column():
    table = [{**row, "psnr_mfm": None, "body_mae": None} for row in TRANSLATION["solvers"]["table"]]
    text = shown(ct=[False], solvers={**TRANSLATION["solvers"], "table": table})
    assert text.count("as in MFM") == 2  # SSIM alone, of both directions
    assert "[input units]" in text


def test_a_model_that_is_no_flow():
    text = shown(
        candidate="regression__longflowPlans__2d", solver=None, steps=None, body_mae=14.0, body_mae_of_solver=None
    )
    assert "Chosen: regression 2d, MAE in the body 14 HU" in text
    assert "mfm 2d, to native: solvers" in text
    assert "Solvers were compared" not in shown(solvers=None, body_mae_of_solver=None)


@pytest.mark.parametrize("error", [30.0, 31.0])
def test_models_that_are_no_better_than_doing_nothing(error):
    assert "No model is better than the untranslated scans." in shown(body_mae=error)


def test_few_subjects_and_other_slices():
    text = shown(subjects=1, solvers={**TRANSLATION["solvers"], "slices": [8, 11], "pairs": 1})
    assert "One subject" in text and "1 validation pair, both ways, the 8 to 11 middle slices" in text


def test_many_models():
    assert "... and 1 more in the file." in shown(table=TRANSLATION["table"] * 7)


def test_the_probability_of_being_better_than_no_translation():
    assert "On new subjects, the choice is better than the untranslated scan with a probability of 97%" in shown()
    doubtful = {**TRANSLATION["advantage"], "probability": 0.6, "recommended": "baseline"}
    assert "less than 90%: recommended is the untranslated scan." in shown(advantage=doubtful)
