"""MONAI's autoencoder and diffusion U-Net (Rombach et al. 2022; Pinaya et al. 2022) with the plan's strides, 2D and 3D.

The two share the stages of a plan: the autoencoder has the first half and ends at the latent, the U-Net has the stages
from there on. With six stages this is Puglisi et al.'s: a latent eight times smaller, three levels of the U-Net.

MONAI halves all axes alike. Here each axis is divided as planned, so that thin volumes keep their slices. For this,
MONAI's convolution without padding on one side becomes one with the same padding on both. Kernels are 3 everywhere.
"""

import math

from monai.networks.blocks import Convolution
from monai.networks.nets.autoencoderkl import AEKLDownsample, AutoencoderKL
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet, DiffusionUnetDownsample
from torch import nn

from longflow.networks.blocks import GROUPS
from longflow.networks.precision import guard_convolutions
from longflow.plans import NetworkPlan

#: residual blocks of each stage, as many as CRONOS's U-Net has (Puglisi et al.: 2)
BLOCKS = 1


def latent_stage(plan: NetworkPlan) -> int:
    """Return the stage whose resolution the latent has: half of the stages come before it."""
    return len(plan.features_per_stage) // 2


def latent_strides(plan: NetworkPlan) -> list[int]:
    """Return the factor by which each axis of an image is divided in its latent."""
    return [math.prod(steps) for steps in zip(*plan.strides[: latent_stage(plan) + 1], strict=True)]


def build_autoencoder(channels: int, latent_channels: int, plan: NetworkPlan) -> AutoencoderKL:
    """Build the autoencoder.

    ``encode`` maps an image to mean and standard deviation of its latent; ``decode`` maps a latent to an image. It has
    no attention, as in Puglisi et al.

    :param channels: of the image, whose axes the plan's strides divide.
    :param latent_channels: of the latent.
    :param plan: features and strides.
    :returns: MONAI's network.
    """
    last = latent_stage(plan)
    features = plan.features_per_stage[: last + 1]
    network = AutoencoderKL(
        spatial_dims=plan.dimensions,
        in_channels=channels,
        out_channels=channels,
        num_res_blocks=BLOCKS,
        channels=features,
        attention_levels=[False] * len(features),
        latent_channels=latent_channels,
        norm_num_groups=GROUPS,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
    blocks, downs = network.encoder.blocks, []
    for place, block in enumerate(blocks):
        if isinstance(block, AEKLDownsample):
            width = block.conv.conv.in_channels
            blocks[place] = Convolution(plan.dimensions, width, width, conv_only=True)
            downs.append(blocks[place].conv)
    _set_strides(network, downs, plan.strides[1 : last + 1])
    return guard_convolutions(network)


def build_diffusion_unet(channels_in: int, channels_out: int, code_size: int, plan: NetworkPlan) -> DiffusionModelUNet:
    """Build the diffusion U-Net, whose output is zero when fresh.

    It maps a latent, a step of diffusion, (batch,), and a code, (batch, 1, code_size), to a latent. The code enters by
    cross-attention, at the coarsest level and at the bottom. Attention there has one head, as in Puglisi et al.

    :param channels_in: of the input.
    :param channels_out: of the output.
    :param code_size: length of the code.
    :param plan: features and strides.
    :returns: MONAI's network.
    """
    first = latent_stage(plan)
    features = plan.features_per_stage[first:]
    network = DiffusionModelUNet(
        spatial_dims=plan.dimensions,
        in_channels=channels_in,
        out_channels=channels_out,
        num_res_blocks=BLOCKS,
        channels=features,
        attention_levels=[False] * (len(features) - 1) + [True],
        norm_num_groups=GROUPS,
        num_head_channels=features,
        with_conditioning=True,
        cross_attention_dim=code_size,
        use_flash_attention=True,
    )
    set_strides_of_unet(network, plan.strides[first + 1 :])
    return guard_convolutions(network)


def set_strides_of_unet(network: DiffusionModelUNet, strides: list[list[int]]) -> None:
    """Divide each axis as planned instead of halving all of them.

    :param network: MONAI's diffusion U-Net.
    :param strides: from each level to the next.
    """
    downs = [module.op.conv for module in network.modules() if isinstance(module, DiffusionUnetDownsample)]
    _set_strides(network, downs, strides)


def _set_strides(network: nn.Module, downs: list[nn.Module], strides: list[list[int]]) -> None:
    """Set the plan's strides in the convolutions of the encoder and in the enlargements of the decoder."""
    ups = [module for module in network.modules() if isinstance(module, nn.Upsample)]
    for down, up, stride in zip(downs, reversed(ups), strides, strict=True):
        down.stride = tuple(stride)
        up.scale_factor = tuple(float(step) for step in stride)
