import numpy as np
import pytest
import torch

from longflow.errors import DataError
from longflow.flow.grid import grid_slots, latest_in_slot
from longflow.planning.temporal import (
    choose_sequence_length,
    common_divisor,
    contexts_of,
    grid_residual,
    judge_grid,
    runners_up,
    with_period,
)
from longflow.task import get_task
from tests.planning.helpers import temporal


def plan_time(fingerprint, longest_sequence, task="forecast"):
    return get_task(task).plan_time(fingerprint, longest_sequence)


def with_missing(step: float, frames: int = 12, kept: int = 7, subjects: int = 40) -> list[list[float]]:
    random = np.random.default_rng(0)
    return [
        [round(float(frame) * step, 10) for frame in sorted(random.choice(frames, kept, replace=False))]
        for _ in range(subjects)
    ]


@pytest.mark.parametrize("step", [1, 30, 0.1, 1 / 3])
def test_a_regular_grid_with_40_percent_missing_is_found(step):
    plan = plan_time(temporal(with_missing(step)), longest_sequence=11)
    assert plan.grid.spacing == pytest.approx(step, rel=1e-9)
    assert plan.regular
    assert plan.grid.overwritten == plan.grid.clipped == 0
    assert plan.grid.rounding_error < 1e-8
    assert plan.grid.length == 11


def test_a_grid_is_found_where_every_neighbouring_frame_is_missing():
    plan = plan_time(temporal([[0, 2, 5, 7], [0, 3, 5], [0, 2, 4]] * 5), longest_sequence=15)
    assert plan.grid.spacing == pytest.approx(1)


def test_jitter_is_averaged_out():
    random = np.random.default_rng(1)
    times = [list(np.arange(10) * 42 + random.normal(0, 1, 10)) for _ in range(30)]
    plan = plan_time(temporal(times), longest_sequence=11)
    assert plan.grid.spacing == pytest.approx(42, rel=0.01)
    assert plan.regular


def test_clinical_visits_are_irregular():
    random = np.random.default_rng(2)
    times = [list(np.cumsum(random.lognormal(np.log(180), 0.5, random.integers(2, 8))).round()) for _ in range(60)]
    plan = plan_time(temporal(times), longest_sequence=11)
    assert not plan.regular
    assert plan.grid.length <= 2 * plan.sequence_length
    assert any("Irregular" in reason and "continuous" in reason for reason in plan.reasons)


def test_two_scans_each_need_one_slot():
    plan = plan_time(temporal([[0, 0.3], [0, 0.35], [0, 0.4]]), longest_sequence=5)
    assert (plan.sequence_length, plan.grid.length) == (1, 1)
    assert plan.grid.spacing == plan.time_scale == pytest.approx(0.35)
    assert plan.grid.score == 0 and plan.runners_up == []


def test_one_interval_is_enough():
    plan = plan_time(temporal([[100, 107], [3]]), longest_sequence=5)
    assert plan.time_scale == plan.longest_span == plan.shortest_interval == 7
    assert plan.regular


def test_single_scans_cannot_be_forecast():
    with pytest.raises(DataError, match="None of the 2 subjects has two scans"):
        plan_time(temporal([[1], [2]]), longest_sequence=5)
    assert plan_time(temporal([[1], [2]]), 5, "segment").sequence_length == 1


def test_absolute_dates_do_not_matter():
    times = with_missing(30)
    shifted = [[time + 7_000 * (index + 1) for time in one] for index, one in enumerate(times)]
    assert plan_time(temporal(times), 11) == plan_time(temporal(shifted), 11)


def test_the_cap_bounds_sequence_and_grid():
    plan = plan_time(temporal([list(range(20))] * 3), longest_sequence=5)
    assert plan.sequence_length == 5
    assert plan.grid.length <= 10
    assert any("the preset allows 5" in reason for reason in plan.reasons)


def test_sequence_length_is_the_90th_percentile():
    assert choose_sequence_length([2] * 9 + [12], 15)[0] == 2
    assert choose_sequence_length([4] * 5 + [12] * 5, 15)[0] == 11
    assert choose_sequence_length([2], 15)[0] == 1


