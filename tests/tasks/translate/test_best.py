import csv

import numpy as np
import pytest

from longflow.data.body import body_mask
from longflow.data.images import read_scan
from longflow.errors import DataError, NotFoundError
from longflow.evaluation.intervals import mean_interval
from longflow.inference.selection import recorded_best
from longflow.reading import read_json
from longflow.tasks.translate import best as best_translation
from longflow.tasks.translate.best import find_best
from tests.data.helpers import edit_table, write_image, write_phase_dataset

#: (fold, source case, requested phase)
SCANS = tuple(
    (fold, f"{subject}_{time}_{source}", phase)
    for fold, subject, time in ((0, "p1", 0), (0, "p1", 30), (1, "p2", 0))
    for source, phase in (("native", "arterial"), ("arterial", "native"))
)
FLOW = {"solver": "midpoint", "steps": 3, "validated": ["heun2", 1], "difference": -0.5}
FLOW |= {"table": [{"solver": "midpoint", "steps": 3, "body_mae": 1.0}]}


@pytest.fixture(autouse=True)
def compared(monkeypatch):
    """Solvers are compared elsewhere: here it is recorded of which models."""
    models = []

    def compare(paths, model, translations, description, progress):
        models.append((model, len(translations)))
        return {"candidate": model.folder.name, **FLOW}

    monkeypatch.setattr(best_translation, "compare_solvers", compare)
    kinds = {"mfm": True, "cronos": True, "lci": False}  # any flow and any method that is none
    kind = {name: type(name, (), {"integrates": integrates}) for name, integrates in kinds.items()}
    monkeypatch.setattr(best_translation, "method_class", kind.__getitem__)
    return models


@pytest.fixture
def raw(paths):
    return write_phase_dataset(paths.raw, times=(0, 30))


@pytest.fixture
def train(paths, raw, write_translation):
    """What a trained model leaves behind: its folds and their translations, errors in the order of SCANS."""

    def write(method, errors, folds=(0, 1), skip=(), configuration="2d"):
        model = paths.model(method, "longflowPlans", configuration)
        for fold in folds:
            model.fold(fold).folder.mkdir(parents=True)
            model.fold(fold).final.touch()
        for (fold, source, phase), error in zip(SCANS, errors, strict=True):
            if fold in folds and source not in skip:
                write_translation(model.fold(fold).validation("translation"), source, phase, float(error), raw=raw)
        return model

    return write


def input_error(raw, subject, time):
    native, arterial = (
        read_scan((raw / "imagesTr" / f"{subject}_{time}_{phase}_0000.nii.gz",)).array[0].astype(float)
        for phase in ("native", "arterial")
    )
    return [np.abs(native - arterial)[body_mask(truth, True)].mean() for truth in (arterial, native)]


def test_the_lowest_error_in_the_body_over_subjects(paths, raw, train):
    """The first: p1 (2 + 4 + 6 + 8) / 4, p2 (10 + 20) / 2; the other one is 9 everywhere."""
    train("mfm", (2, 4, 6, 8, 10, 20))
    train("lci", (9, 9, 9, 9, 9, 9))
    best = find_best(paths, processes=1)
    by_name = {row["candidate"]: row for row in best["table"]}
    assert best["candidate"] == best["table"][0]["candidate"] == "lci__longflowPlans__2d"
    first, other = by_name["mfm__longflowPlans__2d"], by_name["lci__longflowPlans__2d"]
    assert first["body_mae"] == pytest.approx((5 + 15) / 2, abs=1e-3)
    assert (first["from"], first["to"]) == pytest.approx(mean_interval([5.0, 15.0]), abs=1e-3)
    assert first["body_mae to arterial"] == pytest.approx((4 + 10) / 2, abs=1e-3)
    assert first["body_mae to native"] == pytest.approx((6 + 20) / 2, abs=1e-3)
    assert first["difference_to_best"] == pytest.approx((5 - 9 + 15 - 9) / 2, abs=1e-3)
    assert other["difference_to_best"] == 0
    assert best["body_mae"] == pytest.approx(9, abs=1e-3) and best["candidate"] == "lci__longflowPlans__2d"
    assert (best["subjects"], best["translations"], best["folds"]) == (2, 6, [0, 1])
    assert read_json(paths.best) == best


