from dataclasses import replace

import pytest

from longflow.errors import ConfigurationError, ModelError, NotFoundError
from longflow.inference.models import PredictionSettings, load_models, solver_settings, task_of
from longflow.inference.selection import Member, Selection, select
from longflow.methods.registry import build_method
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.plans import read_plans, write_plans
from tests.inference.helpers import LABELS, segmentation_model
from tests.training.helpers import finished_model


@pytest.fixture
def forecasting(dataset):
    finished_model(dataset, read_plans(dataset.plans()), fold=0)
    finished_model(dataset, read_plans(dataset.plans()), fold=1, seed=1)
    return select()


def load_on_cpu(selection, task="forecast", **settings):
    return load_models(selection, task, PredictionSettings("cpu", **settings))


def test_a_method_for_each_fold_ready_to_predict(forecasting):
    models = load_on_cpu(forecasting, solver="midpoint", steps=3)
    (member,) = models.members
    assert len(member.methods) == 2 and not any(method.training for method in member.methods)
    assert {(method.solver, method.steps) for method in member.methods} == {("midpoint", 3)}
    assert models.settings()["folds"] == [[0, 1]] and models.settings()["method"] == ["cronos"]


def test_of_several_models_one_at_a_time_is_on_the_device(forecasting, dataset):
    finished_model(dataset, read_plans(dataset.plans()), "tfm")
    members = [Member(dataset.model(name, "longflowPlans", "3d_fullres"), (0,)) for name in ("cronos", "tfm")]
    models = load_on_cpu(replace(forecasting, members=tuple(members)))
    assert models.candidate == "cronos__longflowPlans__3d_fullres + tfm__longflowPlans__3d_fullres"
    assert models.weights == [digest for one in models.members for digest in one.weights] and len(models.weights) == 2
    moves = []
    for member in models.members:
        member.methods[0].to = lambda place, name=member.member.model.method: moves.append((name, str(place)))
    models.device = "there"
    for member in models.in_turn():
        moves.append((member.member.model.method, "used"))
    places = [("there", "used", "cpu")] * 2
    assert moves == [(name, place) for name, own in zip(("cronos", "tfm"), places, strict=True) for place in own]
    models.members, moves[:] = models.members[:1], []
    assert [len(list(models.in_turn())), moves] == [1, [("cronos", "there")]]  # a single one stays


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("midpoint", 3)),
        ({"steps": 5}, ("midpoint", 5)),
        ({"solver": "euler", "steps": 2}, ("euler", 2)),
        # three steps were chosen for another solver, so they are the plan's
        ({"solver": "rk4"}, ("rk4", 10)),
    ],
)
def test_a_selected_solver_is_used_unless_another_is_given(forecasting, flags, expected):
    selection = replace(forecasting, solver="midpoint", steps=3)
    (member,) = load_on_cpu(selection, **flags).members
    assert {(method.solver, method.steps) for method in member.methods} == {expected}
    assert member.plans.inference.steps == 10


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ("euler", 3)),
        ({"steps": 5}, ("euler", 5)),
        ({"solver": "euler"}, ("euler", 3)),
        # measured for the planned solver alone
        ({"solver": "rk4"}, ("rk4", 10)),
    ],
)
def test_all_folds_take_the_most_steps_that_the_training_of_one_recorded(forecasting, flags, expected):
    (member,) = forecasting.members
    for fold, steps in ((0, 1), (1, 3)):
        file = member.model.fold(fold).final
        checkpoint = read_checkpoint(file)
        checkpoint.header["solver_steps"] = {"solver": "euler", "planned": 10, "equal": steps}
        write_checkpoint(checkpoint, file)
    (loaded,) = load_on_cpu(forecasting, **flags).members
    assert {(method.solver, method.steps) for method in loaded.methods} == {expected}


def test_some_of_the_folds(forecasting):
    """A member that has none of them keeps all."""
    models = load_on_cpu(forecasting)
    (member,) = models.of_folds([1, 7]).members
    assert member.methods == models.members[0].methods[1:] and member.member.folds == (1,)
    assert models.of_folds([1]).settings()["folds"] == [[1]] and models.settings()["folds"] == [[0, 1]]
    assert models.of_folds([]).settings() == models.settings()


def test_how_a_flow_is_integrated(forecasting):
    """dopri5 chooses its own steps; a baseline has none."""
    for solver, evaluations in (("euler", 3), ("heun2", 6), ("dopri5", None)):
        (member,) = load_on_cpu(forecasting, solver=solver, steps=3).members
        expected = {"solver": solver, "steps": 3, "function_evaluations": evaluations}
        assert solver_settings(member.methods[0]) == expected
    baseline = build_method("lci", member.plans, "3d_fullres")
    assert set(solver_settings(baseline).values()) == {None}


def test_what_was_trained_on_is_known(dataset):
    segmentation_model(dataset)
    assert task_of(select()) == "segment"
    models = load_on_cpu(select(), "segment")
    assert models.description.labels == LABELS and models.plans.task == "segment"


@pytest.mark.parametrize("mirror", [None, True, False])
def test_mirroring_is_the_method_s_unless_given(dataset, forecasting, mirror):
    assert load_on_cpu(forecasting, mirror=mirror).mirror == bool(mirror)
    segmentation_model(dataset)
    assert load_on_cpu(select(method="unet"), "segment", mirror=mirror).mirror == (mirror is not False)


def test_a_baseline_needs_no_solver(dataset):
    plans = read_plans(dataset.plans())
    model = dataset.model("lci", "longflowPlans", "3d_fullres")
    write_plans(plans, model.plans)
    selection = Selection(dataset, (Member(model, ()),))
    for given in ({"solver": "euler"}, {"steps": 3}):
        with pytest.raises(ConfigurationError, match=r"lci__.* integrates no flow and needs no solver"):
            load_on_cpu(selection, **given)
    assert load_on_cpu(selection).members


def test_options_of_a_method_without_training_come_from_the_record_and_are_in_the_sidecar(dataset):
    model = dataset.model("motion", "longflowPlans", "3d_fullres")
    write_plans(read_plans(dataset.plans()), model.plans)
    usual, other = (load_on_cpu(Selection(dataset, (Member(model, (), given),))) for given in ({}, {"step": 0.75}))
    assert usual.members[0].methods[0].options == {"step": 0.5} and "options" not in usual.settings()
    assert other.members[0].methods[0].options == {"step": 0.75}
    assert other.settings()["options"] == [{"step": 0.75}]


def test_what_does_not_fit(dataset, forecasting):
    with pytest.raises(ConfigurationError, match="model for the task 'forecast', not for 'segment'"):
        load_on_cpu(forecasting, "segment")
    with pytest.raises(NotFoundError, match="Did you mean 'euler'"):
        load_on_cpu(forecasting, solver="eular")
    forecasting.members[0].model.fold(1).final.write_text("")
    with pytest.raises(ModelError, match="is damaged"):
        load_on_cpu(forecasting)
