"""Medical Flow Matching: one flow between two contrast phases, integrated either way."""

import torch
from torch import Tensor

from longflow.flow.interpolant import interpolate, velocity
from longflow.flow.solvers import integrate
from longflow.methods.batches import PhaseBatch
from longflow.methods.translation._translation import TranslationMethod, direction, ends


class Mfm(TranslationMethod):
    """x_t = (1 - t) x_native + t x_contrast, paired; the network regresses the velocity (MFM section 3.2, eq. 3-5).

    The output convolution starts at zero, so an untrained method returns its input. The direction of integration, from
    t = 1 to 0 or from 0 to 1, expresses the phase of the source.
    """

    summary = "Medical Flow Matching: one flow, both ways"
    integrates = True

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """Draw one t ~ U[0, 1] per sample and compute the mean squared error of the velocity (eq. 5)."""
        start, end = ends(batch)
        tau = torch.rand(len(start)).to(start.device, non_blocking=True)
        predicted = self.network(interpolate(start, end, tau), tau)
        return (predicted - velocity(start, end)).square().mean()

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """Integrate the source to the other end (eq. 3)."""

        def field(tau: Tensor, image: Tensor) -> Tensor:
            return self.network(image, tau.expand(len(image)))

        return {"translation": integrate(field, batch.source, self.solver, self.steps, backward=direction(batch))}


METHOD = Mfm
