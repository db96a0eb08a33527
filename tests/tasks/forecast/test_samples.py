import numpy as np
import pytest
import torch

from longflow.data.images import write_volume
from longflow.errors import DataError
from longflow.plans import read_plans, write_plans
from longflow.preprocessing.patches import read_patch
from longflow.preprocessing.series import load_prepared, prepared_subjects
from longflow.tasks.forecast import samples as forecast_samples
from longflow.tasks.forecast.samples import ForecastSamples
from longflow.training.splits import Cohort
from tests.methods.helpers import conditioned_plans
from tests.training.helpers import SHAPE, conditioned_dataset, geometry, make_dataset, prepare_all


def samples_of(paths, seed=0, counts=None, **plan):
    plans = read_plans(paths.plans())
    (name,) = plans.configurations
    for key, value in plan.items():
        setattr(plans.configuration(name), key, value)
    folder = paths.cache("longflowPlans", "3d_fullres")
    counts = counts or dict.fromkeys(prepared_subjects(folder), 4)
    scans = {subject: [f"{subject}_{index}" for index in range(count)] for subject, count in counts.items()}
    return ForecastSamples(Cohort(folder, scans), plans, name, seed)


def labelled_dataset(weight=3.0, **further):
    """Six subjects, of whom the later scans of three have a label of 4 x 4 x 5 voxels; prepared with them."""
    paths = make_dataset(prepare=False, **further)
    for case in (f"s{subject}_{scan}" for subject in range(3) for scan in (2, 3)):
        label = np.zeros(SHAPE, np.uint8)
        label[1:, 2:6, 3:8] = 2
        write_volume(label, geometry(), "uint8", paths.raw / "labelsTr" / f"{case}.nii.gz")
    plans = read_plans(paths.plans())
    plans.training.label_weight = weight
    write_plans(plans, paths.plans())
    prepare_all(paths, plans)
    return paths


def equal(one, other):
    """Whether two batches hold the same, noise too where they have any."""
    pairs = [(value, getattr(other, name)) for name, value in vars(one).items()]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def unaugmented(monkeypatch):
    monkeypatch.setattr(forecast_samples, "augment", lambda stack, *_: stack)


def test_a_batch_is_decided_by_seed_and_number_alone(dataset):
    one = [samples_of(dataset)[number] for number in (7, 3, 7)]
    assert equal(one[0], one[2]) and not equal(one[0], one[1])
    assert not equal(one[0], samples_of(dataset, seed=1)[7])


def test_batches_have_the_planned_size_and_one_number_of_context_scans(dataset):
    samples = samples_of(dataset, batch_size=3)
    seen = set()
    for number in range(30):
        batch = samples[number]
        scans = batch.context.shape[1]
        seen.add(scans)
        assert batch.context.shape == (3, scans, 1, 4, 8, 8) and batch.target.shape == (3, 1, 4, 8, 8)
        assert batch.context_times.shape == (3, scans) and batch.context_mask.all()
        assert batch.context.dtype == batch.target.dtype == batch.context_times.dtype == torch.float32
        assert (batch.context_times[:, -1] == 0).all() and (batch.target_time > 0).all()
        assert (batch.context_times.diff() > 0).all()
    assert seen == {1, 2, 3}


def test_context_lies_before_the_target_and_times_are_those_of_the_scans(dataset, unaugmented):
    """Each patch is found again in the scan that its time names."""
    samples = samples_of(dataset, batch_size=1)
    times = [0.0, 1.0, 2.5, 4.0]
    every = [load_prepared(samples.series.folder, subject).images[:] for subject in samples.scan_counts]
    for number in range(20):
        batch = samples[number]
        target = batch.target[0, 0].numpy()
        series, scan, start = find(every, target)
        patches = [
            read_patch(series, [index], start, (4, 8, 8))[0]
            for index, time in enumerate(times)
            if np.isclose(batch.context_times[0] + times[scan] - batch.target_time[0], time, atol=1e-5).any()
        ]
        assert len(patches) == batch.context.shape[1]
        assert np.array_equal(batch.context[0].numpy(), np.stack(patches))


