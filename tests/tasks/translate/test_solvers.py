from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from longflow.data.body import body_mask
from longflow.data.dataset import read_description
from longflow.data.images import read_scan
from longflow.errors import DataError
from longflow.evaluation.solvers import SOLVERS, planned_setting
from longflow.flow.solvers import count_evaluations
from longflow.inference.models import PredictionSettings, load_models
from longflow.inference.selection import Member, Selection
from longflow.plans import Solver
from longflow.tasks.translate import solvers
from longflow.tasks.translate.pairs import TranslationPrediction
from longflow.tasks.translate.predictor import translate_scan
from longflow.tasks.translate.solvers import best_solver, chosen_scans, compare_solvers, middle
from longflow.tasks.translate.task import TASK
from tests.data.helpers import write_image, write_phase_dataset
from tests.inference.helpers import plans_to_translate, translation_model, use_one_convolution
from tests.tasks.translate.test_metrics import SYNTHRAD, translation_metrics

#: slices of the scans, of which the middle ones are translated
DEPTH = 11


@pytest.fixture(autouse=True)
def _one_convolution(monkeypatch):
    use_one_convolution(monkeypatch)


@pytest.fixture
def few(monkeypatch):
    """Three solvers instead of all."""
    monkeypatch.setattr(solvers, "settings_to_try", lambda models: (list(SOLVERS[:3]), planned_setting(models)))


@pytest.fixture
def raw(paths):
    return write_phase_dataset(paths.raw, shapes=((DEPTH, 24, 20),))


@pytest.fixture
def compare(paths, raw):
    """The comparison of a model on all pairs, subject p1 being of fold 0 and p2 of fold 1."""

    def run(model, **further):
        return compare_solvers(paths, model, out_of_fold(raw), read_description(raw / "dataset.json"), **further)

    return run


def out_of_fold(raw, subjects=("p1", "p2")):
    """Both directions of a pair of every subject, each in a fold of its own."""

    def scan(subject, phase):
        return (raw / "imagesTr" / f"{subject}_0_{phase}_0000.nii.gz",)

    return [
        TranslationPrediction(
            case=f"{subject}_0_{source}_{target}",
            subject=subject,
            time=0.0,
            images=(),
            reference=scan(subject, target),
            fold=fold,
            source=f"{subject}_0_{source}",
            source_phase=source,
            target_phase=target,
            source_images=scan(subject, source),
        )
        for fold, subject in enumerate(subjects)
        for source, target in (("native", "arterial"), ("arterial", "native"))
    ]


def two_folds(paths, plans=None, **further):
    for fold in (0, 1):
        model = translation_model(paths, plans, fold=fold, seed=fold, **further)
    return model


def of(table, phase, solver, steps):
    (row,) = (row for row in table if (row["target_phase"], row["solver"], row["steps"]) == (phase, solver, steps))
    return row


def test_the_solvers_are_known_and_cost_what_table_5_says():
    assert {solver for solver, _ in SOLVERS} <= set(get_args(Solver))
    costs = {one: count_evaluations(*one) for one in SOLVERS}
    assert costs == {
        ("euler", 1): 1,
        ("euler", 2): 2,
        ("euler", 3): 3,
        ("euler", 5): 5,
        ("heun2", 1): 2,
        ("heun3", 1): 3,
        ("rk4", 1): 4,
        ("midpoint", 1): 2,
        ("midpoint", 3): 6,
        ("explicit_adams", 3): 9,
    }


