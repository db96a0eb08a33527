from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from longflow.data.coarse import block_means
from longflow.data.dataset import Scan
from longflow.data.images import read_scan, write_volume
from longflow.preprocessing.series import RawSeries, load_prepared, prepare_volumes
from longflow.tasks.segment.other_scans import candidates, is_aligned, others_of, prepare_with_others
from tests.tasks.segment.cohort import filled, segment_plans, write_cohort
from tests.training.helpers import geometry

SIZE = (32, 40, 40)


def method(uses=True, **options):
    return SimpleNamespace(uses_other_scans=uses, options={"only_earlier": False, "unregistered": False, **options})


def ball(shift: int = 0, radius: float = 9) -> np.ndarray:
    z, y, x = np.indices(SIZE)
    distance = np.sqrt((z - 16) ** 2 + (y - 18) ** 2 + (x - 16 - shift) ** 2)
    return (100 * (distance < radius) + 5).astype(np.float32)


def scan_in(folder: Path, case: str, time: float, array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Scan:
    subject = case.split("_")[0]
    path = folder / f"{case}_0000.nii.gz"
    write_volume(array, geometry(array.shape, spacing=spacing), "float32", path)
    return Scan(case, subject, time, (path,))


@pytest.fixture
def scans(tmp_path):
    arrays = {"a_0": (0.0, ball()), "a_1": (10.0, ball(radius=8)), "a_2": (30.0, ball(shift=16)), "b_0": (0.0, ball())}
    return [scan_in(tmp_path, case, time, array) for case, (time, array) in arrays.items()]


def test_candidates_are_the_subjects_other_scans_with_images(scans):
    missing = Scan("a_3", "a", 40.0, (Path("nowhere_0000.nii.gz"),))
    given = [*reversed(scans), missing]
    assert [one.case for one in candidates(scans[1], given, method())] == ["a_0", "a_2"]
    assert [one.case for one in candidates(scans[1], given, method(only_earlier=True))] == ["a_0"]
    assert candidates(scans[3], given, method()) == () == candidates(scans[1], given, method(uses=False))


def prepared_of(scan, others, how):
    plans = segment_plans()
    return prepare_with_others(scan, read_scan(scan.images), others, how, plans, "3d_fullres"), plans


def test_a_scan_is_prepared_with_the_others_on_one_grid(scans):
    found, plans = prepared_of(scans[1], [scans[0], scans[2]], method())
    assert found.cases == ["a_0", "a_2"] and found.prepared.properties.cases == ["a_0", "a_1", "a_2"]
    assert found.others.times.tolist() == [-1.0, 2.0]  # the time scale is 10 days
    volumes = [read_scan(scan.images) for scan in scans[:3]]
    series = prepare_volumes(RawSeries("a", ["0", "1", "2"], [0.0, 10, 30], volumes), plans, "3d_fullres")
    assert np.array_equal(found.image, series.images[1])
    assert np.array_equal(found.others.images, series.images[[0, 2]])


def test_shifted_scans_are_named_and_what_is_done_with_them_is_said(scans):
    found, _ = prepared_of(scans[1], [scans[0], scans[2]], method())
    assert found.others.aligned.tolist() == [True, False]
    assert found.warnings == [
        "a_2 looks shifted against a_1. It is not looked at. Register the scans of the subject first: longflow_register"
    ]
    used, _ = prepared_of(scans[1], [scans[0], scans[2]], method(unregistered=True))
    assert "It is looked at, because the model was trained with unregistered=on" in used.warnings[0]


def test_a_scan_on_another_grid_is_named_and_left_out(scans, tmp_path):
    other = scan_in(tmp_path, "a_4", 50.0, ball(), spacing=(1.0, 1.0, 1.5))
    found, _ = prepared_of(scans[1], [scans[0], other], method())
    assert found.cases == ["a_0"]
    (warning,) = found.warnings
    assert "a_1 is segmented without a_4, which is on another grid" in warning and "longflow_register" in warning


def test_single_scans_are_prepared_alone(scans):
    found, plans = prepared_of(scans[1], [], method(uses=False))
    alone = prepare_volumes(RawSeries.of_scan("a_1", read_scan(scans[1].images)), plans, "3d_fullres")
    assert found.others is None and found.cases == [] and np.array_equal(found.image, alone.images[0])
    without, _ = prepared_of(scans[1], [], method())
    assert without.others.images.shape == (0, *alone.images.shape[1:]) and np.array_equal(without.image, found.image)


def test_others_of_a_prepared_series_can_be_chosen(tmp_path):
    plans = segment_plans()
    write_cohort(tmp_path, plans, {"a": [filled(0)] * 4})
    series = load_prepared(tmp_path, "a")
    assert others_of(series, 2, plans).cases == ["a_0", "a_1", "a_3"]
    chosen = others_of(series, 2, plans, [3])
    assert chosen.cases == ["a_3"] and chosen.times.tolist() == [4.0] and chosen.images.shape[0] == 1


def test_alignment_is_that_of_coarse_means():
    block = (4, 4, 4)
    coarse = [block_means(ball(shift)[None], block) for shift in (0, 2, 16)]
    series = SimpleNamespace(coarse=coarse)
    assert is_aligned(series, 0, 1) and not is_aligned(series, 0, 2)