def find(every, patch):
    for series in every:
        windows = np.lib.stride_tricks.sliding_window_view(series[:, 0], patch.shape, axis=(1, 2, 3))
        hits = np.argwhere((windows == patch).all((-3, -2, -1)))
        if len(hits):
            return series, hits[0][0], [int(value) for value in hits[0][1:]]
    raise AssertionError("the patch is in no scan")


def test_subjects_with_few_scans_are_drawn_only_where_they_have_enough(dataset):
    samples = samples_of(dataset, counts={"s0": 1, "s1": 2, "s2": 4}, batch_size=4)
    assert set(samples.scan_counts) == {"s1", "s2"}
    for number in range(20):
        assert samples[number].context.shape[0] == 4


def test_horizons_are_drawn_as_validation_draws_them(dataset):
    """The target is uniform among the scans after the first, then its distance in scans among those possible."""
    samples, generator = samples_of(dataset), np.random.default_rng(0)
    drawn = np.array([samples._draw_target(generator, 1)[1:] for _ in range(3000)])
    shares = {(target, target - given + 1): np.mean((drawn == (target, given)).all(1)) for target, given in drawn}
    expected = {(target, gap): 1 / 3 / target for target in (1, 2, 3) for gap in range(1, target + 1)}
    assert shares == pytest.approx(expected, abs=0.03)
    # as many scans as the other samples of the batch have
    assert {tuple(samples._draw_target(generator, 2)[1:]) for _ in range(200)} == {(2, 2), (3, 2), (3, 3)}


