import dataclasses

import pytest
import torch

from longflow.methods.registry import SAMPLES, build_method, method_class, samples_of
from longflow.networks.unet import UNet
from longflow.planning.memory import LiveBytes, training_memory
from longflow.planning.plan import make_plans
from longflow.private import fake_tensors
from tests.planning.helpers import description, fingerprint, phase_fingerprint


@pytest.fixture(scope="module")
def plans():
    found = fingerprint([[0, 1, 2, 3]] * 2, [8, 32, 32], [3, 1, 1])
    return make_plans(found, description(), "tiny")


def test_live_bytes_follow_tensors_from_making_to_end():
    with LiveBytes("cpu") as memory:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        assert memory.live == 4000
        second = first + 1
        del second
        assert (memory.live, memory.peak) == (4000, 8000)
        del first
        assert memory.live == 4000
        del view
        assert memory.live == 0


def test_blocks_of_a_gpu_are_rounded_as_its_allocator_does():
    """To 512 bytes; from 10 MiB on to 2 MiB."""
    with LiveBytes("cuda") as memory:
        small = torch.zeros(129)
        assert memory.live == 1024
        large = torch.zeros(5 * 2**19 + 1)  # 10 MiB and 4 bytes
        assert memory.live == 1024 + 12 * 2**20
        del small, large
        assert memory.live == 0


def test_the_gradient_of_a_convolution_copies_its_larger_input():
    """16 channels become 4: the input is larger. At the end it, both results and two gradients of weights are alive."""
    with fake_tensors(), LiveBytes("cpu") as memory:
        x = torch.zeros(1, 16, 64, 64, requires_grad=True)
        weight = torch.zeros(4, 16, 1, 1, requires_grad=True)
        y = torch.nn.functional.conv2d(x, weight)
        gradient = torch.zeros_like(y)
        memory.peak = 0
        torch.autograd.grad(y, (x, weight), gradient)
    image, result = 4 * 64 * 64 * 16, 4 * 64 * 64 * 4
    # image, its gradient and the copy; result and its gradient; weights and their gradient
    expected = 3 * image + 2 * result + 2 * 4 * 64
    assert memory.peak == pytest.approx(expected, rel=0.01)


def test_only_what_a_stage_trains_has_moments(plans, monkeypatch):
    """Adam keeps nothing of weights without a gradient; they are there, and averaged."""
    everything = training_memory("cronos", plans, "3d_fullres")
    kind = method_class("cronos")
    build = kind.__init__

    def with_idle_weights(self, *args, **further):
        build(self, *args, **further)
        self.idle = torch.nn.Parameter(torch.zeros(1000, 1000))

    monkeypatch.setattr(kind, "__init__", with_idle_weights)
    # the weights themselves and their average
    copies = 1 + (build_method("cronos", plans, "3d_fullres").recipe.ema_decay > 0)
    assert training_memory("cronos", plans, "3d_fullres") == pytest.approx(everything + copies * 4e6)


def test_saved_activations_are_counted():
    """Two layers of SiLU on a leaf: input, both activations, and their gradients on the way back."""
    with LiveBytes("cpu") as memory:
        x = torch.zeros(1000, requires_grad=True)
        y = torch.nn.functional.silu(torch.nn.functional.silu(x))
        assert memory.live == 3 * 4000
        y.sum().backward()
    assert memory.peak >= 4 * 4000


def test_memory_grows_with_batch_scans_and_precision(plans):
    one = training_memory("cronos", plans, "3d_fullres", "cuda", batch_size=1)
    four = training_memory("cronos", plans, "3d_fullres", "cuda", batch_size=4)
    half = training_memory("cronos", plans, "3d_fullres", "cuda", bf16=True, batch_size=4)
    assert one < four < 4 * one
    assert 0.4 * four < half < 0.8 * four
    longer = plans.model_copy(update={"temporal": plans.temporal.model_copy(update={"sequence_length": 12})})
    assert training_memory("cronos", longer, "3d_fullres", "cuda", batch_size=1) > one


@pytest.mark.parametrize("network", ["diffusion_unet", "concatenation_unet"])
def test_other_networks_of_a_flow_are_estimated_too(plans, network):
    one = training_memory(f"tfm-{network}", plans, "3d_fullres", "cuda", batch_size=1)
    assert one < training_memory(f"tfm-{network}", plans, "3d_fullres", "cuda", batch_size=4) < 4 * one


def test_no_real_tensor_is_made(plans):
    """A patch that no machine could hold is estimated all the same."""
    plan = plans.configuration("3d_fullres").model_copy(update={"patch_size": [1024, 2048, 2048]})
    huge = plans.model_copy(update={"configurations": {"huge": plan}})
    assert training_memory("cronos", huge, "huge", "cuda") > 1e12


