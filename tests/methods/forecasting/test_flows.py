"""What holds for every flow method: where it starts, what it learns from, what padding may not change."""

from dataclasses import replace

import pytest
import torch

from longflow.errors import ConfigurationError, NotFoundError
from longflow.flow.grid import grid_slots
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, load_method, write_checkpoint
from tests.methods.helpers import conditioned_plans, minimal_plans, random_batch
from tests.networks.helpers import awake

FLOWS = ("cronos", "cronos_discrete", "tfm")
GRIDS = ("cronos_discrete", "tfm")


def flow(name: str, options=None, **plan):
    torch.manual_seed(0)
    plans = minimal_plans(**plan)
    return build_method(name, plans, next(iter(plans.configurations)), options)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("solver", ["euler", "heun2", "rk4"])
def test_untrained_last_is_the_last_context_image(name, solver):
    method, batch = flow(name), random_batch()
    method.solver = solver
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])


def test_untrained_mean_of_continuous_cronos_is_the_context_mean():
    batch = random_batch()
    torch.testing.assert_close(flow("cronos").predict(batch)["mean"], batch.context.mean(1))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("channels", "dimensions"), [(1, 3), (2, 3), (1, 2)])
def test_loss_falls_when_a_sample_is_learned_by_heart(name, channels, dimensions):
    method = flow(name, channels=channels, dimensions=dimensions)
    batch = random_batch(channels=channels, shape=(4, 8, 8)[-dimensions:])
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", FLOWS)
def test_coupling_is_paired(name):
    """The loss of a batch is the mean of the losses of its samples: no sample is ever carried to another's target."""
    method, batch = flow(name), random_batch(size=2)
    # a fresh network predicts no velocity, so that the loss is the distance of each stack from its own target
    apart = []
    for sample in range(2):
        alone = {key: value[sample : sample + 1] for key, value in vars(batch).items() if value is not None}
        apart.append(method.training_step(replace(batch, **alone)).item())
    assert abs(method.training_step(batch).item() - sum(apart) / 2) < 1e-5
    swapped = replace(batch, target=batch.target.flip(0) + 3)
    assert method.training_step(swapped).item() > max(apart) + 1


def with_padding(batch):
    """The same batch with a place in front that was not observed."""
    return replace(
        batch,
        context=torch.cat([torch.zeros(2, 1, 1, 4, 8, 8), batch.context], 1),
        context_times=torch.cat([torch.full((2, 1), 77.0), batch.context_times], 1),
        context_mask=torch.cat([torch.zeros(2, 1, dtype=torch.bool), batch.context_mask], 1),
    )


@pytest.mark.parametrize("name", FLOWS)
def test_padding_changes_neither_loss_nor_forecast(name):
    method, batch = awake(flow(name)).eval(), random_batch(scans=3)
    padded = with_padding(batch)
    method.steps = 1
    torch.testing.assert_close(method.predict(padded)["mean"], method.predict(batch)["mean"])
    torch.manual_seed(1)
    alone = method.training_step(batch)
    torch.manual_seed(1)
    torch.testing.assert_close(method.training_step(padded), alone)


def test_padding_of_cronos_stays_out_of_several_steps_too():
    """Only the velocity of padded places could leak into later steps; the network must not see it."""
    method, batch = awake(flow("cronos")).eval(), random_batch(scans=3)
    padded = with_padding(batch)
    method.steps = 4
    torch.testing.assert_close(method.predict(padded)["last"], method.predict(batch)["last"])


def points_of_training(method, batch):
    """What the network is shown in a training step, and the step's loss."""
    seen = []
    velocity = method.velocity
    method.velocity = lambda batch, stack, mask, tau: seen.append(stack) or velocity(batch, stack, mask, tau)
    torch.manual_seed(3)
    return method.training_step(batch), seen[0]


@pytest.mark.parametrize("name", FLOWS)
def test_noise_is_around_the_path_and_not_in_the_velocity(name):
    """A fresh network predicts no velocity, so that its loss is the size of x_1 - x_0."""
    batch = random_batch(size=8)
    still, path = points_of_training(flow(name), batch)
    loss, noisy = points_of_training(flow(name, {"noise": "0.3"}), batch)
    noise = noisy - path
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    torch.testing.assert_close(loss, still)


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_is_added_when_predicting(name):
    batch = random_batch()
    found = awake(flow(name, {"noise": 0.3})).eval().predict(batch)["last"]
    torch.testing.assert_close(found, awake(flow(name)).eval().predict(batch)["last"])


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_noise_that_cannot_be(noise):
    with pytest.raises(ConfigurationError, match=f"The option 'noise' is {noise}, expected 0 or more"):
        flow("cronos", {"noise": noise})


