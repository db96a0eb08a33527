import pytest

from longflow.data.dataset import image_path
from longflow.errors import DataError
from longflow.inference.requests import input_series, scans_with_images
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
    with pytest.raises(DataError) as raised:
        scans_with_images(folder, TWO_CHANNELS, WORDS)
    assert str(raised.value).splitlines()[1:] == [
        "  s_10_*.nii.gz: channels: found 0000; expected 0000, 0001.",
        "  s_20_*.nii.gz: channels: found 0000, 0001, 0002; expected 0000, 0001.",
        "    Every scan needs one file for each of channel_names in dataset.json: T1, T2.",
    ]


def test_a_folder_without_scans_or_without_their_images(folder, tmp_path):
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        input_series(tmp_path / "nowhere", TWO_CHANNELS)
    other = TWO_CHANNELS.model_copy(update={"file_ending": ".mha"})
    _, problems = input_series(folder, other)
    assert "s_0_0000.nii.gz: ending: found .nii.gz; expected the file s_0_0000.mha, by line 2" in problems[0]
    for path in folder.glob("*.nii.gz"):
        path.unlink()
    _, problems = input_series(folder, TWO_CHANNELS)
    expected = "none of its images; the folder holds scans.csv; expected s_0_0000.nii.gz and so on"
    assert len(problems) == 2 and expected in problems[0]
    (folder / "scans.csv").write_text("case,subject,time\n")
    with pytest.raises(DataError, match=r"cannot be segmented:\n  scans.csv: file: found no line"):
        scans_with_images(folder, TWO_CHANNELS, WORDS)
