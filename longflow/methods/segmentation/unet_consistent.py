"""Segmentation that agrees over a subject's scans (Ren et al., section 3, finetuning)."""

from typing import ClassVar

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.methods.method import Options, Recipe, ScanBatch
from longflow.methods.segmentation.unet import DICE_SMOOTH, Unet


class UnetConsistent(Unet):
    """L_FT = L_sup + L_cs (Ren et al., eq. 6 and 8): supervised on labelled scans, consistent on all pairs.

    L_sup is nnU-Net's soft Dice plus cross-entropy with deep supervision (eq. 8 is the same at one scale). L_cs takes
    the finest predictions of the pairs, which need no labels but lie in correspondence.

    Optimised as in the paper (implementation details): Adam with beta 0.5 and 0.999, learning rate 2e-4 decaying
    linearly. The paper chooses weights by its validation subjects; here those at the end are kept, so that the
    validation fold remains a test.
    """

    summary = "supervised segmentation that agrees between a subject's neighbouring scans"
    samples = "labelled_pairs"
    options: ClassVar[Options] = {"consistency": 1.0}

    @property
    def recipe(self) -> Recipe:
        """Ren et al., implementation details, with nnU-Net's gradient clipping."""
        return Recipe(
            optimizer="adam",
            learning_rate=2e-4,
            betas=(0.5, 0.999),
            schedule="linear",
            gradient_clip=12.0,
            ema_decay=0.0,
            keep="last",
        )

    def training_step(self, batch: ScanBatch) -> Tensor:
        """L_FT, with ``options["consistency"]`` as the weight of L_cs (0: table 2, row without it)."""
        supervised = super().training_step(batch)
        weight = float(self.options["consistency"])
        if weight == 0:
            return supervised
        consistency = self.consistency(batch)
        self.terms["consistency"] = consistency.detach()
        return supervised + weight * consistency

    def consistency(self, batch: ScanBatch) -> Tensor:
        """L_cs (eq. 6) of the pairs of a batch.

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
        shares = torch.sigmoid(logits) if self.label_manager.has_regions else torch.softmax(logits, 1)[:, 1:]
        shares = shares.unflatten(0, (pairs, 2))
        return consistency_loss(shares[:, 0], shares[:, 1])


def consistency_loss(first: Tensor, second: Tensor) -> Tensor:
    """L_cs = 1 - Dice(G(x_j), G(x_j+1)) (Ren et al., eq. 6), the mean over pairs and structures.

    Dice(p, q) = (2 sum pq + s) / (sum p + sum q + s), with the s of L_sup, the sums over the voxels. The paper leaves
    open what its Dice is of hard or soft maps and of which classes; here as in L_sup: soft, without the background
    (which would hide small structures), and with a gradient to both predictions, since neither scan is the reference.

    :param first: probabilities of the structures, (pairs, structures, *spatial). :param second: likewise.
    """
    voxels = tuple(range(2, first.ndim))
    overlap = (first * second).sum(voxels)
    total = first.sum(voxels) + second.sum(voxels)
    return 1 - ((2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)).mean()


METHOD = UnetConsistent
