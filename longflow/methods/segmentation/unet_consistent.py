"""Segmentation that is consistent over a subject's scans (Ren et al., section 3, finetuning)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.errors import ConfigurationError
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options, Recipe
from longflow.methods.segmentation.unet import DICE_SMOOTH, Unet, adam_recipe
from longflow.networks.early_backward import with_gradients


class UnetConsistent(Unet):
    """L_FT = L_sup + L_cs (Ren et al., eq. 6 and 8): supervised on labelled scans, consistent on all pairs.

    L_sup is nnU-Net's soft Dice plus cross-entropy with deep supervision (eq. 8 is the same at one scale). L_cs uses
    the finest predictions of the pairs, which need no labels but must be aligned.

    The gradients of L_sup are computed before L_cs is, and those of L_cs pair after pair. A step so takes the memory of
    L_sup, as that of ``unet``, whatever the number of pairs.

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
        supervised = with_gradients(supervised, self.parameters())
        consistency = self.consistency(batch)
        self.terms["consistency"] = consistency.detach()
        return supervised + weight * consistency

    def consistency(self, batch: ScanBatch) -> Tensor:
        """Compute L_cs (eq. 6), the mean over the pairs of a batch.

        :param batch: with pairs.
        :returns: a scalar, whose gradients are computed already.
        :raises ConfigurationError: there are no pairs.
        """
        if batch.pair is None:
            raise ConfigurationError(
                f"{self.plans.dataset_name} has no training subject with two scans, so there is nothing that "
                "'unet_consistent' could make consistent. Train the method 'unet' instead (-m unet), or add the "
                "subjects' other scans; they need no labels."
            )
        losses = [with_gradients(self._consistency_of(pair), self.parameters()) for pair in batch.pair]
        return torch.stack(losses).mean()

    def _consistency_of(self, pair: Tensor) -> Tensor:
        """Compute L_cs of one pair: (2, channels, *spatial)."""
        logits = self.network.finest(pair)
        if self.label_manager.has_regions:
            shares = torch.sigmoid(logits)
            decisions = shares > 0.5
        else:
            shares = torch.softmax(logits, 1)
            decisions = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1)
            shares, decisions = shares[:, 1:], decisions[:, 1:]
        return consistency_loss(shares, decisions)


def consistency_loss(shares: Tensor, decisions: Tensor) -> Tensor:
    """Compute L_cs = 1 - Dice(G(x_j), G(x_j+1)) of a pair (Ren et al., eq. 6): the mean over directions and structures.

    The paper does not say whether its Dice is of soft or hard maps. Its authors' published code compares each scan's
    probabilities p with the other scan's decision d, once in each direction, as here:

        Dice(p, d) = (2 sum p d + s) / (sum p + sum d + s)

    over the voxels, with the s of L_sup. So both predictions have a gradient, and each approaches the decision of the
    other; a decision has none. Their code counts the background as a structure; here it is excluded, as in L_sup.

    A structure that neither decision shows is not counted: the two scans agree on it, but the Dice of the small
    probabilities that remain with nothing is about 0. Where no structure is shown, the loss is 0.

    :param shares: probabilities of the structures, (2, structures, *spatial).
    :param decisions: 1 where the structure is predicted and 0 elsewhere, likewise.
    :returns: a scalar.
    """
    other = decisions.flip(0).to(shares.dtype)
    voxels = tuple(range(2, shares.ndim))
    overlap = (shares * other).sum(voxels)
    total = shares.sum(voxels) + other.sum(voxels)
    disagreement = 1 - (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)
    shown = decisions.flatten(2).any(2).any(0).to(shares.dtype)  # by structure
    return (disagreement * shown).sum() / (2 * shown.sum()).clamp(min=1)


METHOD = UnetConsistent
