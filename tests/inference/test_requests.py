import pytest

from longflow.data.dataset import image_path
from longflow.errors import DataError
from longflow.inference.requests import input_series, scans_with_images, wrong_channels
from longflow.task import get_task
from tests.inference.helpers import TWO_CHANNELS, write_input

WORDS = get_task("segment").words


@pytest.fixture
def folder(tmp_path):
    return write_input(tmp_path)


def test_rows_without_an_image_are_excluded_and_named(folder, caplog):
    with caplog.at_level("INFO"):
        scans = scans_with_images(folder, TWO_CHANNELS, WORDS)
    assert [scan.case for scan in scans] == ["s_0", "s_10", "s_20", "s_30"]
    assert "Rows without an image are excluded: s_25, s_40." in caplog.text


def test_a_channel_too_many_or_too_few_is_an_error(folder):
    image_path(folder, "s_20", 2, TWO_CHANNELS).touch()
    image_path(folder, "s_10", 1, TWO_CHANNELS).unlink()
    with pytest.raises(DataError, match=r"cannot be segmented:\n  s_10: the file s_10_0001\.nii\.gz is miss") as raised:
        scans_with_images(folder, TWO_CHANNELS, WORDS)
    assert "s_20: s_20_0002.nii.gz is one channel too many. Channels of the model: T1, T2." in str(raised.value)
    (series,) = input_series(folder, TWO_CHANNELS)
    assert len(wrong_channels(series, TWO_CHANNELS)) == 2


def test_a_folder_without_scans_or_without_their_images(folder, tmp_path):
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        input_series(tmp_path / "nowhere", TWO_CHANNELS)
    other = TWO_CHANNELS.model_copy(update={"file_ending": ".mha"})
    with pytest.raises(DataError, match=r"none of its images\. Expected s_0_0000\.mha and so on"):
        input_series(folder, other)
    (folder / "scans.csv").write_text("case,subject,time\n")
    with pytest.raises(DataError, match="has no scan to segment: no row"):
        scans_with_images(folder, TWO_CHANNELS, WORDS)
