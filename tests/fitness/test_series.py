import numpy as np
import pytest

from longflow.fitness.looks import AXES
from longflow.fitness.series import MOST_HORIZONS, compare, observe_scans, observe_series
from tests.fitness.test_looks import SPACING, look, scan


def test_the_same_scan_agrees_with_itself_and_does_not_move():
    values = compare(look(scan()), look(scan()))
    assert values["agreement"] == pytest.approx(np.arctanh(0.9999))
    assert all(values[f"shift {axis}"] == pytest.approx(0, abs=1e-6) for axis in AXES)
    assert values["gain 0"] == values["step 0"] == values["change of noise 0"] == 0


@pytest.mark.parametrize("axis", range(3))
def test_a_shift_is_found_in_mm_and_of_the_right_sign(axis):
    moved = np.roll(scan(), 1, axis)
    values = compare(look(scan()), look(moved))
    found = [values[f"shift {name}"] for name in AXES]
    assert found[axis] == pytest.approx(SPACING[axis], rel=0.5)
    assert all(abs(found[other]) < 0.6 for other in range(3) if other != axis)


def test_a_mirrored_scan_agrees_better_when_it_is_mirrored_back():
    values = compare(look(scan()), look(scan()[..., ::-1]))
    assert values["pair mirrored x"] < -0.1 < 0.1 < values["pair mirrored y"] + 0.6
    assert compare(look(scan()), look(scan(1)))["pair mirrored x"] > 0.1


def test_gain_and_step_are_those_of_the_units():
    values = compare(look(scan()), look(2 * scan() + 3 * scan().std()))
    assert values["gain 0"] == pytest.approx(np.log(2))
    assert np.sinh(values["step 0"]) == pytest.approx(scan().mean() / scan().std() + 3, rel=1e-4)


def test_exchanged_scans_make_a_detour():
    growth = [look(scan() * (1 + step) + 500 * step * np.roll(scan(7), 5, 2) / 1000) for step in range(3)]
    straight = observe_series(growth, [0, 1, 2]).further["course"][0]["course"]
    exchanged = observe_series([growth[1], growth[0], growth[2]], [0, 1, 2]).further["course"][0]["course"]
    assert exchanged > straight + 0.2


def test_intervals_horizons_and_numbers_are_logarithms():
    looks = [look(scan(seed)) for seed in range(3)]
    further = observe_series(looks, [0, 10, 30]).further
    assert [np.exp(one["interval"]) for one in further["interval"]] == pytest.approx([10, 20])
    assert sorted(np.exp(one["horizon"]) for one in further["horizon"]) == pytest.approx([10, 20, 30])
    assert np.exp(further["series"][0]["scans"]) == pytest.approx(3)
    (horizon,) = observe_series(looks, [0, 10, 30], [365]).further["horizon"]
    assert np.exp(horizon["horizon"]) == pytest.approx(365)


def test_many_scans_have_a_limited_number_of_horizons():
    assert len(observe_series([], list(range(60))).further["horizon"]) <= MOST_HORIZONS


def test_scans_alone_have_no_further_observations():
    observed = observe_scans([look(scan())], ["native"])
    assert observed.kinds == ["native"] and observed.further == {}
