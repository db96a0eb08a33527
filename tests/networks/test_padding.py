import pytest
import torch

from longflow.networks.padding import crop_to, pad_to_multiples, same_padding


@pytest.mark.parametrize(
    ("spatial", "multiples", "padded"),
    [
        ((5, 8), (4, 4), (8, 8)),
        ((1, 3), (8, 2), (8, 4)),
        ((3, 5, 6), (1, 4, 4), (3, 8, 8)),
        ((2, 2, 1), (4, 2, 4), (4, 2, 4)),
    ],
)
def test_the_last_values_are_repeated_and_cropping_undoes_it(spatial, multiples, padded):
    image = torch.randn(2, 3, *spatial)
    found = pad_to_multiples(image, multiples)
    assert found.shape == (2, 3, *padded)
    assert torch.equal(crop_to(found, spatial), image)
    for axis, size in enumerate(spatial, start=2):
        last = found.select(axis, size - 1)
        assert all(torch.equal(found.select(axis, place), last) for place in range(size, found.shape[axis]))


def test_nothing_is_copied_where_nothing_is_missing():
    image = torch.randn(1, 1, 4, 6)
    assert pad_to_multiples(image, (4, 3)) is image


def test_a_convolution_keeps_the_size():
    kernel = [1, 3, 5]
    assert torch.nn.Conv3d(1, 1, kernel, padding=same_padding(kernel))(torch.zeros(1, 1, 4, 6, 7)).shape[2:] == (
        4,
        6,
        7,
    )
