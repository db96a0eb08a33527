"""Commands are simulated: missing work is done, finished work is kept, one failure costs one variant."""

import os
import re
import shutil

import numpy as np
import pytest

from longflow.compare import perform as module
from longflow.compare.comparison import reused
from longflow.compare.perform import Clock, measure, perform, read_metrics, seconds_between
from longflow.data.images import read_scan
from longflow.methods.weights import read_checkpoint, write_checkpoint
from longflow.paths import METRICS_CSV
from longflow.reading import read_json
from longflow.tasks.forecast.metrics import nrmse
from tests.compare.helpers import CRONOS, LCI, MEAN, NOISY, Player, comparison_of, description_of, of, tick, trained


@pytest.fixture
def play(dataset, monkeypatch):
    """Perform a comparison with simulated commands; return the outcomes and the player."""

    def played(comparison, codes=None, **further):
        player = Player(dataset, codes)
        monkeypatch.setattr(module, "run_command", player)
        return list(perform(comparison, description_of(dataset), **further)), player

    return played


def test_everything_is_trained_predicted_and_measured_on_the_same_targets(dataset, play):
    comparison = comparison_of(dataset, CRONOS, NOISY, LCI, seeds=(0, 1))
    outcomes, player = play(comparison)
    assert player.names() == ["train", "predict", "train", "predict", "predict", *["train", "predict"] * 2]
    assert [outcome.run for outcome in outcomes] == comparison.runs and not any(o.failure for o in outcomes)
    stored = read_json(dataset.validation_targets)["protocols"]["random"][0]
    for outcome in outcomes:
        assert {row["case"]: row["subject"] for row in outcome.rows} == {
            one["target"]: one["subject"] for one in stored
        }
        # fresh networks predict LCI, which is measured from the stored context, not from the scan before the target
        assert all(row["skill"] in (0, None) for row in outcome.rows if row["method"] == "forecast")
    one = stored[0]
    last, target = (read_scan((dataset.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array
                    for case in (one["context"][-1], one["target"]))  # fmt: skip
    row = next(row for row in outcomes[0].rows if row["case"] == one["target"] and row["method"] == "lci")
    assert row["nrmse"] == pytest.approx(nrmse(last, target))


def test_rungs_of_targets_are_measured_once(dataset, play, monkeypatch):
    """They depend on targets and context alone, and a registration takes seconds."""
    steps, measured = [], module.evaluate_pairs

    def evaluate_pairs(pairs, progress=None, step=None):
        steps.append(step)
        return measured(pairs, 1, progress, step)

    monkeypatch.setattr(module, "evaluate_pairs", evaluate_pairs)
    outcomes, _ = play(comparison_of(dataset, CRONOS, LCI, seeds=(0, 1)))
    assert steps == [0.5, None, None]
    first, *others = ([row for row in outcome.rows if row["method"] != "forecast"] for outcome in outcomes)
    assert {row["method"] for row in first} >= {"lci", "motion"} and all(rows == first for rows in others)


def test_a_finished_comparison_repeats_nothing(dataset, play):
    comparison = comparison_of(dataset, CRONOS, LCI)
    first, _ = play(comparison)
    before = []
    again, player = play(comparison, before=before.append)
    assert player.ran == [] and before == [] and again == first


def test_it_continues_after_an_interruption(dataset, play):
    comparison = comparison_of(dataset, CRONOS, NOISY, LCI)
    with pytest.raises(KeyboardInterrupt):
        play(comparison, {"noise=0.1": 130})
    outcomes, player = play(comparison)
    assert player.names() == ["train", "predict", "predict"]
    assert "--set=noise=0.1" in player.ran[0].arguments
    assert len(outcomes) == 3 and all(outcome.rows for outcome in outcomes)


@pytest.mark.parametrize(("code", "why"), [(1, "exit code 1"), (-9, "signal 9.*memory ran out")])
def test_a_failure_costs_its_own_variant_only(dataset, play, code, why):
    noisy_mean = type(NOISY)("noisy, mean", "cronos", NOISY.options, reduction="mean")
    comparison = comparison_of(dataset, NOISY, noisy_mean, CRONOS)
    outcomes, player = play(comparison, {"noise=0.1": code})
    assert player.names() == [
        "train",
        "train",
        "predict",
    ]  # the failed training is not repeated
    assert [bool(outcome.rows) for outcome in outcomes] == [False, False, True]
    for outcome in outcomes[:2]:
        assert outcome.failure.startswith("longflow_train") and re.search(why, outcome.failure)


def test_forecasts_that_cannot_be_measured_are_a_failure(dataset, play, monkeypatch):
    comparison = comparison_of(dataset, CRONOS, LCI)
    monkeypatch.setattr(Player, "predict", lambda self, arguments, folders: None)
    outcomes, _ = play(comparison)
    assert all("does not exist" in outcome.failure for outcome in outcomes)


def test_variants_that_predict_differently_share_a_training(dataset, play):
    comparison = comparison_of(dataset, CRONOS, MEAN)
    outcomes, player = play(comparison)
    assert player.names() == ["train", "predict", "predict"]
    assert all(outcome.cost["parameters"] == 9 for outcome in outcomes)


def test_a_standard_model_is_not_trained_again(dataset, play):
    trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS)
    outcomes, player = play(comparison)
    assert player.names() == ["predict"] and reused(comparison, comparison.runs) == comparison.runs
    assert outcomes[0].cost["seconds"] == 2.5
    assert not (dataset.results / "comparisons" / "trained_3_iterations").exists()


def test_forecasts_of_older_weights_are_repeated(dataset, play):
    comparison = comparison_of(dataset, CRONOS)
    play(comparison)
    final = comparison.fold(of(comparison, CRONOS)).final
    old = next(comparison.predictions(of(comparison, CRONOS)).glob("s*.json"))
    before = old.stat().st_mtime_ns
    tick()
    write_checkpoint(read_checkpoint(final), final)
    _, player = play(comparison)
    assert player.names() == ["predict"] and old.stat().st_mtime_ns > before


def test_forecasts_of_other_targets_are_repeated(dataset, play):
    comparison = comparison_of(dataset, LCI)
    play(comparison)
    tick()
    dataset.splits.unlink(), dataset.validation_targets.unlink()
    shutil.rmtree(comparison.paths.targets(0))
    outcomes, player = play(comparison_of(dataset, LCI))
    assert player.names() == ["predict"] and outcomes[0].rows


def test_a_name_that_is_used_for_another_comparison_keeps_none_of_its_forecasts(dataset, play):
    """Weights of both budgets are older than the forecasts of the other one."""
    few, more = (comparison_of(dataset, CRONOS, iterations=steps) for steps in (3, 4))
    play(few), play(more)
    for comparison in (few, more):
        tick()
        outcomes, player = play(comparison)
        assert player.names() == ["predict"] and outcomes[0].cost["iterations"] == comparison.budget.iterations


def test_half_of_the_forecasts_are_kept(dataset, play):
    comparison = comparison_of(dataset, LCI)
    play(comparison)
    out = comparison.predictions(of(comparison, LCI))
    (out / METRICS_CSV).unlink()
    gone, *kept = sorted(out.glob("s*.json"))
    gone.unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    tick()
    play(comparison)
    assert gone.is_file() and before == {path: path.stat().st_mtime_ns for path in kept}


def test_targets_without_a_reference_are_excluded_with_one_message(dataset, play, caplog):
    comparison = comparison_of(dataset, LCI)
    case = sorted(comparison.targets[0].subjects)[0]
    (dataset.raw / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    (outcome,), _ = play(comparison)
    assert case not in {row["case"] for row in outcome.rows}
    assert f"1 targets have no acquired scan and are excluded: {case}" in caplog.text
    _, player = play(comparison)
    assert player.ran == []


def test_progress_has_number_total_and_time_left(dataset, play):
    standings, shown = [], []
    comparison = comparison_of(dataset, CRONOS, LCI, NOISY)
    play(comparison, before=standings.append, show=shown.append)
    assert [(standing.number, standing.of) for standing in standings] == [(1, 3), (2, 3), (3, 3)]
    assert standings[0].left is None and not standings[1].at_least and standings[1].left > 0
    assert len(shown) == 5


def test_time_left_follows_from_the_commands_so_far(dataset):
    comparison = comparison_of(dataset, CRONOS, NOISY, LCI, max_time=60)
    clock = Clock(comparison.budget.max_time)
    assert clock.left(comparison, comparison.runs) == (120, True)  # two trainings; predictions are not known
    clock.note("predict", 1, 10), clock.note("predict", 2, 40)
    assert clock.left(comparison, comparison.runs) == (120 + 3 * 15, False)
    clock.note("train", 1, 70)
    assert clock.left(comparison, comparison.runs[1:]) == (70 + 2 * 15, False)
    assert clock.left(comparison, []) == (0, False)


def test_numbers_survive_the_file(dataset, play):
    comparison = comparison_of(dataset, LCI)
    (outcome,), _ = play(comparison)
    lci = [row for row in outcome.rows if row["method"] == "lci"]
    assert all(row["skill"] == 0 and row["nrmse"] > 0 for row in lci)
    measure(comparison, of(comparison, LCI), description_of(dataset))
    rows = read_metrics(comparison.predictions(of(comparison, LCI)) / METRICS_CSV)
    assert rows == outcome.rows


def test_seconds_of_a_prediction_exclude_starts_and_pauses(tmp_path):
    ends = np.cumsum([100, 2, 3, 2, 5000, 2])
    files = [tmp_path / f"{end}.json" for end in ends]
    for file, end in zip(files, ends, strict=True):
        file.write_text("")
        os.utime(file, (end, end))
    assert seconds_between(reversed(files)) == 2
    assert seconds_between([*files[:2], files[0]]) == 2 and seconds_between(files[:1]) is None
