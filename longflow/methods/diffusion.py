"""What diffusion models share: MONAI's deterministic sampler, and the way from noise."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from longflow.errors import ConfigurationError

#: T of Ho et al. (2020), for which betas are given
USUAL_TIMESTEPS = 1000

#: where a beta is larger, a step is no longer small
LARGEST_BETA = 0.5


def ddim_scheduler(
    method: str,
    timesteps: int,
    sampling_steps: int,
    schedule: str,
    betas: tuple[float, float],
    limits: tuple[float, float],
):
    """MONAI's DDIM scheduler (Song et al. 2021, eq. 12, eta = 0) with steps of equal length from T - 1 to an image.

    :param method: whose options the numbers of steps are, for errors.
    :param schedule: MONAI's name of the way from the first to the last of ``betas``. These are for T = 1000; for
        another T they are divided by T / 1000, so that as little is left of the image after the last step.
    :param limits: within which the image that a step implies is kept.
    :raises ConfigurationError: the numbers of steps do not fit each other.
    """
    fewest = math.ceil(USUAL_TIMESTEPS * betas[1] / LARGEST_BETA)
    if timesteps < fewest:
        raise ConfigurationError(
            f"The option 'timesteps' of the method '{method}' is {timesteps}, expected {fewest} or more."
        )
    if not 1 <= sampling_steps <= timesteps or timesteps % sampling_steps:
        raise ConfigurationError(
            f"The option 'sampling_steps' of the method '{method}' is {sampling_steps}, expected a number that divides "
            f"'timesteps' ({timesteps}) without remainder."
        )
    from monai.networks.schedulers import DDIMScheduler  # here: its import is slow

    # MONAI goes down by T // sampling_steps; only with this offset are its timesteps so far apart
    scheduler = DDIMScheduler(
        timesteps,
        schedule,
        clip_sample_min=limits[0],
        clip_sample_max=limits[1],
        steps_offset=timesteps // sampling_steps - 1,
        beta_start=betas[0] * USUAL_TIMESTEPS / timesteps,
        beta_end=betas[1] * USUAL_TIMESTEPS / timesteps,
    )
    scheduler.set_timesteps(sampling_steps)
    return scheduler


def denoised(scheduler, noise: Tensor, noise_in: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What is at the end of the deterministic way from noise.

    :param noise: (batch, ...), standard normal. :param noise_in: (x_t, t of each sample) to the noise found in x_t.
    """
    image = noise
    for step in scheduler.timesteps.tolist():
        timestep = torch.full((len(image),), step, device=image.device)
        image, _ = scheduler.step(noise_in(image, timestep), step, image)
    return image
