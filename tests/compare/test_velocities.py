"""The velocity of a flow over the scans."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from longflow.compare import perform as performing
from longflow.compare import velocities as module
from longflow.compare.perform import pairs_of, perform
from longflow.compare.variants import Variant
from longflow.compare.velocities import Flow, draw_velocities, flow_of_target, patch_of_change, velocity_figure
from longflow.data.images import read_scan
from longflow.plans import read_plans
from tests.compare.helpers import CRONOS, LCI, Player, comparison_of, description_of, of
from tests.training.helpers import finished_model

GRID = Variant("tfm", "tfm")


@pytest.fixture
def comparison(dataset, monkeypatch):
    """A comparison whose trained models have random weights."""
    player = Player(dataset)
    monkeypatch.setattr(performing, "run_command", player)
    comparison = comparison_of(dataset, CRONOS, GRID, LCI)
    list(perform(comparison, description_of(dataset)))
    for run in comparison.runs:
        if run.variant.trains:
            made_random(comparison, run, monkeypatch)
    return comparison


def made_random(comparison, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("longflow_results", str(comparison.own_results(run)))
        finished_model(comparison.dataset, read_plans(comparison.dataset.plans()), run.variant.method, random=True)


def pair_of(comparison, run):
    pairs, _ = pairs_of(comparison, run, description_of(comparison.dataset))
    return max(pairs, key=lambda pair: len(pair.context))


@pytest.mark.parametrize("variant", [CRONOS, GRID], ids=lambda one: one.name)
def test_the_path_leads_by_its_velocities_to_the_end(comparison, variant):
    """Euler: X_1 = X_0 + sum of v / steps."""
    run = of(comparison, variant)
    flow, steps = flow_of_target(comparison, run, pair_of(comparison, run)), comparison.plans.inference.steps
    assert comparison.plans.inference.solver == "euler"
    np.testing.assert_allclose(flow.taus, np.arange(steps) / steps, atol=1e-6)
    np.testing.assert_allclose(flow.stacks[0] + flow.velocities.mean(axis=0), flow.end, atol=1e-4)
    assert np.abs(flow.velocities).max() > 0


def test_times_of_the_places(comparison):
    """Continuous: those of the scans. On a grid the last slot is one spacing before the target."""
    pair = pair_of(comparison, of(comparison, CRONOS))
    continuous = flow_of_target(comparison, of(comparison, CRONOS), pair)
    expected = [pair.target_time - time for time in sorted(pair.context_times)]
    assert continuous.before == pytest.approx(expected, rel=1e-4)
    grid = comparison.plans.temporal.grid
    on_grid = flow_of_target(comparison, of(comparison, GRID), pair)
    assert on_grid.before == pytest.approx([grid.spacing * place for place in range(grid.length, 0, -1)], rel=1e-4)


def test_target_and_scans_are_the_acquired_ones_in_the_normal_form(comparison, monkeypatch):
    run = of(comparison, CRONOS)
    pair = pair_of(comparison, run)
    monkeypatch.setattr(module, "patch_of_change", lambda _, tile: [slice(edge) for edge in tile])
    flow = flow_of_target(comparison, run, pair)
    patch = tuple(slice(edge) for edge in flow.target.shape)
    for files, shown in ((pair.context_images[-1], flow.stacks[0, -1]), (pair.reference, flow.target)):
        assert np.corrcoef(read_scan(files).array[0][patch].ravel(), shown.ravel())[0, 1] > 0.9999


def test_a_figure_for_every_flow(comparison):
    names = draw_velocities(comparison, comparison.runs)
    assert names == ["velocity_cronos.png", "velocity_tfm.png"]
    assert all((comparison.paths.folder / name).stat().st_size > 1000 for name in names)


@pytest.mark.parametrize(("places", "steps"), [(1, 1), (3, 10), (7, 2)])
def test_what_the_figure_shows(monkeypatch, tmp_path, places, steps):
    """The latest five scans at most; the slice of the largest change; 1 where the velocity leads to the target."""
    drawn = []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    stack = np.random.default_rng(0).random((places, 5, 6, 7)).astype(np.float32)
    target = stack[-1].copy()
    target[2] += 3
    velocities = np.stack([target - stack] * steps)
    taus = [step / steps for step in range(steps)]
    stacks = np.stack([stack + tau * (target - stack) for tau in taus])
    flow = Flow(
        "s1", target, stacks, velocities, taus, np.stack([target] * places), list(range(places, 0, -1)), (5, 1, 1)
    )
    velocity_figure(flow, tmp_path / "velocity.png", "days")
    (figure,) = drawn
    assert "slice z = 2" in figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("cosine 1.00") == min(places, 5)
    assert "1 days before" in titles and "target" in titles and "τ = 1: forecast" in titles
    assert sum(title.startswith("τ = ") for title in titles) == min(steps, 5) + 1
    plt.close(figure)


def test_a_velocity_of_zero_has_no_cosine(monkeypatch, tmp_path):
    """As that of an untrained flow."""
    drawn = []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure))
    stacks = np.zeros((1, 1, 2, 4, 4), np.float32)
    flow = Flow("s1", np.zeros((2, 4, 4), np.float32), stacks, stacks, [0.0], stacks[0], [1.0], (1, 1, 1))
    velocity_figure(flow, tmp_path / "velocity.png", "days")
    assert "cosine not defined" in [axis.get_title() for axis in drawn[0].axes]
    plt.close(drawn[0])


def test_the_patch_lies_around_the_change():
    change = np.zeros((1, 9, 20, 20))
    change[0, 6, 12, 3] = -2
    assert patch_of_change(change, (3, 8, 8)) == (slice(5, 8), slice(8, 16), slice(0, 8))
    assert patch_of_change(change, (1, 20, 20)) == (slice(6, 7), slice(0, 20), slice(0, 20))
    assert patch_of_change(np.arange(6.0).reshape(1, 6, 1, 1), (1, 1, 1))[0] == slice(5, 6)
    assert patch_of_change(np.zeros((1, 9, 20, 20)), (9, 20, 20)) == (slice(0, 9), slice(0, 20), slice(0, 20))
