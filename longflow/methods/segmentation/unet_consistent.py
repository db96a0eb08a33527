"""Segmentation that is consistent over a subject's scans (Ren et al., section 3, finetuning)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.errors import ConfigurationError
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options, Recipe
from longflow.methods.segmentation.unet import DICE_SMOOTH, Unet, adam_recipe


class UnetConsistent(Unet):
    """L_FT = L_sup + L_cs (Ren et al., eq. 6 and 8): supervised on labelled scans, consistent on all pairs.

    L_sup is nnU-Net's soft Dice plus cross-entropy with deep supervision (eq. 8 is the same at one scale). L_cs uses
    the finest predictions of the pairs, which need no labels but must be aligned.

    It is optimised as in the paper (:func:`~longflow.methods.segmentation.unet.adam_recipe`).
    """

    summary = "supervised segmentation that agrees between a subject's neighbouring scans"
    samples = "labelled_pairs"
    options: ClassVar[Options] = {"consistency": 1.0}

    @property
    def recipe(self) -> Recipe:
        """Return Adam (Ren et al., implementation details)."""
        return adam_recipe()

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute L_FT, with ``options["consistency"]`` as the weight of L_cs (0: table 2, row without it)."""
        supervised = super().training_step(batch)
        weight = float(self.options["consistency"])
        if weight == 0:
            return supervised
        consistency = self.consistency(batch)
        self.terms["consistency"] = consistency.detach()
        return supervised + weight * consistency

    def consistency(self, batch: ScanBatch) -> Tensor:
        """Compute L_cs (eq. 6) of the pairs of a batch.

        :param batch: with pairs.
        :returns: a scalar.
        :raises ConfigurationError: there are no pairs.
        """
        if batch.pair is None:
            raise ConfigurationError(
                f"{self.plans.dataset_name} has no training subject with two scans, so there is nothing that "
                "'unet_consistent' could make consistent. Train the method 'unet' instead (-m unet), or add the "
                "subjects' other scans; they need no labels."
            )
        pairs = len(batch.pair)
        logits = self.network.finest(batch.pair.flatten(0, 1))
        if self.label_manager.has_regions:
            shares = torch.sigmoid(logits)
            decisions = shares > 0.5
        else:
            shares = torch.softmax(logits, 1)
            decisions = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1)
            shares, decisions = shares[:, 1:], decisions[:, 1:]
        return consistency_loss(shares.unflatten(0, (pairs, 2)), decisions.unflatten(0, (pairs, 2)))


def consistency_loss(shares: Tensor, decisions: Tensor) -> Tensor:
    """Compute L_cs = 1 - Dice(G(x_j), G(x_j+1)) (Ren et al., eq. 6): the mean over pairs, directions, structures.

    The paper does not say whether its Dice is of soft or hard maps. Its authors' published code compares each scan's
    probabilities p with the other scan's decision d, once in each direction, as here:

        Dice(p, d) = (2 sum p d + s) / (sum p + sum d + s)

    over the voxels, with the s of L_sup. So both predictions have a gradient, and each approaches the decision of the
    other; a decision has none. Their code counts the background as a structure; here it is excluded, as in L_sup.

    :param shares: probabilities of the structures, (pairs, 2, structures, *spatial).
    :param decisions: 1 where the structure is predicted and 0 elsewhere, likewise.
    :returns: a scalar.
    """
    other = decisions.flip(1).to(shares.dtype)
    voxels = tuple(range(3, shares.ndim))
    overlap = (shares * other).sum(voxels)
    total = shares.sum(voxels) + other.sum(voxels)
    return 1 - ((2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)).mean()


METHOD = UnetConsistent
