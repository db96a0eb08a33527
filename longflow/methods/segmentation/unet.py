"""Supervised segmentation as in nnU-Net (Isensee et al., Nature Methods 2021)."""

from typing import ClassVar

from torch import Tensor, nn

from longflow.data.labels import label_manager
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Method, Options, Recipe
from longflow.networks.unet import UNet
from longflow.nnunet import LabelManager, segmentation_loss
from longflow.plans import Plans

#: of soft Dice, in numerator and denominator: nnU-Net's
DICE_SMOOTH = 1e-5


class Unet(Method):
    """nnU-Net's network, loss and optimisation.

    The loss is soft Dice plus cross-entropy with deep supervision (nnUNetTrainer). The weights at the end of training
    are kept, so that the validation subjects choose nothing.

    With ``options["adam"]`` it is optimised as all networks of Ren et al. (:func:`adam_recipe`): their "random
    initialisation". Adam learns small structures in hundreds of steps, for which SGD needs thousands.
    """

    task = "segment"
    summary = "supervised segmentation, as nnU-Net"
    samples = "labelled"
    validation = "labels"
    reductions = ("logits",)
    mirrors = True
    options: ClassVar[Options] = {"adam": False}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        self.label_manager = label_manager(plans.labels, plans.regions_class_order)
        self.network = self.make_network(self.label_manager.num_segmentation_heads)
        outputs = len(self.configuration.network.strides) - 1
        self.supervised_loss = supervised_loss(self.label_manager, outputs, uses_batch_dice(plans, configuration))

    def make_network(self, outputs: int) -> UNet:
        """Make the network. :param outputs: classes or regions."""
        return UNet(len(self.plans.channel_names), outputs, self.configuration.network)

    @property
    def recipe(self) -> Recipe:
        """Return nnU-Net's recipe: SGD with Nesterov momentum, polynomial decay; or Adam."""
        if self.options["adam"]:
            return adam_recipe()
        return Recipe(
            optimizer="sgd",
            learning_rate=1e-2,
            weight_decay=3e-5,
            betas=(0.99, 0.999),
            schedule="polynomial",
            gradient_clip=12.0,
            ema_decay=0.0,
            keep="last",
        )

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute nnU-Net's loss over all scales."""
        loss = self.supervised_loss(self.network(batch.image), batch.labels)
        self.terms = {"supervised": loss.detach()}
        return loss

    def predict(self, batch: ScanBatch) -> dict[str, Tensor]:
        """Compute the finest logits, (batch, classes or regions, *spatial)."""
        return {"logits": self.network.finest(batch.image)}


def adam_recipe() -> Recipe:
    """Return Adam as in Ren et al. (implementation details), with nnU-Net's gradient clipping.

    The paper chooses weights by its validation subjects. Here those at the end are kept, so that the validation fold
    remains a test.
    """
    return Recipe(
        optimizer="adam",
        learning_rate=2e-4,
        betas=(0.5, 0.999),
        schedule="linear",
        gradient_clip=12.0,
        ema_decay=0.0,
        keep="last",
    )


def uses_batch_dice(plans: Plans, configuration: str) -> bool:
    """Check whether soft Dice is computed over the batch as one volume, as nnU-Net's planner decides.

    It is in 2D, and in the full resolution where a low one was planned: a patch then shows little of the image, and
    structures are often absent from it.
    """
    if plans.configuration(configuration).network.dimensions == 2:
        return True
    return configuration != "3d_lowres" and "3d_lowres" in plans.configurations


def supervised_loss(labels: LabelManager, outputs: int, batch_dice: bool) -> nn.Module:
    """Make nnU-Net's loss of lists of logits and targets, finest first.

    It is soft Dice plus cross-entropy on labels (Dice excludes the background), or soft Dice plus binary cross-entropy
    where there are regions. Outputs are weighted by 1, 1/2, 1/4, ...; the coarsest of several is excluded. Where
    several processes train, Dice over the batch covers the batches of all.

    :param labels: of the plans.
    :param outputs: number of scales.
    :param batch_dice: compute Dice over the batch as one volume.
    :returns: a module of (logits, targets).
    """
    weights = [0.5**scale for scale in range(outputs)]
    if outputs > 1:
        weights[-1] = 0.0
    return segmentation_loss(labels, [weight / sum(weights) for weight in weights], batch_dice, DICE_SMOOTH)


METHOD = Unet
