"""The held-out subjects of the phantom cohort have requested targets, each with a reference."""

import numpy as np
import pytest

from longflow.data.dataset import series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.demo.cohort import DATASET_NAME, HORIZONS, cohort_subject, scan_times, subject_geometry, write_cohort
from longflow.demo.law import draw_subject
from longflow.demo.phantom import phantom_scan
from longflow.errors import DataError


@pytest.fixture
def raw(phantom_dataset):
    return phantom_dataset / "raw" / DATASET_NAME


def test_training_series(raw):
    description, series = training_series(raw)
    assert description.time_unit == "ms" and len(series) == 8
    for one in series:
        assert len(one.scans) == 4 and all(scan.exists and scan.label for scan in one.scans)
    scan = series[1].scans[2]
    volume = read_scan(scan.images)
    expected, _ = phantom_scan(cohort_subject(raw, scan.subject), scan.time, (8, 32, 32))
    assert np.array_equal(volume.array[0], expected) and volume.data_type == "int16"


def test_held_out_subjects(raw):
    description, training = training_series(raw)
    series = series_of_folder(raw / "imagesTs", description)
    assert len(series) == 2
    assert not {one.subject for one in series} & {one.subject for one in training}
    for one in series:
        period = cohort_subject(raw, one.subject).period
        targets = one.scans[-len(HORIZONS) :]
        assert [scan.exists for scan in one.scans] == [True, True, False, False]
        for scan, (nearest, farthest) in zip(targets, HORIZONS, strict=True):
            assert nearest - 0.01 < (scan.time - one.scans[1].time) / period < farthest + 0.01
            assert (raw / "targetsTs" / scan.images[0].name).is_file()


def test_times_are_irregular_and_cover_more_than_a_heartbeat():
    subject = draw_subject(7)
    times = scan_times(subject, (9, 9))
    intervals = np.diff(times)
    assert len(times) == 9 and intervals.min() > 0
    assert intervals.std() > 0.1 * intervals.mean()
    assert 1.1 * subject.period < times[-1] - times[0] < 2.1 * subject.period


def test_geometry_is_oblique():
    geometry = subject_geometry(draw_subject(7), (8, 32, 32))
    cosines = np.array(geometry.direction).reshape(3, 3)
    assert np.allclose(cosines @ cosines.T, np.eye(3)) and np.abs(cosines).max() < 0.999
    assert geometry.array_spacing == pytest.approx((12, 4.4, 4.4))


def test_a_finished_cohort_is_kept_and_another_is_not_overwritten(raw):
    before = (raw / "scans.csv").stat().st_mtime_ns
    write_cohort(raw, subjects=8, test_subjects=2, shape=(8, 32, 32), scans=(4, 4))
    assert (raw / "scans.csv").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="holds another dataset"):
        write_cohort(raw, subjects=9, test_subjects=2, shape=(8, 32, 32), scans=(4, 4))