def test_in_2d_samples_have_no_slice_axis(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    batch = samples_of(make_dataset(subjects=2, channels=2, dimensions=2))[0]
    assert batch.context.shape[2:] == (2, 8, 8) and batch.target.shape == (2, 2, 8, 8)


def test_deferred_augmentation_gives_the_same_batches_on_the_device(dataset):
    """Up to rounding; batches without augmentation have nothing to defer."""
    now, later = samples_of(dataset, batch_size=3), samples_of(dataset, batch_size=3)
    finish = later.defer_augmentation()
    for number in range(6):
        expected, read = now[number], later[number]
        assert expected.draws is None and len(read.draws) == 3
        done = finish(read.to("cpu"))
        assert done.draws is None
        for name in ("context", "target", "context_times", "target_time"):
            torch.testing.assert_close(getattr(done, name), getattr(expected, name), atol=1e-3, rtol=1e-4)
        assert not torch.equal(read.target, expected.target)
    later.augmented = now.augmented = False
    assert later[0].draws is None and equal(later[0], now[0])


def test_period_and_covariates_of_a_sample_are_those_of_its_subject_at_the_target_time(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    samples = samples_of(conditioned_dataset(), batch_size=2)
    times, seen = [0.0, 1.0, 2.5, 4.0], set()
    for number in range(30):
        batch = samples[number]
        for period, covariates, horizon in zip(batch.period, batch.covariates, batch.target_time, strict=True):
            subject = round(10 * period.item() - 20)
            age, treatment, age_known, treatment_known = covariates.tolist()
            target = round(10 * age + 60 - 50 - subject)
            last = next(scan for scan, time in enumerate(times) if abs(times[target] - time - horizon) < 1e-5)
            known = target % 2 == 1 or last % 2 == 1  # else that of the last context scan
            assert (age_known, treatment_known) == (1, known)
            assert treatment == pytest.approx((1 - 60) / 10 if known else 0)
            seen.add((subject, target, known))
    assert {subject for subject, *_ in seen} == set(range(6)) and {known for *_, known in seen} == {False, True}


def test_the_largest_batch_has_the_conditions_of_the_plans():
    plans = conditioned_plans(period=30.0, names=("age", "treatment", "sex"))
    batch = ForecastSamples.largest_batch(plans, "3d_fullres", 5)
    assert batch.covariates.shape == (5, 6) and batch.period.shape == (5,)
    without = ForecastSamples.largest_batch(conditioned_plans(), "3d_fullres", 5)
    assert without.covariates is None and without.period is None


def test_a_time_factor_stretches_context_and_horizon_alike(dataset, monkeypatch):
    plain = samples_of(dataset, batch_size=1)[3]
    samples = samples_of(dataset, batch_size=1)
    monkeypatch.setattr(forecast_samples, "draw_time_factor", lambda plans, generator: 1.2)
    stretched = samples[3]
    torch.testing.assert_close(stretched.context_times, 1.2 * plain.context_times)
    torch.testing.assert_close(stretched.target_time, 1.2 * plain.target_time)
    assert torch.equal(stretched.target, plain.target)
    samples.augmented = False
    assert samples[3].target_time != stretched.target_time


def test_elastic_deformations_are_not_left_to_the_gpu(dataset):
    samples = samples_of(dataset)
    samples.plans.training.elastic = 1.0
    finish = samples.defer_augmentation()
    batch = samples[0]
    assert batch.draws is None and finish(batch) is batch
    samples.plans.training.elastic = 0.0
    samples.defer_augmentation()
    assert samples[0].draws is not None


@pytest.mark.parametrize("dimensions", [2, 3])
def test_labelled_voxels_of_the_target_weigh_more(tmp_path, monkeypatch, unaugmented, dimensions):
    """Each weight is found again in the label of the scan that the target is; other scans have even weights."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    samples = samples_of(labelled_dataset(dimensions=dimensions), batch_size=1)
    seen = {True: 0, False: 0}
    for number in range(40):
        batch = samples[number]
        weights = batch.weights[0, 0].numpy()
        assert batch.weights.shape == batch.target.shape and weights.mean() == pytest.approx(1, rel=1e-5)
        labels = {}
        for subject in samples.scan_counts:
            series = samples.series[subject]
            for scan in range(len(series.images)):
                patches = patches_of(series.images[scan, 0], weights.shape)
                if (found := position_of(batch.target[0, 0].numpy(), patches)) is not None:
                    segmentation = series.segmentations
                    empty = np.full(series.images.shape[2:], -1)
                    label = empty if segmentation is None else segmentation[scan]
                    labels[subject, scan] = patches_of(label, weights.shape)[found] > 0
        (label,) = labels.values()
        seen[bool(label.any())] += 1
        expected = np.where(label, 4.0, 1.0)
        np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)
    assert min(seen.values()) > 3


def patches_of(volume, shape):
    """Every patch of a volume whose border is repeated, as samples are cut: (places, *shape)."""
    volume, full = np.asarray(volume), (1,) * (3 - len(shape)) + tuple(shape)
    padded = np.pad(volume, [(extent, extent) for extent in full], "edge" if volume.dtype.kind == "f" else "constant")
    views = np.lib.stride_tricks.sliding_window_view(padded, full)
    return views.reshape(-1, *shape)


def position_of(patch, patches):
    equal = (patches == patch).reshape(len(patches), -1).all(1)
    return int(equal.argmax()) if equal.any() else None


def test_without_a_label_weight_no_label_is_prepared_and_no_batch_has_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = labelled_dataset(weight=0.0)
    samples = samples_of(paths)
    assert samples[0].weights is None
    assert not any(samples.series[subject].properties.scans_with_label for subject in samples.scan_counts)


def test_a_label_weight_needs_labels_that_were_prepared(dataset):
    plans = read_plans(dataset.plans())
    plans.training.label_weight = 1.0
    write_plans(plans, dataset.plans())
    with pytest.raises(DataError, match=r"None of the 6 subjects to train on with label_weight .* longflow_preprocess"):
        samples_of(dataset)


def test_deferred_weights_are_those_of_the_augmented_patch(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = labelled_dataset()
    now, later = samples_of(paths), samples_of(paths)
    finish = later.defer_augmentation()
    for number in range(10):
        found = finish(later[number])
        torch.testing.assert_close(found.weights, now[number].weights, atol=1e-3, rtol=1e-3)
