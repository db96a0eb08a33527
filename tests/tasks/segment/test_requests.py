import pytest

from longflow.data.dataset import image_path
from longflow.errors import DataError
from longflow.tasks.segment.requests import segmentation_requests
from tests.inference.helpers import TWO_CHANNELS, write_input


@pytest.fixture
def folder(tmp_path):
    return write_input(tmp_path)


def test_every_scan_with_images_is_segmented(folder, caplog):
    with caplog.at_level("INFO"):
        requests = segmentation_requests(folder, TWO_CHANNELS)
    assert [item.target.case for item in requests] == ["s_0", "s_10", "s_20", "s_30"]
    assert "Rows without an image are excluded: s_25, s_40." in caplog.text
    assert requests[1].provenance()["images"] == ["s_10_0000.nii.gz", "s_10_0001.nii.gz"]


def test_what_cannot_be_segmented(folder, tmp_path):
    image_path(folder, "s_10", 1, TWO_CHANNELS).unlink()
    with pytest.raises(DataError, match=r"segmented:\n  s_10_\*\.nii\.gz: channels: found 0000; expected 0000, 0001"):
        segmentation_requests(folder, TWO_CHANNELS)
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        segmentation_requests(tmp_path / "nowhere", TWO_CHANNELS)
    other = TWO_CHANNELS.model_copy(update={"file_ending": ".mha"})
    with pytest.raises(DataError, match=r"s_0_0000\.nii\.gz: ending: found \.nii\.gz; expected the file s_0_0000\.mha"):
        segmentation_requests(folder, other)
