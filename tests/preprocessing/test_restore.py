import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError
from longflow.plans import Plans
from longflow.preprocessing import resampling
from longflow.preprocessing.restore import export_labels, export_probabilities, export_slices, labels_of_logits
from longflow.preprocessing.series import RawSeries, export_forecast, prepare_volumes, to_input_space
from tests.preprocessing.helpers import OBLIQUE, make_plans, make_volume, translation_plans


def prepare(volumes, plans):
    cases = [f"case{index}" for index in range(len(volumes))]
    return prepare_volumes(RawSeries("s", cases, range(len(volumes)), volumes), plans, "3d_fullres")


KINDS = {
    "native": {"spacing": (4.0, 1.0, 1.0)},
    "native, transposed": {"spacing": (1.0, 4.0, 1.0), "transpose": (1, 0, 2)},
    "finer": {"spacing": (4.0, 0.5, 0.5)},
    "finer, transposed": {"spacing": (0.5, 0.5, 4.0), "transpose": (2, 1, 0)},
    "isotropic": {"spacing": (1.0, 1.0, 1.0)},
    "coarser": {"spacing": (8.0, 2.0, 2.0)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normal_form", ["absolute", "per_subject", "per_scan", "matched"])
@pytest.mark.parametrize("border", [0, 2])
def test_an_unchanged_prediction_gives_the_last_scan_back_to_the_bit(kind, normal_form, border):
    volumes = [make_volume(seed=seed, border=border, channels=2) for seed in range(2)]
    prepared = prepare(volumes, make_plans(normal_form=normal_form, channels=("A", "B"), **KINDS[kind]))
    forecast = export_forecast(prepared.images[1], prepared.images[1], volumes[1].array, prepared.properties, 1)
    assert forecast.dtype == np.float32
    assert np.array_equal(forecast, volumes[1].array)


@pytest.mark.parametrize("kind", KINDS)
def test_a_uniform_change_comes_back_in_input_units(kind):
    volumes = [make_volume(seed=seed, border=2) for seed in range(2)]
    prepared = prepare(volumes, make_plans(**KINDS[kind]))
    scale = prepared.properties.scale[1][0]
    forecast = export_forecast(prepared.images[1] + 0.5, prepared.images[1], volumes[1].array, prepared.properties, 1)
    change = (forecast - volumes[1].array)[0]
    assert np.allclose(change[2:4, 2:18, 2:22], 0.5 * scale, atol=1e-2)
    change[2:4, 2:18, 2:22] = 0
    assert not change.any()  # outside the crop, the forecast is the last scan


@pytest.mark.parametrize("kind", ["native", "native, transposed"])
@pytest.mark.parametrize("normal_form", ["absolute", "per_subject", "per_scan"])
def test_a_perfect_forecast_is_within_one_hounsfield_unit(kind, normal_form):
    volumes = [make_volume(seed=seed, border=2, low=-1024, high=3071) for seed in range(2)]
    prepared = prepare(volumes, make_plans(normal_form=normal_form, **KINDS[kind]))
    properties = prepared.properties
    target = prepared.images[1]
    if normal_form == "per_scan":  # the forecast is in the last context scan's normal form
        raw = to_input_space(target, properties, 1)[:, 2:4, 2:18, 2:22]
        offset, scale = properties.offset[0][0], properties.scale[0][0]
        target = ((raw - offset) / scale).transpose(0, *(1 + axis for axis in properties.transpose))
    forecast = export_forecast(target, prepared.images[0], volumes[0].array, properties, 0)
    assert np.abs(forecast - volumes[1].array).max() < 0.01


@pytest.mark.parametrize("kind", ["finer", "finer, transposed"])
def test_resampling_there_and_back_loses_little(kind):
    volume = make_volume(border=2)
    prepared = prepare([volume], make_plans(**KINDS[kind]))
    back = to_input_space(prepared.images[0], prepared.properties, 0)
    inside = (0, slice(2, 4), slice(2, 18), slice(2, 22))
    error = back[inside] - volume.array[inside]
    assert np.abs(error).mean() < 0.05 * volume.array[inside].std()


def test_outside_the_crop_nothing_is_known():
    volume = make_volume(border=2)
    prepared = prepare([volume], make_plans(**KINDS["native"]))
    back = to_input_space(prepared.images[0], prepared.properties, 0)
    inside = np.zeros(back.shape, bool)
    inside[:, 2:4, 2:18, 2:22] = True
    assert np.array_equal(np.isnan(back), ~inside)
    assert np.abs(back[inside] - volume.array[inside]).max() < 1e-3


@pytest.mark.parametrize("data_type", ["int16", "uint8"])
def test_files_have_the_geometry_and_type_of_the_input(tmp_path, data_type):
    limits = np.iinfo(data_type)
    low, high = max(limits.min, -1000), min(limits.max, 32000)
    volume = make_volume(data_type=data_type, low=low, high=high, direction=OBLIQUE)
    prepared = prepare([volume], make_plans(**KINDS["finer"]))
    far = 1000 * np.sign(prepared.images[0])  # beyond what the type can hold, both ways
    forecast = export_forecast(far, prepared.images[0], volume.array, prepared.properties, 0)
    assert forecast.max() > limits.max and forecast.min() < limits.min
    path = tmp_path / "case_0000.nii.gz"
    write_volume(forecast[0], prepared.properties.geometry, prepared.properties.data_type[0], path)
    written = read_scan((path,))
    assert written.data_type == data_type
    assert not volume.geometry.differences(written.geometry)
    assert written.array.min() == limits.min and written.array.max() == limits.max

    write_volume(forecast[0] * 0 + 3.5001, prepared.properties.geometry, data_type, path)
    assert set(np.unique(read_scan((path,)).array)) == {4}


def test_what_does_not_fit_is_an_error():
    volume = make_volume(border=2)
    prepared = prepare([volume], make_plans(**KINDS["native"]))
    image = prepared.images[0]
    with pytest.raises(DataError, match=r"\[2, 16, 19\] voxels does not fit the prepared series of s"):
        to_input_space(image[..., 1:], prepared.properties, 0)
    with pytest.raises(DataError, match=r"case0 has .* its file has changed"):
        export_forecast(image, image, volume.array[:, 1:], prepared.properties, 0)


PLAIN = {"labels": {"background": 0, "core": 1, "rim": 2, "ignore": 3}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}


def segmentation_plans(content, **kind):
    return Plans.model_validate({**make_plans(**kind).model_dump(), **content, "task": "segment"})


def by_nnunet(logits, properties, plans, probabilities=False):
    """Labels on the files' grid, by nnU-Net's own export, with what its plans say of resampling by default.

    :param probabilities: of the outputs, too.
    """
    transpose = plans.transpose_forward

    def resample(data, shape, present, target):
        return resample_data_or_seg_to_shape(data, shape, present, target, False, 1, 0, None)

    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        SimpleNamespace(transpose_forward=transpose, transpose_backward=plans.transpose_backward),
        SimpleNamespace(spacing=plans.configuration("3d_fullres").spacing, resampling_fn_probabilities=resample),
        LabelManager(plans.labels, plans.regions_class_order or None),
        {
            "spacing": properties.geometry.array_spacing,
            "shape_before_cropping": [properties.shape_before_crop[axis] for axis in transpose],
            "shape_after_cropping_and_before_resampling": [properties.shape_after_crop[axis] for axis in transpose],
            "bbox_used_for_cropping": [properties.crop[axis] for axis in transpose],
        },
        return_probabilities=probabilities,
        num_threads_torch=1,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [PLAIN, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("border", [0, 2])
def test_labels_are_those_that_nnunet_exports(kind, content, border):
    plans = segmentation_plans(content, **KINDS[kind])
    properties = prepare([make_volume(border=border)], plans).properties
    outputs = len(plans.labels) - 1
    logits = np.random.default_rng(0).normal(size=(outputs, *properties.shape)).astype(np.float16)
    found = export_labels(logits, properties, plans)
    assert found.dtype == np.int16 and list(found.shape) == properties.shape_before_crop
    assert set(np.unique(found)) == {0, 1, 2}
    assert np.array_equal(found, by_nnunet(logits, properties, plans))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [PLAIN, REGIONS], ids=["labels", "regions"])
def test_probabilities_are_those_that_nnunet_exports(kind, content):
    """In whole numbers of 1/255. Around the crop nnU-Net has background; without a background, nothing."""
    plans = segmentation_plans(content, **KINDS[kind])
    properties = prepare([make_volume(border=2)], plans).properties
    logits = np.random.default_rng(0).normal(size=(len(plans.labels) - 1, *properties.shape)).astype(np.float16)
    found = export_probabilities(np.moveaxis(logits, 1, 0), properties, plans)
    _, expected = by_nnunet(logits, properties, plans, probabilities=True)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found / 255 - expected).max() < 0.5 / 255 + 1e-6


def peak_of(work):
    """Bytes that NumPy takes at most."""
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def test_labels_of_many_structures_take_the_memory_of_a_few_slices():
    labels = {"background": 0, **{f"s{number}": number for number in range(1, 20)}}
    plans = segmentation_plans({"labels": labels}, spacing=(1.25, 1, 1))
    properties = prepare([make_volume((80, 40, 40), (1.0, 1.0, 1.0))], plans).properties
    assert properties.shape == [64, 40, 40]
    random = np.random.default_rng(0)
    slices = (random.normal(size=(20, 40, 40)).astype(np.float16) for _ in range(64))
    labels, peak = peak_of(lambda: export_slices(slices, properties, plans))
    assert len(np.unique(labels)) == 20
    of_logits = 20 * 40 * 40 * np.dtype(np.float64).itemsize
    assert peak < labels.nbytes + 6 * of_logits


def test_a_forecast_takes_two_volumes_besides_those_given(monkeypatch):
    monkeypatch.setattr(resampling, "SLAB", 1)
    prepared = prepare([make_volume((60, 48, 48), (1.0, 1.0, 1.0))], make_plans(normal_form="absolute"))
    image, last = prepared.images[0], make_volume((60, 48, 48)).array
    _, peak = peak_of(lambda: export_forecast(image + 1, image, last, prepared.properties, 0))
    assert peak < 3.4 * image.nbytes  # one of them is image + 1


def test_the_greatest_logit_wins_and_later_regions_lie_on_top():
    logits = np.array([[3, -1, 0], [2, 1, -1], [1, 0, 2]], np.float16).reshape(3, 1, 1, 3)
    assert labels_of_logits(logits, segmentation_plans(PLAIN)).tolist() == [[[0, 1, 2]]]
    logits = np.array([[1, 1, -1, -1], [1, -1, 1, -1]], np.float16).reshape(2, 1, 1, 4)
    labels = labels_of_logits(logits, segmentation_plans(REGIONS))
    assert labels.tolist() == [[[2, 1, 2, 0]]] and labels.dtype == np.int16


def test_logits_of_another_scan_are_an_error():
    plans = segmentation_plans(PLAIN)
    properties = prepare([make_volume(border=2)], plans).properties
    with pytest.raises(DataError, match="does not fit the prepared series of s"):
        export_labels(np.zeros((3, 2, 2, 2), np.float16), properties, plans)


class TestHounsfieldUnits:
    """CT to translate, there and back without a network, on the files' grid (2d) and on another (3d_fullres)."""

    CONFIGURATIONS = ("2d", "3d_fullres")

    def wave(self, height, periods, shape=(6, 40, 36)):
        """Whole periods along each axis, which an edge repeats smoothly."""
        lines = [np.cos(np.pi * n * (np.arange(size) + 0.5) / size) for n, size in zip(periods, shape, strict=True)]
        return height * np.einsum("i,j,k->ijk", *lines)

    def pair(self):
        """A sharp scan of whole HU with metal and air beyond the clip, and one with a smooth change of up to 300 HU."""
        first, second = (make_volume((6, 40, 36), (5.0, 1.5, 1.5), seed=3, low=-600, high=400) for _ in range(2))
        second.array += np.rint(self.wave(150, (0, 1, 2)) + 150)
        for volume in (first, second):
            volume.array[0, :, :2] = 2500
            volume.array[0, :, 2:4] = -1024
        return first, second

    def prepared(self, volumes, name, spacing=(4.0, 1.0, 1.2)):
        plans = translation_plans(spacing=spacing)
        return prepare_volumes(RawSeries("s", ["n", "a"], [0, 0], volumes, phases=plans.phases), plans, name)

    def test_on_the_own_grid_a_scan_comes_back_within_one_unit_inside_the_clip(self):
        volumes = self.pair()
        prepared = self.prepared(volumes, "2d")
        for scan, volume in enumerate(volumes):
            back = to_input_space(prepared.images[scan], prepared.properties, scan)
            assert np.abs(back - np.clip(volume.array, -1000, 1000)).max() < 1e-3

    def test_on_another_grid_a_smooth_scan_comes_back_within_one_unit(self):
        """Sharp ones lose their edges there: this is why a change is what is exported."""
        volume = make_volume((6, 40, 36), (5.0, 1.5, 1.5))
        volume.array[0] = np.rint(self.wave(700, (0, 1, 1)) + self.wave(200, (0, 2, 0)))
        prepared = self.prepared([volume, volume], "3d_fullres", spacing=(5.0, 1.0, 1.2))
        assert prepared.properties.shape != [6, 40, 36]
        assert np.abs(to_input_space(prepared.images[0], prepared.properties, 0) - volume.array).max() <= 1

    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_no_change_is_the_file_to_the_bit_beyond_the_clip_too(self, name):
        volumes = self.pair()
        prepared = self.prepared(volumes, name)
        for scan, volume in enumerate(volumes):
            same = prepared.images[scan]
            assert np.array_equal(export_forecast(same, same, volume.array, prepared.properties, scan), volume.array)

    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_a_perfect_translation_is_the_other_phase_within_one_unit(self, name):
        first, second = self.pair()
        prepared = self.prepared((first, second), name, spacing=(5.0, 1.0, 1.2))
        found = export_forecast(prepared.images[1], prepared.images[0], first.array, prepared.properties, 0)
        if name == "2d":
            assert np.abs(found - second.array).max() <= 1
        # a smooth change survives another grid, sharp as the scans are; air and metal are its edges
        assert np.abs(found - second.array)[:, :, 10:].max() <= 1
