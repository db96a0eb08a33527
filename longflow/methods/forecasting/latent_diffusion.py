"""Latent diffusion from one scan (CRONOS B.5, adapted from Puglisi et al. 2025)."""

from itertools import islice, product
from typing import ClassVar

import torch
from torch import Tensor

from longflow.errors import ConfigurationError
from longflow.flow.times import fourier_features
from longflow.methods.batches import Batch
from longflow.methods.diffusion import USUAL_TIMESTEPS, ddim_scheduler, denoised
from longflow.methods.forecasting._flow import (
    FREQUENCIES,
    covariate_features,
    planned_frequencies,
    with_covariates,
)
from longflow.methods.method import Method, Options
from longflow.plans import Plans

#: Puglisi et al.: channels of a latent, for each channel of the image; beta at the first and the last of 1000 steps,
#: between which its square root grows linearly (Rombach et al. 2022); weight of the Kullback-Leibler term
LATENT_CHANNELS, BETAS, KL_WEIGHT = 3, (0.0015, 0.0205), 1e-7

#: limit that no latent reaches, in standard deviations
MOST_DEVIATIONS = 10.0

#: least divisor of latents, for empty patches
SMALLEST_DEVIATION = 1e-3

#: the first of the stages
AUTOENCODER = 0


class LatentDiffusion(Method):
    """An autoencoder of single scans first; then diffusion of the target's latent, given that of the last scan.

    Each takes half of a run. Autoencoder: mean absolute error of the image and the Kullback-Leibler term. Diffusion:
    z_t = sqrt(alphabar_t) z_target + sqrt(1 - alphabar_t) eps; the network predicts eps from [z_t, z_last], t and the
    horizon; the loss is the mean squared error of eps (Ho et al. 2020). Latents are the encoder's means over their
    standard deviation, which is measured on the first batch of the second stage (Rombach et al. 2022). Networks,
    schedule and sampler are MONAI's.

    CRONOS describes it as: one image to one image, two stages, 1000 steps of denoising. Where that leaves room:

    - Puglisi et al. condition on the first scan by a ControlNet, trained in a third stage. With two stages the latent
    of the last scan is concatenated to the noisy one.
    - They condition on age, by cross-attention. Here it is the horizon, in the Fourier features of CRONOS, and the
      covariates of the dataset.
    - Their autoencoder has a further perceptual and adversarial loss. The first needs weights of another network, the
      second a third network with an optimizer of its own: both are excluded.
    - ``sampling_steps`` of DDIM are 50, as theirs; 1000 takes all. The latent that a step implies is limited to 10
      standard deviations, since an error of eps in the first step counts hundredfold.

    In the first stage, where there is no diffusion yet, the forecast is the reconstruction of the last scan. Prediction
    begins with ``Batch.noise``. One voxel of the latent stands for a block of voxels; of each block, as many voxels of
    noise are taken as the latent has channels. Tiles that begin at the same place of a block share their noise where
    they overlap. Others are independent draws whose mean is the forecast, like the mean of several draws in Puglisi et
    al.
    """

    task = "forecast"
    summary = "latent diffusion from the last scan alone: an autoencoder first, then diffusion of its latents"
    noise = True
    uses_covariates = True
    stages = (0.0, 0.5)
    options: ClassVar[Options] = {"timesteps": USUAL_TIMESTEPS, "sampling_steps": 50}

    def __init__(self, plans: Plans, configuration: str, options: Options | None = None):
        super().__init__(plans, configuration, options)
        from longflow.networks.latent import build_autoencoder, build_diffusion_unet, latent_strides  # MONAI's are slow

        temporal, network, channels = plans.temporal, self.configuration.network, len(plans.channel_names)
        self.strides = latent_strides(network)
        self.offsets = list(islice(product(*map(range, self.strides)), LATENT_CHANNELS))
        latent_channels, code_size = channels * len(self.offsets), 2 * FREQUENCIES + covariate_features(plans)
        self.autoencoder = build_autoencoder(channels, latent_channels, network)
        self.unet = build_diffusion_unet(2 * latent_channels, latent_channels, code_size, network)
        self.register_buffer("frequencies", planned_frequencies(temporal))
        self.register_buffer("scale", torch.ones(()))
        self.scheduler = ddim_scheduler(
            "latent_diffusion",
            self.options["timesteps"],
            self.options["sampling_steps"],
            "scaled_linear_beta",
            BETAS,
            (-MOST_DEVIATIONS, MOST_DEVIATIONS),
        )

    @property
    def sees_earlier_scans(self) -> bool:
        """A forecast is made from the last scan alone."""
        return False

    @torch.no_grad()
    def begin_stage(self, stage: int, batch: Batch) -> None:
        """Set the scale: one over the standard deviation of the latents of the first batch."""
        super().begin_stage(stage, batch)
        latents = torch.stack([self._mean(batch.context[:, -1]), self._mean(batch.target)])
        self.scale.copy_(1 / latents.std().clamp(min=SMALLEST_DEVIATION))

    def training_step(self, batch: Batch) -> Tensor:
        """Compute the loss of the present stage."""
        if self.stage == AUTOENCODER:
            return self._reconstruction_loss(batch)
        return self._noise_loss(batch)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Predict the image from noise; the last scan's reconstruction while there is no diffusion yet.

        :raises ConfigurationError: the batch has no noise to begin with.
        """
        last = self._mean(batch.context[:, -1])
        if self.stage == AUTOENCODER:
            return {"forecast": self.autoencoder.decode(last).float()}
        if batch.noise is None:
            raise ConfigurationError("The method 'latent_diffusion' begins with noise: set Batch.noise.")

        def noise_in(noisy: Tensor, timestep: Tensor) -> Tensor:
            return self._noise_in(noisy, last * self.scale, timestep, batch)

        latent = denoised(self.scheduler, self.latent_noise(batch.noise), noise_in)
        return {"forecast": self.autoencoder.decode(latent / self.scale).float()}

    def latent_noise(self, noise: Tensor) -> Tensor:
        """Take the noise of a latent from that of an image: a few voxels of each block.

        :param noise: (batch, channels, *spatial).
        :returns: (batch, latent channels, *spatial of the latent).
        """
        steps = [
            [slice(first, None, stride) for first, stride in zip(offset, self.strides, strict=True)]
            for offset in self.offsets
        ]
        return torch.cat([noise[(..., *step)] for step in steps], dim=1)

    def _reconstruction_loss(self, batch: Batch) -> Tensor:
        """Compute the loss on the last scan or the target of each sample, by chance: both kinds will be encoded."""
        second = torch.rand(len(batch.target)).to(batch.target.device, non_blocking=True) < 0.5
        image = torch.where(second.view(-1, *[1] * (batch.target.ndim - 1)), batch.target, batch.context[:, -1])
        restored, mean, deviation = self.autoencoder(image)
        mean, variance = mean.float(), deviation.float().square()
        divergence = 0.5 * (mean.square() + variance - variance.log() - 1).flatten(1).sum(1).mean()
        error = (restored - image).abs().mean()
        self.terms = {"reconstruction": error.detach(), "kl": divergence.detach()}
        return error + KL_WEIGHT * divergence

    def _noise_loss(self, batch: Batch) -> Tensor:
        """Draw one t ~ U{0, ..., T - 1} and eps ~ N(0, 1) per sample, and compute the loss."""
        with torch.no_grad():
            last, target = (self._mean(image) * self.scale for image in (batch.context[:, -1], batch.target))
        timestep = torch.randint(self.scheduler.num_train_timesteps, (len(target),))
        timestep = timestep.to(target.device, non_blocking=True)
        noise = torch.randn_like(target)
        noisy = self.scheduler.add_noise(target, noise, timestep)
        error = (self._noise_in(noisy, last, timestep, batch) - noise).square().mean()
        self.terms = {"noise": error.detach()}
        return error

    def _mean(self, image: Tensor) -> Tensor:
        """Return the mean of an image's latent, float32, not yet scaled."""
        return self.autoencoder.encode(image)[0].float()

    def _noise_in(self, noisy: Tensor, last: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """Predict eps_theta([z_t, z_last], t, [gamma(t_target), covariates])."""
        code = with_covariates(fourier_features(batch.target_time, self.frequencies), batch).unsqueeze(1)
        return self.unet(torch.cat([noisy, last], dim=1), timestep, context=code).float()


METHOD = LatentDiffusion
