import gzip
import io

import matplotlib.image
import nibabel
import numpy as np
import pytest

from longflow.data.images import Geometry, read_scan
from longflow.report.volumes import WINDOW, Levels, Shown, affine_of, bounds, factors_of, shrunk

#: x flipped, and turned by 30 degrees about z
OBLIQUE = (-(3**0.5) / 2, -0.5, 0.0, -0.5, 3**0.5 / 2, 0.0, 0.0, 0.0, 1.0)
GRIDS = {
    "straight": Geometry((6, 5, 4), (1.0, 2.0, 3.0), (10.0, -20.0, 30.0), tuple(np.eye(3).ravel())),
    "oblique": Geometry((6, 5, 4), (0.7, 0.7, 5.0), (-11.0, 4.0, 9.0), OBLIQUE),
}


def opened(file: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(file))


@pytest.mark.parametrize("grid", GRIDS)
def test_values_and_places_are_those_of_the_file(grid, tmp_path):
    array = np.random.default_rng(0).normal(100, 40, (4, 5, 6)).astype(np.float32)
    affine = affine_of(GRIDS[grid])
    path = tmp_path / "scan_0000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.T, affine), path)
    read = read_scan((path,))
    levels = Levels.between(float(array.min()), float(array.max()))
    image = opened(Shown(levels.of(read.array[0]), affine_of(read.geometry), levels).nifti)
    source = nibabel.load(path)
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
    np.testing.assert_allclose(image.get_fdata(), source.get_fdata(), atol=levels.step / 2 * 1.001)
    assert image.get_data_dtype() == np.uint8


def test_the_same_volume_has_the_same_bytes():
    one, other = (Shown(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), np.eye(4), Levels(0, 1)) for _ in range(2))
    assert one.nifti == other.nifti


def test_values_beyond_the_levels_are_clipped():
    levels = Levels.between(0.0, 255.0)
    assert levels.of(np.array([-10.0, 0.4, 254.6, 900.0])).tolist() == [0, 0, 255, 255]
    assert levels.high == 255


@pytest.mark.parametrize("largest", [0.0, 3.7])
def test_no_difference_is_exactly_zero(largest):
    levels = Levels.around_zero(largest)
    level = levels.of(np.zeros(1))[0]
    assert levels.low + level * levels.step == 0
    assert levels.of(np.array([largest]))[0] == (254 if largest else 127)


def test_a_constant_scan_has_levels():
    assert Levels.between(5.0, 5.0).of(np.array([5.0])).tolist() == [0]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_centre_of_a_block_stays_where_it_was(grid):
    affine, factors = affine_of(GRIDS[grid]), (2, 1, 3)
    array = np.random.default_rng(1).random((4, 5, 6), dtype=np.float32)
    small, moved = shrunk(array, affine, factors)
    assert small.shape == (2, 5, 2)
    assert small[1, 2, 1] == pytest.approx(array[2:4, 2, 3:6].mean())
    corners = [affine @ [x, 2, z, 1] for x in (3, 4, 5) for z in (2, 3)]
    np.testing.assert_allclose(moved @ [1, 2, 1, 1], np.mean(corners, axis=0))


def test_labels_are_taken_and_never_averaged():
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 4
    small, moved = shrunk(labels, np.eye(4), (3, 3, 3), labels=True)
    assert small.tolist() == [[[4]]]
    np.testing.assert_allclose(moved @ [0, 0, 0, 1], [1, 1, 1, 1])


def test_blocks_are_as_isotropic_as_the_grid_allows():
    thick = Geometry((256, 256, 10), (1.0, 1.0, 8.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
    assert factors_of(thick, 0.0) == (1, 1, 1)
    assert factors_of(thick, 2.0) == (1, 2, 2)
    assert factors_of(thick, 1000.0) == (10, 256, 256)


def test_a_strip_shows_the_three_planes_in_radiological_view():
    voxels = np.zeros((20, 20, 20), np.uint8)
    voxels[:, :, 15:] = 255  # right of the patient
    strip = matplotlib.image.imread(io.BytesIO(Shown(voxels, np.eye(4), Levels(0, 1)).strip()))
    assert strip.shape[:2] == (160, 3 * 164)
    axial = strip[:, :160, 0]
    assert axial[80, 10] == 1 and axial[80, 100] == 0  # the right side of the patient is on the left


def test_a_strip_of_labels_is_transparent_where_there_is_none():
    voxels = np.zeros((20, 20, 20), np.uint8)
    voxels[:, :, 15:] = 2
    strip = matplotlib.image.imread(io.BytesIO(Shown(voxels, np.eye(4)).label_strip([(1, 2, 3), (255, 0, 0)])))
    np.testing.assert_allclose(strip[80, 10], (1, 0, 0, 1))
    assert strip[80, 100, 3] == 0


def test_bounds_leave_single_voxels_out():
    array = np.linspace(0, 1, 100_000)
    array[0] = 1e6
    assert bounds(array)[1] < 1.01


def test_bounds_of_a_large_volume_are_those_of_evenly_spaced_voxels():
    array = np.random.default_rng(0).random((128, 160, 200), np.float32)
    np.testing.assert_allclose(bounds(array, WINDOW), np.percentile(array, WINDOW), atol=1e-3)