def test_a_method_without_weights_has_no_training_step(plans):
    assert training_memory("lci", plans, "3d_fullres") == 0


def test_the_batch_is_a_real_one(plans):
    batch = samples_of(method_class("cronos")).largest_batch(plans, "3d_fullres", 2)
    patch_size = plans.configuration("3d_fullres").patch_size
    assert batch.context.shape == (2, plans.temporal.sequence_length, 1, *patch_size)
    assert batch.context_times[0, -1] == 0


@pytest.fixture(scope="module")
def to_segment():
    found = fingerprint([[0.0]] * 4, [8, 32, 32], [3, 1, 1])
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    requested = description(task="segment", labels=labels, regions_class_order=[1, 2])
    return make_plans(found, requested, "tiny")


def test_batches_of_scans_have_the_shapes_that_samplers_give(to_segment):
    plan = to_segment.configuration("3d_fullres")
    batch = SAMPLES.get("labelled_pairs").largest_batch(to_segment, "3d_fullres", 5)
    assert batch.image.shape == (5, 1, *plan.patch_size)
    assert batch.pair.shape == batch.clean_pair.shape == (2, 2, 1, *plan.patch_size)
    assert batch.pair_times.tolist() == [[0, 1], [0, 1]]
    assert batch.position.shape == batch.subject.shape == (2,)
    outputs = UNet(1, 2, plan.network)(batch.image)
    assert [scale.shape for scale in batch.labels] == [scale.shape for scale in outputs]


def test_batches_hold_what_their_kind_names(to_segment):
    labelled = SAMPLES.get("labelled").largest_batch(to_segment, "2d", 1)
    assert labelled.pair is None and labelled.image.ndim == 4
    pairs = SAMPLES.get("pairs").largest_batch(to_segment, "2d", 1)
    assert pairs.image is None and pairs.labels is None and len(pairs.pair) == 1


def test_labels_without_regions_are_one_map(to_segment):
    plain = to_segment.model_copy(update={"labels": {"background": 0, "a": 1, "b": 2}, "regions_class_order": []})
    assert {scale.shape[1] for scale in SAMPLES.get("labelled").largest_batch(plain, "3d_fullres", 2).labels} == {1}
    assert {scale.shape[1] for scale in SAMPLES.get("labelled").largest_batch(to_segment, "3d_fullres", 2).labels} == {
        2
    }


def test_pairs_cost_nothing_more_than_their_gradients(to_segment):
    labelled = training_memory("unet", to_segment, "3d_fullres", "cuda", options={"adam": True})
    weights = sum(weight.numel() for weight in build_method("unet", to_segment, "3d_fullres").parameters())
    both = training_memory("unet_consistent", to_segment, "3d_fullres", "cuda")
    assert labelled < both < 1.02 * labelled + 2 * 4 * weights


def test_the_optimizer_is_the_methods(to_segment, monkeypatch):
    """SGD keeps one number for each weight that has a gradient, Adam two."""
    sgd = training_memory("unet", to_segment, "3d_fullres", "cuda")
    adam = dataclasses.replace(build_method("unet", to_segment, "3d_fullres").recipe, optimizer="adam")
    model = build_method("unet", to_segment, "3d_fullres")
    model.training_step(samples_of(model).largest_batch(to_segment, "3d_fullres", 2)).backward()
    weights = sum(weight.numel() for weight in model.parameters() if weight.grad is not None)
    assert weights < sum(weight.numel() for weight in model.parameters())  # the coarsest output has none
    monkeypatch.setattr(method_class("unet"), "recipe", adam)
    assert training_memory("unet", to_segment, "3d_fullres", "cuda") == pytest.approx(sgd + 4 * weights)


@pytest.fixture(scope="module")
def translation_plans():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longflow.planning.plan.training_memory", lambda *_: 1e8)
        requested = description(names=("CT", "CT"), task="translate")
        return make_plans(phase_fingerprint([1, 64, 64], [5, 1, 1], channels=2), requested, "tiny")


def test_a_batch_of_pairs_holds_both_directions(translation_plans):
    batch = samples_of(method_class("mfm")).largest_batch(translation_plans, "2d", 3)
    patch_size = translation_plans.configuration("2d").patch_size
    assert batch.source.shape == batch.target.shape == (3, 2, *patch_size)
    assert batch.source_phase.tolist() == [0, 1, 0]
    assert batch.noise is None
    assert build_method("mfm", translation_plans, "2d").training_step(batch).requires_grad


def test_a_translation_takes_more_with_more_slices_and_at_least_its_weights(translation_plans):
    few, many = (training_memory("mfm", translation_plans, "2d", batch_size=size) for size in (1, 4))
    weights = sum(4 * one.numel() for one in build_method("mfm", translation_plans, "2d").parameters())
    assert 4 * weights < few < many
