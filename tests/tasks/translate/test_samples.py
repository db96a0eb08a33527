import pickle

import numpy as np
import pytest
import torch

from longflow.errors import DataError
from longflow.preprocessing.series import load_prepared, save_prepared
from longflow.tasks.translate import samples as phase_samples
from longflow.tasks.translate.samples import PhaseSamples, pairs_of_cohort, uniform_over_slices
from longflow.training.splits import Cohort
from tests.tasks.translate.cohort import make_pairs, phase_plans


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))


@pytest.fixture
def unaugmented(monkeypatch):
    monkeypatch.setattr(phase_samples, "augment_phases", lambda stack, *_: stack)


def samples_of(plans=None, seed=0, augmented=True, **raw) -> PhaseSamples:
    plans = plans or phase_plans()
    _, cohort = make_pairs(plans, **raw)
    (name,) = plans.configurations
    return PhaseSamples(cohort, plans, name, seed, augmented)


def equal(one, other):
    return all(
        (value is None and getattr(other, name) is None) or torch.equal(value, getattr(other, name))
        for name, value in vars(one).items()
    )


def found_in(scan: np.ndarray, patch: np.ndarray) -> list[tuple[int, ...]]:
    """Where a patch lies in a scan of one channel: its first voxels."""
    windows = np.lib.stride_tricks.sliding_window_view(scan[0], patch.shape[1:])
    return [tuple(map(int, place)) for place in np.argwhere((windows == patch[0]).all((-3, -2, -1)))]


def test_a_batch_is_decided_by_seed_and_number_alone():
    samples = samples_of()
    first = samples[7]
    assert not equal(samples[3], first) and equal(samples[7], first)
    assert equal(pickle.loads(pickle.dumps(samples))[7], first)
    assert not equal(samples_of(seed=1)[7], first)


@pytest.mark.parametrize(("dimensions", "patch"), [(3, (4, 8, 8)), (2, (8, 8))])
def test_shapes_types_and_directions(dimensions, patch):
    samples = samples_of(phase_plans(dimensions, batch_size=3))
    phases = []
    for number in range(60):
        batch = samples[number]
        assert batch.source.shape == batch.target.shape == (3, 1, *patch) and batch.noise is None
        assert batch.source.dtype == batch.target.dtype == batch.source_phase.dtype == torch.float32
        assert batch.source_phase.shape == (3,) and batch.source.is_contiguous()
        phases += batch.source_phase.tolist()
    assert set(phases) == {0.0, 1.0} and np.mean(phases) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_source_and_target_are_one_place_in_the_two_scans_of_a_pair(unaugmented, dimensions):
    """Found again in the scans of a subject with two pairs; never across their times."""
    samples = samples_of(phase_plans(dimensions, batch_size=1), subjects=("p1", "p2"), times=(0, 30))
    seen = set()
    for number in range(40):
        batch = samples[number]
        source, target = (
            (one[0] if dimensions == 3 else one[0][:, None]).numpy() for one in (batch.source, batch.target)
        )
        hits = []
        for subject in samples.subjects:
            series = samples.series[subject]
            for pair, scans in enumerate(samples.pairs[subject]):
                one, other = (np.asarray(series.images[scan]) for scan in scans)
                if batch.source_phase[0] == 1:
                    one, other = other, one
                hits += [(subject, pair) for place in found_in(one, source) if place in found_in(other, target)]
        assert len(hits) == 1
        seen.add((*hits[0], float(batch.source_phase[0])))
    assert seen == {(subject, pair, phase) for subject in ("p1", "p2") for pair in (0, 1) for phase in (0.0, 1.0)}


def test_each_scan_is_in_its_own_normal_form(unaugmented):
    """MR: what a scanner made brighter as a whole is not to be learnt."""
    plans = phase_plans(batch_size=1, channel="T1", normal_form="per_scan")
    plans.configuration("3d_fullres").patch_size = [4, 24, 20]
    samples = samples_of(plans, subjects=("p1",))
    series = samples.series["p1"]
    ((native, arterial),) = samples.pairs["p1"]
    assert series.properties.scale[native] != series.properties.scale[arterial]
    for number in range(6):
        batch = samples[number]
        source, target = (native, arterial) if batch.source_phase[0] == 0 else (arterial, native)
        assert np.array_equal(batch.source[0], series.images[source])
        assert np.array_equal(batch.target[0], series.images[target])


def test_subjects_are_drawn_alike_however_many_pairs_they_have(unaugmented, monkeypatch):
    samples = samples_of(phase_plans(batch_size=1), subjects=("p1", "p2"), times=(0, 30, 60))
    samples.pairs["p2"] = samples.pairs["p2"][:1]
    drawn = []
    monkeypatch.setattr(samples, "series", Listened(samples.series, drawn))
    for number in range(300):
        samples[number]
    assert drawn.count("p1") / 300 == pytest.approx(0.5, abs=0.1)


class Listened:
    def __init__(self, series, drawn):
        self.series, self.drawn = series, drawn

    def __getitem__(self, subject):
        self.drawn.append(subject)
        return self.series[subject]


