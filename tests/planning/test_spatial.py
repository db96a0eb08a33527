import numpy as np
import pytest

from longflow.errors import ConfigurationError
from longflow.planning.presets import preset
from longflow.planning.spatial import first_patch, fit_network, next_patch, plan_space
from longflow.tasks.segment.planning import preset as segmentation_preset
from tests.planning.helpers import spatial

M, TINY = preset("M"), preset("tiny")


def voxels(patch_size, network, batch_size):
    """A stand-in for memory: voxels of a batch."""
    return float(np.prod(patch_size) * batch_size)


def no_memory(patch_size, network, batch_size):
    return 0.0


def test_axes_are_ordered_by_spacing():
    plan = plan_space(spatial([200, 30, 180], [1, 5, 1]), M, no_memory, 1, 9)
    assert plan.transpose_forward == [1, 0, 2]
    assert plan.configurations["3d_fullres"].spacing == [5, 1, 1]
    assert plan.configurations["3d_fullres"].median_image_size == [30, 200, 180]
    restored = [plan.transpose_forward[axis] for axis in plan.transpose_backward]
    assert restored == [0, 1, 2]


def test_the_patch_is_the_padded_image_where_memory_allows():
    plan = plan_space(spatial([9, 250, 216], [10, 1.5, 1.5]), M, no_memory, 1, 9).configurations
    for name, image in (("3d_fullres", [9, 250, 216]), ("2d", [250, 216])):
        divisors = np.prod(plan[name].network.strides, axis=0)
        assert all(np.greater_equal(plan[name].patch_size, image))
        assert all(np.less(plan[name].patch_size, image + divisors))
    assert plan["3d_fullres"].batch_size == 4
    assert plan["2d"].data_identifier == plan["3d_fullres"].data_identifier == "3d_fullres"
    assert "3d_lowres" not in plan


@pytest.mark.parametrize("slices", [2, 3, 7, 9, 12])
def test_thin_volumes_are_not_pooled_to_nothing(slices):
    plan = plan_space(spatial([slices, 256, 256], [10, 1.5, 1.5]), M, no_memory, 1, 9).configurations["3d_fullres"]
    strides = np.prod(plan.network.strides, axis=0)
    assert plan.patch_size[0] / strides[0] >= min(slices, 4)
    assert plan.patch_size[1] / strides[1] >= 4


def test_the_patch_shrinks_to_the_budget_and_keeps_its_proportions():
    shape = [128, 128, 128]
    plan = plan_space(spatial(shape, [1, 1, 1]), M, voxels, 2 * 96**3, 9).configurations["3d_fullres"]
    assert voxels(plan.patch_size, None, 2) <= 2 * 96**3
    assert max(plan.patch_size) - min(plan.patch_size) <= 32
    assert plan.batch_size == 2


def test_batch_grows_as_far_as_memory_allows():
    plan = plan_space(spatial([32, 64, 64], [1, 1, 1]), M, voxels, 3.5 * 32 * 64 * 64, 9).configurations["3d_fullres"]
    assert (plan.patch_size, plan.batch_size) == ([32, 64, 64], 3)


def test_lowres_where_a_patch_sees_less_than_a_quarter():
    plan = plan_space(spatial([256, 256, 256], [1, 1, 1]), TINY, voxels, 2 * 96**3, 9).configurations
    lowres = plan["3d_lowres"]
    assert lowres.data_identifier == "3d_lowres"
    assert np.prod(lowres.patch_size) / np.prod(lowres.median_image_size) >= 0.25
    assert np.prod(lowres.median_image_size) <= 256**3 / 2
    assert any("3d_lowres" in reason for reason in plan["3d_fullres"].reasons)


def test_single_slices_have_no_3d_configuration():
    assert list(plan_space(spatial([1, 256, 256], [1, 1, 1]), M, no_memory, 1, 9).configurations) == ["2d"]


def test_too_little_memory_is_an_error_with_numbers():
    with pytest.raises(ConfigurationError, match=r"--gpu_memory is .* GB. Give it more memory, or"):
        plan_space(spatial([64, 64, 64], [1, 1, 1]), M, lambda *_: 1e12, 1e9, 9)


def test_the_preset_bounds_the_stages():
    for size in (TINY, M):
        _, network = fit_network([1, 1, 1], [512, 512, 512], size)
        assert len(network.strides) == size.max_stages
        assert network.features_per_stage[0] == size.base_features


