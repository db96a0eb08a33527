"""MONAI's deterministic sampler, for the diffusion models."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from longflow.errors import ConfigurationError

#: T of Ho et al. (2020), for which betas are given
USUAL_TIMESTEPS = 1000

#: more have no use, and each is a number in memory
MOST_TIMESTEPS = 100_000

#: a step with a larger beta is no longer small
LARGEST_BETA = 0.5


def ddim_scheduler(
    method: str,
    timesteps: int,
    sampling_steps: int,
    schedule: str,
    betas: tuple[float, float],
    limits: tuple[float, float],
):
    """Make MONAI's DDIM scheduler (Song et al. 2021, eq. 12, eta = 0) with equal steps from T - 1 to an image.

    :param method: whose options the numbers of steps are, for messages.
    :param schedule: MONAI's name of the course from the first to the last of ``betas``.
    :param limits: least and largest value of the image that a step implies.
    :param timesteps: T.
    :param sampling_steps: steps of a prediction; divides T.
    :param betas: first and last beta for T = 1000. For another T they are divided by T / 1000, so that the last step
        leaves as little of the image.
    :returns: the scheduler.
    :raises ConfigurationError: the numbers of steps do not fit each other.
    """
    fewest = math.ceil(USUAL_TIMESTEPS * betas[1] / LARGEST_BETA)
    if not fewest <= timesteps <= MOST_TIMESTEPS:
        raise ConfigurationError(
            f"The option 'timesteps' of the method '{method}' is {timesteps}, expected {fewest} or more, up to "
            f"{MOST_TIMESTEPS}."
        )
    if not 1 <= sampling_steps <= timesteps or timesteps % sampling_steps:
        raise ConfigurationError(
            f"The option 'sampling_steps' of the method '{method}' is {sampling_steps}, expected a number that divides "
            f"'timesteps' ({timesteps}) without remainder."
        )
    from monai.networks.schedulers import DDIMScheduler  # here: its import is slow

    # MONAI descends by T // sampling_steps; only with this offset are its timesteps that far apart
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
    """Follow the deterministic path from noise to an image.

    :param noise: (batch, ...), standard normal.
    :param noise_in: maps x_t and t of each sample to the predicted noise in x_t.
    :param scheduler: of :func:`ddim_scheduler`.
    :returns: the shape of ``noise``.
    """
    image = noise
    for step in scheduler.timesteps.tolist():
        timestep = torch.full((len(image),), step, device=image.device)
        image, _ = scheduler.step(noise_in(image, timestep), step, image)
    return image