def test_contexts_are_drawn_from_the_latest_scans_relative_to_their_target():
    contexts = contexts_of([np.array([0.0, 1, 3, 6])], most=1)
    assert contexts.times.tolist() == [[0, -1], [-3, -2], [-5, -3]]
    assert contexts.mask.tolist() == [[False, True], [True, True], [True, True]]
    assert contexts.drawn.tolist() == [1, 1, 1] and not len(contexts.of_several.times)


def test_costs_of_a_grid_by_hand():
    """Target at 0, scans at -1.0, -1.2 and -9: two share the last slot, one lies before the first.

    Two or three of them are drawn, 2.5 on average. The last slot is always occupied, and the first one in two of the
    three pairs and in the triple.
    """
    contexts = contexts_of([np.array([-9.0, -1.2, -1.0, 0])], most=3)
    contexts.mask[:2] = False
    grid = judge_grid(contexts.of_several, spacing=1, length=4, scale=2, longest=8)
    shown = 1 + (2 / 3 + 1) / 2
    assert grid.overwritten == pytest.approx(1 - shown / 2.5)
    assert grid.filled == pytest.approx(1 - shown / 4)
    assert grid.clipped == pytest.approx(1 / 3)
    assert grid.rounding_error == pytest.approx((0.2 + 0) / 2 / 2)


def draw_subset(random, earlier: int, most: int) -> list[int]:
    """Draw a subset of the latest 2 ``most`` earlier scans: its size is uniform, then the subset of that size is."""
    first = max(0, earlier - 2 * most)
    size = random.integers(1, min(earlier, most) + 1)
    return sorted(first + random.choice(earlier - first, size, replace=False))


def test_costs_are_those_of_random_contexts_as_training_embeds_them():
    """The mean over many contexts, put on the grid by the code of training."""
    random, most, spacing, length = np.random.default_rng(0), 3, 1.5, 5
    times = np.sort(random.uniform(0, 12, 10))
    scans = shown = clipped = 0
    filled = []
    for target in range(2, 10):
        for _ in range(2000):
            context = times[draw_subset(random, target, most)]
            if len(context) < 2:
                continue
            relative = torch.tensor(context - times[target])[None]
            slots = grid_slots(relative, torch.zeros(1), spacing, length)
            occupied = (latest_in_slot(slots, torch.ones_like(relative, dtype=torch.bool), length) >= 0).sum().item()
            scans, shown = scans + len(context), shown + occupied
            clipped += (relative < -spacing * (length + 0.5)).sum().item()
            filled.append(1 - occupied / length)
    grid = judge_grid(contexts_of([times], most).of_several, spacing, length, 1, 6)
    assert grid.overwritten == pytest.approx(1 - shown / scans, abs=0.01)
    assert grid.clipped == pytest.approx(clipped / scans, abs=0.01)
    assert grid.filled == pytest.approx(np.mean(filled), abs=0.01)


def test_costs_agree_with_the_quantiser_of_the_methods():
    contexts = contexts_of([np.array([0.0, 1, 2, 3, 4])], most=2).of_several
    slots = grid_slots(contexts.times, torch.zeros(3), 1.0, 4)
    assert slots[-1].tolist() == [0, 1, 2, 3]
    assert judge_grid(contexts, 1.0, 4, 1.0, 8).overwritten == 0
    assert judge_grid(contexts, 3.0, 4, 1.0, 8).overwritten > 0.1


def test_residual_is_a_quarter_at_random():
    random = np.random.default_rng(0)
    contexts = contexts_of([np.sort(random.uniform(0, 1000, 500))], most=5)
    assert grid_residual(contexts, 1.0) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("values", "divisor"), [([2, 3], 1), ([0.2, 0.3, 0.5], 0.1), ([7], 7), ([30, 60, 90], 30), ([1, np.pi], None)]
)
def test_common_divisor(values, divisor):
    assert common_divisor(np.array(values, dtype=float)) == (divisor and pytest.approx(divisor))


