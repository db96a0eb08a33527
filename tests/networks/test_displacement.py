import math

import pytest
import torch

from longflow.networks.displacement import exponentiate, jacobian_determinant, on_coarse_grid, roughness, warp


def places(*shape):
    return torch.stack(torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in shape), indexing="ij"))


def test_a_warp_reads_the_image_at_the_displaced_place_and_keeps_the_border():
    image = places(5, 6, 7)[None]
    displacement = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1, 1).expand(1, 3, 5, 6, 7)
    expected = image + displacement
    for axis, size in enumerate((5, 6, 7)):
        expected[:, axis].clamp_(0, size - 1)
    torch.testing.assert_close(warp(image, displacement), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 6, 7), (6, 7)])
def test_axes_of_one_voxel_and_images_of_two_axes_are_warped(shape):
    image = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    axes = len(shape)
    along_x = torch.zeros(2, axes, *shape)
    along_x[:, -1] = 1
    moved = warp(image, along_x)
    torch.testing.assert_close(moved[..., :-1], image[..., 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(image, 0 * along_x), image, atol=1e-5, rtol=0)


def test_the_flow_of_a_linear_velocity_is_the_exponential():
    """dp/dt = a (p - c) has the solution p(1) - c = e^a (p - c)."""
    centred = places(21, 21) - 10
    velocity = torch.stack([0.2 * centred[0], -0.3 * centred[1]])[None]
    inside = (slice(None), slice(None), slice(6, 15), slice(6, 15))
    expected = torch.stack([math.expm1(0.2) * centred[0], math.expm1(-0.3) * centred[1]])[None]
    torch.testing.assert_close(exponentiate(velocity)[inside], expected[inside], atol=0.02, rtol=0.02)
    assert (exponentiate(0 * velocity) == 0).all()


def test_a_translation_on_the_coarse_grid_is_exact():
    velocity = torch.tensor([1.5, -3.0, 0.25]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 8, 8)
    displacement, coarse = on_coarse_grid(velocity, (1, 2, 2))
    torch.testing.assert_close(displacement, velocity)
    assert coarse.shape == (1, 3, 4, 4, 4)
    torch.testing.assert_close(coarse[0, :, 0, 0, 0], torch.tensor([1.5, -1.5, 0.125]))


def test_the_determinant_is_the_local_volume_and_negative_where_a_map_folds():
    centred = places(5, 6, 7)
    stretched = torch.stack([0.5 * centred[0], 0 * centred[1], -0.2 * centred[2]])[None]
    torch.testing.assert_close(jacobian_determinant(stretched), torch.full((1, 5, 6, 7), 1.5 * 0.8))
    folded = torch.stack([-2 * centred[0], 0 * centred[1], 0 * centred[2]])[None]
    assert (jacobian_determinant(folded) == -1).all()
    assert (jacobian_determinant(torch.zeros(1, 3, 1, 4, 4)) == 1).all()


def test_roughness_is_the_mean_squared_difference_of_neighbours():
    velocity = torch.stack([2 * places(4, 5)[0], 3 * places(4, 5)[1]])[None]
    # along y the first component differs by 2, along x the second by 3; the mean is over both components
    assert roughness(velocity).item() == pytest.approx((4 + 9) / 2)
    assert roughness(torch.ones(1, 3, 1, 1, 1)) == 0
