"""Compare the memory of a training step with the planned budget, where planning has not done so."""

import logging

import torch

from longflow.job import FoldJob
from longflow.networks.precision import computes_bf16
from longflow.planning.memory import GB, training_memory

logger = logging.getLogger(__name__)


def warn_of_memory(job: FoldJob, device: torch.device) -> None:
    """Warn of a training step that takes more memory than patch and batch were planned for.

    Planning estimates the usual methods, of which the largest decides. Any other method, and a method with options, is
    estimated here, once, in about a second. Plans without estimates say nothing of memory, and nothing is done.

    :param job: the fold to train.
    :param device: that it will be trained on.
    """
    if not job.plan.memory_estimate:
        return
    needed = job.plan.memory_estimate.get(job.method)
    if needed is None or job.settings.options:
        needed = _estimate(job, device)
    if needed is not None and needed > job.plans.gpu_memory:
        logger.warning(
            "A training step of %s takes %.2f GB, but patch and batch were planned for %g GB. Where there is not as "
            "much memory, plan with a smaller --gpu_memory, or set a smaller batch_size or patch_size in %s.",
            *(job.method, needed, job.plans.gpu_memory, job.dataset.plans(job.plans.plans_name)),
        )


def _estimate(job: FoldJob, device: torch.device) -> float | None:
    """Estimate GB of a training step; None for a method that needs voxels with contents."""
    try:
        bf16, options = computes_bf16(device), job.settings.options
        return training_memory(job.method, job.plans, job.configuration, device.type, bf16, options=options) / GB
    except RuntimeError as error:  # of fake tensors, where a step reads values
        reason = str(error).partition("\n")[0]
        logger.info("The memory of a training step of %s cannot be estimated: %s", job.method, reason)
        return None