def test_each_fold_translates_what_it_was_not_trained_on(paths, raw, compare, few):
    """Against the translation of the middle slices by the fold's own weights."""
    plans = plans_to_translate(dimensions=2, own_grid=True)
    model = two_folds(paths, plans, configuration="2d", random=True)
    found = compare(model)
    errors = []
    for fold, subject in ((0, "p1"), (1, "p2")):
        source, truth = (
            read_scan((raw / "imagesTr" / f"{subject}_0_{phase}_0000.nii.gz",)) for phase in ("arterial", "native")
        )
        body = body_mask(truth.array[0], True)[1:9]
        settings = PredictionSettings("cpu", solver="euler", steps=2)
        models = load_models(Selection(paths, (Member(model, (fold,)),)), "translate", settings)
        part = replace(source, array=source.array[:, 1:9], geometry=replace(source.geometry, size=(20, 24, 8)))
        translation = translate_scan(models.members[0], part, 1, models.windows(models.members[0]))
        errors.append(translation_metrics(translation, truth.array[:, 1:9], body, (5.0, 1.5, 1.5), [True]))
    row = of(found["table"], "native", "euler", 2)
    for name in TASK.metrics.keys() - SYNTHRAD:
        assert row[name] == pytest.approx(np.mean([error[name] for error in errors]), rel=1e-4), name
    assert errors[0]["body_mae"] != pytest.approx(errors[1]["body_mae"], rel=1e-3)


def test_table_of_a_flow_that_does_nothing(paths, compare):
    """It gives its input back, whatever the solver; the cheapest is as good as any."""
    model = two_folds(paths)
    found = compare(model)
    assert found["candidate"] == model.folder.name
    assert (found["solver"], found["steps"], found["pairs"]) == ("euler", 1, 2)
    for phase in ("arterial", "native"):
        untranslated = of(found["table"], phase, None, None)
        assert (untranslated["evaluations"], untranslated["seconds_per_slice"]) == (0, None)
        for solver, steps in SOLVERS:
            row = of(found["table"], phase, solver, steps)
            assert {name: row[name] for name in TASK.metrics} == {name: untranslated[name] for name in TASK.metrics}
            assert row["evaluations"] == count_evaluations(solver, steps) and row["seconds_per_slice"] > 0
    assert len(found["table"]) == 2 * (1 + len(SOLVERS))
    assert (found["validated"], found["difference"]) == (["heun2", 1], 0)


def test_the_chosen_solver_is_compared_with_the_validated_one(paths, compare):
    """On the same slices, though the validated solver is none of the usual ones."""
    plans = plans_to_translate(dimensions=2, own_grid=True)
    plans.inference.solver, plans.inference.steps = "midpoint", 2
    found = compare(two_folds(paths, plans, configuration="2d", random=True))
    assert found["validated"] == ["midpoint", 2]
    chosen, validated = (
        np.mean([of(found["table"], phase, *setting)["body_mae"] for phase in ("arterial", "native")])
        for setting in ((found["solver"], found["steps"]), ("midpoint", 2))
    )
    assert found["difference"] == pytest.approx(chosen - validated)
    assert len(found["table"]) == 2 * (2 + len(SOLVERS))


def test_progress_tells_how_many_scans_are_left(paths, compare, few):
    told = []
    compare(two_folds(paths), progress=lambda *what: told.append(what))
    assert told[0] == (0, 4, "p1_0_native_arterial, 3 solvers")
    assert [done for done, *_ in told] == [0, 1, 2, 3, 4]


def test_phases_on_different_grids(paths, raw, compare):
    write_image(np.zeros((4, 12, 10), np.int16), raw / "imagesTr" / "p1_0_native_0000.nii.gz", (3.0, 3.0, 5.0))
    with pytest.raises(DataError, match=r"p1_0_.*size is .*longflow_register"):
        compare(two_folds(paths))


def test_slices_without_a_body_choose_nothing(paths, raw, compare, few):
    for path in (raw / "imagesTr").iterdir():
        write_image(np.full((DEPTH, 24, 20), -1000, np.int16), path, (1.5, 1.5, 5.0))
    found = compare(two_folds(paths))
    assert (found["solver"], found["steps"]) == (None, None)
    assert of(found["table"], "native", "euler", 1)["body_mae"] is None


