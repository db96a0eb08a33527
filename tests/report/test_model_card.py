import pytest

from longflow.data.dataset import Row
from longflow.evaluation.metric import metrics_of
from longflow.files import file_digest
from longflow.report.model_card import model_card, performance
from longflow.task import get_task

FORECAST = get_task("forecast")


def card(paths, plans=None, fingerprint=None, best=None, results=None):
    return model_card(paths, FORECAST, plans or {}, fingerprint or {}, best or {}, results or {}, {})


def rows(*errors):
    return [
        {"case": f"s{number}_1", "subject": f"s{number}", "method": "forecast", "nrmse": str(error)}
        for number, error in enumerate(errors)
    ] + [{"case": "s0_1", "subject": "s0", "method": "lci", "nrmse": "9"}]


def scans(column, *values):
    return [Row(2, f"s{number}_1", f"s{number}", "0", {column: value}) for number, value in enumerate(values)]


def metric(name):
    return [one for one in metrics_of(FORECAST) if one.name == name]


def test_the_card_of_nothing_says_what_is_unknown(studied):
    found = card(studied)
    assert found["intended_use"] == "research only, not for clinical decisions"
    assert found["training_data"]["subjects"] is None and found["model"]["members"] == []
    assert any("no results on held-out subjects" in sentence for sentence in found["limits"])


def test_weights_have_their_digests(studied):
    member = {"method": "cronos", "plans_name": "longflowPlans", "configuration": "3d_fullres", "folds": [0, 1]}
    (found,) = card(studied, best={"members": [member]})["model"]["members"]
    final = studied.model("cronos", "longflowPlans", "3d_fullres").fold(0).final
    assert found["weights"] == {"fold_0": file_digest(final)}
    assert card(studied, best={"members": [{"method": "cronos"}]})["model"]["members"] == [{"method": "cronos"}]


@pytest.mark.parametrize(
    "verdict, expected", [("tie", "not better than"), ("worse", "worse than"), (None, "unknown"), ("better", None)]
)
def test_limits_say_how_it_stands_against_the_best_rung(studied, verdict, expected):
    overall = {"subjects": 20, "best_rung": {"name": "linear", "verdict": verdict}}
    limits = card(studied, results={"overall": overall})["limits"]
    found = [sentence for sentence in limits if "best forecast without training" in sentence]
    assert [expected in sentence for sentence in found] == ([True] if expected else [])


def test_limits_say_what_was_not_trained_on(studied):
    plans = {"temporal": {"time_unit": "days", "longest_horizon": 90.0}}
    results = {"overall": {"subjects": 3}, "subjects_of_training": ["s0"]}
    limits = " ".join(card(studied, plans, {"subjects": ["a", "b"]}, results=results)["limits"])
    assert "beyond 90 days" in limits and "trained on 2 subjects" in limits
    assert "3 subjects:" in limits and "1 of the evaluated subjects are training subjects" in limits


def test_subgroups_are_summarised_over_their_own_subjects():
    found = performance(rows(0.1, 0.3, 0.5), scans("sex", "f", "f", "m"), metric("nrmse"), FORECAST)
    assert found["all subjects"]["all"]["nrmse"]["mean"] == pytest.approx(0.3)
    of_sex = found["sex"]
    assert of_sex["f"]["nrmse"]["mean"] == pytest.approx(0.2) and of_sex["f"]["nrmse"]["subjects"] == 2
    assert of_sex["m"]["nrmse"] == {"mean": 0.5, "median": 0.5, "interval": None, "subjects": 1, "undefined": 0}


def test_numbers_of_many_values_make_two_groups():
    ages = [str(40 + number) for number in range(10)]
    found = performance(rows(*[0.1] * 10), scans("age", *ages), metric("nrmse"), FORECAST)["age"]
    assert {group: one["nrmse"]["subjects"] for group, one in found.items()} == {"up to 44": 5, "above 44": 5}


def test_a_column_that_cannot_group_is_no_grouping():
    names = [f"name {number}" for number in range(10)]
    assert list(performance(rows(*[0.1] * 10), scans("id", *names), metric("nrmse"), FORECAST)) == ["all subjects"]
    assert list(performance(rows(0.1, 0.2), scans("site", "A", "A"), metric("nrmse"), FORECAST)) == ["all subjects"]


def test_a_subject_whose_value_changes_or_is_missing_is_a_group_of_its_own():
    table = [
        *scans("drug", "yes", "no"),
        Row(9, "s2_0", "s2", "0", {"drug": "no"}),
        Row(9, "s2_2", "s2", "2", {"drug": "yes"}),
    ]
    found = performance(rows(0.1, 0.2, 0.3), table, metric("nrmse"), FORECAST)["drug"]
    assert found["not recorded, or it changes"]["nrmse"]["mean"] == pytest.approx(0.3)


def test_without_results_there_is_no_performance():
    assert performance([], scans("sex", "f"), metric("nrmse"), FORECAST) == {}
