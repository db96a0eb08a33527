import numpy as np
import pytest

from longflow.tasks.forecast.context import RULES, SHIFTS, choose_contexts, draw_context, spread
from longflow.tasks.forecast.windows import Times


def cine(count, ahead=1, period=None):
    """Frames at 0, 1, 2, ...; the target is ``ahead`` of the last."""
    return Times([float(frame) for frame in range(count)], count - 1.0 + ahead, period)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_where_all_scans_fit_all_are_taken(rule, count):
    assert choose_contexts(rule, cine(count), 8) == [list(range(count))]


def test_the_latest():
    assert choose_contexts("latest", cine(14), 3) == [[11, 12, 13]]


def test_spread_is_even_and_has_first_and_last():
    assert choose_contexts("spread", cine(13), 3) == [[0, 6, 12]]
    assert choose_contexts("spread", cine(13), 5) == [[0, 4, 8, 11, 12]]
    for count in range(3, 30):
        for most in range(2, count):
            chosen = spread(cine(count), most)
            assert len(chosen) == most and (chosen[0], chosen[-1]) == (0, count - 1)
            if most >= 4:  # the two latest show how fast the subject changes now
                assert count - 2 in chosen
                chosen = [position for position in chosen if position != count - 2]
            steps = np.diff(chosen)
            assert steps.min() >= 1 and steps.max() - steps.min() <= 2


def test_a_model_of_one_scan_takes_the_last():
    assert [choose_contexts(rule, cine(5, period=3.0), 1) for rule in RULES] == [[[4]]] * 3


def test_the_scans_around_the_target_a_period_back_are_taken():
    # frame 24 is frame 4 of a beat of 20 frames: frames 4 and 3.5 would be, of beats of 20 and 20.5
    assert {3, 4} <= set(spread(Times(range(24), 24.0, 20.5), 6))
    assert 4 in spread(Times(range(24), 24.0, 20.0), 6) and len(spread(Times(range(24), 24.0, 20.0), 6)) == 6
    # the last 6 frames of a beat of 20 from the first 14: the next one after the target is the first, a beat on
    assert {0, 13} <= set(spread(Times(range(14), 17.0, 20.0), 4))
    # irregular times: by time, not by position
    assert {2, 3} <= set(spread(Times([0, 1, 1.6, 2.5, 7, 9, 9.5, 11], 12.0, 10.0), 4))
    # with two places, the last scan and the next one after the target
    assert spread(Times(range(24), 24.3, 20.0), 2) == [5, 23]


def test_subsets_differ_cover_the_series_and_share_first_and_last():
    subsets = choose_contexts("subsets", cine(20), 6)
    assert len(subsets) == len(SHIFTS) and spread(cine(20), 6) in subsets
    assert all(len(subset) == 6 and (subset[0], subset[-1]) == (0, 19) for subset in subsets)
    assert len(set().union(*subsets)) > 6
    assert choose_contexts("subsets", cine(3), 2) == [[0, 2]]


def test_no_subset_loses_a_scan_to_rounding():
    for count in range(2, 40):
        for most in range(1, count + 1):
            for shift in (*SHIFTS, -0.2, 0.1):
                assert len(set(spread(cine(count, period=7.3), most, shift))) == most


def test_draws_always_have_the_last_scan_and_come_from_the_whole_series():
    generator = np.random.default_rng(0)
    drawn = [draw_context(generator, cine(30), 4) for _ in range(2000)]
    assert all(context == sorted(set(context)) and context[-1] == 29 and len(context) <= 4 for context in drawn)
    assert set().union(*drawn) == set(range(30))


def test_shares_of_draws():
    """Half are random subsets of uniform size; of the others, as long as prediction's, 35 % are spread."""
    generator = np.random.default_rng(0)
    drawn = [draw_context(generator, cine(40), 4) for _ in range(4000)]
    shares = {size: np.mean([len(context) == size for context in drawn]) for size in (1, 2, 3, 4)}
    assert shares == pytest.approx({1: 1 / 8, 2: 1 / 8, 3: 1 / 8, 4: 5 / 8}, abs=0.03)
    full = [context for context in drawn if len(context) == 4]
    latest = np.mean([context == [36, 37, 38, 39] for context in full]) * 5 / 8
    near = np.mean([np.abs(np.subtract(context, [0, 20, 38, 39])).max() <= 7 for context in full]) * 5 / 8
    assert latest == pytest.approx(0.15, abs=0.02) and near == pytest.approx(0.35, abs=0.04)


def test_random_subsets_of_a_size_are_equally_likely():
    generator = np.random.default_rng(0)
    drawn = [tuple(draw_context(generator, cine(4), 9, count=2)) for _ in range(6000)]
    # half of the draws; the others are [0, 3] and [2, 3]
    assert np.mean([context == (1, 3) for context in drawn]) == pytest.approx(1 / 6, abs=0.02)
    assert {context[-1] for context in drawn} == {3} and {len(context) for context in drawn} == {2}
