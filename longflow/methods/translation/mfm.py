"""Medical Flow Matching: one flow between two contrast phases, integrated either way."""

from typing import ClassVar

import torch
from torch import Tensor

from longflow.flow.interpolant import interpolate, velocity
from longflow.flow.solvers import integrate
from longflow.methods.batches import PhaseBatch
from longflow.methods.method import Options
from longflow.methods.translation._translation import LOSSES, TranslationMethod, check_source, direction, ends


class Mfm(TranslationMethod):
    """x_t = (1 - t) x_native + t x_contrast, paired; the network regresses the velocity (MFM section 3.2, eq. 3-5).

    The output convolution starts at zero, so an untrained method returns its input. The direction of integration, from
    t = 1 to 0 or from 0 to 1, expresses the phase of the source.

    Where the target is not a function of the source, eq. 5 learns the mean of the velocities. With ``loss`` "l1" it
    learns their median, which the mean absolute error rewards; one step is then the median of the target, several
    steps follow a field that is no longer the one of eq. 5.
    """

    summary = "Medical Flow Matching: one flow, both ways"
    integrates = True
    options: ClassVar[Options] = {**TranslationMethod.options, "loss": "l2"}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**TranslationMethod.choices, "loss": tuple(LOSSES)}

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """Draw one t ~ U[0, 1] per sample and compute the error of the velocity, by default squared (eq. 5).

        Both directions are learnt from each pair, whatever the option ``direction`` is.
        """
        start, end = ends(batch)
        tau = torch.rand(len(start)).to(start.device, non_blocking=True)
        predicted = self.network(interpolate(start, end, tau), tau)
        return LOSSES[self.options["loss"]](predicted - velocity(start, end))

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """Integrate the source to the other end (eq. 3).

        :raises ConfigurationError: the sources are in a phase that it does not translate from.
        """
        backward = direction(batch)
        check_source(self, int(backward))

        def field(tau: Tensor, image: Tensor) -> Tensor:
            return self.network(image, tau.expand(len(image)))

        return {"translation": integrate(field, batch.source, self.solver, self.steps, backward=backward)}


METHOD = Mfm
