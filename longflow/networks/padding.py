"""Pad and crop images of any size for networks that divide them."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def same_padding(kernel: Sequence[int]) -> list[int]:
    """Return the padding with which a convolution of stride 1 and odd kernel keeps the size of its input."""
    return [size // 2 for size in kernel]


def pad_to_multiples(image: Tensor, multiples: Sequence[int]) -> Tensor:
    """Repeat the last values at the end of each axis until its size is a multiple.

    :param image: (batch, channels, *spatial).
    :param multiples: one for each spatial axis.
    :returns: the padded image; the image itself where nothing is missing.
    """
    missing = [-size % multiple for size, multiple in zip(image.shape[2:], multiples, strict=True)]
    if not any(missing):
        return image
    return F.pad(image, [side for end in reversed(missing) for side in (0, end)], mode="replicate")


def crop_to(image: Tensor, spatial: Sequence[int]) -> Tensor:
    """Crop each spatial axis to its first positions: undo :func:`pad_to_multiples`.

    :param image: (batch, channels, *padded).
    :param spatial: sizes to keep.
    :returns: (batch, channels, *spatial).
    """
    return image[(..., *(slice(size) for size in spatial))]
