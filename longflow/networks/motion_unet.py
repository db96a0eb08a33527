"""A FiLM U-Net whose outputs say how each scan of a stack moves, how much it counts, and what is new."""

from typing import ClassVar

from torch import Tensor, nn

from longflow.networks.film_unet import FiLMUNet
from longflow.plans import NetworkPlan


class MotionUNet(FiLMUNet):
    """Predict velocities of the last scans of a stack, a weight for every scan and a residual image, given a code.

    With fewer scans than the network was built for, only the weights of the *last* places are used. All outputs start
    at zero.

    :param scans: most scans of a stack.
    :param moving: how many of them move, the last ones.
    :param channels: of an image.
    :param plan: features, strides, kernel sizes, attention.
    :param code_size: length of the conditioning code.
    """

    last_places: ClassVar[dict[str, int]] = {"stem.weight": 1}

    def __init__(self, scans: int, moving: int, channels: int, plan: NetworkPlan, code_size: int):
        super().__init__(scans * channels, plan, code_size)
        self.scans, self.moving, self.channels = scans, min(moving, scans), channels
        outputs = channels + scans + self.moving * plan.dimensions
        self.velocity = self.conv(plan.features_per_stage[0], outputs, 1)
        nn.init.zeros_(self.velocity.weight)
        nn.init.zeros_(self.velocity.bias)

    def forward(self, stack: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the motion of a stack.

        :param stack: (batch, scans, channels, *spatial).
        :param code: (batch, code_size).
        :returns: velocities (batch, moving scans, axes, *spatial), weights (batch, scans, 1, *spatial) and the residual
            (batch, channels, *spatial), float32.
        """
        batch, scans, _, *spatial = stack.shape
        outputs = super().forward(stack.flatten(1, 2), code)
        residual, weights, velocities = outputs.split(
            (self.channels, self.scans, outputs.shape[1] - self.channels - self.scans), 1
        )
        moving = min(scans, self.moving)
        velocities = velocities.view(batch, self.moving, -1, *spatial)[:, self.moving - moving :]
        return velocities, weights[:, self.scans - scans :].unsqueeze(2), residual

    def _velocity(self, stack: Tensor, code: Tensor) -> Tensor:
        return self.velocity(self.features(stack, code)).float()
