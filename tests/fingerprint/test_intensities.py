import math

import numpy as np
import pytest

from longflow.fingerprint.intensities import combine_maps, neighbour_maps


def scan(gain=1.0, offset=0.0):
    """Two channels; the second has twice the logarithm of the gain."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (8, 24, 24)), indexing="ij")
    body = z**2 + y**2 + x**2 < 0.8
    image = np.where(body, 500 + 200 * np.sin(5 * x) * np.cos(4 * y), 5.0)
    return np.stack([gain * image + offset, gain**2 * image + offset]).astype(np.float32)


def test_maps_lead_from_each_scan_to_the_next():
    first, second = neighbour_maps([scan(), scan(1.2, 40), scan(0.6, 20)])
    assert [one.gain for one in first] == pytest.approx([1.2, 0.5], rel=1e-3)
    assert [one.offset for one in first] == pytest.approx([40, 0], abs=0.5)
    assert [one.gain for one in second] == pytest.approx([1.44, 0.25], rel=1e-3)


def test_the_spread_is_over_all_neighbours_of_all_subjects():
    subjects = [[scan(), scan(1.1), scan(1.1)], [scan()], [scan(), np.full_like(scan(), 3)]]
    found = combine_maps([neighbour_maps(one) for one in subjects])
    assert list(found) == ["0", "1"]
    gains = found["0"].log_gains
    assert (gains.count, found["0"].without_map) == (2, 1)
    assert (gains.minimum, gains.maximum) == pytest.approx((0, math.log(1.1)), abs=1e-3)
    assert found["1"].log_gains.maximum == pytest.approx(2 * math.log(1.1), abs=1e-3)
    # where nothing is added, the mean is scaled
    first = neighbour_maps([scan(), scan(1.1)])[0][0]
    assert found["0"].shifts.maximum == pytest.approx(0.1 * first.mean / first.deviation, rel=1e-2)


def test_one_scan_has_no_map():
    assert combine_maps([neighbour_maps([scan()]), neighbour_maps([scan(2)])]) is None
