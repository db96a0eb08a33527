import numpy as np
import pytest

from longflow.compare.variant_table import COSTS, Measured, correct_verdicts, flat, line_of, run_mean
from longflow.evaluation.intervals import mean_interval
from longflow.evaluation.seeds import interval_over_runs
from longflow.tasks.forecast.metrics import DEFINITIONS


def rows_of(values: dict[str, float], lci: float = 0.5, horizons: dict[str, float] | None = None):
    """Rows of a run: NRMSE of every case, which is named ``{subject}_{n}``; other numbers are the same."""
    return [
        {
            **dict.fromkeys(DEFINITIONS, number),
            "case": case,
            "subject": case.split("_")[0],
            "horizon": (horizons or {}).get(case, 1.0),
            "method": method,
        }
        for case, value in values.items()
        for method, number in (("forecast", value), ("lci", lci), ("context_mean", lci))
    ]


#: two subjects, the first with two targets; two seeds
ONE = rows_of({"a_1": 0.1, "a_2": 0.3, "b_1": 0.4})
OTHER = rows_of({"a_1": 0.2, "a_2": 0.2, "b_1": 0.6})


def line(**costs):
    return line_of("cronos", [Measured("seed 0", ONE, costs), Measured("seed 1", OTHER, {"seconds": 3.0})])


def test_subjects_are_the_unit_and_runs_are_averaged_in_them():
    found = line()["nrmse"]
    # a: (0.1 + 0.3 + 0.2 + 0.2) / 4, b: (0.4 + 0.6) / 2
    assert found["mean"] == pytest.approx((0.2 + 0.5) / 2)
    assert found["interval"] == pytest.approx(mean_interval([0.2, 0.5]))
    assert found["lci"] == 0.5


def test_the_deviation_is_that_of_the_runs_own_means():
    found = line()["nrmse"]
    assert found["of_runs"] == pytest.approx([0.3, 0.4])
    assert found["sd"] == pytest.approx(np.std([0.3, 0.4], ddof=1))
    assert line_of("cronos", [Measured("seed 0", ONE)])["nrmse"]["sd"] is None


def test_the_difference_to_lci_is_paired_per_target_and_run():
    # LCI of the second run is another one, as that of another fold
    second = rows_of({"a_1": 0.2, "a_2": 0.2, "b_1": 0.6}, lci=0.9)
    found = line_of("cronos", [Measured("0", ONE), Measured("1", second)])
    of_a, of_b = [-0.4, -0.2, -0.7, -0.7], [-0.1, -0.3]
    difference = found["nrmse"]["minus_lci"]
    assert difference["mean"] == pytest.approx((np.mean(of_a) + np.mean(of_b)) / 2)
    # a run with the mean of each subject; both have the same subjects, so they are seeds
    assert difference["interval"] == pytest.approx(interval_over_runs([{"a": -0.3, "b": -0.1}, {"a": -0.7, "b": -0.3}]))
    assert found["better_than_lci"] == 1


def test_verdicts_are_corrected_for_the_number_of_variants():
    """Seven subjects of one sign: p = 1/64. LCI itself is no test; four variants make it 1/16, a tie."""
    cases = [f"{subject}_1" for subject in "abcdefg"]
    better = [Measured("0", rows_of({case: 0.1 + 0.01 * n for n, case in enumerate(cases)}))]
    of_lci = line_of("lci", [Measured("0", rows_of(dict.fromkeys(cases, 0.5)))])
    for number, p, verdict in ((3, 3 / 64, "better"), (4, 4 / 64, "tie")):
        lines = [of_lci, *(line_of(str(variant), better) for variant in range(number))]
        correct_verdicts(lines)
        assert [line["nrmse"]["minus_lci"]["p_holm"] for line in lines] == pytest.approx([1, *[p] * number])
        assert [line["best_rung"]["verdict"] for line in lines] == ["tie", *[verdict] * number]


def test_no_variant_is_better_if_seeds_differ_as_much_as_it_does():
    """Eight subjects are better in all runs, but three seeds are 0.01, 0.02 and 0.4 better: another one may not be."""
    cases = [f"{subject}_1" for subject in "abcdefgh"]

    def judged(*differences):
        runs = [
            Measured(str(seed), rows_of({case: 0.5 - one - 0.001 * n for n, case in enumerate(cases)}))
            for seed, one in enumerate(differences)
        ]
        found = line_of("cronos", runs)
        correct_verdicts([found])
        return found

    doubtful, sure = judged(0.01, 0.02, 0.4), judged(0.2, 0.21, 0.19)
    assert doubtful["nrmse"]["minus_lci"]["p_holm"] == sure["nrmse"]["minus_lci"]["p_holm"] == pytest.approx(2 / 2**8)
    assert doubtful["best_rung"]["verdict"] == "tie" and sure["best_rung"]["verdict"] == "better"
    low, high = doubtful["nrmse"]["minus_best_rung"]["interval"]
    assert low < 0 < high


def test_counts():
    found = line()
    assert (found["subjects"], found["targets"], found["runs"]) == (2, 3, ["seed 0", "seed 1"])


def test_costs_are_means_of_what_is_known():
    found = line(seconds=1.0, parameters=7)["cost"]
    assert found == {**dict.fromkeys(COSTS), "seconds": 2.0, "parameters": 7.0}


def test_bins_of_horizons_do_not_depend_on_the_number_of_runs():
    values = {f"a_{n}": 0.1 for n in range(9)}
    horizons = {case: float(n) for n, case in enumerate(values)}
    runs = [Measured(str(seed), rows_of(values, horizons=horizons)) for seed in range(3)]
    once, thrice = (line_of("cronos", some)["by_horizon"] for some in (runs[:1], runs))
    assert [(part["from"], part["to"]) for part in once] == [(part["from"], part["to"]) for part in thrice]
    assert len(once) == 4 and once[0]["nrmse"]["mean"] == pytest.approx(0.1) and once[0]["lci"] == 0.5


def test_undefined_numbers_stay_so():
    rows = [{**row, "psnr": None} for row in ONE]
    found = line_of("cronos", [Measured("0", rows), Measured("1", rows)])["psnr"]
    assert found["mean"] is found["sd"] is found["minus_lci"]["mean"] is None
    assert run_mean(rows, "psnr") is None


def test_a_line_of_the_csv():
    cells = flat(line(peak_memory=5))
    assert cells["variant"] == "cronos" and cells["runs"] == 2 and cells["peak_memory"] == 5
    assert cells["nrmse"] == pytest.approx(0.35) and cells["nrmse_lci"] == 0.5
    assert cells["nrmse_from"] <= cells["nrmse"] <= cells["nrmse_to"]
    assert cells["nrmse_minus_lci"] == pytest.approx(-0.15)
    assert cells["nrmse_minus_lci_from"] < -0.15 < cells["nrmse_minus_lci_to"]
    single = flat(line_of("cronos", [Measured("0", rows_of({"a_1": 0.1}))]))
    assert single["nrmse_from"] is None and single.keys() == cells.keys()
