"""Diffusion: the baseline of MFM that makes the other phase from noise, given the source scan (section 3.1)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.methods.batches import PhaseBatch
from longflow.methods.diffusion import USUAL_TIMESTEPS, ddim_scheduler, denoised
from longflow.methods.method import Options
from longflow.methods.translation._translation import TranslationMethod, check_source
from longflow.plans import ChannelPlan, Plans

#: beta_start and beta_end of Ho et al. (2020) for T = 1000
BETA_START, BETA_END = 1e-4, 0.02

#: limit that no image reaches in a normal form of mean 0 and standard deviation 1
MOST_DEVIATIONS = 20.0


class Ddpm(TranslationMethod):
    """x_t = sqrt(alphabar_t) x_target + sqrt(1 - alphabar_t) eps; the network predicts eps from x_t and the source.

    alphabar_t is the product of 1 - beta_s; beta grows linearly (MFM eq. 1 and 2). Schedule and sampler are MONAI's.
    Where the paper leaves room or cannot be followed:

    - It prints the norm in its loss without a square. Here it is the mean squared error, as in DDPM, which it follows.
    - Its sampler, as printed, has the indices t and t - 1 of alphabar exchanged in the bracket, and misses the image
      even where eps is known. Here it is the deterministic sampler of DDIM (Song et al. 2021, eq. 12, eta = 0), which
      is the same with the indices corrected (tests/methods/translation/test_ddpm.py).
    - An error of eps in the first step counts 157-fold in the image. So the image that eps implies is limited in each
      step to the range of the normal form: for CT -1 to 1, else 20 standard deviations. The paper does not mention it;
      Ho et al. do so in their code.
    - It translates contrast to native. Here one network serves both directions: its time is t / T where the target is
      the first phase, and 2 + t / T where it is the second.
    - Its 44 s for a slice (table 2) are 400 to 3000 evaluations at the speed of its networks (tables 1 and 3), so
      probably all T = 1000. ``sampling_steps`` is 50: at eta = 0 that comes close to 1000 in quality (Song et al.,
      table 1), and a volume takes a twentieth of the time.

    Prediction begins with ``PhaseBatch.noise``, which is the same for all slices of a subject.
    """

    summary = "diffusion (DDPM) conditioned on the scan, sampled by DDIM"
    noise = True
    options: ClassVar[Options] = {**TranslationMethod.options, "timesteps": USUAL_TIMESTEPS, "sampling_steps": 50}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None, **network: str):
        super().__init__(plans, configuration, options, **network, inputs=2)
        self.scheduler = ddim_scheduler(
            "ddpm",
            self.options["timesteps"],
            self.options["sampling_steps"],
            "linear_beta",
            (BETA_START, BETA_END),
            value_range([channel for phase in plans.phases for channel in plans.channels_of(phase)]),
        )

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """Draw one t ~ U{0, ..., T - 1} and eps ~ N(0, 1) per sample; compute the mean squared error of eps (eq. 2)."""
        batch = self.directed(batch)
        timestep = torch.randint(self.scheduler.num_train_timesteps, (len(batch.target),))
        timestep = timestep.to(batch.target.device, non_blocking=True)
        noise = torch.randn_like(batch.target)
        noisy = self.scheduler.add_noise(batch.target, noise, timestep)
        return (self._noise_in(noisy, batch, timestep) - noise).square().mean()

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """Follow the deterministic path from noise to the target.

        :raises ConfigurationError: the batch has no noise to begin with, or its sources are in a phase that it does not
            translate from.
        """
        check_source(self, int(batch.source_phase[0] > 0.5))
        if batch.noise is None:
            raise ConfigurationError("The method 'ddpm' begins with noise: set PhaseBatch.noise.")

        def noise_in(noisy: Tensor, timestep: Tensor) -> Tensor:
            return self._noise_in(noisy, batch, timestep)

        return {"translation": denoised(self.scheduler, batch.noise, noise_in)}

    def _noise_in(self, noisy: Tensor, batch: PhaseBatch, timestep: Tensor) -> Tensor:
        """Predict eps_theta([x_source, x_t], t)."""
        time = 2 * (1 - batch.source_phase) + timestep / self.scheduler.num_train_timesteps
        return self.network(torch.cat([batch.source, noisy], dim=1), time)


def value_range(channels: Sequence[ChannelPlan]) -> tuple[float, float]:
    """Return the least and largest value of an image of these channels in the normal form.

    :param channels: of the plans.
    :returns: least and largest value.
    """
    limits = [
        [(edge - channel.offset) / channel.scale for edge in channel.clip]
        if channel.clip and channel.normal_form == "absolute"
        else [-MOST_DEVIATIONS, MOST_DEVIATIONS]
        for channel in channels
    ]
    return min(low for low, _ in limits), max(high for _, high in limits)


METHOD = Ddpm
