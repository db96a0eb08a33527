import numpy as np
import pytest

from longflow.dicom.burned_in import burn_in

LINES = ("SYNTHETIC", "research only")


@pytest.mark.parametrize("shape", [(512, 512), (64, 200), (200, 64), (24, 20), (3, 3)])
def test_letters_are_in_a_corner_box_and_the_rest_is_untouched(shape):
    pixels = np.full(shape, 40, np.int16)
    written = burn_in(pixels, LINES, ink=900, ground=-900)
    assert (pixels == 40).all()
    rows, columns = np.nonzero(written != 40)
    assert (rows.max() + 1) * (columns.max() + 1) <= max(0.65 * pixels.size, (written != 40).sum())
    assert set(np.unique(written)) <= {40, 900, -900}


def test_the_letters_can_be_read_on_a_scan_of_usual_size():
    written = burn_in(np.zeros((256, 256), np.int16), LINES, ink=1, ground=0)
    rows, columns = np.nonzero(written)
    assert columns.max() - columns.min() > 150
    assert rows.max() - rows.min() > 30
    # other letters, another picture
    assert (written != burn_in(np.zeros((256, 256), np.int16), ("SYNTHETIC", "research 0nly"), ink=1, ground=0)).any()


def test_on_a_small_scan_the_first_word_is_in_two_parts_that_can_be_read():
    written = burn_in(np.zeros((48, 48), np.int16), LINES, ink=1, ground=0)
    rows, columns = np.nonzero(written)
    assert rows.max() - rows.min() > 20 and columns.max() - columns.min() > 25
    np.testing.assert_array_equal(written, burn_in(np.zeros((48, 48), np.int16), ("SYNTHETIC", "x"), ink=1, ground=0))
