import numpy as np
import pytest

from longflow.data.recurrence import Kernel, scan_similarity
from longflow.fingerprint.recurrence import find_recurrence


def times_of(generator, scans=9):
    return np.cumsum(generator.uniform(0.7, 1.3, scans))


def beating(times, period, generator, noise=0.05):
    phases = generator.uniform(0, 2 * np.pi, 400)
    scans = np.sin(2 * np.pi * times[:, None] / period + phases) + noise * generator.normal(size=(len(times), 400))
    return scans[:, None]


def growing(times, generator):
    start, rate = generator.normal(size=(2, 400))
    return (start + times[:, None] * rate)[:, None]


def test_beating_subjects_repeat_each_with_a_period_of_its_own():
    generator = np.random.default_rng(0)
    times = [times_of(generator) for _ in range(6)]
    own = generator.uniform(4, 6, 6)
    scans = [beating(*one, generator) for one in zip(times, own, strict=True)]
    found = find_recurrence(times, [scan_similarity(one) for one in scans])
    assert (found.better, found.subjects) == (6, 6)
    assert found.relative_error < 0.6
    likely = np.array(found.periods)[np.array(found.probabilities) > 0.5 * max(found.probabilities)]
    assert likely.min() > 3.4 and likely.max() < 7
    assert sum(found.probabilities) == pytest.approx(1)


def test_growing_subjects_do_not():
    generator = np.random.default_rng(0)
    times = [times_of(generator) for _ in range(5)]
    found = find_recurrence(times, [scan_similarity(growing(one, generator)) for one in times])
    assert found.relative_error > 1 and found.better < 3


def test_short_series_are_not_measured():
    assert find_recurrence([[0.0, 1.0, 2.0], [0.0]], [np.eye(3), np.eye(1)]) is None


def test_the_number_of_forecasts_is_bounded(monkeypatch):
    asked = []

    def counted(subject, target, *_):
        asked.append(target)
        return 0.5, 1.0

    monkeypatch.setattr("longflow.fingerprint.recurrence._squared_errors", counted)
    monkeypatch.setattr("longflow.fingerprint.recurrence.KERNELS", (Kernel(1.0, 0.1),))
    monkeypatch.setattr("longflow.fingerprint.recurrence.probabilities_of_periods", lambda *_: np.ones(48))
    find_recurrence([np.arange(100.0)] * 7, [np.eye(100)] * 7)
    assert len(asked) == 7 * (120 // 7) and min(asked) == 3 and max(asked) == 99