@pytest.mark.parametrize(
    ("dimensions", "expected"),
    # a 3D patch is 4 slices of 5 mm, less than 8 slices of the file
    [(2, slice(1, 9)), (3, slice(1, 9))],
)
def test_the_middle_slices(paths, raw, dimensions, expected):
    name = {2: "2d", 3: "3d_fullres"}[dimensions]
    model = translation_model(paths, plans_to_translate(dimensions=dimensions), configuration=name)
    models = load_models(Selection(paths, (Member(model, (0,)),)), "translate", PredictionSettings("cpu"))
    scan = read_scan((raw / "imagesTr" / "p1_0_native_0000.nii.gz",))
    assert middle(scan, models) == (expected, slice(None), slice(None))


@pytest.mark.parametrize(("spacing", "count"), [(5.0, 8), (2.0, 10), (0.5, 11)])
def test_as_many_slices_as_a_patch_is_deep(paths, raw, spacing, count):
    """4 slices of 5 mm are 20 mm: 4, 10 or (of 11 that there are) 40 slices of the file."""
    model = translation_model(paths)
    models = load_models(Selection(paths, (Member(model, (0,)),)), "translate", PredictionSettings("cpu"))
    scan = read_scan((raw / "imagesTr" / "p1_0_native_0000.nii.gz",))
    scan.geometry = replace(scan.geometry, spacing=(1.5, 1.5, spacing))
    index = middle(scan, models)[0]
    assert index.stop - index.start == count


def test_slices_lie_along_the_axis_that_the_plan_puts_first(paths, raw):
    plans = plans_to_translate(dimensions=2)
    plans.transpose_forward, plans.transpose_backward = [1, 0, 2], [1, 0, 2]
    model = translation_model(paths, plans, configuration="2d")
    models = load_models(Selection(paths, (Member(model, (0,)),)), "translate", PredictionSettings("cpu"))
    scan = read_scan((raw / "imagesTr" / "p1_0_native_0000.nii.gz",))
    assert middle(scan, models) == (slice(None), slice(8, 16), slice(None))


def test_pairs_are_spread_over_folds_and_keep_both_directions(raw):
    scans = out_of_fold(raw, [f"p{number}" for number in range(20)])
    chosen = chosen_scans(scans, most=5)
    assert [one.fold for one in chosen] == [fold for fold in (0, 5, 10, 14, 19) for _ in range(2)]
    assert chosen_scans(scans, most=100) == scans


def row(solver, steps, evaluations, error, phase="native"):
    return {"target_phase": phase, "solver": solver, "steps": steps, "evaluations": evaluations, "body_mae": error}


def test_the_lowest_mean_over_directions():
    table = [
        row(None, None, 0, 0.0),
        row("euler", 1, 1, 1.0),
        row("euler", 1, 1, 9.0, "arterial"),
        row("heun2", 1, 2, 2.0),
        row("heun2", 1, 2, 4.0, "arterial"),
        row("rk4", 1, 4, 3.0),
        row("rk4", 1, 4, None, "arterial"),
    ]
    assert best_solver(table) == ("heun2", 1)


def test_of_solvers_that_are_alike_the_cheapest():
    table = [row("rk4", 1, 4, 3.0), row("midpoint", 1, 2, 3.029), row("heun2", 1, 2, 3.028), row("euler", 1, 1, 3.031)]
    assert best_solver(table) == ("heun2", 1)


def test_table_5():
    """The MAE of the test column: RK2 with one step, as the paper chose."""
    maes = (6.513, 5.591, 5.529, 5.565, 5.399, 5.553, 5.674, 5.601, 5.744)
    table = [row(*one, count_evaluations(*one), mae) for one, mae in zip(SOLVERS[:9], maes, strict=True)]
    assert best_solver(table) == ("heun2", 1)


def test_nothing_defined():
    assert best_solver([row("euler", 1, 1, None)]) == (None, None)
