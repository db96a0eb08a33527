"""Diffusion: the baseline of MFM that makes the other phase from noise, seeing the one that is given (section 3.1)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.methods.method import Options, PhaseBatch
from longflow.methods.translation._translation import TranslationMethod
from longflow.plans import ChannelPlan, Plans

#: beta_start and beta_end of Ho et al. (2020) for T = 1000; for another T they are divided by T / 1000, so that as
#: little is left of the image after the last step
BETA_START, BETA_END, USUAL_TIMESTEPS = 1e-4, 0.02, 1000

#: T below which the last beta would reach 0.5, and the steps no longer be small
FEWEST_TIMESTEPS = 40


#: what no image reaches in a normal form of mean 0 and standard deviation 1
MOST_DEVIATIONS = 20.0


class Ddpm(TranslationMethod):
    """x_t = sqrt(alphabar_t) x_target + sqrt(1 - alphabar_t) eps; the network finds eps, seeing x_t and the source.

    alphabar_t is the product of 1 - beta_s; beta grows linearly (MFM eq. 1 and 2). Schedule and sampler are MONAI's.
    Where the paper leaves room or cannot be followed:

    - It prints the norm in its loss without a square. Here it is the mean squared error, as in DDPM, which it follows.
    - Its sampler, as printed, has the indices t and t - 1 of alphabar exchanged in the bracket, and misses the image
      even where eps is known. Here it is the deterministic sampler of DDIM (Song et al. 2021, eq. 12, eta = 0), which
      is the same once the indices are put right (tests/methods/translation/test_ddpm.py).
    - An error of eps in the first step counts 157-fold in the image. So the image that eps implies is limited in each
      step to what the normal form can hold: for CT -1 to 1, else 20 standard deviations. The paper says nothing of it;
      Ho et al. do so in their code.
    - It translates contrast to native. Here one network serves both directions: the time it is told is t / T where the
      target is the first phase, and 2 + t / T where it is the second.
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
        low, high = value_range(plans.channels)
        self.scheduler = _scheduler(self.options["timesteps"], self.options["sampling_steps"], low, high)

    def training_step(self, batch: PhaseBatch) -> Tensor:
        """One draw of t ~ U{0, ..., T - 1} and of eps ~ N(0, 1) per sample; the mean squared error of eps (eq. 2)."""
        timestep = torch.randint(self.scheduler.num_train_timesteps, (len(batch.target),)).to(batch.target.device)
        noise = torch.randn_like(batch.target)
        noisy = self.scheduler.add_noise(batch.target, noise, timestep)
        return (self._noise_in(noisy, batch, timestep) - noise).square().mean()

    def predict(self, batch: PhaseBatch) -> dict[str, Tensor]:
        """The target at the end of the deterministic way from noise.

        :raises ConfigurationError: the batch has no noise to begin with.
        """
        if batch.noise is None:
            raise ConfigurationError("The method 'ddpm' begins with noise: give the batch some (PhaseBatch.noise).")
        image = batch.noise
        for step in self.scheduler.timesteps.tolist():
            timestep = torch.full((len(image),), step, device=image.device)
            image, _ = self.scheduler.step(self._noise_in(image, batch, timestep), step, image)
        return {"translation": image}

    def _noise_in(self, noisy: Tensor, batch: PhaseBatch, timestep: Tensor) -> Tensor:
        """eps_theta([x_source, x_t], t)."""
        time = 2 * (1 - batch.source_phase) + timestep / self.scheduler.num_train_timesteps
        return self.network(torch.cat([batch.source, noisy], dim=1), time)


def value_range(channels: Sequence[ChannelPlan]) -> tuple[float, float]:
    """Smallest and largest value that an image of these channels can have in the normal form."""
    limits = [
        [(edge - channel.offset) / channel.scale for edge in channel.clip]
        if channel.clip and channel.normal_form == "absolute"
        else [-MOST_DEVIATIONS, MOST_DEVIATIONS]
        for channel in channels
    ]
    return min(low for low, _ in limits), max(high for _, high in limits)


def _scheduler(timesteps: int, sampling_steps: int, low: float, high: float):
    """MONAI's DDIM scheduler with steps of equal length from T - 1 to an image between ``low`` and ``high``.

    :raises ConfigurationError: the numbers of steps do not fit each other.
    """
    if timesteps < FEWEST_TIMESTEPS:
        raise ConfigurationError(
            f"The option 'timesteps' of the method 'ddpm' is {timesteps}, expected {FEWEST_TIMESTEPS} or more."
        )
    if not 1 <= sampling_steps <= timesteps or timesteps % sampling_steps:
        raise ConfigurationError(
            f"The option 'sampling_steps' of the method 'ddpm' is {sampling_steps}, expected a number that divides "
            f"'timesteps' ({timesteps}) without remainder."
        )
    from monai.networks.schedulers import DDIMScheduler  # here: its import is slow

    # MONAI goes down by T // sampling_steps; only with this offset are its timesteps so far apart
    scheduler = DDIMScheduler(
        timesteps,
        "linear_beta",
        clip_sample_min=low,
        clip_sample_max=high,
        steps_offset=timesteps // sampling_steps - 1,
        beta_start=BETA_START * USUAL_TIMESTEPS / timesteps,
        beta_end=BETA_END * USUAL_TIMESTEPS / timesteps,
    )
    scheduler.set_timesteps(sampling_steps)
    return scheduler


METHOD = Ddpm
