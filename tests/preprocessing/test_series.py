import json
import tracemalloc

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from longflow.data import coarse
from longflow.data.dataset import Scan, Series, training_series
from longflow.data.images import Volume, read_scan, write_volume
from longflow.errors import DataError
from longflow.plans import read_plans
from longflow.preprocessing import resampling
from longflow.preprocessing.series import RawSeries, prepare_series, prepare_volumes, series_digest
from tests.data.helpers import edit_table, write_phase_dataset
from tests.methods.helpers import minimal_plans
from tests.preprocessing.helpers import (
    make_dataset,
    make_plans,
    make_volume,
    segmentation_plans,
    translation_plans,
)
from tests.training.helpers import conditioned_dataset

LABELS = {"background": 0, "dark": 1, "bright": 2}


def prepare(volumes, plans, labels=()):
    cases = [f"case{index}" for index in range(len(volumes))]
    return prepare_volumes(RawSeries("s", cases, range(len(volumes)), volumes, labels), plans, "3d_fullres")


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


def test_a_scan_is_prepared_in_the_memory_of_the_result_and_a_few_slices(monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", 1)
    monkeypatch.setattr(coarse, "PART", 1)
    plans = segmentation_plans({"background": 0, "one": 1}, normal_form="absolute", channels=("CT",))
    volume = make_volume((60, 48, 48), (1.0, 1.0, 1.0))
    tracemalloc.start()
    images = prepare([volume], plans).images
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images.shape == (1, 1, 60, 48, 48)
    assert peak < 1.6 * images.nbytes


def test_a_scan_without_label_is_minus_one(dataset):
    _, (series,) = training_series(dataset.raw)
    plans = make_plans(spacing=(4.0, 0.5, 0.5))
    assert prepare_series(series, plans, "3d_fullres").segmentations is None  # forecasts do not learn from labels
    plans.task = "segment"
    prepared = prepare_series(series, plans, "3d_fullres")
    assert prepared.segmentations.shape == (2, *prepared.properties.shape)
    assert prepared.segmentations.dtype == np.int16
    assert set(np.unique(prepared.segmentations[0])) == {0, 1}
    assert set(np.unique(prepared.segmentations[1])) == {-1}


def test_a_requested_target_without_images_is_excluded(dataset):
    _, (series,) = training_series(dataset.raw)
    requested = Scan("later", "s0", 9.0, (dataset.raw / "imagesTr" / "later_0000.nii.gz",))
    prepared = prepare_series(Series("s0", (*series.scans, requested)), make_plans(), "3d_fullres")
    assert prepared.properties.cases == ["s0_0", "s0_1"]
    with pytest.raises(DataError, match="no scan whose images exist"):
        prepare_series(Series("s0", (requested,)), make_plans(), "3d_fullres")


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
    plans = make_plans()
    plans.task = "segment"
    with pytest.raises(DataError, match=r"s0_0\.nii\.gz: size is 25 x 20 x 6, but its image, .* has 24 x 20 x 6"):
        prepare_series(series, plans, "3d_fullres")


def test_what_is_not_a_number_is_an_error():
    volume = make_volume()
    volume.array[0, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match="Scan case1 has 1 voxels that are NaN or infinite"):
        prepare([make_volume(), volume], make_plans())


def test_another_number_of_channels_is_an_error():
    with pytest.raises(DataError, match="Scan case0 has 1 channels, expected 2: T1, T2"):
        prepare([make_volume()], make_plans(channels=("T1", "T2")))


def test_the_targets_intensities_do_not_reach_the_context():
    """per_subject: the first scan alone decides; per_scan: each scan alone; matched: those before it."""
    context, dim, bright = make_volume(seed=0), make_volume(seed=1), make_volume(seed=1, high=9000)
    for form in ("per_subject", "per_scan", "matched"):
        plans = make_plans(normal_form=form)
        assert np.array_equal(prepare([context, dim], plans).images[0], prepare([context, bright], plans).images[0])


@pytest.mark.parametrize("form", ["per_subject", "per_scan", "matched"])
def test_a_target_that_widens_the_crop_changes_no_number_of_the_context(form):
    """The blocks of maps are those of the whole grid, not of the crop."""
    first, wide = make_volume((9, 80, 90), seed=0, border=3), make_volume((9, 80, 90), seed=1)
    second = Volume(1.3 * first.array + 50 * (first.array != 0), first.geometry, first.data_type)
    plans = make_plans(normal_form=form)
    alone, with_target = (prepare(volumes, plans).properties for volumes in ([first, second], [first, second, wide]))
    assert alone.crop != with_target.crop
    assert alone.offset == with_target.offset[:2] and alone.scale == with_target.scale[:2]


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


def nnunets(volume: Volume, label: np.ndarray, plans) -> tuple[np.ndarray, np.ndarray]:
    """What ``DefaultPreprocessor`` makes of a scan: image (channels, z, y, x), segmentation (z, y, x)."""
    plan = plans.configurations["3d_fullres"]
    resampling = {"order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    absolute = plans.channels[0].normal_form == "absolute"
    content = {
        "dataset_name": plans.dataset_name,
        "plans_name": plans.plans_name,
        "transpose_forward": plans.transpose_forward,
        "transpose_backward": plans.transpose_backward,
        "label_manager": "LabelManager",
        "image_reader_writer": "SimpleITKIO",
        "foreground_intensity_properties_per_channel": {
            str(index): {
                "mean": channel.offset,
                "std": channel.scale,
                "percentile_00_5": channel.clip and channel.clip[0],
                "percentile_99_5": channel.clip and channel.clip[1],
            }
            for index, channel in enumerate(plans.channels)
        },
        "configurations": {
            "3d_fullres": {
                "architecture": {},
                "spacing": list(plan.spacing),
                "normalization_schemes": ["CTNormalization" if absolute else "ZScoreNormalization"]
                * len(plans.channels),
                "use_mask_for_norm": [False] * len(plans.channels),
                "resampling_fn_data": function,
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
                "resampling_fn_seg": function,
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
            }
        },
    }
    manager = PlansManager(content)
    image, segmentation, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        volume.array,
        label[None],
        {"spacing": list(volume.geometry.array_spacing)},
        manager,
        manager.get_configuration("3d_fullres"),
        {"labels": plans.labels, "channel_names": {}, "file_ending": ".nii.gz"},
    )
    # nnU-Net marks background beyond the nonzero region by -1 and turns it into 0 before training
    return image, np.maximum(segmentation[0], 0)


def labelled(volume: Volume) -> np.ndarray:
    """Two labels by brightness, both with voxels where the image is zero."""
    smooth = volume.array[0]
    label = np.where(smooth > 700, 2, np.where(smooth < -100, 1, 0)).astype(np.int16)
    label[1, 2:4, 2:4] = 1
    return label


@pytest.mark.parametrize("border", [0, 2], ids=["filled", "zero background"])
@pytest.mark.parametrize(
    ("spacing", "target", "transpose"),
    [
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0, 1, 2)),
        ((1.0, 1.0, 1.0), (0.8, 1.3, 1.1), (0, 1, 2)),
        ((5.0, 1.0, 1.0), (5.0, 1.2, 0.9), (0, 1, 2)),
        ((6.0, 1.0, 1.0), (4.0, 1.0, 1.5), (0, 1, 2)),
        ((1.0, 1.0, 4.0), (4.0, 0.8, 1.2), (2, 0, 1)),
    ],
    ids=["native", "isotropic", "thick slices", "resampled through the plane", "other axis"],
)
@pytest.mark.parametrize("normal_form", ["per_scan", "absolute"])
def test_a_scan_is_prepared_as_nnunet_does(spacing, target, transpose, border, normal_form):
    volume = make_volume(shape=(9, 14, 12), spacing=spacing, border=border, channels=2, seed=3)
    volume.array[1] *= 0.5
    if border:  # a corner of the box is empty, too: statistics within the nonzero region would be others
        volume.array[:, :5, :6, :6] = 0
    plans = segmentation_plans(LABELS, target, transpose, normal_form, channels=("one", "two"))
    label = labelled(volume)
    expected, expected_label = nnunets(volume, label.copy(), plans)
    prepared = prepare([volume], plans, [label])
    assert prepared.images[0].shape == expected.shape
    assert np.abs(prepared.images[0] - expected).max() < 1e-5
    assert np.array_equal(prepared.segmentations[0], expected_label)
    assert set(np.unique(prepared.segmentations)) == {0, 1, 2}


