"""Compute the gradients of one term of a loss before the next term is computed, so that both need not be in memory."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.compiler.disable
def with_gradients(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Compute the gradients of a loss now, and hold them until its backward pass.

    Everything that the loss's forward pass kept is freed. So a sum of terms, each through this function before the next
    term is computed, takes the memory of the largest term, where it would take that of all. The gradients of the sum
    are the same. They are held once more, which is little compared with a convolutional network's features.

    :param loss: a scalar; where no gradients are computed (``torch.no_grad``), it is returned as it is.
    :param parameters: of the network; those that the loss does not depend on get no gradient.
    :returns: the same value; its backward pass adds the gradients, times the factor of the loss, to the parameters.
    """
    if not loss.requires_grad:
        return loss
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    with torch.autocast(loss.device.type, enabled=False):  # backward passes are outside of autocast, as in the loop
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    found = [(one, of_one) for one, of_one in zip(parameters, gradients, strict=True) if of_one is not None]
    return _Held.apply(loss.detach(), [of_one for _, of_one in found], *(one for one, _ in found))


class _Held(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, factor: Tensor) -> tuple[Tensor | None, ...]:
        # held once: a second backward pass would find none
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, *(gradient.mul_(factor) for gradient in gradients))
