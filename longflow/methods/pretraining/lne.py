"""Longitudinal neighbourhood embedding: similar subjects change in similar ways.

Ouyang, Zhao, Adeli, Sullivan, Pfefferbaum, Zaharchuk & Pohl, "Self-supervised longitudinal neighbourhood embedding",
MICCAI 2021 (reference 43 of Ren et al.).
"""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.pretraining._pretraining import PretrainingMethod
from longflow.plans import Plans

#: latents of earlier steps among which neighbours are searched: the original's batch size
BANK = 64
#: shortest interval by which a change is divided, in units of the plan's time scale, for two scans of one time
SHORTEST = 1e-3


class LNE(PretrainingMethod):
    """Ouyang et al.: the direction in which a subject moves through latent space is that of its neighbours.

    z is the flattened bottleneck of the encoder, the change of a pair is dz = (z_2 - z_1) / (t_2 - t_1), and dh is the
    mean change of its N nearest neighbours by ||z_1 - z_1'||. The loss is, with the weights of the authors' code,

        2 * mean squared difference of both scans and the decoder's output + (1 - cos(dz, dh)).

    What was chosen here:

    - The original compares within a batch of 64 whole brains; a batch here has one to a few pairs. So neighbours are
      searched in the batch and among the latents of the last ``BANK`` training pairs, which are kept without gradient
      (as the cross-batch memory of Wang et al., CVPR 2020) and stored with the weights. Validation reads them and
      leaves them unchanged. The first pair of all has no neighbour: its direction term is 0 and has no gradient.
    - Overlapping patches of one subject would be trivial neighbours; a neighbour is another subject.
    - The autoencoder is the U-Net, skip connections included, since the weights are for a U-Net (Ren et al. compare all
      methods on one architecture). It reproduces its augmented input.

    ``options``: ``neighbours`` is N; ``reconstruction`` and ``direction`` are the weights.
    """

    summary = "pretraining: neighbours change in one direction (Ouyang et al. 2021)"
    options: ClassVar[Options] = {"neighbours": 5, "reconstruction": 2.0, "direction": 1.0}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        network = self.configuration.network
        strides = [prod(stride[axis] for stride in network.strides) for axis in range(network.dimensions)]
        places = prod(size // stride for size, stride in zip(self.configuration.patch_size, strides, strict=True))
        self.register_buffer("bank_latents", torch.zeros(BANK, network.features_per_stage[-1] * places))
        self.register_buffer("bank_changes", torch.zeros_like(self.bank_latents))
        #: subject of each latent; -1: still empty
        self.register_buffer("bank_subjects", torch.full((BANK,), -1))
        self.register_buffer("bank_next", torch.tensor(0))

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute the weighted sum of reconstruction and direction."""
        image = batch.pair.flatten(0, 1)
        features = self.network.features(image)
        reconstruction = nn.functional.mse_loss(self.network.logits(features)[0], image.float())
        first, second = features.encoder[-1].float().flatten(1).unflatten(0, (-1, 2)).unbind(1)
        interval = (batch.pair_times[:, 1] - batch.pair_times[:, 0]).clamp_min(SHORTEST)
        changes = (second - first) / interval[:, None]
        direction = self._direction(first, changes, batch.subject)
        if self.training:
            self._remember(first, changes, batch.subject)
        self.terms = {"reconstruction": reconstruction.detach(), "direction": direction.detach()}
        return self.options["reconstruction"] * reconstruction + self.options["direction"] * direction

    def _direction(self, latents: Tensor, changes: Tensor, subjects: Tensor) -> Tensor:
        """Average 1 - cos(dz, dh) over the pairs that have a neighbour; 0 where none has."""
        others = subjects[:, None] != subjects
        # validation subjects have numbers of their own: none of them is in the bank
        strangers = self.bank_subjects != subjects[:, None] if self.training else torch.ones_like(others[:, :1])
        allowed = torch.cat((others, strangers & (self.bank_subjects >= 0)), 1)
        weights = neighbour_weights(
            latents.detach(), torch.cat((latents.detach(), self.bank_latents)), allowed, self.options["neighbours"]
        )
        pooled = weights @ torch.cat((changes, self.bank_changes))
        apart = 1 - nn.functional.cosine_similarity(changes, pooled)
        found = allowed.any(1)
        return (apart * found).sum() / found.sum().clamp_min(1)

    @torch.no_grad()
    def _remember(self, latents: Tensor, changes: Tensor, subjects: Tensor) -> None:
        """Replace the oldest pairs of the bank."""
        latents, changes, subjects = latents[-BANK:], changes[-BANK:], subjects[-BANK:]
        places = (self.bank_next + torch.arange(len(subjects), device=subjects.device)) % BANK
        self.bank_latents[places], self.bank_changes[places] = latents, changes
        self.bank_subjects[places] = subjects
        self.bank_next.copy_((self.bank_next + len(subjects)) % BANK)


def neighbour_weights(latents: Tensor, candidates: Tensor, allowed: Tensor, neighbours: int) -> Tensor:
    """Compute the weights of dh: those of the N nearest candidates, exp(-D^2 / (2 sigma^2)) divided by their sum.

    sigma is the longest minus the shortest distance of a pair to its candidates, as in the paper. The weights are the
    graph of this step and are not differentiated.

    :param latents: (pairs, size).
    :param candidates: (candidates, size).
    :param allowed: (pairs, candidates), False where a candidate must not be a neighbour.
    :param neighbours: N.
    :returns: (pairs, candidates); a row sums to 1, or to 0 where no candidate is allowed.
    """
    distance = torch.cdist(latents, candidates, compute_mode="donot_use_mm_for_euclid_dist")
    longest = distance.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    distance = distance.masked_fill(~allowed, torch.inf)
    # where all distances are equal, or there is one alone, sigma is 0 and weights are equal
    sigma = (longest - distance.amin(1, keepdim=True)).clamp_min(torch.finfo(distance.dtype).eps)
    farthest = distance.topk(min(neighbours, distance.shape[1]), largest=False).values[:, -1:]
    exponent = (-0.5 * (distance / sigma) ** 2).masked_fill(~allowed | (distance > farthest), -torch.inf)
    return torch.softmax(exponent, 1).masked_fill(~allowed.any(1, keepdim=True), 0)


METHOD = LNE
