"""The contract with nnunetv2: what longflow relies on, one test for each use, against closed forms."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from longflow import nnunet

ROOT = Path(__file__).parents[1]
PLAIN = nnunet.build_label_manager({"background": 0, "a": 1, "b": 2}, None)
IGNORE = nnunet.build_label_manager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = nnunet.build_label_manager({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2])


@pytest.fixture
def generator():
    return np.random.default_rng(0)


# ---- the seam


def importers_of(library: str) -> list[str]:
    """Modules of longflow with an import of a library anywhere in them."""
    found = []
    for path in sorted((ROOT / "longflow").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in names):
                found.append(path.relative_to(ROOT / "longflow").as_posix())
    return sorted(set(found))


def test_one_module_imports_nnunetv2():
    assert importers_of("nnunetv2") == ["nnunet.py"]
    assert "planning/memory.py" in importers_of("torch")  # the search finds something


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh process has loaded after some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_the_module_itself_imports_neither_nnunetv2_nor_torch():
    assert not {"nnunetv2", "torch"} & modules_after("import longflow.nnunet")


def test_label_handling_does_not_load_the_trainer():
    loaded = modules_after(
        "from longflow.data.labels import label_manager\nlabel_manager({'background': 0, 'a': 1}, [])"
    )
    assert "nnunetv2.utilities.label_handling.label_handling" in loaded
    assert not any(name.startswith("nnunetv2.training") for name in loaded)


# ---- labels


def test_labels():
    assert list(PLAIN.all_labels) == [0, 1, 2] and list(PLAIN.foreground_labels) == [1, 2]
    assert PLAIN.num_segmentation_heads == 3
    assert not PLAIN.has_regions and not PLAIN.has_ignore_label and PLAIN.ignore_label is None


def test_the_ignore_label_is_no_label():
    assert list(IGNORE.all_labels) == [0, 1, 2] and IGNORE.num_segmentation_heads == 3
    assert IGNORE.has_ignore_label and IGNORE.ignore_label == 3


def test_regions():
    assert REGIONS.has_regions and REGIONS.foreground_regions == [(1, 2), (2,)]
    assert list(REGIONS.all_labels) == [0, 1, 2] and REGIONS.num_segmentation_heads == 2


def test_labels_are_the_largest_logit(generator):
    logits = generator.normal(size=(3, 2, 3, 4)).astype(np.float16)
    np.testing.assert_array_equal(PLAIN.convert_logits_to_segmentation(logits), logits.argmax(0))


def test_regions_are_written_one_over_the_other():
    logits = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]], dtype=np.float16)[:, None, None]
    np.testing.assert_array_equal(REGIONS.convert_logits_to_segmentation(logits)[0, 0], [0, 1, 2, 2])


@pytest.mark.parametrize(
    "labels, order, error",
    [
        ({"a": 1}, None, RuntimeError),
        ({"background": 1, "a": 2}, None, AssertionError),
        ({"background": 0, "a": 1, "ignore": 1}, None, AssertionError),
        ({"background": 0, "a": [1, 2]}, None, AssertionError),
        ({"background": 0, "a": [1, 2]}, [1, 2], AssertionError),
        ({"background": 0, "a": None}, None, TypeError),
    ],
)
def test_unusable_labels_are_an_error(labels, order, error):
    with pytest.raises(error):
        nnunet.build_label_manager(labels, order)


# ---- scans


def test_foreground_intensities_are_drawn_with_one_seed(generator):
    image, inside = generator.normal(size=(4, 5, 6)).astype(np.float32), generator.random((4, 5, 6)) > 0.5
    expected = np.random.RandomState(1234).choice(image[inside], 50, replace=True)
    np.testing.assert_array_equal(nnunet.foreground_intensities(image, inside, 50), expected)


def test_foreground_intensities_are_those_of_nnunet(generator):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    image, inside = generator.normal(size=(4, 5, 6)).astype(np.float32), generator.random((4, 5, 6)) > 0.5
    collect = DatasetFingerprintExtractor.collect_foreground_intensities
    (expected,), _ = collect(inside[None], image[None], num_samples=70)
    np.testing.assert_array_equal(nnunet.foreground_intensities(image, inside, 70), expected)


def test_no_foreground_gives_no_intensities():
    found = nnunet.foreground_intensities(np.ones((2, 2, 2), np.int16), np.zeros((2, 2, 2), bool), 50)
    assert found.shape == (0,) and found.dtype == np.float32


def test_positions_are_all_where_a_label_is_small():
    segmentation = np.zeros((3, 4, 5), dtype=np.int16)
    segmentation[1, 2, 3:] = 1
    segmentation[0, 0, 0] = -1
    found = nnunet.sample_positions(segmentation, [0, 1, 2])
    assert set(found) == {0, 1} and found[1].dtype == np.int32
    assert {tuple(place) for place in found[1]} == {(1, 2, 3), (1, 2, 4)}
    assert len(found[0]) == 3 * 4 * 5 - 3


@pytest.mark.parametrize("voxels, expected", [(20_000, 10_000), (1_200_000, 12_000)])
def test_positions_of_a_large_label_are_a_sample_without_repetition(voxels, expected):
    segmentation = np.ones((1, 1, voxels), dtype=np.int16)
    before = np.random.get_state()[1].copy()
    found = nnunet.sample_positions(segmentation, [1])[1]
    np.testing.assert_array_equal(np.random.RandomState(1234).choice(voxels, expected, replace=False), found[:, 2])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# ---- resampling


def doubled_linearly(line: np.ndarray) -> np.ndarray:
    """Twice as many samples between the same ends, the outermost value repeated."""
    return np.interp((np.arange(2 * len(line)) + 0.5) / 2 - 0.5, np.arange(len(line)), line)


def test_one_shape_is_returned_as_it_is():
    volume = np.ones((1, 2, 3, 4), dtype=np.float16)
    assert nnunet.resample(volume, (2, 3, 4), (1, 1, 1), (1, 1, 1), nnunet.LOGITS_RESAMPLING) is volume


def test_logits_are_interpolated_linearly():
    volume = np.zeros((2, 4, 4, 4), dtype=np.float32)
    volume[1] = np.array([0, 4, 2, 6])
    found = nnunet.resample(volume, (4, 4, 8), (1, 1, 1), (1, 1, 0.5), nnunet.LOGITS_RESAMPLING)
    assert found.shape == (2, 4, 4, 8) and found.dtype == np.float32 and not found[0].any()
    np.testing.assert_allclose(found[1], np.broadcast_to(doubled_linearly(volume[1, 0, 0]), (4, 4, 8)), atol=1e-6)


def test_images_are_interpolated_with_cubic_splines():
    from scipy.ndimage import zoom

    volume = np.broadcast_to(np.random.default_rng(0).normal(size=8), (1, 6, 6, 8)).astype(np.float32)
    found = nnunet.resample(volume, (6, 6, 16), (1, 1, 1), (1, 1, 0.5), nnunet.IMAGE_RESAMPLING)
    expected = zoom(volume[0, 0, 0].astype(float), 2, order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("spacing, new_spacing", [((4, 1, 1), (2, 1, 1)), ((2, 1, 1), (4, 1, 1))])
def test_thick_slices_are_repeated_and_not_mixed(spacing, new_spacing):
    """A ratio above 3 counts before or after."""
    volume = np.arange(4.0, dtype=np.float32)[None, :, None, None] * np.ones((1, 4, 4, 4), dtype=np.float32)
    found = nnunet.resample(volume, (8, 4, 4), spacing, new_spacing, nnunet.IMAGE_RESAMPLING)
    np.testing.assert_allclose(found[0, :, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3], atol=1e-6)


def test_a_ratio_of_three_is_not_thick():
    volume = np.arange(4.0, dtype=np.float32)[None, :, None, None] * np.ones((1, 4, 4, 4), dtype=np.float32)
    found = nnunet.resample(volume, (8, 4, 4), (3, 1, 1), (1.5, 1, 1), nnunet.LOGITS_RESAMPLING)
    np.testing.assert_allclose(found[0, :, 0, 0], doubled_linearly(np.arange(4.0)), atol=1e-6)
    assert nnunet.anisotropy_threshold() == 3


@pytest.mark.parametrize(
    ("spacing", "new_spacing", "axis"),
    [
        ((6, 1, 1), (6, 0.8, 0.8), 0),
        ((1, 6, 1), (1, 5, 1), 1),
        ((1, 1, 2), (1, 1, 4), 2),
        ((3, 1, 1), (1.5, 1, 1), None),
        ((0.2, 1, 1), (1, 1, 1), None),
    ],
)
def test_the_axis_across_thick_slices(spacing, new_spacing, axis):
    """Slices are thick before or after resampling; two long edges of a voxel are no thickness."""
    assert nnunet.thick_axis(spacing, new_spacing) == axis


def test_the_axis_across_thick_slices_is_that_of_nnunet():
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    spacings = np.random.default_rng(0).choice([0.5, 1, 1.5, 2, 4, 6], size=(500, 2, 3))
    found = [nnunet.thick_axis(*pair) for pair in spacings]
    expected = [determine_do_sep_z_and_axis(None, *pair) for pair in spacings]
    assert found == [int(axis) if separately else None for separately, axis in expected]
    assert {None, 0, 1, 2} == set(found)


def test_the_largest_share_wins_among_labels():
    labels = np.broadcast_to(np.array([0, 0, 5, 5]), (1, 4, 4, 4)).astype(np.int16)
    found = nnunet.resample(labels, (4, 4, 8), (1, 1, 1), (1, 1, 0.5), nnunet.LABEL_RESAMPLING)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found[0, 0, 0], [0, 0, 0, 0, 5, 5, 5, 5])


def test_resampling_is_written_into_plans_as_nnunet_reads_it():
    from inspect import signature

    from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

    function = recursive_find_resampling_fn_by_name(nnunet.RESAMPLING_FUNCTION)
    assert set(vars(nnunet.IMAGE_RESAMPLING)) <= set(signature(function).parameters)


def test_shapes_are_rounded_to_the_nearest_voxel():
    np.testing.assert_array_equal(nnunet.shape_at_spacing((10, 10, 1), (3, 1, 1), (2, 4.1, 4)), [15, 2, 0])


# ---- planning


def test_shapes_are_those_of_nnunet(generator):
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    for _ in range(200):
        shape, spacing = generator.integers(1, 300, 3), generator.uniform(0.3, 8, 3).round(1)
        new = generator.uniform(0.3, 8, 3).round(1)
        np.testing.assert_array_equal(
            nnunet.shape_at_spacing(shape, spacing, new), compute_new_shape(shape, spacing, new)
        )


def test_preparing_without_resampling_imports_no_torch():
    code = "import numpy as np, longflow.preprocessing.grid as g; g.resampled_shape([4, 5, 6], [1, 1, 1], [2, 1, 1]); "
    code += "g.resample_image(np.ones((1, 4, 5, 6)), [4, 5, 6], [1, 1, 1], [1, 1, 1])"
    assert "torch" not in modules_after(code)


def test_the_target_spacing_is_the_median():
    spacings, shapes = [[1, 1, 1], [2, 1, 1], [3, 1, 2]], [[100, 100, 100]] * 3
    np.testing.assert_allclose(nnunet.fullres_spacing(spacings, shapes), [2, 1, 1])


def test_thick_slices_take_the_tenth_percentile():
    spacings, shapes = [[1, z, 1] for z in (4, 6, 8, 10, 12)], [[200, 10, 200]] * 5
    np.testing.assert_allclose(nnunet.fullres_spacing(spacings, shapes), [1, 4.8, 1])
    many_slices = [[200, 100, 200]] * 5
    np.testing.assert_allclose(nnunet.fullres_spacing(spacings, many_slices), [1, 8, 1])


def test_the_axis_of_the_largest_spacing_comes_first():
    forward, backward = nnunet.transposition([[1, 1, 5]], [[100, 100, 100]])
    assert (forward, backward) == ([2, 0, 1], [1, 2, 0])


def test_topology_of_a_cube():
    strides, kernels = nnunet.network_topology([1, 1, 1], [32, 32, 32], 4)
    assert strides == [[1, 1, 1]] + [[2, 2, 2]] * 3
    assert kernels == [[3, 3, 3]] * 4


def test_topology_of_thick_slices():
    """Across slices nothing is convolved or halved until the spacing within them has come near."""
    strides, kernels = nnunet.network_topology([4, 1, 1], [8, 64, 64], 4)
    assert strides == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert kernels == [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]


def test_shapes_are_padded_to_multiples():
    assert nnunet.padded_shape([10, 32, 33], np.array([4, 16, 16])) == [12, 32, 48]


# ---- network and loss


def architecture(dimensions: int = 2) -> dict:
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * 3,
            "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
            "n_conv_per_stage": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def test_the_network_has_the_parts_that_longflow_calls():
    network = nnunet.build_network(architecture(), 2, 3)
    image = torch.randn(1, 2, 16, 16)
    outputs = network(image)
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 16, 16), (1, 3, 8, 8)]
    features = network.encoder(image)
    assert [tuple(feature.shape) for feature in features] == [(1, 4, 16, 16), (1, 8, 8, 8), (1, 8, 4, 4)]
    decoder, x = network.decoder, features[-1]
    for upsample, stage, skip in zip(decoder.transpconvs, decoder.stages, features[-2::-1], strict=True):
        x = stage(torch.cat((upsample(x), skip), 1))
    torch.testing.assert_close(decoder.seg_layers[-1](x), outputs[0], rtol=0, atol=0)


def test_initial_weights_are_those_of_he():
    torch.manual_seed(0)
    first = nnunet.build_network(architecture(3), 64, 2).encoder.stages[0][0].convs[0].conv
    assert not first.bias.any()
    gain = torch.nn.init.calculate_gain("leaky_relu", 1e-2)
    assert float(first.weight.detach().std()) == pytest.approx(gain / (64 * 27) ** 0.5, rel=0.05)


def dice_of(shares: np.ndarray, targets: np.ndarray, smooth: float, batch_dice: bool) -> float:
    """Mean soft Dice of (batch, classes, voxels)."""
    axes = (0, 2) if batch_dice else 2
    overlap, total = (shares * targets).sum(axes), (shares + targets).sum(axes)
    return float(((2 * overlap + smooth) / (total + smooth)).mean())


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("labels", [PLAIN, IGNORE], ids=["plain", "ignore"])
def test_loss_of_labels(generator, labels, batch_dice):
    logits, targets = generator.normal(size=(2, 3, 10)), generator.integers(0, 3, (2, 10))
    kept = np.ones((2, 10))
    if labels.has_ignore_label:
        targets[0, :3], kept[0, :3] = 3, 0
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    onehot = np.stack([targets == value for value in range(3)], 1)
    entropy = -np.log((shares * onehot).sum(1)[kept > 0]).mean()
    masked = kept[:, None]
    dice = dice_of((shares * masked)[:, 1:], (onehot * masked)[:, 1:], 0.1, batch_dice)

    loss = nnunet.segmentation_loss(labels, [1.0], batch_dice, 0.1)
    found = loss([torch.tensor(logits).unflatten(-1, (2, 5))], [torch.tensor(targets).view(2, 1, 2, 5)])
    assert float(found) == pytest.approx(entropy - dice, rel=1e-5)


def test_loss_of_regions(generator):
    logits, targets = generator.normal(size=(2, 2, 10)), generator.integers(0, 2, (2, 2, 10)).astype(float)
    ignored = np.zeros((2, 1, 10))
    ignored[1, 0, 4:] = 1
    kept, shares = 1 - ignored, 1 / (1 + np.exp(-logits))
    entropy = -(targets * np.log(shares) + (1 - targets) * np.log(1 - shares)) * kept
    dice = dice_of(shares * kept, targets * kept, 0.1, False)

    loss = nnunet.segmentation_loss(REGIONS, [1.0], False, 0.1)
    stacked = torch.tensor(np.concatenate([targets, ignored], 1)).unflatten(-1, (2, 5))
    found = loss([torch.tensor(logits).unflatten(-1, (2, 5))], [stacked])
    assert float(found) == pytest.approx(entropy.sum() / kept.sum() - dice, rel=1e-5)


def test_scales_are_summed_with_their_weights(generator):
    def scale(size):
        return torch.tensor(generator.normal(size=(1, 3, size, size))), torch.ones(1, 1, size, size)

    scales = [scale(size) for size in (8, 4, 2)]
    alone = nnunet.segmentation_loss(PLAIN, [1.0], False, 0.1)
    expected = sum(w * alone([logits], [target]) for w, (logits, target) in zip((0.7, 0.3, 0), scales, strict=True))
    together = nnunet.segmentation_loss(PLAIN, [0.7, 0.3, 0.0], False, 0.1)
    found = together(*map(list, zip(*scales, strict=True)))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


# ---- patches for training


def places(labels, read=(8, 8, 8), patch=(6, 6, 6), batch_size=6):
    return nnunet.PatchPlaces(batch_size, read, patch, labels, 0.33)


def test_the_last_third_of_a_batch_is_centred():
    drawn = places(PLAIN)
    assert [drawn.is_centred(index) for index in range(6)] == [False] * 4 + [True] * 2
    two = places(PLAIN, batch_size=2)
    assert [two.is_centred(index) for index in range(2)] == [False, True]


def test_places_are_uniform_and_let_the_patch_reach_the_border():
    """The read patch is 2 voxels larger, and begins 1 voxel before the image at most, along each axis alike."""
    np.random.seed(0)
    drawn = [places(None).draw((10, 8, 12), False, None) for _ in range(300)]
    assert all(stop - start == 8 for box in drawn for start, stop in box)
    for axis, last in enumerate((3, 1, 5)):
        assert {box[axis][0] for box in drawn} == set(range(-1, last + 1))
    np.random.seed(0)
    assert places(None).draw((10, 8, 12), False, None) == drawn[0]


def test_slices_are_read_one_at_a_time():
    np.random.seed(0)
    (first, last), *_ = places(None, (8, 8), (6, 6)).draw((5, 10, 10), False, None)
    assert 0 <= first < 5 and last == first + 1


def test_a_centred_place_has_a_voxel_of_a_class_in_its_centre():
    locations = {1: np.array([[0, 5, 6, 7]]), 2: np.empty((0, 4), dtype=int)}
    start = [start for start, _ in places(PLAIN).draw((20, 20, 20), True, locations)]
    assert start == [5 - 4, 6 - 4, 7 - 4]


def test_a_scan_without_the_classes_is_read_anywhere():
    np.random.seed(0)
    nothing = {1: np.empty((0, 4), dtype=int)}
    assert len({tuple(places(PLAIN).draw((20, 20, 20), True, nothing)) for _ in range(20)}) > 1


def test_with_an_ignore_label_every_place_has_an_annotated_voxel_in_its_centre():
    assert nnunet.annotated_key(IGNORE) == (-1, 0, 1, 2)
    locations = {1: np.array([[0, 5, 6, 7]]), nnunet.annotated_key(IGNORE): np.array([[0, 9, 9, 9]])}
    assert [start for start, _ in places(IGNORE).draw((20, 20, 20), False, locations)] == [5, 5, 5]
    assert [start for start, _ in places(IGNORE).draw((20, 20, 20), True, locations)] == [1, 2, 3]


def test_size_to_read():
    assert nnunet.size_to_read([10, 20], (0, 0), (0.5, 2)) == [20, 40]
    assert nnunet.size_to_read([10, 20], (-np.pi, np.pi), (1, 1)) == [20, 20]
    assert nnunet.size_to_read([30, 40, 50], (-np.pi / 2, np.pi / 2), (1, 1)) == [50, 50, 50]


def kinds(transforms) -> list[type]:
    return [type(step) for step in transforms.transforms]


def test_training_transforms_are_spatial_then_random_then_mirrored():
    transforms = nnunet.training_transforms([8, 8, 8], (-1, 1), [[1.0] * 3, [0.5] * 3], False, PLAIN, (0, 2))
    first, *others = kinds(transforms)
    assert first is SpatialTransform and others[:7] == [RandomTransform] * 7 and others[7] is MirrorTransform
    assert next(step for step in transforms.transforms if isinstance(step, MirrorTransform)).allowed_axes == (0, 2)
    blurring = [
        step for step in transforms.transforms if isinstance(getattr(step, "transform", None), GaussianBlurTransform)
    ]
    assert len(blurring) == 1 and blurring[0].transform.benchmark is True


def test_in_plane_transforms_are_wrapped():
    transforms = nnunet.training_transforms([4, 8, 8], (-1, 1), [[1.0] * 3], True, None, ())
    assert MirrorTransform not in kinds(transforms)
    assert kinds(transforms)[:3] == [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform]


def test_training_transforms_give_the_final_patch():
    np.random.seed(0)
    torch.manual_seed(0)
    transforms = nnunet.training_transforms([8, 8], (-1, 1), [[1.0, 1.0], [0.5, 0.5]], False, PLAIN, (0, 1))
    segmentation = torch.full((1, 12, 12), -1, dtype=torch.int16)
    done = transforms(image=torch.rand(2, 12, 12), segmentation=segmentation)
    assert done["image"].shape == (2, 8, 8)
    assert [tuple(target.shape) for target in done["segmentation"]] == [(1, 8, 8), (1, 4, 4)]
    assert not any(target.any() for target in done["segmentation"])


def test_validation_transforms_keep_the_patch():
    image = torch.rand(1, 4, 4)
    segmentation = torch.tensor([[-1, -1, 1, 1]] * 4, dtype=torch.int16)[None]
    done = nnunet.validation_transforms([[1.0, 1.0], [0.5, 0.5]], PLAIN)(image=image, segmentation=segmentation)
    assert torch.equal(done["image"], image)
    assert done["segmentation"][0].int().tolist() == [[[0, 0, 1, 1]] * 4]
    assert done["segmentation"][1].int().tolist() == [[[0, 1]] * 2]


def test_targets_of_regions_end_with_the_ignored_voxels():
    segmentation = torch.tensor([[0, 1, 2, 3]] * 4, dtype=torch.int16)[None]
    transforms = nnunet.validation_transforms([[1.0, 1.0]], REGIONS)
    (targets,) = transforms(image=torch.rand(1, 4, 4), segmentation=segmentation)["segmentation"]
    assert targets[:, 0].int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_validation_folds_are_a_shuffled_partition():
    subjects = [f"s{number}" for number in range(7)]
    order = np.arange(7)
    np.random.RandomState(5).shuffle(order)
    expected = [sorted(f"s{number}" for number in part) for part in np.array_split(order, 3)]
    assert nnunet.validation_folds(subjects, 3, 5) == expected


# ---- sliding window


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_are_a_gaussian(dtype):
    weight = nnunet.gaussian_weight((16, 32), dtype, 10)
    assert weight.dtype == dtype and weight.device.type == "cpu" and weight.shape == (16, 32)
    assert weight[8, 16] == 10 and (weight > 0).all()
    for distance in (1, 2, 4):
        assert float(weight[8 + distance, 16]) == pytest.approx(10 * np.exp(-(distance**2) / 8), rel=1e-3)
        assert float(weight[8, 16 - 2 * distance]) == pytest.approx(10 * np.exp(-(distance**2) / 8), rel=1e-3)


def test_tiles_are_spread_evenly():
    assert nnunet.tile_starts((110, 64), (64, 64), 0.5) == [[0, 23, 46], [0]]
    assert nnunet.tile_starts((4,), (1,), 1) == [[0, 1, 2, 3]]
