from dataclasses import replace

import pytest
import torch

from longflow.methods.registry import build_method, method_class
from tests.methods.segmentation.helpers import scan_batch, segmentation_plans

TIMES = torch.tensor([[-2.0, 1.0], [-1.0, -0.5]])
YES = torch.ones(2, 2, dtype=torch.bool)


def method_and_batch(dimensions=3, **options):
    """A method whose weights were moved, and a batch with two other scans."""
    torch.manual_seed(0)
    plans = segmentation_plans(dimensions)
    (name,) = plans.configurations
    method = build_method("unet_longitudinal", plans, name, options)
    with torch.no_grad():
        for weight in method.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    batch = scan_batch(plans)
    others = torch.randn(2, 2, *batch.image.shape[1:])
    batch = replace(batch, others=others, other_times=TIMES, other_mask=YES, other_aligned=YES)
    return method.eval(), batch


def logits(method, batch):
    return method.predict(batch)["logits"]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_without_another_scan_loss_and_logits_are_those_of_unet(dimensions):
    method, batch = method_and_batch(dimensions)
    (name,) = method.plans.configurations
    unet = build_method("unet", method.plans, name).eval()
    unet.network.unet.load_state_dict(method.network.unet.state_dict())
    alone = replace(batch, others=None)
    masked = replace(batch, other_mask=~YES)
    for given in (alone, masked):
        assert torch.equal(logits(method, given), logits(unet, batch))
        assert torch.equal(method(given), unet(batch))


def test_only_earlier_scans_are_looked_at_on_request():
    method, batch = method_and_batch(only_earlier=True)
    assert method.used(batch).tolist() == [[True, False], [True, True]]
    changed = batch.others.clone()
    changed[0, 1] += 5  # the later one
    assert torch.equal(logits(method, replace(batch, others=changed)), logits(method, batch))
    method.options["only_earlier"] = False
    assert not torch.allclose(logits(method, replace(batch, others=changed)), logits(method, batch))


def test_scans_that_look_shifted_are_looked_at_on_request_alone():
    method, batch = method_and_batch()
    aligned = torch.tensor([[False, True], [True, True]])
    shifted = replace(batch, other_aligned=aligned)
    assert torch.equal(method.used(shifted), aligned)
    assert torch.equal(logits(method, shifted), logits(method, replace(batch, other_mask=aligned)))
    method.options["unregistered"] = True
    assert method.used(shifted).all()


def test_the_other_scan_can_tell_what_the_scan_does_not():
    """Labels that follow from the other scan alone are learnt; without it they cannot be."""
    torch.manual_seed(0)
    plans = segmentation_plans()
    method = build_method("unet_longitudinal", plans, "3d_fullres", {"adam": True})
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in range(60):
        others = torch.randn(4, 1, 1, 4, 8, 8)
        finest = (others[:, 0] > 0).float()
        batch = replace(
            scan_batch(plans, size=4),
            labels=[finest, finest[..., ::2, ::2, ::2]],
            others=others,
            other_times=torch.ones(4, 1),
            other_mask=torch.ones(4, 1, dtype=torch.bool),
            other_aligned=torch.ones(4, 1, dtype=torch.bool),
        )
        optimizer.zero_grad()
        method(batch).backward()
        optimizer.step()
    decided = logits(method.eval(), batch).argmax(1, keepdim=True)
    assert (decided == finest).float().mean() > 0.7
    assert ((logits(method, replace(batch, others=None)).argmax(1, keepdim=True)) == finest).float().mean() < 0.6


def test_it_is_trained_as_unet_on_series():
    kind = method_class("unet_longitudinal")
    assert (kind.task, kind.samples, kind.validation, kind.mirrors) == ("segment", "labelled_series", "labels", True)
    method, _ = method_and_batch()
    assert method.recipe == build_method("unet", method.plans, "3d_fullres").recipe
    assert method_and_batch(adam=True)[0].recipe.optimizer == "adam"
