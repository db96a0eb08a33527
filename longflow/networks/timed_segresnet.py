"""MONAI's SegResNet (Myronenko 2018), conditioned on time in every block of its encoder, in 2D and 3D.

The blocks, their order and their weights are MONAI's own. In each block of the encoder h -> A h + B follows the second
activation (MFM D.1), which in MONAI is a ReLU.

All axes are halved alike, whatever the plan's strides: an image is padded before and cropped afterwards. In thin
volumes most of that work is wasted; ``timeresnet`` and ``unet`` pool as planned.
"""

from monai.networks.blocks.segresnet_block import ResBlock
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn

from longflow.networks.padding import crop_to, pad_to_multiples
from longflow.networks.precision import guard_convolutions
from longflow.networks.time_embedding import TimeEmbedding, TimeModulation
from longflow.plans import NetworkPlan

#: residual blocks of each stage of the encoder, MONAI's numbers; deeper stages have as many as the last
BLOCKS = (1, 2, 2, 4)


class TimedSegResNet(nn.Module):
    """Map image and time to a velocity or an image.

    The plan gives the number of stages and the features of the first. MONAI doubles them from stage to stage and has
    its own numbers of blocks. With the plan of MFM's TimeResNet (64 features, five stages, 2D) it has 114.3 million
    parameters. MFM counts 214.1 million (table 3) and gives no sizes; the preset ``paper`` has 88 features, which make
    216.1 million.

    :param channels_in: of the image.
    :param channels_out: of the result.
    :param plan: features and number of stages.
    """

    def __init__(self, channels_in: int, channels_out: int, plan: NetworkPlan):
        super().__init__()
        features, stages = plan.features_per_stage[0], len(plan.features_per_stage)
        blocks = (*BLOCKS, *[BLOCKS[-1]] * stages)[:stages]
        network = SegResNet(
            spatial_dims=plan.dimensions,
            init_filters=features,
            in_channels=channels_in,
            out_channels=channels_out,
            blocks_down=blocks,
            blocks_up=(1,) * (stages - 1),
        )
        self.segresnet = guard_convolutions(network)
        self.multiples = [2 ** (stages - 1)] * plan.dimensions
        code_size = 4 * features
        self.time = TimeEmbedding(code_size)
        self.modulations = nn.ModuleList(
            nn.ModuleList(TimeModulation(code_size, features * 2**stage) for _ in range(count))
            for stage, count in enumerate(blocks)
        )
        head = self.segresnet.conv_final[-1].conv
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        """Compute the velocity or image; zero when fresh.

        :param image: (batch, channels_in, *spatial) of any size.
        :param time: (batch,).
        :returns: (batch, channels_out, *spatial), float32.
        """
        code = self.time(time)
        x = self.segresnet.convInit(pad_to_multiples(image, self.multiples))
        skips = []
        for (down, *blocks), modulations in zip(self.segresnet.down_layers, self.modulations, strict=True):
            x = down(x)
            for block, modulation in zip(blocks, modulations, strict=True):
                x = conditioned_on_time(block, modulation, x, code)
            skips.append(x)
        return crop_to(self.segresnet.decode(x, skips[::-1]), image.shape[2:]).float()


def conditioned_on_time(block: ResBlock, modulation: TimeModulation, x: Tensor, code: Tensor) -> Tensor:
    """Apply MONAI's block with h -> A h + B after its second activation; with A = 1 and B = 0, the block itself.

    :param block: of MONAI.
    :param modulation: A and B from the code.
    :param x: (batch, features, *spatial).
    :param code: (batch, code_size).
    :returns: the shape of ``x``.
    """
    h = block.conv1(block.act(block.norm1(x)))
    h = modulation(block.act(block.norm2(h)), code)
    return x + block.conv2(h)
