"""The base of the pretraining methods."""

from longflow.methods.method import Method, Options, Recipe
from longflow.networks.unet import UNet
from longflow.plans import Plans


class PretrainingMethod(Method):
    """Learn the weights of the U-Net that segmentation starts from; predict nothing.

    ``self.network`` is the network of ``unet`` except for its last layers, which here give the image's channels
    (reconstruction); ``--pretrained`` loads everything else. It is optimised as in Ren et al. (section 4,
    implementation details): Adam with beta 0.9 and 0.999, learning rate 2e-4 decaying linearly, the best weights on
    validation subjects kept. nnU-Net's gradient clipping is added, which only stops explosions (they clip nothing).
    """

    task = "segment"
    samples = "pairs"
    validation = "loss"
    predicts = False
    reductions = ()

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        channels = len(plans.channel_names)
        self.network = UNet(channels, channels, self.configuration.network)

    @property
    def recipe(self) -> Recipe:
        """Return Ren et al.'s recipe (implementation details)."""
        return Recipe(
            optimizer="adam",
            learning_rate=2e-4,
            betas=(0.9, 0.999),
            schedule="linear",
            gradient_clip=12.0,
            keep="best",
        )
