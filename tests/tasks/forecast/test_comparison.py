import pytest

from longflow.evaluation.intervals import share_interval
from longflow.tasks.forecast.comparison import compare, summarise
from longflow.tasks.forecast.metrics import DEFINITIONS


def row(case, subject, method, nrmse, horizon=1.0, **numbers):
    values = dict.fromkeys(DEFINITIONS) | {"nrmse": nrmse} | numbers
    return {"case": case, "subject": subject, "horizon": horizon, "method": method, **values}


def rows_of(*targets):
    """(case, subject, nrmse of forecast, of LCI, of context mean, horizon)."""
    return [
        row(case, subject, method, value, horizon)
        for case, subject, *values, horizon in targets
        for method, value in zip(("forecast", "lci", "context_mean"), values, strict=True)
    ]


ROWS = rows_of(
    ("a1", "a", 0.1, 0.2, 0.3, 1.0),
    ("a2", "a", 0.3, 0.2, 0.3, 2.0),
    ("a3", "a", 0.2, 0.4, 0.3, 3.0),
    ("b1", "b", 0.6, 0.9, 0.3, 1.0),
)


def test_subjects_count_once_however_many_targets_they_have():
    found = summarise(ROWS)
    assert (found["subjects"], found["targets"]) == (2, 4)
    assert found["forecast"]["nrmse"]["mean"] == pytest.approx((0.2 + 0.6) / 2)
    assert found["forecast"]["nrmse"]["median"] == pytest.approx(0.4)
    assert found["lci"]["nrmse"]["mean"] == pytest.approx((0.8 / 3 + 0.9) / 2)
    assert found["context_mean"]["nrmse"]["mean"] == pytest.approx(0.3)


def test_difference_to_lci_is_paired():
    found = summarise(ROWS)["difference_to_lci"]["nrmse"]
    assert found["mean"] == pytest.approx(((-0.1 + 0.1 - 0.2) / 3 - 0.3) / 2)


def test_share_of_targets_better_than_lci():
    found = summarise(ROWS)["better_than_lci"]
    assert (found["share"], found["better"], found["targets"]) == (0.75, 3, 4)


def test_the_interval_of_the_share_is_that_of_the_share_over_targets():
    """One subject with 40 good targets next to three with one bad target each: the share is far above one in four."""
    targets = [(f"a{i}", "a", 0.1, 0.2, 0.3, 1.0) for i in range(40)]
    targets += [(f"{subject}1", subject, 0.3, 0.2, 0.3, 1.0) for subject in "bcd"]
    found = summarise(rows_of(*targets))["better_than_lci"]
    assert found["share"] == pytest.approx(40 / 43)
    assert share_interval([40, 0, 0, 0], [40, 1, 1, 1]) == found["interval"]


def test_where_all_targets_are_better_each_subject_counts_once():
    targets = [(f"{subject}{visit}", subject, 0.1, 0.2, 0.3, 1.0) for subject in "abcdefgh" for visit in (1, 2)]
    found = summarise(rows_of(*targets))["better_than_lci"]
    assert (found["better"], found["share"]) == (16, 1)
    assert found["interval"] == pytest.approx([0.025 ** (1 / 8), 1])


def test_the_forecast_is_compared_with_the_best_rung():
    found = summarise(ROWS)["best_rung"]
    # context mean: 0.3 everywhere; LCI: 0.27 of a and 0.9 of b
    assert found["name"] == "context_mean"
    assert found["difference"]["nrmse"]["mean"] == pytest.approx(((-0.2 + 0 - 0.1) / 3 + 0.3) / 2)
    assert (found["better"]["better"], found["better"]["targets"]) == (2, 4)
    assert found["skill_against_best_rung"]["mean"] == pytest.approx(((2 / 3 + 0 + 1 / 3) / 3 - 1) / 2)
    assert found["verdict"] is None  # of two subjects