def test_a_flow_and_a_regression_whose_errors_cancel_are_better_together(paths, train, compared):
    """One is too bright by 4, the other too dark by 6: their mean is wrong by 1."""
    flow, other = train("mfm", (4,) * 6), train("lci", (-6,) * 6)
    best = find_best(paths, processes=1)
    assert best["candidate"] == f"{other.folder.name} + {flow.folder.name}"
    assert best["body_mae"] == pytest.approx(1, abs=1e-3)
    assert [row["body_mae"] for row in best["table"][:3]] == pytest.approx([1, 4, 6], abs=1e-3)
    selection = recorded_best(paths)
    assert {member.model for member in selection.members} == {flow, other}
    # each as it was validated; the solvers of the flow are shown
    assert (selection.solver, selection.steps, best["body_mae_of_solver"]) == (None, None, None)
    assert best["solvers"]["candidate"] == flow.folder.name and compared == [(flow, 6)]
    # chosen without either fold, it is the same, and as good
    assert best["nested"]["body_mae"] == pytest.approx(1, abs=1e-3) and abs(best["nested"]["optimism"]) < 1e-3
    assert [choice["candidate"] for choice in best["nested"]["choices"]] == [best["candidate"]] * 2


def test_without_ensembles(paths, train):
    train("mfm", (4,) * 6)
    train("lci", (-6,) * 6)
    best = find_best(paths, processes=1, ensembles=False)
    names = [row["candidate"] for row in best["table"]]
    assert best["candidate"] == "mfm__longflowPlans__2d" and set(names) == {
        best["candidate"],
        "lci__longflowPlans__2d",
        "input",
    }


def test_models_of_different_directions_are_named(paths, train):
    train("lci", (5,) * 6)
    one_way = [source for _, source, _ in SCANS if source.endswith("native")]
    train("mfm", (5,) * 6, skip=one_way)
    message = "lci__.*translates to arterial and native, mfm__.* to native: .*option direction .*--set direction="
    with pytest.raises(DataError, match=message):
        find_best(paths, processes=1)


def test_models_are_ranked_with_the_untranslated_scans(paths, raw, train):
    train("mfm", (5, 5, 5, 5, 5, 5))
    best = find_best(paths, processes=1)
    expected = np.mean(
        [np.mean([input_error(raw, "p1", time) for time in (0, 30)]), np.mean(input_error(raw, "p2", 0))]
    )
    assert best["input_body_mae"] == pytest.approx(expected, rel=1e-5)
    row = best["table"][1]
    assert (row["candidate"], row["body_mae"]) == ("input", best["input_body_mae"])
    assert row["difference_to_best"] == pytest.approx(expected - 5, abs=1e-3)


def test_the_untranslated_scans_are_never_chosen(paths, train):
    train("mfm", (400,) * 6)
    best = find_best(paths, processes=1)
    assert [row["candidate"] for row in best["table"]] == ["input", "mfm__longflowPlans__2d"]
    assert best["candidate"] == "mfm__longflowPlans__2d" and best["table"][0]["difference_to_best"] < 0


def test_prediction_follows_the_record_and_its_solver(paths, train, compared):
    model = train("mfm", (5,) * 6)
    find_best(paths, processes=1)
    selection = recorded_best(paths)
    assert [(member.model, member.folds) for member in selection.members] == [(model, (0, 1))]
    assert (selection.solver, selection.steps, selection.shrinkage) == ("midpoint", 3, 1.0)
    assert compared == [(model, 6)]


def test_the_record_has_the_error_of_the_solver_that_prediction_uses(paths, train):
    train("mfm", (5,) * 6)
    best = find_best(paths, processes=1)
    assert best["body_mae"] == pytest.approx(5, abs=1e-3)
    assert best["body_mae_of_solver"] == pytest.approx(4.5, abs=1e-3)


