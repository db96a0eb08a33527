"""The selective scan of Mamba (Gu & Dao 2023, section 3): a linear recurrence whose weights depend on the input.

With state h of N numbers for each feature,

    h_l = exp(delta_l A) h_(l-1) + delta_l B_l u_l,    y_l = C_l h_l + D u_l.

Memory grows in proportion to the length: for the gradient, the state and the decay of each position are kept, and
nothing else of that size. Where the package ``mamba_ssm`` is installed, its compiled kernel does this on a GPU without
keeping even the states. It is not a dependency of longflow, and both give the same numbers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: kinds of devices that ``mamba_ssm`` has kernels for
KERNEL_DEVICES = ("cuda",)


@torch.compiler.disable  # it would unroll every place of the sequence, for minutes
def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Compute y of the recurrence above, from h = 0; in float32 with or without autocast.

    :param u: input, (batch, length, features).
    :param delta: step sizes > 0, of the same shape.
    :param A: (features, states), negative.
    :param B: (batch, length, states).
    :param C: of the same shape.
    :param D: (features,).
    :returns: (batch, length, features), float32.
    """
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C, D = (tensor.float() for tensor in (u, delta, A, B, C, D))
        kernel = compiled_kernel() if u.device.type in KERNEL_DEVICES else None
        if kernel is not None:
            # its positions come last
            u, delta, B, C = (tensor.transpose(1, 2).contiguous() for tensor in (u, delta, B, C))
            return kernel(u, delta, A, B, C, D).transpose(1, 2)
        states = LinearRecurrence.apply((delta.unsqueeze(3) * A).exp(), (delta * u).unsqueeze(3) * B.unsqueeze(2))
        return (states @ C.unsqueeze(3)).squeeze(3) + D * u


def compiled_kernel() -> Callable[..., Tensor] | None:
    """Return ``selective_scan_fn`` of the package ``mamba_ssm``; None where that is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn


class LinearRecurrence(torch.autograd.Function):
    """Compute h_l = decay_l h_(l-1) + input_l along the second axis; its gradient is such a recurrence from the end."""

    @staticmethod
    def forward(context, decay: Tensor, inputs: Tensor) -> Tensor:
        """Compute the states.

        :param decay: (batch, length, ...).
        :param inputs: of the same shape.
        :returns: h, of the same shape.
        """
        states = recur(decay, inputs)
        context.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(context, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients.

        With g_l = gradient_l + decay_(l+1) g_(l+1), that of decay_l is g_l h_(l-1), and that of input_l is g_l.
        """
        decay, states = context.saved_tensors
        # the first place of a recurrence decays nothing, so the value rolled there does not matter
        of_inputs = recur(decay.flip(1).roll(1, 1), gradient.flip(1)).flip(1)
        of_decay = torch.zeros_like(decay)
        torch.mul(of_inputs[:, 1:], states[:, :-1], out=of_decay[:, 1:])
        return of_decay, of_inputs


def recur(decay: Tensor, inputs: Tensor) -> Tensor:
    """Compute h_l = decay_l h_(l-1) + input_l, with h_0 = input_0.

    A CPU goes through the sequence place by place, which reads everything once. On other devices so many small steps
    are slow; they take about 2 sqrt(length) larger ones.

    :param decay: (batch, length, ...).
    :param inputs: of the same shape.
    :returns: h, of the same shape.
    """
    length = decay.shape[1]
    return recur_in_chunks(decay, inputs, length if decay.device.type == "cpu" else math.isqrt(length - 1) + 1)


def recur_in_chunks(decay: Tensor, inputs: Tensor, chunk: int) -> Tensor:
    """Compute the recurrence in all chunks of the sequence at once, each from zero, and then from chunk to chunk.

    A chunk takes over the final state of the one before, decayed by the product of its own decays so far. Nothing is
    divided by such products, which may be zero.

    :param decay: (batch, length, ...).
    :param inputs: of the same shape.
    :param chunk: places of a chunk.
    :returns: h, of the same shape.
    """
    length = decay.shape[1]
    missing = -length % chunk
    around = (0, 0) * (decay.ndim - 2)
    decay = F.pad(decay, (*around, 0, missing)).unflatten(1, (-1, chunk))
    states = F.pad(inputs, (*around, 0, missing)).unflatten(1, (-1, chunk)).clone()
    for place in range(1, chunk):
        states[:, :, place].addcmul_(decay[:, :, place], states[:, :, place - 1])
    if states.shape[1] > 1:
        reach = decay.cumprod(2)
        for number in range(1, states.shape[1]):
            states[:, number].addcmul_(reach[:, number], states[:, number - 1, -1:])
    return states.flatten(1, 2)[:, :length]
