"""ViViT (Arnab et al. 2021): attention over tubelets of the scans, one token each (TFM section 3, CRONOS table 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.methods.batches import Batch
from longflow.methods.forecasting._direct import DirectMethod, scans_on_grid
from longflow.networks.padding import crop_to, pad_to_multiples
from longflow.networks.precision import guard_convolutions
from longflow.plans import NetworkPlan, Plans

#: features of a head of attention; width of a layer's perceptron, over that of a token
HEAD, EXPANSION = 32, 4
#: standard deviation of fresh position embeddings
SCALE = 0.02
#: most tokens of a scan: those of a space attend to each other, which takes the square of them
MOST_PLACES = 2048
#: most numbers that all layers together pass on for each voxel, over the features of the plan's first stage. So a step
#: takes no more memory than one of CRONOS, for which the patch is planned. On a CPU it takes about a fifth more than
#: estimated
SHARE = 1.4


class ViViT(DirectMethod):
    """A transformer over space and time.

    The network sees the planned grid (:func:`scans_on_grid`) and which of its slots are empty, and no times.
    """

    summary = "ViViT: attention over tubelets of scans on a regular grid"

    def __init__(self, plans: Plans, configuration: str):
        super().__init__(plans, configuration)
        plan = self.configuration
        self.network = ViViTNetwork(plans.temporal.grid.length, len(plans.channel_names), plan.network, plan.patch_size)

    def forecast(self, batch: Batch) -> Tensor:
        """Predict the target from the scans on the grid."""
        return self.network(*scans_on_grid(batch, self.plans))


class ViViTNetwork(nn.Module):
    """Map a stack of scans to one image, with factorised attention (ViViT's model 3).

    A layer attends to all places of the same scan, the next one to all scans at the same place, and so on. ViViT
    classifies videos. CRONOS and TFM do not say how they made images of it, and missing frames were zeros to them.
    Here:

    - A tubelet holds one scan (ViViT's uniform frame sampling): one of several could not be masked where some of them
    are missing. Along space it is a box, and all boxes are embedded by one convolution, whose stride is their size.
    - Tokens of missing scans are masked: nothing attends to them in time.
    - The class token is replaced by one learned token for each place, as if the target were a further scan, in the slot
      after the last. The results are mapped back to voxels by one transposed convolution.
    - The position of a token is the sum of two learned embeddings, of its place and of its slot.
    - Tokens are as wide as the plan's deepest stage (to the next multiple of ``HEAD``), and there are two layers for
    every two stages. Only the size of a tubelet then decides the memory of a step: see :func:`tubelet`.

    :param scans: of a stack.
    :param channels: of an image.
    :param plan: features, number of stages.
    :param patch_size: of the images.
    """

    def __init__(self, scans: int, channels: int, plan: NetworkPlan, patch_size: Sequence[int]):
        super().__init__()
        conv, transposed = {2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}[plan.dimensions]
        heads = math.ceil(plan.features_per_stage[-1] / HEAD)
        width, pairs = HEAD * heads, max(1, len(plan.strides) // 2)
        self.tubelet = tubelet(patch_size, 2 * pairs * width * (scans + 1), SHARE * plan.features_per_stage[0])
        self.counts = _counts(patch_size, self.tubelet)
        self.embedding = conv(channels, width, self.tubelet, self.tubelet)
        self.target = nn.Parameter(SCALE * torch.randn(width))
        self.place = nn.Parameter(SCALE * torch.randn(math.prod(self.counts), width))
        self.slot = nn.Parameter(SCALE * torch.randn(scans + 1, 1, width))
        self.over_places = nn.ModuleList(Layer(width, heads) for _ in range(pairs))
        self.over_scans = nn.ModuleList(Layer(width, heads) for _ in range(pairs))
        self.norm = nn.LayerNorm(width)
        self.head = transposed(width, channels, self.tubelet, self.tubelet)
        guard_convolutions(self)

    def forward(self, stack: Tensor, occupied: Tensor) -> Tensor:
        """Predict the image after the last slot.

        :param stack: (batch, scans, channels, *patch_size), zero where a scan is missing.
        :param occupied: (batch, scans), False where it is.
        :returns: (batch, channels, *patch_size), float32.
        """
        batch, places = len(stack), len(self.place)
        embedded = self.embedding(pad_to_multiples(stack.flatten(0, 1), self.tubelet))
        tokens = embedded.flatten(2).transpose(1, 2).unflatten(0, (batch, -1))
        tokens = torch.cat([tokens, self.target.to(tokens.dtype).expand(batch, 1, places, -1)], dim=1)
        tokens = tokens + self.place + self.slot
        seen = torch.cat([occupied, occupied.new_ones(batch, 1)], dim=1).repeat_interleave(places, dim=0)
        for over_places, over_scans in zip(self.over_places, self.over_scans, strict=True):
            tokens = over_places(tokens.flatten(0, 1)).unflatten(0, (batch, -1))
            series = over_scans(tokens.transpose(1, 2).flatten(0, 1), seen)
            tokens = series.unflatten(0, (batch, -1)).transpose(1, 2)
        target = self.norm(tokens[:, -1]).transpose(1, 2).unflatten(2, self.counts)
        return crop_to(self.head(target), stack.shape[3:]).float()


class Layer(nn.Module):
    """Apply attention, then a perceptron, each after a normalisation and added to its input.

    torch's own layer is the same, but on a CPU it keeps all pairs of tokens when it predicts: gigabytes.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width)
        )

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Apply the layer.

        :param seen: (batch, tokens), False for those that nothing attends to; None: all are seen.
        :param x: (batch, tokens, width).
        :returns: the shape of ``x``.
        """
        mask = None if seen is None else seen[:, None, None]
        qkv = self.to_qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(*qkv, attn_mask=mask).transpose(1, 2).flatten(2))
        return x + self.perceptron(x)


def tubelet(patch_size: Sequence[int], per_place: int, most: float) -> list[int]:
    """Choose the edges of a token's box: the smallest for which the layers hold at most ``most`` numbers per voxel.

    Beginning with single voxels, a box becomes longer along the axis that has most of them, until this holds and there
    are at most ``MOST_PLACES``. So boxes have the proportions of the patch: about those of a cube in mm.

    >>> tubelet([8, 96, 96], per_place=4 * 64 * 9, most=24), tubelet([8, 96, 96], per_place=4 * 64 * 17, most=24)
    ([1, 11, 10], [2, 12, 12])

    :param per_place: numbers that the layers pass on for the tokens of one place.
    :param patch_size: voxels along each axis.
    :param most: numbers per voxel.
    :returns: voxels along each axis.
    """
    edges = [1] * len(patch_size)
    while True:
        counts = _counts(patch_size, edges)
        places = math.prod(counts)
        if places == 1 or places <= min(MOST_PLACES, most * math.prod(patch_size) / per_place):
            return edges
        edges[counts.index(max(counts))] += 1


def _counts(patch_size: Sequence[int], edges: Sequence[int]) -> list[int]:
    """Count the boxes along each axis; the last one may reach beyond the patch."""
    return [math.ceil(size / edge) for size, edge in zip(patch_size, edges, strict=True)]


METHOD = ViViT
