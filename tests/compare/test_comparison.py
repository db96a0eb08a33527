"""Trainings, reused models, and the folders to predict from."""

import os

import pytest

from longflow.compare.comparison import Budget, reused
from longflow.compare.variants import Variant
from longflow.errors import InUseError
from longflow.files import write_json
from longflow.inference.selection import select
from longflow.plans import TrainingPlan, read_plans, write_plans
from longflow.reading import read_json
from tests.compare.helpers import CRONOS, LCI, MEAN, NOISY, comparison_of, of, trained
from tests.conftest import another_process_holds

PLAN = TrainingPlan(epochs=4, iterations_per_epoch=5, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("budget", "arguments", "name", "text"),
    [
        (Budget(max_time=5400), ("--max_time", "5400s"), "5400s", "5400s of training and validating"),
        (Budget(iterations=20), ("--iterations", "20"), "20_iterations", "20 iterations"),
        (Budget(epochs=4), ("--epochs", "4"), "4_epochs", "4 epochs"),
    ],
)
def test_a_budget_as_it_is_typed_and_named(budget, arguments, name, text):
    assert (budget.arguments, budget.name, budget.text) == (arguments, name, text)


@pytest.mark.parametrize(
    ("budget", "settings", "same"),
    [
        (Budget(iterations=20), {"iterations": 20}, True),
        (Budget(iterations=20), {"epochs": 4}, True),
        (Budget(iterations=20), {}, True),  # the plan's
        (Budget(epochs=4), {"iterations": 20}, True),
        (Budget(epochs=4), {"iterations": 21}, False),
        (Budget(max_time=60), {"max_time": 60.0}, True),
        (Budget(max_time=60), {"max_time": 61.0}, False),
        (Budget(max_time=60), {"iterations": 20}, False),
        (Budget(iterations=20), {"iterations": 20, "max_time": 60.0}, False),
    ],
)
def test_the_same_budget(budget, settings, same):
    assert budget.is_that_of(settings, PLAN) == same


def test_runs_go_seed_by_seed_and_a_variant_without_training_runs_once_for_a_fold(dataset):
    comparison = comparison_of(dataset, CRONOS, LCI, folds=(0, 1), seeds=(0, 7))
    found = [(run.variant.name, run.fold, run.seed) for run in comparison.runs]
    assert found == [
        *(("cronos", 0, 0), ("lci", 0, 0), ("cronos", 1, 0), ("lci", 1, 0)),
        *(("cronos", 0, 7), ("cronos", 1, 7)),
    ]


def test_a_model_of_the_standard_results_is_reused(dataset):
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    assert "--iterations 3 --seed 0" in comparison.training(run).typed and reused(comparison, [run]) == []
    model = trained(dataset, dataset.results.parent)
    assert comparison.training(run) is None
    assert comparison.model(run) == model and reused(comparison, [run]) == [run]


def test_a_further_seed_of_a_study_is_reused(dataset):
    trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS, seeds=(0, 1))
    first, second = comparison.runs
    assert comparison.training(first) is None and comparison.training(second) is not None
    model = trained(dataset, dataset.of_seed(1), seed=1)
    assert comparison.training(second) is None and comparison.model(second) == model
    assert reused(comparison, comparison.runs) == [first, second]


@pytest.mark.parametrize(
    "settings",
    [
        *({"iterations": 4}, {"max_time": 3.0}, {"seed": 1}, {"device": "cuda"}, {"learning_rate": 0.1}),
        *({"pretrained": "tfm"}, {"options": {"noise": 0.1}}, {"labelled_subjects": "2"}),
    ],
)
def test_a_model_of_another_training_is_not_reused(dataset, settings):
    model = trained(dataset, dataset.results.parent, **settings)
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    assert comparison.training(run) is not None and comparison.model(run) != model


def test_a_model_of_other_plans_or_an_unfinished_one_is_not_reused(dataset):
    model = trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS)
    run, plans = of(comparison, CRONOS), read_plans(dataset.plans())
    assert comparison.is_trained(model, run)
    for changes in ({"training": PLAN}, {"temporal": plans.temporal.model_copy(update={"time_scale": 11.0})}):
        write_plans(plans.model_copy(update=changes), model.plans)
        assert not comparison.is_trained(model, run)
    write_plans(plans, model.plans)
    model.fold(0).final.unlink()
    assert not comparison.is_trained(model, run)


def test_other_models_are_trained_in_their_own_results(dataset):
    trained(dataset, dataset.results.parent)  # fits cronos, not the others
    comparison = comparison_of(dataset, CRONOS, NOISY, seeds=(0, 1))
    for run in (of(comparison, NOISY), of(comparison, CRONOS, seed=1), of(comparison, NOISY, seed=1)):
        own = comparison.own_results(run)
        assert (
            own == dataset.results / "comparisons" / "trained_3_iterations" / run.variant.training / f"seed_{run.seed}"
        )
        command = comparison.training(run)
        assert "--overwrite" not in command.arguments
        options = {text for text in command.arguments if text.startswith("--set")}
        assert options == {f"--set={name}={value}" for name, value in run.variant.options.items()}
        trained(dataset, own, options=run.variant.options, seed=run.seed)
        assert comparison.training(run) is None
        assert comparison.model(run).folder.is_relative_to(own)