def test_runners_up_differ_in_spacing():
    random = np.random.default_rng(2)
    times = [list(np.cumsum(random.lognormal(np.log(180), 0.5, 6))) for _ in range(20)]
    plan = plan_time(temporal(times), longest_sequence=7)
    spacings = [plan.grid.spacing, *(grid.spacing for grid in plan.runners_up)]
    assert len(spacings) == 4
    assert all(abs(a - b) > 0.04 * a for i, a in enumerate(spacings) for b in spacings[i + 1 :])
    assert [grid.score for grid in plan.runners_up] == sorted(grid.score for grid in plan.runners_up)
    assert runners_up([plan.grid]) == []


def test_to_segment_the_time_scale_is_all_that_is_planned():
    plan = plan_time(temporal([[0, 10], [0, 20, 50], [3]]), 5, "segment")
    assert (plan.time_scale, plan.longest_span, plan.sequence_length) == (20, 50, 1)
    (reason,) = plan.reasons
    assert "median of 3 intervals of the 2 of 3 subjects" in reason
    (single,) = plan_time(temporal([[1], [2]]), 5, "segment").reasons
    for text in (reason, single):
        assert not any(word in text.lower() for word in ("forecast", "grid", "slot", "context", "regular"))


def test_to_translate_times_decide_nothing():
    first, second = (plan_time(temporal(times), 5, "translate") for times in ([[0], [0]], [[0, 10, 90], [0, 7]]))
    assert first == second
    assert (first.time_scale, first.sequence_length, first.runners_up) == (1, 1, [])
    assert first.reasons == [
        "Times: they tell which scans are a pair, and nothing else; scans of one time are translated."
    ]


@pytest.mark.parametrize("task", ["forecast", "segment"])
def test_one_subject_with_many_visits_does_not_decide_for_all(task):
    often = [[10 * visit for visit in range(40)]]
    plan = plan_time(temporal(often + [[0, 365]] * 4), 11, task)
    assert (plan.time_scale, plan.shortest_interval, plan.longest_span) == (365, 10, 390)
    assert "the median of 43 intervals" in plan.reasons[0] and "every subject weighs the same" in plan.reasons[0]
    assert "weighs" not in plan_time(temporal([[0, 365]] * 4), 11, task).reasons[0]


def test_nor_for_the_grid():
    """Each of 9 subjects has three visits a year; the tenth came every 10 days."""
    yearly = [[0, 120, 240, 360]] * 9
    plan = plan_time(temporal([*yearly, [10 * visit for visit in range(60)]]), 5)
    assert plan.grid.spacing == pytest.approx(120, rel=1e-6) and plan.time_scale == 120


def test_scans_of_every_subject_count_the_same():
    """Costs are means of the costs of the subjects, whose contexts hold 2, and 2 and (2 or 3) scans."""
    first, second = np.array([0.0, 1, 2.2]), np.array([0.0, 1, 2, 3.4])
    all_contexts = [contexts_of(times, 3).of_several for times in ([first, second], [first], [second])]
    both, *each = (judge_grid(contexts, 1, 2, 1, 4) for contexts in all_contexts)
    for cost in ("overwritten", "clipped"):
        assert getattr(both, cost) == pytest.approx(np.mean([getattr(one, cost) for one in each]))
    assert all_contexts[0].weights.tolist() == [4.5 / 2, 1, 1]
    residuals = [grid_residual(contexts, 1) for contexts in all_contexts[1:]]
    assert grid_residual(all_contexts[0], 1) == pytest.approx(np.mean(residuals))


def test_a_period_comes_from_dataset_json_and_is_one_in_cycles():
    plan = plan_time(temporal([[0, 2, 5, 7]] * 3), longest_sequence=3)
    assert with_period(plan, None) is plan and plan.period is None
    given, column = with_period(plan, 6.0), with_period(plan, "rr")
    assert given.period == 6 and given.reasons[-1].startswith("Period 6 ")
    assert column.period == "rr" and "column 'rr'" in column.reasons[-1]
    beats = with_period(plan.model_copy(update={"time_unit": "cycles"}), None)
    assert beats.period == 1 and "cycles" in beats.reasons[-1]