def test_a_hole_of_zeros_counts_as_nnunet_counts_it():
    volume = make_volume(shape=(8, 10, 10), spacing=(1.0, 1.0, 1.0), border=1)
    volume.array[:, 3:5, 4:7, 4:7] = 0
    plans = segmentation_plans(LABELS)
    expected, _ = nnunets(volume, labelled(volume), plans)
    prepared = prepare([volume], plans)
    assert np.abs(prepared.images[0] - expected).max() < 1e-5


def test_regions_and_ignore_label_stay_integers():
    volume = make_volume(shape=(9, 14, 12), spacing=(1.0, 1.0, 1.0))
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    plans = segmentation_plans(labels, (0.8, 1.3, 1.1), regions_class_order=[1, 2])
    label = labelled(volume)
    label[-3:] = 3
    _, expected = nnunets(volume, label.copy(), plans.model_copy(update={"labels": {**LABELS, "ignore": 3}}))
    prepared = prepare([volume], plans, [label])
    assert np.array_equal(prepared.segmentations[0], expected)
    assert set(np.unique(prepared.segmentations)) == {0, 1, 2, 3}
    assert set(prepared.class_locations[0]) == {0, 1, 2}


def test_the_other_scans_of_a_subject_change_the_crop_alone():
    """A scan is segmented by itself: in a series it has the numbers that it has alone."""
    small, large = make_volume(border=4, shape=(12, 16, 16), seed=1), make_volume(border=1, shape=(12, 16, 16), seed=2)
    plans = segmentation_plans(LABELS, spacing=(4.0, 1.0, 1.0))
    both = prepare_volumes(RawSeries("s", ["a", "b"], [0, 1], [small, large]), plans, "3d_fullres")
    alone = prepare_volumes(RawSeries.of_scan("a", small), plans, "3d_fullres")
    assert both.properties.offset[0] == alone.properties.offset[0]
    assert both.properties.scale[0] == alone.properties.scale[0]
    assert np.array_equal(both.images[0][:, 3:-3, 3:-3, 3:-3], alone.images[0])


