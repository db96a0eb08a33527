import numpy as np
import pytest

from longflow.data.dataset import series_of_folder, training_series
from longflow.data.images import read_scan
from longflow.demo.visits import draw_visit_subject, visit_scan
from longflow.demo.visits_cohort import (
    DATASET_NAME,
    HORIZONS,
    INTERVALS,
    visit_times,
    visits_subject,
    write_visits_cohort,
)
from longflow.errors import DataError

SETTINGS = {"subjects": 2, "test_subjects": 1, "shape": (4, 16, 16), "visits": (3, 4)}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / DATASET_NAME
    write_visits_cohort(folder, **SETTINGS, shared=False)
    return folder


def test_it_is_a_dataset_with_targets(raw):
    description, training = training_series(raw)
    assert description.time_unit == "days" and description.task == "forecast" and len(training) == 2
    (held_out,) = series_of_folder(raw / "imagesTs", description)
    assert held_out.subject not in {one.subject for one in training}
    assert [scan.exists for scan in held_out.scans][-2:] == [False, False]
    subject = visits_subject(raw, held_out.subject)
    for scan, (nearest, farthest) in zip(held_out.scans[-2:], HORIZONS, strict=True):
        assert nearest <= scan.time - held_out.scans[-3].time + 0.1 <= farthest + 0.2
        reference = read_scan((raw / "targetsTs" / scan.images[0].name,))
        assert np.array_equal(reference.array[0], visit_scan(subject, scan.time, (4, 16, 16), shared=False)[0])


def test_days_are_irregular():
    days, targets = visit_times(draw_visit_subject(5), (9, 9))
    intervals = np.diff(days)
    assert len(days) == 9 and days[0] == 0 and len(targets) == 2
    assert intervals.min() >= INTERVALS[0] - 0.1 and intervals.max() <= INTERVALS[1] + 0.1
    assert intervals.std() > 0.1 * intervals.mean()


def test_another_cohort_is_not_overwritten(raw):
    with pytest.raises(DataError, match="holds another dataset"):
        write_visits_cohort(raw, **SETTINGS, shared=True)
