import pytest

from longflow.errors import ConfigurationError, NotFoundError
from longflow.files import write_json
from longflow.inference.selection import Member, select
from longflow.paths import DatasetPaths


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths("Dataset101_Cine")
    paths.raw.mkdir(parents=True)
    return paths


def trained(paths, method="cronos", configuration="3d_fullres", folds=(0,)):
    model = paths.model(method, "longflowPlans", configuration)
    for fold in folds:
        model.fold(fold).folder.mkdir(parents=True)
        model.fold(fold).final.write_text("")
    return model


def best(paths, *members, reduction="mean", shrinkage=0.7, **further):
    members = [
        {"method": model.method, "plans_name": model.plans_name, "configuration": model.configuration, "folds": folds}
        for model, folds in members
    ]
    write_json({"members": members, "reduction": reduction, "shrinkage": shrinkage, **further}, paths.best)


@pytest.mark.parametrize("dataset", [None, "101", "Dataset101_Cine"])
def test_the_only_trained_model_with_all_its_folds(paths, dataset):
    model = trained(paths, folds=(0, 3))
    found = select(dataset)
    assert found.dataset == paths and found.members == (Member(model, (0, 3)),)
    assert found.reduction is None and found.shrinkage == 1 and "only trained model" in found.origin


def test_a_fold_that_was_begun_is_not_trained(paths):
    model = trained(paths, folds=(0,))
    model.fold(1).folder.mkdir()
    model.fold(1).latest.write_text("")
    assert select().members == (Member(model, (0,)),)


def test_what_find_best_recorded_comes_first(paths):
    one, two = trained(paths, folds=(0, 1)), trained(paths, "tfm", folds=(0, 1))
    best(paths, (one, [0, 1]), (two, [0]))
    found = select()
    assert found.members == (Member(one, (0, 1)), Member(two, (0,)))
    assert (found.reduction, found.shrinkage) == ("mean", 0.7) and found.origin == f"as recorded in {paths.best}"


def test_flags_come_before_what_was_recorded(paths):
    one, two = trained(paths, folds=(0, 1)), trained(paths, "tfm", folds=(0, 1))
    best(paths, (one, [0, 1]))
    found = select(method="tfm")
    assert found.members == (Member(two, (0, 1)),) and found.shrinkage == 1 and found.reduction is None
    assert select(method="cronos", folds=(1,)).members == (Member(one, (1,)),)


def test_several_models_are_listed_with_the_flags_that_decide(paths):
    trained(paths), trained(paths, "tfm"), trained(paths, "tfm", "2d")
    with pytest.raises(ConfigurationError) as raised:
        select()
    for text in ("-m cronos -c 3d_fullres", "-m tfm -c 3d_fullres", "-m tfm -c 2d", "longflow_find_best -d"):
        assert text in str(raised.value)
    with pytest.raises(ConfigurationError) as raised:
        select(method="tfm")
    assert "-m cronos" not in str(raised.value)
    assert select(method="tfm", configuration="2d").members[0].model.configuration == "2d"
    assert select(configuration="2d").members[0].model.method == "tfm"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "Dataset101_Cime"}, "no dataset 'Dataset101_Cime'. Did you mean 'Dataset101_Cine'"),
        ({"dataset": "102"}, "no dataset '102'. .*Known: Dataset101_Cine"),
        ({"method": "crones"}, "no trained method 'crones'. Did you mean 'cronos'.*-m"),
        ({"configuration": "3d_fulres"}, "no trained configuration '3d_fulres'. Did you mean '3d_fullres'.*-c"),
        ({"method": "cronos", "configuration": "2d"}, "no trained method 'cronos'"),
        ({"method": "tfm", "folds": (0, 4)}, "Fold 4 of tfm.* is not trained. Trained: 0, 1"),
    ],
)
def test_what_is_not_there(paths, arguments, message):
    trained(paths), trained(paths, "tfm", "2d", folds=(0, 1))
    with pytest.raises(NotFoundError, match=message):
        select(**arguments)


def test_nothing_trained(paths):
    with pytest.raises(NotFoundError, match=r"No model has been trained yet. Train one first: longflow_train"):
        select()
    with pytest.raises(NotFoundError, match="No model has been trained for Dataset101_Cine"):
        select("101")


def test_a_record_may_name_a_method_that_has_nothing_to_train(paths):
    lci = paths.model("lci", "longflowPlans", "3d_fullres")
    best(paths, (lci, []))
    assert select("101").members == (Member(lci, ()),)


