import pytest

from longflow.data.dataset import DatasetDescription, Scan, image_path, write_scans
from longflow.errors import DataError
from longflow.inference.wanted import wanted_forecasts, wanted_labels

DESCRIPTION = DatasetDescription(channel_names={"0": "T1", "1": "T2"}, file_ending=".nii.gz", time_unit="days")


@pytest.fixture
def folder(tmp_path):
    """Subject s has scans at 0, 10, 20 and 30, empty files all; it is wanted at 25 and 40."""
    scans = [Scan(f"s_{time}", "s", float(time), ()) for time in (0, 10, 20, 25, 30, 40)]
    write_scans(scans, tmp_path / "scans.csv")
    for scan in scans:
        for channel in range(2) if scan.time not in (25, 40) else ():
            image_path(tmp_path, scan.case, channel, DESCRIPTION).touch()
    return tmp_path


def found(folder, times=(), context_length=8):
    wanted = wanted_forecasts(folder, DESCRIPTION, times, context_length)
    return {item.target.case: ([scan.time for scan in item.context], item.horizon) for item in wanted}


def test_rows_without_images_are_wanted_from_all_scans_before_them(folder):
    assert found(folder) == {"s_25": ([0, 10, 20], 5), "s_40": ([0, 10, 20, 30], 10)}


def test_the_latest_scans_are_the_context(folder):
    assert found(folder, context_length=2) == {"s_25": ([10, 20], 5), "s_40": ([20, 30], 10)}


def test_times_stand_instead_of_rows_each_once(folder):
    assert found(folder, [50, 12.5, 50]) == {"s_t50": ([0, 10, 20, 30], 20), "s_t12.5": ([0, 10], 2.5)}


def test_long_times_are_told_apart(folder):
    assert list(found(folder, [1_000_001, 1_000_002.5])) == ["s_t1000001", "s_t1000002.5"]


def test_all_that_is_wrong_is_said_at_once(folder):
    image_path(folder, "s_10", 1, DESCRIPTION).unlink()
    with pytest.raises(DataError, match=r"s_10: the file s_10_0001\.nii\.gz is missing") as raised:
        found(folder, [-1])
    assert "s_t-1: subject s is wanted at time -1, but its first scan is at 0" in str(raised.value)


def test_a_channel_too_many_is_an_error_for_every_task(folder):
    image_path(folder, "s_20", 2, DESCRIPTION).touch()
    for ask in (lambda: found(folder), lambda: wanted_labels(folder, DESCRIPTION)):
        with pytest.raises(DataError, match=r"s_20: s_20_0002\.nii\.gz is one channel too many.*: T1, T2\."):
            ask()


def test_every_scan_that_is_there_is_to_be_segmented(folder, caplog):
    with caplog.at_level("INFO"):
        wanted = wanted_labels(folder, DESCRIPTION)
    assert [item.target.case for item in wanted] == ["s_0", "s_10", "s_20", "s_30"]
    assert "Rows without an image are left out: s_25, s_40." in caplog.text
    assert wanted[1].described()["images"] == ["s_10_0000.nii.gz", "s_10_0001.nii.gz"]


def test_what_cannot_be_segmented(folder, tmp_path):
    image_path(folder, "s_10", 1, DESCRIPTION).unlink()
    with pytest.raises(DataError, match=r"cannot be segmented:\n  s_10: the file s_10_0001\.nii\.gz is missing"):
        wanted_labels(folder, DESCRIPTION)
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        wanted_labels(tmp_path / "nowhere", DESCRIPTION)
    other = DESCRIPTION.model_copy(update={"file_ending": ".mha"})
    with pytest.raises(DataError, match=r"none of its images. Looked for s_0_0000.mha"):
        wanted_labels(folder, other)