@pytest.mark.parametrize("name", FLOWS)
def test_with_the_context_last_a_network_of_one_scan_sees_the_last_one_only(name):
    method, batch = awake(flow(name, {"context": "last"}, channels=2)).eval(), random_batch(channels=2)
    assert method.network.in_channels == 2
    others = replace(batch, context=torch.cat([batch.context[:, :-1] + 5, batch.context[:, -1:]], 1))
    others.context_times = batch.context_times * 2
    for reduction, volume in method.predict(batch).items():
        assert torch.equal(volume, method.predict(others)[reduction])
        assert not torch.equal(volume, batch.context[:, -1])
    assert points_of_training(method, batch)[0] == points_of_training(method, others)[0]
    assert points_of_training(method, batch)[1].shape[1] == 1


@pytest.mark.parametrize("name", FLOWS)
def test_with_the_context_last_training_starts_at_lci_and_time_still_matters_to_cronos(name):
    method, batch = flow(name, {"context": "last"}), random_batch()
    assert torch.equal(method.predict(batch)["mean"], batch.context[:, -1])
    later = replace(batch, target_time=batch.target_time + 1)
    method = awake(method).eval()
    same = torch.equal(method.predict(batch)["last"], method.predict(later)["last"])
    assert same == (name != "cronos")


def sparse_batch():
    """Scans 0 and 1 in slots 1 and 3 of five: the target is two slots after the last scan."""
    batch = random_batch(scans=2)
    batch.context_times = torch.tensor([[-2.0, 0.0]]).expand(2, 2)
    batch.target_time = torch.full((2,), 2.0)
    return batch


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("filling", "counts"), [("masking", [0, 1, 0, 1, 0]), ("none", [1, 1, 1, 1, 1])])
def test_without_locf_empty_slots_are_zeros(name, filling, counts):
    batch = sparse_batch()
    stack, mask = flow(name, {"filling": filling}).stack(batch)
    expected = torch.zeros_like(stack)
    expected[:, 1], expected[:, 3] = batch.context[:, 0], batch.context[:, 1]
    assert torch.equal(stack, expected) and mask.int().tolist() == [counts] * 2


@pytest.mark.parametrize("name", GRIDS)
def test_masked_slots_have_no_part_in_loss_and_reductions(name):
    """A fresh network: the loss is that of the given frames, and the forecasts are LCI and the context mean."""
    method, batch = flow(name, {"filling": "masking"}), sparse_batch()
    expected = (batch.target.unsqueeze(1) - batch.context).square().mean()
    torch.testing.assert_close(method.training_step(batch), expected)
    found = method.predict(batch)
    assert torch.equal(found["last"], batch.context[:, -1])
    torch.testing.assert_close(found["mean"], batch.context.mean(1))


@pytest.mark.parametrize("name", GRIDS)
def test_the_content_of_masked_slots_is_never_seen(name, monkeypatch):
    method, batch = awake(flow(name, {"filling": "masking"})).eval(), sparse_batch()
    expected, loss = method.predict(batch), points_of_training(method, batch)[0]
    stack, mask = method.stack(batch)
    monkeypatch.setattr(method, "stack", lambda batch: (stack.masked_fill(~mask.view(2, 5, 1, 1, 1, 1), 9.0), mask))
    for reduction, volume in method.predict(batch).items():
        torch.testing.assert_close(volume, expected[reduction])
    torch.testing.assert_close(points_of_training(method, batch)[0], loss)


@pytest.mark.parametrize("name", GRIDS)
def test_without_filling_zeros_count_like_scans(name):
    method, batch = flow(name, {"filling": "none"}), sparse_batch()
    of_zeros = batch.target.square().mean()
    expected = (2 * (batch.target.unsqueeze(1) - batch.context).square().mean() + 3 * of_zeros) / 5
    torch.testing.assert_close(method.training_step(batch), expected)
    found = method.predict(batch)
    assert not found["last"].any()
    torch.testing.assert_close(found["mean"], batch.context.sum(1) / 5)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("options", [{"noise": 0.1}, {"context": "last"}, {"filling": "masking"}, {"filling": "none"}])
def test_every_option_can_be_learned_with(name, options):
    if not set(options) <= set(type(flow(name)).options):
        with pytest.raises(NotFoundError, match="There is no option 'filling'"):
            flow(name, options)
        return
    method, batch = flow(name, options), sparse_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("recorded", [None, {}, {"context": "last"}])
