"""The U-Net of TFM (appendix D), and the lighter one of its table 3 ("No Att"), in 2D and 3D.

TFM takes the U-Net of TorchCFM: the one of Dhariwal & Nichol (2021), with channel multipliers, one residual block per
level, attention at one resolution and in the middle. MONAI has it. Where the text leaves room, this was decided:

- Features, strides and the number of levels come from the plan, as in :mod:`longflow.networks.film_unet`; "channel
  multiplication" is ``features_per_stage``. Kernels are 3 everywhere, as in TorchCFM.
- The resolution with attention cannot be read in our text. Here it is the coarsest level. With four levels and images
  of 128 rows, that is TorchCFM's default: maps of 16 rows. The plan's ``attention`` is for the other U-Net, and has no
  effect here.
- The text speaks of cross-attention between time embeddings and feature maps. TorchCFM's attention is between the
  positions of a map, and the time is added to every residual block. There is one embedding of time, so attention to it
  would have the weight 1 everywhere: an addition, too. Here it is as in TorchCFM.
- GroupNorm has 8 groups, as the other networks have (TorchCFM: 32), since small presets have 16 features.
"""

from typing import ClassVar

import torch
from monai.networks.nets.diffusion_model_unet import AttnMidBlock, DiffusionModelUNet, DiffusionUNetResnetBlock
from torch import Tensor, nn
from torch.nn import functional as F

from longflow.networks.blocks import CONVOLUTIONS, GROUPS
from longflow.networks.latent import set_strides_of_unet
from longflow.networks.precision import guard_convolutions
from longflow.plans import NetworkPlan


class DiffusionUNet(DiffusionModelUNet):
    """Predict a velocity for every channel of a stack of scans; the code is added in every residual block.

    A stack of fewer scans than the network was built for is filled with zeros in front.

    :param in_channels: most channels of a stack: scans x image channels.
    :param plan: features and strides.
    :param code_size: length of the conditioning code.
    :param attention: at the coarsest level.
    """

    last_places: ClassVar[dict[str, int]] = {"conv_in.conv.weight": 1, "out.2.conv.weight": 0, "out.2.conv.bias": 0}

    def __init__(self, in_channels: int, plan: NetworkPlan, code_size: int, attention: bool = True):
        features = plan.features_per_stage
        super().__init__(
            spatial_dims=plan.dimensions,
            in_channels=in_channels,
            out_channels=in_channels,
            num_res_blocks=1,
            channels=features,
            attention_levels=[False] * (len(features) - 1) + [attention],
            norm_num_groups=GROUPS,
            num_head_channels=features,
            use_flash_attention=True,
        )
        # MONAI's embeds a flow step by itself; here a method brings its code
        self.time_embed[0] = nn.Linear(code_size, 4 * features[0])
        set_strides_of_unet(self, plan.strides[1:])
        guard_convolutions(self)

    def forward(self, stack: Tensor, code: Tensor) -> Tensor:
        """Compute the velocity of a stack.

        :param stack: (batch, channels, *spatial) with channels <= ``in_channels``.
        :param code: (batch, code_size).
        :returns: (batch, channels, *spatial), float32.
        """
        absent = self.in_channels - stack.shape[1]
        x = self.conv_in(F.pad(stack, (0, 0) * (stack.ndim - 2) + (absent, 0)) if absent else stack)
        code = self.time_embed(code)
        skips = [x]
        for down in self.down_blocks:
            x, of_level = down(x, temb=code)
            skips += of_level
        x = self.middle_block(x, temb=code)
        for up in self.up_blocks:
            blocks = len(up.resnets)
            x = up(x, res_hidden_states_list=skips[-blocks:], temb=code)
            del skips[-blocks:]
        return self.out(x)[:, absent:].float()


class ConcatenationUNet(DiffusionUNet):
    """The lighter network of TFM table 3 and CRONOS table 4 ("No Att").

    There is no attention. "Instead, tau and image embeddings are merged via concatenation in the bottleneck" (CRONOS
    table 4): nowhere else does the code enter. Everything else is as in :class:`DiffusionUNet`.

    :param in_channels: most channels of a stack: scans x image channels.
    :param plan: features and strides.
    :param code_size: length of the conditioning code.
    """

    def __init__(self, in_channels: int, plan: NetworkPlan, code_size: int):
        super().__init__(in_channels, plan, code_size, attention=False)
        self.middle_block = ConcatenatingMiddle(self.middle_block, plan)
        for block in self.modules():
            if isinstance(block, DiffusionUNetResnetBlock):
                block.time_emb_proj = WithoutCode()


class ConcatenatingMiddle(nn.Module):
    """Two residual blocks; in between the code is concatenated to the map, and 1 x 1 x 1 mixes both.

    :param middle: with the two blocks.
    :param plan: features.
    """

    def __init__(self, middle: AttnMidBlock, plan: NetworkPlan):
        super().__init__()
        features = plan.features_per_stage
        self.before, self.after = middle.resnet_1, middle.resnet_2
        self.merge = CONVOLUTIONS[plan.dimensions](features[-1] + 4 * features[0], features[-1], 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """Apply the blocks.

        :param x: (batch, features, *spatial).
        :param temb: the code, (batch, code_size).
        :returns: the shape of ``x``.
        """
        x = self.before(x, temb)
        everywhere = temb.view(*temb.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
        return self.after(self.merge(torch.cat([x, everywhere.to(x.dtype)], dim=1)), temb)


class WithoutCode(nn.Module):
    """Take the place of a residual block's layer for the code: nothing is added to the map."""

    def forward(self, code: Tensor) -> Tensor:
        """Return zeros, (batch, 1). :param code: (batch, code_size)."""
        return code.new_zeros(len(code), 1)
