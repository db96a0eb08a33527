"""nnU-Net's U-Nets, plain and residual, as its planner describes them, with access to their features."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longflow.networks.precision import guard_convolutions, speed_up_norms
from longflow.nnunet import build_network
from longflow.plans import NetworkPlan

#: convolutions of a stage where the plan does not say
PLAIN_BLOCKS = 2
#: convolutions of a decoder stage: nnU-Net's numbers
DECODER_BLOCKS = {"plain": 2, "residual": 1}


@dataclass(frozen=True)
class Features:
    """Outputs of the stages of a U-Net: (batch, features, *spatial) each.

    :param encoder: from the finest to the bottleneck.
    :param decoder: from the coarsest to the finest.
    """

    encoder: list[Tensor]
    decoder: list[Tensor]


class UNet(nn.Module):
    """An nnU-Net architecture. ``self.unet`` is the library's own network, so weights fit nnU-Net's by name.

    :param in_channels: of the image.
    :param outputs: classes or regions, or channels to reconstruct.
    :param plan: features, strides, kernel sizes, encoder, blocks.
    """

    def __init__(self, in_channels: int, outputs: int, plan: NetworkPlan):
        super().__init__()
        network = build_network(describe_architecture(plan), in_channels, outputs)
        self.unet = speed_up_norms(guard_convolutions(network))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute logits.

        :param image: (batch, in_channels, *spatial).
        :returns: (batch, outputs, *spatial of the scale), finest first, float32.
        """
        return self.logits(self.features(image))

    def features(self, image: Tensor) -> Features:
        """Compute the output of every encoder and decoder stage."""
        return self.decode(self.encode(image))

    def encode(self, image: Tensor) -> list[Tensor]:
        """Compute the output of every encoder stage, finest first."""
        if self.training:
            # faster; in prediction by 2 % only, and there the logits would be further from nnU-Net's
            image = image.contiguous(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)
        return self.unet.encoder(image)

    def decode(self, encoder: list[Tensor]) -> Features:
        """Compute the output of every decoder stage from those of the encoder."""
        x, decoder = encoder[-1], []
        layers = zip(self.unet.decoder.transpconvs, self.unet.decoder.stages, reversed(encoder[:-1]), strict=True)
        for upsample, stage, skip in layers:
            x = stage(torch.cat((upsample(x), skip), 1))
            decoder.append(x)
        return Features(encoder, decoder)

    def logits(self, features: Features) -> list[Tensor]:
        """Compute the outputs of deep supervision, finest first, float32."""
        layers = zip(self.unet.decoder.seg_layers, features.decoder, strict=True)
        return [layer(stage).float() for layer, stage in layers][::-1]

    def finest(self, image: Tensor) -> Tensor:
        """Compute the finest output alone: (batch, outputs, *spatial), float32."""
        return self.finest_of(self.features(image))

    def finest_of(self, features: Features) -> Tensor:
        """Compute the finest output from features."""
        return self.unet.decoder.seg_layers[-1](features.decoder[-1]).float()


def describe_architecture(plan: NetworkPlan) -> dict[str, Any]:
    """Describe the network as in nnU-Net's plans.

    :param plan: features, strides, kernel sizes, encoder, blocks.
    :returns: class name, arguments, and which of them are names to import.
    """
    dimensions, stages = plan.dimensions, len(plan.strides)
    residual = plan.encoder == "residual"
    blocks = plan.blocks_per_stage or [PLAIN_BLOCKS] * stages
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(plan.features_per_stage),
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": plan.kernel_sizes,
            "strides": plan.strides,
            "n_blocks_per_stage" if residual else "n_conv_per_stage": list(blocks),
            "n_conv_per_stage_decoder": [DECODER_BLOCKS[plan.encoder]] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
