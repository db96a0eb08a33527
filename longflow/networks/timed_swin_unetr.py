"""MONAI's Swin UNETR (Hatamizadeh et al. 2022) in its second version (He et al. 2023), conditioned on time, 2D and 3D.

MFM takes the network from MONAI and counts 120.1 million parameters (table 3). The second version, which begins each
stage of Swin blocks with a residual block, comes near this number. "Each of the ResNet blocks" is where MFM brings the
time in (section 3.2). So all residual blocks of the encoder are conditioned on it, by h -> A h + B after their first
activation (MFM D.1), a leaky ReLU in MONAI. Swin blocks and the decoder are MONAI's as they are.

All axes are halved alike, whatever the plan's strides: an image is padded before and cropped afterwards.
"""

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock
from monai.networks.blocks.patchembedding import PatchEmbed
from monai.networks.blocks.unetr_block import UnetrUpBlock
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.padding import crop_to, pad_to_multiples
from longflow.networks.precision import guard_convolutions
from longflow.networks.time_embedding import TimeEmbedding, TimeModulation
from longflow.plans import NetworkPlan
from longflow.private import swin_stage

#: MONAI's numbers: edge of a window, Swin blocks of a stage, heads of the first one (doubled at each)
WINDOW, BLOCKS, HEADS = 7, 2, 3


class TimedResBlock(nn.Module):
    """MONAI's residual block with h -> A h + B after its first activation; with A = 1 and B = 0, the block itself."""

    def __init__(self, dimensions: int, inputs: int, features: int, code_size: int):
        super().__init__()
        self.block = UnetResBlock(dimensions, inputs, features, kernel_size=3, stride=1, norm_name="instance")
        self.time = TimeModulation(code_size, features)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Apply the block.

        :param x: (batch, inputs, *spatial).
        :param code: (batch, code_size).
        :returns: (batch, features, *spatial).
        """
        block = self.block
        h = self.time(block.lrelu(block.norm1(block.conv1(x))), code)
        h = block.norm2(block.conv2(h))
        skip = block.norm3(block.conv3(x)) if block.downsample else x
        return block.lrelu(h + skip)


class TimedSwinStage(nn.Module):
    """A residual block conditioned on time, Swin blocks, and the merging of neighbours."""

    def __init__(self, dimensions: int, features: int, heads: int, code_size: int):
        super().__init__()
        self.convolutions = TimedResBlock(dimensions, features, features, code_size)
        self.swin = swin_stage(features, heads, (WINDOW,) * dimensions, BLOCKS)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Apply the stage.

        :param x: (batch, features, *spatial).
        :param code: (batch, code_size).
        :returns: (batch, 2 features, *half of it).
        """
        return self.swin(self.convolutions(x, code).contiguous())


class TimedSwinUNETR(nn.Module):
    """Map image and time to a velocity or an image.

    It has a Swin stage for each pooling of the plan, and 3/2 of the features of the plan's first stage: always the
    multiple of 12 that its heads need. With the plan of MFM's TimeResNet (64 features, five stages, 2D) it is MONAI's
    network of ``feature_size`` 96 with 116.6 million parameters.

    :param channels_in: of the image.
    :param channels_out: of the result.
    :param plan: features and number of stages.
    """

    def __init__(self, channels_in: int, channels_out: int, plan: NetworkPlan):
        super().__init__()
        dimensions, stages = plan.dimensions, max(1, len(plan.features_per_stage) - 1)
        first = plan.features_per_stage[0] * 3 // 2
        features = [first * 2**stage for stage in range(stages + 1)]
        code_size = 4 * plan.features_per_stage[0]
        self.multiples = [2 ** (stages + 1)] * dimensions
        self.time = TimeEmbedding(code_size)
        self.embedding = PatchEmbed(2, channels_in, first, norm_layer=None, spatial_dims=dimensions)
        self.stages = nn.ModuleList(
            TimedSwinStage(dimensions, features[stage], HEADS * 2**stage, code_size) for stage in range(stages)
        )
        # the features of the last stage but one go to the decoder unchanged
        self.skips = nn.ModuleList(
            TimedResBlock(dimensions, inputs, outputs, code_size)
            for inputs, outputs in zip([channels_in, *features], [first, *features[: stages - 1]], strict=False)
        )
        self.bottleneck = TimedResBlock(dimensions, features[-1], features[-1], code_size)
        self.decoder = nn.ModuleList(
            UnetrUpBlock(dimensions, below, above, 3, 2, norm_name="instance", res_block=True)
            for below, above in zip(features[::-1], [*features[-2::-1], first], strict=True)
        )
        self.head = UnetOutBlock(dimensions, first, channels_out)
        guard_convolutions(self)
        nn.init.zeros_(self.head.conv.conv.weight)
        nn.init.zeros_(self.head.conv.conv.bias)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        """Compute the velocity or image; zero when fresh.

        :param image: (batch, channels_in, *spatial) of any size.
        :param time: (batch,).
        :returns: (batch, channels_out, *spatial), float32.
        """
        code = self.time(time)
        x = pad_to_multiples(image, self._multiples_for(image))
        levels = [self.embedding(x)]
        for stage in self.stages:
            levels.append(stage(levels[-1], code))
        *seen, deepest = [x, *(_normalized(level) for level in levels)]
        skips = [block(level, code) for block, level in zip(self.skips, seen, strict=False)] + seen[len(self.skips) :]
        x = self.bottleneck(deepest, code)
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            x = up(x, skip)
        return crop_to(self.head(x), image.shape[2:]).float()

    def _multiples_for(self, image: Tensor) -> list[int]:
        """Keep at least two positions at the bottleneck: instance normalisation fails on one."""
        *others, last = self.multiples
        tiny = all(size <= multiple for size, multiple in zip(image.shape[2:], self.multiples, strict=True))
        return [*others, 2 * last] if tiny else self.multiples


def _normalized(x: Tensor) -> Tensor:
    """Normalise the features at each position, without weights, as MONAI does before the skips."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