def test_a_model_of_older_plans_is_trained_from_scratch(dataset):
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    trained(dataset, comparison.own_results(run))
    plans = read_plans(dataset.plans())
    write_plans(plans.model_copy(update={"training": PLAN}), dataset.plans())
    comparison = comparison_of(dataset, CRONOS)
    assert "--overwrite" in comparison.training(run).arguments


def test_a_fold_of_older_plans_is_not_reused_once_another_fold_has_newer_ones(dataset):
    """The folder of a model has one file of plans, that of the fold that began last."""
    model = trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    record = read_json(model.fold(0).run)
    write_json({**record, "plan_identity": comparison.plans.identity("3d_fullres")}, model.fold(0).run)
    assert comparison.is_trained(model, run)
    write_json({**record, "plan_identity": "older"}, model.fold(0).run)
    assert not comparison.is_trained(model, run)
    own = trained(dataset, comparison.own_results(run))
    write_json({**record, "plan_identity": "older"}, own.fold(0).run)
    own.fold(0).final.unlink()  # begun, and stopped
    assert "--overwrite" in comparison.training(run).arguments


def test_outdated_trainings_are_deleted_and_no_others(dataset):
    comparison = comparison_of(dataset, CRONOS, NOISY, seeds=(0, 1))
    cronos, noisy = of(comparison, CRONOS), of(comparison, NOISY)
    kept = trained(dataset, comparison.own_results(cronos)).fold(0)
    other = trained(dataset, comparison.own_results(noisy), options={"noise": 0.1}, device="cuda").fold(0)
    begun = trained(dataset, comparison.own_results(of(comparison, CRONOS, seed=1)), seed=1).fold(0)
    begun.final.unlink()
    with another_process_holds(other.lock), pytest.raises(InUseError, match=r"Fold 0 of cronos__.* is being trained"):
        comparison_of(dataset, NOISY).delete_outdated()
    assert comparison.delete_outdated() == ["noisy, fold 0, seed 0"]
    assert kept.final.is_file() and not other.folder.exists() and begun.run.is_file()
    assert comparison.delete_outdated() == [] and "--overwrite" not in comparison.training(noisy).arguments


def test_workers_are_passed_on(dataset):
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    assert "-np" not in comparison.training(run).arguments
    object.__setattr__(comparison, "workers", 0)
    assert "-np 0" in comparison.training(run).typed


def test_a_prediction_hides_context(dataset):
    hiding = Variant("blind", "cronos", hidden="last:2")
    comparison = comparison_of(dataset, CRONOS, hiding)
    assert "--hide_context last:2" in comparison.prediction(of(comparison, hiding)).typed
    assert "--hide_context" not in comparison.prediction(of(comparison, CRONOS)).typed


def test_the_folder_to_predict_from_holds_one_model_and_its_settings(dataset, monkeypatch):
    model = trained(dataset, dataset.results.parent)
    few = Variant("few", "cronos", solver="euler", steps=2)
    comparison = comparison_of(dataset, MEAN, few, LCI)
    found = {}
    for variant in comparison.variants:
        results = comparison.write_model(of(comparison, variant))
        monkeypatch.setenv("longflow_results", str(results))
        found[variant.name] = select(dataset.name)
        monkeypatch.delenv("longflow_results")
    (mean,) = found["cronos, mean"].members
    assert os.path.samefile(mean.model.fold(0).final, model.fold(0).final) and mean.folds == (0,)
    assert (found["cronos, mean"].reduction, found["cronos, mean"].shrinkage) == ("mean", 1.0)
    assert (found["few"].solver, found["few"].steps, found["few"].reduction) == ("euler", 2, None)
    (lci,) = found["lci"].members
    assert lci.model.method == "lci" and lci.folds == ()
    assert read_json(lci.model.plans) == read_json(dataset.plans())


def test_a_model_that_is_trained_again_predicts(dataset):
    model = trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS)
    run = of(comparison, CRONOS)
    comparison.write_model(run)
    final = model.fold(0).final
    final.unlink()
    trained(dataset, dataset.results.parent)
    copy = comparison.write_model(run) / dataset.name / model.folder.name / "fold_0" / final.name
    assert os.path.samefile(copy, final)


def test_training_records_the_costs(dataset):
    model = trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS, LCI)
    assert comparison.cost(of(comparison, CRONOS))["seconds"] == 2.5
    assert comparison.cost(of(comparison, LCI)) == {}
    record = read_json(model.fold(0).run)
    del record["cost"]  # trained before it was recorded
    write_json(record, model.fold(0).run)
    assert comparison.cost(of(comparison, CRONOS)) == {}