def test_first_patch_has_the_proportions_of_a_cube():
    assert first_patch([4, 1, 1], [1000, 1000, 1000]) == [102, 406, 406]
    assert first_patch([4, 1, 1], [20, 1000, 300]) == [20, 406, 300]


def test_next_patch_goes_by_the_smallest_valid_step():
    patch = [256, 256]
    sizes = [patch := next_patch([1, 1], patch, [256, 256], M) for _ in range(2)]
    assert sizes == [[256, 224], [224, 224]]
    assert next_patch([1, 1], [4, 4], [256, 256], M) is None


def test_a_batch_holds_at_most_a_twentieth_of_the_dataset():
    """nnU-Net's rule: 40 scans of two patches each are 80 patches, of which 5 % are 4."""
    size, image = segmentation_preset("M"), spatial([64, 64, 128], [1, 1, 1])
    plan = plan_space(image, size, voxels, 64 * 64 * 64 * 64, 40).configurations["3d_fullres"]
    share = 40 * 64 * 64 * 128 / np.prod(plan.patch_size)
    assert plan.batch_size == max(2, round(0.05 * share))
    assert "at most 5% of the dataset's voxels" in plan.reasons[-2]
    few = plan_space(image, size, voxels, 64 * 64 * 64 * 64, 3).configurations["3d_fullres"]
    assert few.batch_size == 2


@pytest.mark.parametrize(("encoder", "blocks"), [("plain", [2, 2, 2, 2, 2, 2]), ("residual", [1, 3, 4, 6, 6, 6])])
def test_networks_of_segmentation_are_nnunets(encoder, blocks):
    patch, network = fit_network([1, 1, 1], [128, 128, 128], segmentation_preset("L", encoder))
    assert patch == [128, 128, 128]
    assert network.features_per_stage == [32, 64, 128, 256, 320, 320]
    assert (network.encoder, network.blocks_per_stage, network.attention) == (encoder, blocks, False)
    assert max(fit_network([1, 1], [512, 512], segmentation_preset("L"))[1].features_per_stage) == 512


def test_images_too_small_for_a_unet():
    with pytest.raises(ConfigurationError, match=r"Images of 6 x 6 voxels are too small for a U-Net"):
        plan_space(spatial([6, 6, 6], [1, 1, 1]), segmentation_preset("tiny"), no_memory, 1, 9)


class TestSlicesOfTheFiles:
    """2d of the task translate (MFM B.1, B.2)."""

    def plan(self, shape, spacing, memory=no_memory, budget=1):
        return plan_space(spatial(shape, spacing), M, memory, budget, 9, own_slices=True)

    def test_axes_stay_and_data_are_its_own(self):
        plan = self.plan([200, 30, 180], [1, 5, 1])
        assert plan.transpose_forward == plan.transpose_backward == [0, 1, 2]
        slices, volume = plan.configurations["2d"], plan.configurations["3d_fullres"]
        assert (slices.own_grid, slices.data_identifier) == (True, "2d")
        assert (volume.own_grid, volume.data_identifier) == (False, "3d_fullres")
        assert slices.patch_size == [32, 192]
        assert volume.median_image_size == [200, 30, 180]

    def test_a_whole_slice_of_the_paper(self):
        plan = self.plan([437, 512, 512], [1, 0.7, 0.7]).configurations["2d"]
        assert plan.patch_size == [512, 512]
        assert "0.7 x 0.7 mm" in plan.reasons[0] and "512 x 512 voxels; nothing is resampled" in plan.reasons[0]

    def test_sizes_of_slices_are_those_of_the_files(self):
        """Their median decides, in voxels, whatever the spacings are."""
        found = spatial([50, 512, 512], [5, 0.7, 0.7], subjects=5)
        found.spacings[:2] = [[5, 1.4, 1.4]] * 2
        found.shapes_after_crop[4] = [50, 300, 300]
        plan = plan_space(found, M, no_memory, 1, 9, own_slices=True).configurations
        assert plan["2d"].median_image_size == [50, 512, 512]
        assert "300 x 300 to 512 x 512 voxels" in plan["2d"].reasons[0]

    def test_a_single_slice_has_no_3d(self):
        assert list(self.plan([1, 64, 64], [5, 1, 1]).configurations) == ["2d"]

    def test_the_patch_shrinks_to_the_budget(self):
        plan = self.plan([20, 512, 512], [5, 1, 1], voxels, 2 * 300**2).configurations["2d"]
        assert plan.own_grid and 2 * np.prod(plan.patch_size) <= 2 * 300**2