@pytest.mark.parametrize(("forecast", "expected"), [(0.1, "better"), (0.3, "worse"), (0.2, "tie")])
def test_a_tie_is_called_a_tie(forecast, expected):
    rows = rows_of(*((f"{subject}1", subject, forecast, 0.2, 0.3, 1.0) for subject in "abcdef"))
    found = summarise(rows)["best_rung"]
    assert (found["verdict"], found["difference"]["nrmse"]["p"]) == (expected, 1 if expected == "tie" else 1 / 32)


@pytest.mark.parametrize("subjects", ["a", "abcde"])
def test_few_subjects_have_no_verdict(subjects):
    rows = rows_of(*((f"{subject}1", subject, 0.1, 0.2, 0.2, 1.0) for subject in subjects))
    assert summarise(rows)["best_rung"]["verdict"] is None


@pytest.mark.parametrize(("horizons", "expected"), [((1.0,), "better"), ((1.0, 2.0), "tie")])
def test_verdicts_by_horizon_are_corrected_for_their_number(horizons, expected):
    """Six subjects of one sign: p = 1/32, which two horizons double."""
    rows = rows_of(*((f"{s}{h:g}", s, 0.1, 0.2, 0.3, h) for s in "abcdef" for h in horizons))
    found = compare(rows)
    assert [part["best_rung"]["verdict"] for part in found["by_horizon"]] == [expected] * len(horizons)
    assert found["overall"]["best_rung"]["verdict"] == "better"


def test_the_best_rung_of_all_horizons_is_that_of_each():
    rows = rows_of(("a1", "a", 0.1, 0.2, 0.3, 1.0), ("b1", "b", 0.1, 0.2, 0.3, 1.0), ("c1", "c", 0.1, 0.9, 0.3, 2.0))
    assert [part["best_rung"]["name"] for part in compare(rows)["by_horizon"]] == ["context_mean"] * 2


def test_rungs_without_a_row_are_no_part_of_the_results():
    found = summarise(ROWS)
    assert "periodic" not in found and found["targets_of_rung"]["periodic"] == 0


def test_equal_to_lci_is_not_better():
    assert summarise(rows_of(("a1", "a", 0.2, 0.2, 0.2, 1.0)))["better_than_lci"]["share"] == 0


def test_undefined_numbers_are_excluded_and_counted():
    rows = rows_of(("a1", "a", None, 0.2, 0.1, 1.0), ("a2", "a", 0.4, 0.5, 0.1, 1.0), ("b1", "b", 0.2, None, 0.1, 1.0))
    found = summarise(rows)
    assert found["forecast"]["nrmse"]["mean"] == pytest.approx(0.3)
    assert found["forecast"]["nrmse"]["undefined"] == 1
    assert found["difference_to_lci"]["nrmse"]["undefined"] == 2
    assert found["difference_to_lci"]["nrmse"]["mean"] == pytest.approx(-0.1)
    assert found["better_than_lci"]["targets"] == 1
    assert found["forecast"]["psnr"] == {"mean": None, "median": None, "interval": None, "subjects": 0, "undefined": 3}


def test_by_horizon_every_target_is_in_one_bin():
    found = compare(ROWS)["by_horizon"]
    assert [(part["from"], part["to"], part["targets"]) for part in found] == [(1, 1, 2), (2, 2, 1), (3, 3, 1)]
    assert found[0]["forecast"]["nrmse"]["mean"] == pytest.approx(0.35)


def test_numbers_of_installed_packages_are_summarised_too():
    rows = [{**one, "own": value} for one, value in zip(ROWS, range(len(ROWS)), strict=True)]
    found = compare(rows, ["nrmse", "own"])
    assert list(found["overall"]["forecast"]) == ["nrmse", "own"]
    assert found["overall"]["lci"]["own"]["mean"] == pytest.approx(((1 + 4 + 7) / 3 + 10) / 2)
    assert found["by_horizon"][0]["difference_to_lci"]["own"]["mean"] == -1
