"""Batches of pairs, and what every pretraining method must do with them."""

import torch
from torch import Tensor

from longflow.methods.batches import ScanBatch
from longflow.methods.method import Method
from longflow.plans import Plans


def pair_batch(plans: Plans, pairs: int = 1, subjects: list[int] | None = None, seed: int = 0) -> ScanBatch:
    """Random pairs one interval apart, at positions spread over the image; the augmented differ from the clean."""
    (configuration,) = plans.configurations.values()
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randn(pairs, 2, len(plans.channel_names), *configuration.patch_size, generator=draw)
    return ScanBatch(
        pair=clean + 0.1 * torch.randn(clean.shape, generator=draw),
        clean_pair=clean,
        pair_times=torch.tensor([[0.0, 1.0]]).repeat(pairs, 1),
        position=(torch.arange(pairs) + 0.5) / pairs,
        subject=torch.tensor(subjects or list(range(pairs))),
    )


def step(method: Method, batch: ScanBatch, bf16: bool = False, seed: int = 0) -> Tensor:
    """The loss of a batch under fixed draws; in bf16 autocast or not."""
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return method.training_step(batch)


def encoder_gradient(method: Method, loss: Tensor) -> float:
    """The largest gradient of the encoder's first convolution; all gradients must be finite."""
    method.zero_grad()
    loss.backward()
    gradients = [weight.grad for weight in method.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    first = next(method.network.unet.encoder.parameters())
    return 0.0 if first.grad is None else float(first.grad.abs().max())


def check_steps(method: Method, batch: ScanBatch, terms: set[str]) -> None:
    """A finite float32 loss in both precisions that trains the encoder, its terms, and one value in evaluation."""
    for bf16 in (False, True):
        loss = step(method, batch, bf16)
        assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite()
        assert set(method.terms) == terms
        assert all(term.shape == () and not term.requires_grad for term in method.terms.values())
        assert encoder_gradient(method, loss) > 0
    state = {name: value.clone() for name, value in method.eval().state_dict().items()}
    with torch.no_grad():
        assert torch.equal(step(method, batch), step(method, batch))
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
