import numpy as np
import pytest
import SimpleITK as sitk

from longflow.data.dataset import Scan, Series
from longflow.errors import DataError
from longflow.fingerprint.spatial import combine, examine_subject, samples_of_scan


def written(folder, arrays, spacings=None) -> Series:
    scans = []
    for index, array in enumerate(arrays):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((spacings or [(1.0, 2.0, 3.0)] * len(arrays))[index])
        path = folder / f"s{index}_0000.nii.gz"
        sitk.WriteImage(image, str(path))
        scans.append(Scan(f"s{index}", "s", float(index), (path,)))
    return Series("s", tuple(scans))


def box(start, stop, value=100) -> np.ndarray:
    array = np.zeros((10, 12, 14), dtype=np.int16)
    array[start:stop, start:stop, start:stop] = value
    return array


def test_scans_are_cropped_to_their_union(tmp_path):
    found = examine_subject((written(tmp_path, [box(2, 5), box(4, 9)]), 50, "bodies", False))
    assert found.shape_before_crop == (10, 12, 14)
    assert found.shape_after_crop == (7, 7, 7)
    assert found.spacing == (3, 2, 1)
    assert found.data_types == [{"int16"}]
    assert found.counts == [3**3 + 5**3]


def test_intensities_are_those_of_the_body(tmp_path):
    spatial = combine([examine_subject((written(tmp_path, [box(2, 5, 100), box(2, 5, 300)]), 200, "bodies", False))])
    intensities = spatial.foreground_intensity_properties_per_channel["0"]
    assert (intensities.min, intensities.max, intensities.mean) == (100, 300, 200)
    assert intensities.count == 2 * 3**3
    assert spatial.median_relative_size_after_cropping == pytest.approx(27 / (10 * 12 * 14))


def test_the_same_every_time(tmp_path):
    array = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    series = written(tmp_path, [array])
    assert combine([examine_subject((series, 20, "bodies", False))]) == combine(
        [examine_subject((series, 20, "bodies", False))]
    )


def test_empty_scans_keep_their_shape(tmp_path):
    assert examine_subject((written(tmp_path, [box(0, 0)]), 10, "bodies", False)).shape_after_crop == (10, 12, 14)


def test_other_grids_are_named(tmp_path):
    series = written(tmp_path, [box(2, 5), box(2, 5)], [(1.0, 2.0, 3.0), (1.0, 2.0, 4.0)])
    with pytest.raises(DataError, match=r"s1_0000.nii.gz: spacing is 1 x 2 x 4, but .*s0_0000"):
        examine_subject((series, 10, "bodies", False))


def test_nan_is_named(tmp_path):
    array = box(2, 5).astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"s0_0000.nii.gz .*1 NaN"):
        examine_subject((written(tmp_path, [array]), 10, "bodies", False))


def test_samples_are_bounded():
    assert samples_of_scan(10) == 10_000
    assert samples_of_scan(5_000) == 1_000


def labelled(folder, images, labels) -> Series:
    """:param labels: one per image, None for a scan without."""
    scans = []
    for scan, label in zip(written(folder, images).scans, labels, strict=True):
        path = folder / f"{scan.case}_label.nii.gz"
        if label is not None:
            image = sitk.GetImageFromArray(label)
            image.SetSpacing((1.0, 2.0, 3.0))
            sitk.WriteImage(image, str(path))
        scans.append(Scan(scan.case, "s", scan.time, scan.images, path))
    return Series("s", tuple(scans))


def test_intensities_of_labels_are_those_of_labelled_scans_alone(tmp_path):
    image = box(2, 8, 100)
    image[3:5, 3:5, 3:5] = 300
    label = np.zeros(image.shape, np.uint8)
    label[3:5, 3:5, 3:5] = 2
    series = labelled(tmp_path, [image, box(2, 8, 7)], [label, None])
    spatial = combine([examine_subject((series, 50, "labels", False))], "labels")
    intensities = spatial.foreground_intensity_properties_per_channel["0"]
    assert (intensities.min, intensities.max, intensities.count) == (300, 300, 8)
    assert spatial.foreground == "labels"


def test_subjects_without_labels_add_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with_label = labelled(tmp_path / "a", [box(2, 5, 100)], [(box(2, 5) > 0).astype(np.uint8)])
    without = labelled(tmp_path, [box(2, 5, 900)], [None])
    spatial = combine([examine_subject((series, 50, "labels", False)) for series in (with_label, without)], "labels")
    assert spatial.foreground_intensity_properties_per_channel["0"].max == 100
    assert len(spatial.spacings) == 2


def test_labels_that_mark_nothing(tmp_path):
    series = labelled(tmp_path, [box(2, 5)], [np.zeros((10, 12, 14), np.uint8)])
    with pytest.raises(DataError, match=r"labelsTr hold nothing but background"):
        combine([examine_subject((series, 50, "labels", False))], "labels")
