"""Images of any size for networks that halve them: padded before, cropped after."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def same_padding(kernel: Sequence[int]) -> list[int]:
    """Return the padding with which a convolution of stride 1 and odd kernel keeps the size of its input."""
    return [size // 2 for size in kernel]


def pad_to_multiples(image: Tensor, multiples: Sequence[int]) -> Tensor:
    """The image with its last values repeated at the end of each axis until its size is a multiple.

    :param image: (batch, channels, *spatial). :param multiples: one for each spatial axis.
    :returns: the image itself where nothing is missing.
    """
    missing = [-size % multiple for size, multiple in zip(image.shape[2:], multiples, strict=True)]
    if not any(missing):
        return image
    return F.pad(image, [side for end in reversed(missing) for side in (0, end)], mode="replicate")


def crop_to(image: Tensor, spatial: Sequence[int]) -> Tensor:
    """The first ``spatial`` positions of each spatial axis: undoes :func:`pad_to_multiples`."""
    return image[(..., *(slice(size) for size in spatial))]
