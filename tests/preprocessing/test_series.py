import json

import numpy as np
import pytest

from longflow.data.dataset import Scan, Series, training_series
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError
from longflow.preprocessing.series import prepare_series, prepare_volumes, series_digest
from tests.preprocessing.helpers import make_dataset, make_plans, make_volume


def prepare(volumes, plans, **further):
    cases = [f"case{index}" for index in range(len(volumes))]
    return prepare_volumes("s", cases, list(range(len(volumes))), volumes, plans, "3d_fullres", **further)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return make_dataset(subjects=1)


def test_shapes_and_properties():
    volumes = [make_volume(border=2, seed=seed, channels=2) for seed in range(3)]
    prepared = prepare(volumes, make_plans(spacing=(0.5, 4.0, 1.0), transpose=(1, 0, 2), channels=("T1", "T2")))
    properties = prepared.properties
    assert properties.crop == [[2, 4], [2, 18], [2, 22]]
    assert properties.shape_before_crop == [6, 20, 24] and properties.shape_after_crop == [2, 16, 20]
    assert properties.shape == [32, 2, 20]
    assert prepared.images.shape == (3, 2, 32, 2, 20) and prepared.images.dtype == np.float32
    assert prepared.segmentations is None
    assert properties.data_type == ["int16", "int16"]
    assert prepared.coarse_block == (8, 1, 4) and prepared.coarse.shape == (3, 2, 4, 2, 5)
    assert type(properties).from_json(json.loads(json.dumps(properties.to_json()))) == properties


def test_the_native_grid_is_only_cropped_and_scaled():
    volume = make_volume(border=2)
    prepared = prepare([volume], make_plans(spacing=(4.0, 1.0, 1.0), normal_form="absolute"))
    expected = (volume.array[:, 2:4, 2:18, 2:22] - np.float32(40)) / np.float32(250)
    assert np.array_equal(prepared.images[0], expected)


def test_files_are_prepared_as_volumes_are(dataset):
    _, (series,) = training_series(dataset.raw)
    plans = make_plans(spacing=(4.0, 1.0, 1.0))
    from_files = prepare_series(series, plans, "3d_fullres")
    in_memory = prepare([read_scan(scan.images) for scan in series.scans], plans)
    assert np.array_equal(from_files.images, in_memory.images)
    assert from_files.properties.digest and not in_memory.properties.digest


def test_a_scan_without_label_is_minus_one(dataset):
    _, (series,) = training_series(dataset.raw)
    prepared = prepare_series(series, make_plans(spacing=(4.0, 0.5, 0.5)), "3d_fullres")
    assert prepared.segmentations.shape == (2, *prepared.properties.shape)
    assert prepared.segmentations.dtype == np.int16
    assert set(np.unique(prepared.segmentations[0])) == {0, 1}
    assert set(np.unique(prepared.segmentations[1])) == {-1}


def test_a_wanted_target_without_images_is_left_out(dataset):
    _, (series,) = training_series(dataset.raw)
    wanted = Scan("later", "s0", 9.0, (dataset.raw / "imagesTr" / "later_0000.nii.gz",))
    prepared = prepare_series(Series("s0", (*series.scans, wanted)), make_plans(), "3d_fullres")
    assert prepared.properties.cases == ["s0_0", "s0_1"]
    with pytest.raises(DataError, match="no scan whose images exist"):
        prepare_series(Series("s0", (wanted,)), make_plans(), "3d_fullres")


def test_a_scan_with_some_channels_only_is_an_error(dataset):
    _, (series,) = training_series(dataset.raw)
    scan = series.scans[0]
    half = Scan(scan.case, "s0", 0.0, (*scan.images, dataset.raw / "imagesTr" / "s0_0_0001.nii.gz"))
    with pytest.raises(DataError, match=r"s0_0_0001\.nii\.gz does not exist: case s0_0 has 1 of 2 channels"):
        prepare_series(Series("s0", (half,)), make_plans(channels=("T1", "T2")), "3d_fullres")


def test_scans_on_different_grids_are_an_error(dataset):
    volume = make_volume(spacing=(4.0, 1.5, 1.0), seed=5)
    moved = dataset.raw / "imagesTr" / "s0_1_0000.nii.gz"
    write_volume(volume.array[0], volume.geometry, "float32", moved)
    _, (series,) = training_series(dataset.raw)
    with pytest.raises(
        DataError, match=r"s0_1_0000\.nii\.gz: spacing is 1 x 1.5 x 4, but .*s0_0_0000\.nii\.gz .* has 1 x 1 x 4"
    ):
        prepare_series(series, make_plans(), "3d_fullres")


def test_a_label_on_another_grid_is_an_error(dataset):
    volume = make_volume(shape=(6, 20, 25))
    label = dataset.raw / "labelsTr" / "s0_0.nii.gz"
    write_volume(volume.array[0] > 0, volume.geometry, "uint8", label)
    _, (series,) = training_series(dataset.raw)
    with pytest.raises(DataError, match=r"s0_0\.nii\.gz: size is 25 x 20 x 6, but its image, .* has 24 x 20 x 6"):
        prepare_series(series, make_plans(), "3d_fullres")


def test_what_is_not_a_number_is_an_error():
    volume = make_volume()
    volume.array[0, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match="Scan case1 has 1 voxels that are NaN or infinite"):
        prepare([make_volume(), volume], make_plans())


def test_another_number_of_channels_is_an_error():
    with pytest.raises(DataError, match="Scan case0 has 1 channels, expected 2: T1, T2"):
        prepare([make_volume()], make_plans(channels=("T1", "T2")))


def test_the_targets_intensities_do_not_reach_the_context():
    """per_subject: the first scan alone decides; per_scan: each scan alone."""
    context, dim, bright = make_volume(seed=0), make_volume(seed=1), make_volume(seed=1, high=9000)
    for form in ("per_subject", "per_scan"):
        plans = make_plans(normal_form=form)
        assert np.array_equal(prepare([context, dim], plans).images[0], prepare([context, bright], plans).images[0])


def test_the_digest_knows_what_matters(dataset):
    _, (series,) = training_series(dataset.raw)
    digest = series_digest(series, make_plans(), "3d_fullres")
    assert digest == series_digest(series, make_plans(patch_size=(2, 4, 4)), "3d_fullres")
    assert digest != series_digest(series, make_plans(spacing=(2.0, 1.0, 1.0)), "3d_fullres")
    assert digest != series_digest(series, make_plans(normal_form="per_scan"), "3d_fullres")
    assert digest != series_digest(series, make_plans(transpose=(1, 0, 2)), "3d_fullres")
    volume = make_volume(seed=7)
    write_volume(volume.array[0], volume.geometry, "float32", series.scans[0].images[0])
    assert digest != series_digest(series, make_plans(), "3d_fullres")
