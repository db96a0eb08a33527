"""Plans and batches of the task segment."""

import torch

from longflow.methods.batches import ScanBatch
from longflow.plans import Plans
from tests.methods.helpers import minimal_plans

#: three stages, so that there are two outputs of deep supervision
DEPTH = 3


def segmentation_plans(dimensions: int = 3, channels: int = 1, encoder: str = "plain", **changes) -> Plans:
    """Plans for patches of 4 x 8 x 8 voxels (or 8 x 8) with two structures."""
    plans = minimal_plans(channels=channels, dimensions=dimensions)
    content = plans.model_dump()
    content.update({"task": "segment", "labels": {"background": 0, "left": 1, "right": 2}, **changes})
    (configuration,) = content["configurations"].values()
    configuration["network"].update(
        features_per_stage=[8, 8, 16],
        strides=[[1] * dimensions, [2] * dimensions, [2] * dimensions],
        kernel_sizes=[[3] * dimensions] * DEPTH,
        encoder=encoder,
    )
    return Plans.model_validate(content)


def scan_batch(plans: Plans, size: int = 2, pairs: int = 1) -> ScanBatch:
    """Random patches, their labels at both scales, and pairs."""
    (configuration,) = plans.configurations.values()
    shape, channels = configuration.patch_size, len(plans.channel_names)
    draw = torch.Generator().manual_seed(0)
    finest = torch.randint(0, 3, (size, 1, *shape), generator=draw)
    return ScanBatch(
        image=torch.randn(size, channels, *shape, generator=draw),
        labels=[finest.float(), finest[(..., *[slice(None, None, 2)] * len(shape))].float()],
        pair=torch.randn(pairs, 2, channels, *shape, generator=draw),
    )