def test_weights_are_loaded_with_the_options_of_their_training(name, recorded, tmp_path):
    """Those from before there were options, too."""
    method = awake(flow(name, recorded)).eval()
    tensors = {f"weights.{key}": tensor for key, tensor in method.state_dict().items()}
    header = {"method": name, "plan_identity": method.plans.identity("3d_fullres"), "options": recorded}
    write_checkpoint(Checkpoint(tensors, header), tmp_path / "weights")
    loaded = load_method(tmp_path / "weights", name, method.plans, "3d_fullres")
    assert loaded.options == method.options and loaded.options["context"] == (recorded or {}).get("context", "all")
    assert torch.equal(loaded.predict(random_batch())["mean"], method.predict(random_batch())["mean"])


@pytest.mark.parametrize("name", FLOWS)
def test_features_change_in_proportion(name):
    plans = minimal_plans()
    plan = plans.configuration("3d_fullres")
    plan.network.features_per_stage[:] = [16, 32]

    def widths(features):
        network = build_method(name, plans, "3d_fullres", {"features": features}).network
        return [block.norm1.num_channels for block in network.encoder]

    assert [widths(features) for features in (0, 8, 16, 32)] == [[16, 32], [8, 16], [16, 32], [32, 64]]
    assert plan.network.features_per_stage == [16, 32]
    for impossible in (-8, 12):
        with pytest.raises(ConfigurationError, match=f"'features' is {impossible}, expected a multiple of 8"):
            widths(impossible)


def error_after_training(name, names):
    """MSE over LCI's after a training whose target is the context plus 1 where treated, minus 1 where not.

    Contexts are new noise in each step, so that nothing but the covariate tells. With one solver step the forecast is
    made from the context alone: later points of the path show the target.
    """
    torch.manual_seed(0)
    method = build_method(name, conditioned_plans(names=names, dimensions=2), "2d")
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    treated = torch.tensor([1.0, -1.0] * 16)
    batch = random_batch(scans=1, size=32, shape=(8, 8))
    batch.covariates = torch.stack([treated, torch.ones(32)], dim=1) if names else None
    for _ in range(60):
        batch.context = torch.randn(32, 1, 1, 8, 8)
        batch.target = batch.context[:, 0] + treated.view(32, 1, 1, 1)
        loss = method.training_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method.steps = 1
    with torch.no_grad():
        return (method.predict(batch)["last"] - batch.target).square().mean()


@pytest.mark.parametrize("name", FLOWS)
def test_a_change_that_a_covariate_alone_decides_is_learned_with_it_and_not_without(name):
    assert error_after_training(name, ("treatment",)) < 0.2
    assert error_after_training(name, ()) > 0.9


@pytest.mark.parametrize("name", FLOWS)
def test_with_covariates_an_untrained_forecast_is_lci_and_a_trained_one_depends_on_each(name):
    torch.manual_seed(0)
    method, batch = build_method(name, conditioned_plans(names=("age", "treatment")), "3d_fullres"), random_batch()
    batch.covariates = torch.tensor([[0.5, -1.0, 1.0, 1.0]]).expand(2, 4)
    assert torch.equal(method.predict(batch)["last"], batch.context[:, -1])
    awake(method).eval()
    first = method.predict(batch)["last"]
    for feature in range(4):
        other = batch.covariates.clone()
        other[:, feature] += 1
        assert (method.predict(replace(batch, covariates=other))["last"] - first).abs().max() > 1e-3


@pytest.mark.parametrize("name", FLOWS)
def test_a_network_is_shown_the_context_itself_where_all_flow_steps_are_at_the_start(name):
    method, batch = flow(name, {"at_start": 1.0}), random_batch(size=4)
    _, point = points_of_training(method, batch)
    assert torch.equal(point, method.stack(batch)[0])


@pytest.mark.parametrize("name", FLOWS)
def test_a_loss_weighted_by_change_counts_change_more(name):
    """A fresh network predicts no velocity: the errors are largest where the target changed most."""
    batch = replace(random_batch(), context=torch.zeros(2, 3, 1, 4, 8, 8))
    change = batch.target.abs().flatten(1)
    weights = (1 + 3 * change / change.mean(1, keepdim=True)) / 4
    expected = (weights * batch.target.flatten(1).square()).mean()
    torch.testing.assert_close(flow(name, {"change_weight": 3.0}).training_step(batch), expected)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("options", [{"at_start": -0.1}, {"at_start": 1.1}, {"change_weight": -1.0}])