def test_a_third_of_the_volumes_lie_where_the_phases_differ_most(monkeypatch):
    """The weights that reach the draw: the squared difference, summed over blocks."""
    calls = []
    monkeypatch.setattr(phase_samples, "draw_patch_start", lambda series, change, *_: calls.append(change) or [0, 0, 0])
    samples = samples_of(phase_plans(batch_size=1, channel="T1", normal_form="per_scan"), subjects=("p1",))
    series, ((native, arterial),) = samples.series["p1"], samples.pairs["p1"]
    expected = np.square(series.coarse[native] - series.coarse[arterial])[0]
    for number in range(4):
        samples[number]
        np.testing.assert_allclose(calls[number], expected, rtol=1e-3, atol=1e-6)


def test_whole_slices_are_drawn_alike_of_those_that_show_body(unaugmented):
    """Where the patch is the slice; those of air alone are not drawn."""
    plans = phase_plans(2, batch_size=1)
    plans.configuration("2d").patch_size = [24, 20]
    samples = samples_of(plans, subjects=("p1",), shapes=((9, 24, 20),))
    series = samples.series["p1"]
    series.images = np.asarray(series.images[:])
    series.coarse[:, :, :3] = series.coarse.min()  # of slices 0 to 5
    assert series.coarse_block[0] == 2 and series.coarse.shape[2] == 5
    drawn = []
    for number in range(300):
        batch = samples[number]
        images = series.images[samples.pairs["p1"][0][int(batch.source_phase[0])]]
        drawn.append(int(np.flatnonzero((images[0] == batch.source[0, 0].numpy()).all((1, 2)))[0]))
    shares = np.bincount(drawn, minlength=9) / len(drawn)
    assert shares[:6].tolist() == [0] * 6 and shares[6:] == pytest.approx([1 / 3] * 3, abs=0.09)


def test_slices_weigh_alike_in_the_last_block_too():
    series = type("Series", (), {})()
    series.coarse = np.zeros((2, 1, 3, 2, 2), np.float32)
    series.coarse[:, :, 0], series.coarse[:, :, 2, 0, 0] = 1, 1
    series.coarse_block, series.images = (4, 8, 8), np.zeros((2, 1, 9, 16, 16))
    assert np.array_equal(uniform_over_slices(series).sum((1, 2)), [4, 0, 1])
    assert np.array_equal(uniform_over_slices(series)[2], [[1, 0], [0, 0]])


def test_a_patch_that_is_larger_than_a_slice_repeats_its_border(unaugmented):
    plans = phase_plans(2, batch_size=1)
    plans.configuration("2d").patch_size = [32, 32]
    batch = samples_of(plans)[0]
    assert batch.source.shape == (1, 1, 32, 32)
    assert (batch.source[0, 0, :4] == batch.source[0, 0, 4]).all()
    assert (batch.source[0, 0, :, :6] == batch.source[0, 0, :, 6:7]).all()


def test_both_scans_are_augmented_by_one_draw_in_the_spacing_of_the_scan(monkeypatch):
    calls = []
    augment = phase_samples.augment_phases

    def listened(stack, spacing, generator):
        calls.append((tuple(stack.shape), tuple(spacing)))
        return augment(stack, spacing, generator)

    monkeypatch.setattr(phase_samples, "augment_phases", listened)
    samples = samples_of(phase_plans(2, batch_size=2))
    augmented = samples[0]
    assert calls == [((2, 1, 8, 8), (1.5, 1.5))] * 2
    samples.augmented = False
    plain = samples[0]
    assert len(calls) == 2 and not torch.equal(plain.source, augmented.source)


def test_subjects_without_a_pair_are_left_out_and_said_so(caplog):
    plans = phase_plans()
    _, cohort = make_pairs(plans, subjects=("p1", "p2", "p3"))
    series = load_prepared(cohort.folder, "p2")
    assert pairs_of_cohort(cohort, plans, "to train on") == {name: [(1, 0)] for name in ("p1", "p2", "p3")}
    series.properties.phases[0] = "venous"
    series.images = series.images[:]
    save_prepared(series, cohort.folder)
    with caplog.at_level("INFO"):
        assert list(pairs_of_cohort(cohort, plans, "to train on")) == ["p1", "p3"]
    assert "1 subjects to train on without a pair of native and arterial are excluded (p2)" in caplog.text
    alone = Cohort(cohort.folder, {"p2": cohort.scans["p2"]})
    with pytest.raises(
        DataError, match=r"None of the 1 subjects to train on \(p2\) has a pair: .* native and arterial"
    ):
        PhaseSamples(alone, plans, "3d_fullres", 0)


def test_deferred_augmentation_gives_the_same_batches_on_the_device():
    now, later = samples_of(), samples_of()
    finish = later.defer_augmentation()
    for number in range(6):
        expected, read = now[number], later[number]
        assert expected.draws is None and len(read.draws) == len(read.source)
        done = finish(read)
        assert done.draws is None and torch.equal(done.source_phase, expected.source_phase)
        assert torch.equal(done.source, expected.source) and torch.equal(done.target, expected.target)
    later.augmented = False
    assert later[0].draws is None