def test_on_their_own_grid_scans_keep_every_voxel():
    """Subjects of one dataset may have different spacings; nothing is resampled, only cropped, clipped and scaled."""
    for spacing in ((5.0, 0.8, 0.8), (2.0, 1.5, 1.5)):
        volume = make_volume(spacing=spacing, border=2, low=-1100, high=1500)
        raw = RawSeries("s", ["a"], [0], [volume], phases=["native"])
        prepared = prepare_volumes(raw, translation_plans(), "2d")
        properties = prepared.properties
        assert (properties.shape, properties.spacing) == ([2, 16, 20], list(spacing))
        assert properties.phases == ["native"]
        inside = volume.array[:, 2:4, 2:18, 2:22]
        assert np.array_equal(prepared.images[0], np.clip(inside, -1000, 1000) / np.float32(1000))
    assert prepare_volumes(raw, translation_plans(), "3d_fullres").images.shape[2:] == (1, 8, 10)


def test_the_digest_of_translations_knows_phases_and_the_own_grid(tmp_path):
    raw = write_phase_dataset(tmp_path / "Dataset904_Phases")

    def digest(plans, name):
        return series_digest(training_series(raw)[1][0], plans, name)

    plans, moved = translation_plans(), translation_plans(spacing=(4.0, 2.0, 2.0))
    volume, slices = digest(plans, "3d_fullres"), digest(plans, "2d")
    assert volume != slices
    assert volume != digest(moved, "3d_fullres")
    assert slices == digest(moved, "2d")  # the spacing of the plan decides nothing there
    edit_table(raw, "p1,0,arterial", "p1,0,venous")
    assert volume != digest(plans, "3d_fullres") and slices != digest(plans, "2d")


def test_phases_are_known_to_translations_alone(tmp_path):
    series = training_series(write_phase_dataset(tmp_path / "Dataset904_Phases"))[1][0]
    assert prepare_series(series, translation_plans(), "2d").properties.phases == ["arterial", "native"]
    assert prepare_series(series, make_plans(), "3d_fullres").properties.phases == []


def test_a_scan_of_a_pair_has_the_numbers_that_it_has_alone():
    """Stripped to the head in one phase and not in the other, the crop of both is larger than that of the first."""
    volumes = [make_volume(seed=seed, border=border, low=1) for seed, border in ((0, 2), (1, 0))]
    volumes[1].array[0, :, :2] = 3
    plans = translation_plans("per_scan")
    both = prepare_volumes(RawSeries("s", ["a", "b"], [0, 0], volumes), plans, "2d").properties
    alone = prepare_volumes(RawSeries.of_scan("a", volumes[0]), plans, "2d").properties
    assert both.crop != alone.crop
    assert (both.offset[0], both.scale[0]) == (alone.offset[0], alone.scale[0])


def test_covariates_are_kept_for_each_scan_and_a_changed_one_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = conditioned_dataset(subjects=1)
    plans, (series,) = read_plans(paths.plans()), training_series(paths.raw)[1]
    found = prepare_series(series, plans, "3d_fullres").properties
    assert (
        found.covariates == [{"age": 50.0 + scan, "treatment": 1.0 if scan % 2 else None} for scan in range(4)]
        and found.period == 20
    )
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found
    older = {name: value for name, value in found.to_json().items() if name != "covariates"}
    assert type(found).from_json(older).covariates == []
    table = (paths.raw / "scans.csv").read_text()
    for old, new in ((",20,52,", ",20,62,"), (",20,5", ",21,5")):
        (paths.raw / "scans.csv").write_text(table.replace(old, new))
        (changed,) = training_series(paths.raw)[1]
        assert series_digest(changed, plans, "3d_fullres") != found.digest
        without = minimal_plans()
        assert series_digest(changed, without, "3d_fullres") == series_digest(series, without, "3d_fullres")