def test_shares_and_weights_out_of_range_are_refused(name, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        flow(name, options)


@pytest.mark.parametrize("name", [*FLOWS, "cronos_motion", "convlstm"])
def test_weights_of_a_batch_are_those_of_the_squared_errors(name):
    """Errors where the weight is 0 cost nothing; with all weights 1 the loss is that without weights."""
    method = flow(name)
    batch = replace(random_batch(), target=random_batch().context[:, -1].clone())
    seen, weights = batch.target.clone(), torch.full_like(batch.target, 4 / 3)
    seen[:, :, 0] += 3
    weights[:, :, 0] = 0  # one of four slices

    def loss(**changes):
        torch.manual_seed(3)
        return method.training_step(replace(batch, **changes)).item()

    assert loss(weights=torch.ones_like(weights)) == pytest.approx(loss(), rel=1e-6)
    assert loss(target=seen, weights=weights) == pytest.approx(loss(weights=weights), rel=1e-4)
    assert loss(target=seen) > loss() + 0.5


@pytest.mark.parametrize("name", FLOWS)
def test_the_path_of_a_prediction(name):
    """X_1 = X_0 + the mean of the velocities at Euler's steps; without keep the evaluations are not in memory."""
    method, batch = awake(flow(name)).eval(), random_batch()
    method.solver, method.steps = "euler", 4
    path = method.path(batch, keep=True)
    assert [one.tau for one in path.evaluations] == pytest.approx([0, 0.25, 0.5, 0.75])
    velocities = torch.stack([one.velocity for one in path.evaluations])
    torch.testing.assert_close(path.evaluations[0].stack + velocities.mean(0), path.end)
    assert path.times.shape == path.mask.shape == path.end.shape[:2]
    alone = method.path(batch)
    assert alone.evaluations == [] and torch.equal(alone.end, path.end)


@pytest.mark.parametrize("name", GRIDS)
def test_slots_end_one_spacing_before_the_target(name):
    """The time of a slot is that of a scan that is put exactly there."""
    method, batch = flow(name), random_batch()
    times = method.place_times(batch)
    torch.testing.assert_close(
        batch.target_time - times[:, -1], torch.full_like(batch.target_time, method.grid_spacing)
    )
    slots = grid_slots(times, batch.target_time, method.grid_spacing, method.grid_length)
    assert torch.equal(slots, torch.arange(method.grid_length).expand_as(slots))


@pytest.mark.parametrize("name", FLOWS)
def test_noise_of_the_source_leaves_along_the_path_and_is_in_the_velocity(name):
    """A fresh network predicts no velocity, so that its loss is the size of X_1 - X_0."""
    batch = random_batch(size=8)
    method = flow(name, {"source_noise": 0.5})
    seen = []
    velocity = method.velocity
    method.velocity = lambda batch, stack, mask, tau: seen.append((stack, tau)) or velocity(batch, stack, mask, tau)
    torch.manual_seed(3)
    noise = 0.5 * torch.randn_like(batch.target).unsqueeze(1)  # the first that is drawn
    torch.manual_seed(3)
    loss = method.training_step(batch)
    ((stack, tau),) = seen
    start, _ = method.stack(batch)
    share = tau.view(-1, 1, 1, 1, 1, 1)
    torch.testing.assert_close(stack, (1 - share) * (start + noise) + share * batch.target.unsqueeze(1))
    torch.testing.assert_close(loss, (batch.target.unsqueeze(1) - start - noise).square().mean())


@pytest.mark.parametrize("name", FLOWS)
def test_the_ode_from_a_noisy_source_ends_at_the_law_of_the_target(name):
    """With the velocity E[X_1 - X_0 | X_tau] of normal laws: source N(c, sigma^2), target N(c + m, s^2)."""
    sigma, mean, deviation = 0.5, 2.0, 0.8
    method, batch = flow(name, {"source_noise": sigma}), random_batch()
    method.steps, method.solver = 20, "rk4"
    start, _ = method.stack(batch)

    def velocity(batch, stack, mask, tau):
        t = tau[0]
        covariance = t * deviation**2 - (1 - t) * sigma**2
        variance = ((1 - t) * sigma) ** 2 + (t * deviation) ** 2
        return mean + (stack - start - t * mean) * covariance / variance

    method.velocity = velocity
    noise = torch.randn_like(batch.target)
    found = method.path(replace(batch, noise=noise)).end
    torch.testing.assert_close(found, start + mean + deviation * noise.unsqueeze(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(method.path(batch).end, start + mean)  # without noise: the centre
    method.steps, method.solver = 1, "euler"
    one_step = method.path(replace(batch, noise=noise)).end
    torch.testing.assert_close(one_step, start + mean)  # the noise cancels
    assert method.stochastic and not flow(name).stochastic


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_source_noise_that_cannot_be(noise):
    with pytest.raises(ConfigurationError, match=f"The option 'source_noise' is {noise}, expected 0 or more"):
        flow("cronos", {"source_noise": noise})
