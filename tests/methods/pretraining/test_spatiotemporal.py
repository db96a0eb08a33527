"""Every term of the pretraining loss against the printed equation, computed with loops in NumPy."""

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError, NotFoundError
from longflow.methods.batches import ScanBatch
from longflow.methods.pretraining import spatiotemporal
from longflow.methods.pretraining.spatiotemporal import (
    covariance,
    layers_of_interest,
    mean_over_layers,
    orthogonality,
    paired,
    reconstruction,
    similarity,
    spread,
    variance,
)
from longflow.methods.registry import build_method
from longflow.plans import NetworkPlan
from tests.methods.helpers import minimal_plans

SMALL = {"width": 16, "places": 6}


def segment_plans(dimensions=3, channels=1, stages=3):
    plans = minimal_plans(dimensions=dimensions, channels=channels)
    (configuration,) = plans.configurations.values()
    configuration.network = NetworkPlan(
        features_per_stage=[8, 8, 16][:stages],
        strides=[[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        kernel_sizes=[[3] * dimensions] * stages,
        attention=False,
    )
    return plans.model_copy(update={"task": "segment", "labels": {"background": 0, "organ": 1}})


def small_method(dimensions=3, channels=1, stages=3, **options):
    configuration = "3d_fullres" if dimensions == 3 else "2d"
    torch.manual_seed(0)
    return build_method(
        "spatiotemporal", segment_plans(dimensions, channels, stages), configuration, {**SMALL, **options}
    )


def pair_batch(pairs=1, channels=1, spatial=(4, 8, 8)):
    torch.manual_seed(1)
    clean = torch.randn(pairs, 2, channels, *spatial)
    return ScanBatch(pair=clean + 0.1 * torch.randn_like(clean), clean_pair=clean)


@pytest.fixture
def z():
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def p():
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(3))


def negative_cosine(p, z):
    """D(p, z) of Ren et al."""
    return -np.dot(p / np.linalg.norm(p), z / np.linalg.norm(z))


def test_similarity_is_equation_1(z, p):
    (z1, z2), (p1, p2) = z.numpy(), p.numpy()
    terms = [0.5 * negative_cosine(p1[m], z2[m]) + 0.5 * negative_cosine(p2[m], z1[m]) for m in range(7)]
    assert similarity(z, p).item() == pytest.approx(np.mean(terms), abs=1e-6)


def test_similarity_is_lowest_for_predictions_of_the_other_scan(z):
    assert similarity(z, 3 * z.flip(0)).item() == pytest.approx(-1, abs=1e-6)


def test_similarity_sends_no_gradient_into_what_is_foreseen(z, p):
    z.requires_grad_(), p.requires_grad_()
    similarity(z, p).backward()
    assert z.grad is None and p.grad.abs().sum() > 0


def test_orthogonality_is_the_square_of_equation_2(z, p):
    cosines = [-negative_cosine(z.numpy()[side, m], p.numpy()[side, m]) for side in range(2) for m in range(7)]
    assert orthogonality(z, p).item() == pytest.approx(np.mean(np.square(cosines)), abs=1e-6)


def test_orthogonality_is_lowest_where_features_are_orthogonal_not_opposite():
    x, y = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    assert orthogonality(x, y).item() == 0
    assert orthogonality(x, -x).item() == pytest.approx(1)


def test_variance_is_equation_3(z):
    z = z * torch.tensor([0.1, 0.5, 1.0, 2.0, 0.0])
    hinges = []
    for side in z.numpy():
        for dimension in side.T:
            deviation = np.sqrt(np.sum((dimension - dimension.mean()) ** 2) / (7 - 1) + 1e-4)
            hinges.append(max(0, 1 - deviation))
    assert variance(z).item() == pytest.approx(np.mean(hinges), abs=1e-6)


def test_variance_of_a_collapsed_layer_is_its_highest_and_has_a_gradient():
    collapsed = torch.ones(2, 7, 5, requires_grad=True)
    loss = variance(collapsed)
    loss.backward()
    assert loss.item() == pytest.approx(1 - 1e-2, abs=1e-6)
    assert torch.isfinite(collapsed.grad).all()


def test_covariance_is_equation_4(z):
    expected = 0
    for side in z.numpy():
        matrix = np.zeros((5, 5))
        for sample in side:
            matrix += np.outer(sample - side.mean(0), sample - side.mean(0)) / (7 - 1)
        expected += sum(matrix[u, v] ** 2 for u in range(5) for v in range(5) if u != v) / 5
    assert covariance(z).item() == pytest.approx(expected, rel=1e-5)


def test_covariance_of_uncorrelated_dimensions_is_zero():
    side = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert covariance(torch.stack([side, side])).item() == pytest.approx(0, abs=1e-6)


def test_covariance_keeps_its_precision_at_the_papers_width():
    z = torch.randn(2, 64, 2048, generator=torch.Generator().manual_seed(4))
    expected = 0
    for side in z.double().numpy():
        matrix = np.cov(side.T)
        expected += (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / 2048
    assert covariance(z).item() == pytest.approx(expected, rel=1e-4)


def test_reconstruction_is_equation_5_as_a_mean():
    found, clean = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    assert reconstruction(found, clean).item() == pytest.approx(np.mean((found - clean).numpy() ** 2), rel=1e-5)


def test_spread_is_one_for_directions_all_over_and_zero_for_one():
    assert spread(torch.randn(2, 2000, 64)).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(2, 20, 64)).item() == pytest.approx(0, abs=1e-4)


def test_spread_sees_collapse_behind_the_batch_normalisation():
    method = small_method()
    same = torch.ones(2, 6, 8)
    assert spread(paired([method.projectors[0](same)])[0]).item() == pytest.approx(0, abs=1e-3)
    assert spread(paired([method.projectors[0](torch.randn(2, 6, 8))])[0]).item() > 0.5


def test_terms_are_means_over_layers(z, p):
    mean = mean_over_layers(similarity, [z, p], [p, z])
    assert mean.item() == pytest.approx((similarity(z, p).item() + similarity(p, z).item()) / 2)


def test_pairs_come_apart_into_both_sides():
    scans = torch.arange(4.0).view(4, 1, 1).expand(4, 3, 2)  # first pair 0, 1; second pair 2, 3
    (sides,) = paired([scans])
    assert sides[0, :, 0].tolist() == [0, 0, 0, 2, 2, 2]
    assert sides[1, :, 0].tolist() == [1, 1, 1, 3, 3, 3]


def test_layers_are_those_of_the_authors_for_their_network():
    """Four encoder levels, the bottleneck, three decoder levels; four encoder levels in rows A to C."""
    assert layers_of_interest("encoder_decoder", 5) == ([0, 1, 2, 3, 4], [3, 2, 1])
    assert layers_of_interest("encoder", 5) == ([0, 1, 2, 3], [])
    assert layers_of_interest("encoder_decoder", 2) == ([0, 1], [0])


def test_projections_are_of_the_layers_and_places_of_both_scans(monkeypatch):
    method = small_method(stages=3)
    features = method.network.features(torch.randn(2, 1, 4, 8, 8))
    drawn = {}
    monkeypatch.setattr(
        spatiotemporal,
        "draw_places",
        lambda spatial, most, device: drawn.setdefault(tuple(spatial), torch.arange(3)),
    )
    z = method.project(features)
    stages = [*features.encoder, features.decoder[0]]
    assert len(z) == len(stages) and list(drawn) == [(4, 8, 8), (2, 4, 4), (1, 2, 2)]
    for layer, stage, projector in zip(z, stages, method.projectors, strict=True):
        seen = stage.flatten(2)[:, :, :3].transpose(1, 2)
        assert torch.allclose(layer, projector(seen), atol=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("dimensions", "channels", "pairs", "stages"), [(3, 1, 1, 3), (3, 2, 2, 2), (2, 1, 1, 3), (2, 3, 2, 2)]
)
def test_step_sums_the_weighted_terms(dimensions, channels, pairs, stages, mode):
    method = getattr(small_method(dimensions, channels, stages), mode)()
    loss = method.training_step(pair_batch(pairs, channels, (4, 8, 8)[-dimensions:]))
    weights = {"similarity": 1, "reconstruction": 10, "variance": 1e-2, "covariance": 1e-3, "orthogonality": 100}
    assert set(method.terms) == {*weights, "spread"}
    expected = sum(weight * method.terms[name].item() for name, weight in weights.items())
    assert loss.item() == pytest.approx(expected, rel=1e-5) and np.isfinite(expected)
    assert not any(term.requires_grad for term in method.terms.values())


@pytest.mark.parametrize("off", ["similarity", "reconstruction", "variance", "covariance", "orthogonality"])
def test_a_term_of_weight_zero_is_excluded(off):
    method = small_method(**{off: 0.0})
    loss = method.training_step(pair_batch())
    assert off not in method.terms
    assert loss.item() == pytest.approx(
        sum(method.options[name] * term.item() for name, term in method.terms.items() if name != "spread"), rel=1e-5
    )


def test_a_step_reaches_every_weight_but_the_coarse_outputs():
    method = small_method()
    method.training_step(pair_batch()).backward()
    silent = [name for name, weight in method.named_parameters() if weight.grad is None]
    assert silent and all("seg_layers.0" in name for name in silent)


def test_encoder_layers_alone_leave_the_decoder_as_it_is():
    method = small_method(layers="encoder", reconstruction=0.0, variance=0.0, covariance=0.0, orthogonality=0.0)
    method.training_step(pair_batch()).backward()
    assert len(method.projectors) == 2
    trained = [name for name, weight in method.named_parameters() if weight.grad is not None]
    assert any(name.startswith("network.unet.encoder") for name in trained)
    assert not any(name.startswith("network.unet.decoder") for name in trained)


def test_reconstruction_alone_has_no_projectors():
    method = small_method(similarity=0.0, variance=0.0, covariance=0.0, orthogonality=0.0)
    batch = pair_batch()
    loss = method.training_step(batch)
    found = method.network.finest(batch.pair[0])
    expected = np.mean((found.detach().numpy() - batch.clean_pair[0].numpy()) ** 2)
    assert set(method.terms) == {"reconstruction"} and not len(method.projectors)
    assert loss.item() == pytest.approx(10 * expected, rel=1e-4)


def test_evaluation_is_repeated_exactly_and_changes_nothing():
    method, batch = small_method(), pair_batch()
    method.training_step(batch)
    method.eval()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        with torch.no_grad():
            losses.append(method.training_step(batch).item())
    assert losses[0] == losses[1]
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_losses_are_float32_under_autocast():
    method = small_method()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.training_step(pair_batch())
    assert loss.dtype == torch.float32 and all(term.dtype == torch.float32 for term in method.terms.values())


def test_training_lowers_every_term():
    method, batch = small_method(), pair_batch(pairs=2)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    torch.manual_seed(6)
    course = []
    for _ in range(30):
        optimizer.zero_grad()
        method.training_step(batch).backward()
        optimizer.step()
        course.append({name: term.item() for name, term in method.terms.items()})
    for name in ("similarity", "reconstruction", "orthogonality"):
        assert np.mean([c[name] for c in course[-5:]]) < np.mean([c[name] for c in course[:5]])
    assert course[-1]["spread"] > 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "encoder"}, "--set orthogonality=0 --set variance=0 --set covariance=0"),
        ({"variance": -1.0}, "0 or more"),
        ({"width": 4}, "'width' is 4"),
        ({"places": 1}, "'places' is 1"),
        (dict.fromkeys(["similarity", "reconstruction", "variance", "covariance", "orthogonality"], 0.0), "one of"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigurationError, match=words):
        small_method(**options)


def test_unknown_layers_are_named():
    with pytest.raises(NotFoundError, match="encoder_decoder"):
        small_method(layers="encoder_decoders")


def test_it_is_optimised_as_in_the_paper():
    recipe = small_method().recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.betas) == ("adam", 2e-4, (0.9, 0.999))
    assert (recipe.schedule, recipe.keep) == ("linear", "best")