def test_solvers_are_those_of_the_best_flow_even_where_no_flow_is_chosen(paths, train, compared):
    train("mfm", (8,) * 6)
    better = train("cronos", (7,) * 6)
    train("lci", (5,) * 6)
    best = find_best(paths, processes=1)
    assert best["candidate"] == "lci__longflowPlans__2d"
    assert (best["solver"], best["steps"], best["body_mae_of_solver"]) == (None, None, None)
    assert [model for model, _ in compared] == [better]
    assert best["solvers"]["candidate"] == better.folder.name


def test_without_a_flow_there_are_no_solvers(paths, train, compared):
    train("mfm", (5,) * 6)
    find_best(paths, processes=1)
    assert paths.best_solvers.is_file()
    (paths.model("mfm", "longflowPlans", "2d").folder).rename(paths.results / "elsewhere")
    train("lci", (5,) * 6)
    best = find_best(paths, processes=1)
    assert best["solvers"] is None and not paths.best_solvers.exists()


def test_tables(paths, train):
    train("mfm", (5,) * 6)
    best = find_best(paths, processes=1)
    with open(paths.best_table, newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["candidate"] for row in written] == [row["candidate"] for row in best["table"]]
    with open(paths.best_solvers, newline="") as file:
        assert list(csv.DictReader(file)) == [{"solver": "midpoint", "steps": "3", "body_mae": "1.0"}]


def test_only_folds_that_all_have_are_compared(paths, train, caplog):
    train("mfm", (5,) * 6)
    train("lci", (1,) * 6, folds=(0,))
    assert find_best(paths, processes=1)["candidate"] == "mfm__longflowPlans__2d"
    assert "lci__longflowPlans__2d is excluded" in caplog.text


def test_the_choice_is_compared_with_no_translation_on_new_subjects():
    """Eight subjects: one model is better for all of them."""
    errors = {"input": 3.0, "mfm": 1.0, "worse": 4.0}
    means = {name: {f"s{number}": value + number for number in range(8)} for name, value in errors.items()}
    found = best_translation._advantage_over_input(means)
    assert (found["baseline"], found["probability"], found["recommended"]) == ("input", 1.0, "choice")
    found = best_translation._advantage_over_input({name: means[name] for name in ("input", "worse")})
    assert (found["probability"], found["recommended"]) == (0.0, "baseline")


def test_one_subject_has_no_interval(paths, train):
    train("mfm", (5,) * 6, folds=(0,))
    best = find_best(paths, processes=1)
    assert best["interval"] is None and best["table"][0]["from"] is None and best["subjects"] == 1


def test_nothing_trained(paths, raw):
    with pytest.raises(NotFoundError, match="longflow_train 101"):
        find_best(paths)


def test_models_validated_on_different_scans(paths, train):
    train("mfm", (5,) * 6)
    train("lci", (5,) * 6, skip=["p1_30_native"])
    with pytest.raises(DataError, match=r"not validated on the same scans \(p1_30_native_arterial, fold 0\)"):
        find_best(paths, processes=1)


def test_a_fold_without_translations(paths, train):
    model = train("mfm", (5,) * 6, skip=["p2_0_native", "p2_0_arterial"])
    with pytest.raises(DataError, match=rf"{model.fold(1).validation('translation')} does not exist.*mfm, 2d, fold 1"):
        find_best(paths, processes=1)


def test_a_reference_that_is_missing(paths, raw, train):
    train("mfm", (5,) * 6)
    edit_table(raw, "p1_30_native,p1,30,native\n", "")
    with pytest.raises(DataError, match=r"lacks the references of validation scans: p1_30_arterial_native"):
        find_best(paths, processes=1)


def test_no_body_anywhere(paths, raw, train):
    train("mfm", (5,) * 6)
    for path in (raw / "imagesTr").iterdir():
        write_image(np.full((4, 24, 20), -1000, np.int16), path, (1.5, 1.5, 5.0))
    with pytest.raises(DataError, match="No body is found in any of the 6 validation scans"):
        find_best(paths, processes=1)


def test_phases_on_different_grids(paths, raw, train):
    train("mfm", (5,) * 6)
    write_image(np.zeros((4, 12, 10), np.int16), raw / "imagesTr" / "p1_0_native_0000.nii.gz", (3.0, 3.0, 5.0))
    with pytest.raises(DataError, match=r"size is .*longflow_register"):
        find_best(paths, processes=1)