def test_models_of_several_datasets(paths):
    trained(paths), trained(DatasetPaths("Dataset102_Other"))
    with pytest.raises(ConfigurationError, match=r"Dataset101_Cine, Dataset102_Other. Say which with -d"):
        select()
    assert select("102").dataset.name == "Dataset102_Other"


def test_a_recorded_fold_that_is_gone(paths):
    best(paths, (trained(paths), [0, 1]))
    with pytest.raises(NotFoundError, match=r"names fold 1 of cronos.*, which does not exist any more"):
        select()


@pytest.mark.parametrize(
    "changes",
    [
        {"configuration": "../../../elsewhere"},
        {"method": "/elsewhere"},
        {"folds": ["0/../../0"]},
        {"folds": None},
        {"folds": [0] * 1000},
    ],
)
def test_a_record_that_leads_elsewhere_is_refused(paths, changes):
    model = trained(paths)
    member = {"method": "cronos", "plans_name": "longflowPlans", "configuration": "3d_fullres", "folds": [0]}
    write_json({"members": [{**member, **changes}], "reduction": "mean", "shrinkage": 1}, paths.best)
    with pytest.raises(ConfigurationError, match=r"best.json is not what longflow_find_best writes"):
        select()
    assert select(method=model.method).members == (Member(model, (0,)),)


def test_a_model_twice_in_a_record_is_refused(paths):
    model = trained(paths)
    best(paths, (model, [0]), (model, [0]))
    with pytest.raises(ConfigurationError, match=r"best.json is not what longflow_find_best writes"):
        select()


def test_more_folds_than_memory_holds_are_refused_before_any_is_read(paths):
    trained(paths, folds=range(101))
    with pytest.raises(ConfigurationError, match=r"has 101 folds, expected at most 100.*-f"):
        select()
    assert len(select(folds=tuple(range(5))).members[0].folds) == 5


def test_pretraining_is_never_chosen(paths):
    trained(paths, "spatiotemporal")
    with pytest.raises(NotFoundError, match=r"Only pretraining is finished: spatiotemporal__.*--pretrained spatiotemp"):
        select()
    model = trained(paths, "unet")
    assert select().members == (Member(model, (0,)),)
    with pytest.raises(ConfigurationError, match=r"'spatiotemporal' is pretraining: .*predicts nothing"):
        select(method="spatiotemporal")
    best(paths, (paths.model("spatiotemporal", "longflowPlans", "3d_fullres"), [0]))
    with pytest.raises(ConfigurationError, match="'spatiotemporal' is pretraining"):
        select()


def test_a_method_that_is_not_installed_here_can_be_selected(paths):
    """That it cannot be loaded is said when it is."""
    model = trained(paths, "outside")
    assert select().members == (Member(model, (0,)),)


@pytest.mark.parametrize("solver", [None, "midpoint"])
def test_a_recorded_solver_and_its_steps(paths, solver):
    best(paths, (trained(paths), [0]), solver=solver, steps=3 if solver else None)
    found = select()
    assert (found.solver, found.steps) == (solver, 3 if solver else None)
    assert (select(method="cronos").solver, select(method="cronos").steps) == (None, None)


@pytest.mark.parametrize(
    "record",
    [
        {"solver": "eular", "steps": 1},
        {"solver": "euler"},
        {"solver": "euler", "steps": 0},
        {"solver": "euler", "steps": 10**9},
        {"steps": 2},
    ],
)
def test_a_recorded_solver_that_there_is_not(paths, record):
    best(paths, (trained(paths), [0]), **record)
    with pytest.raises(ConfigurationError, match=r"best.json is not what longflow_find_best writes"):
        select()


def test_a_model_with_another_network_is_named_by_both(paths):
    one, other = trained(paths, "mfm"), trained(paths, "mfm-swin_unetr")
    assert other.method == "mfm-swin_unetr" and other.plans_name == "longflowPlans"
    assert select(method="mfm").members == (Member(one, (0,)),)
    assert select(method="mfm-swin_unetr").members == (Member(other, (0,)),)
    with pytest.raises(NotFoundError, match="Did you mean 'mfm-swin_unetr'"):
        select(method="mfm-swin_unet")
    best(paths, (other, [0]), reduction=None)
    assert select().members == (Member(other, (0,)),)
