import pickle

import numpy as np
import pytest
import torch

from longflow.data.labels import label_manager
from longflow.errors import DataError
from longflow.methods.registry import SAMPLES
from longflow.preprocessing.series import load_prepared
from longflow.tasks.segment.samples import (
    LabelledPairSamples,
    LabelledSamples,
    LabelledSeriesSamples,
    PairSamples,
    class_locations,
    label_positions,
    subjects_with_pairs,
)
from longflow.training.loader import training_loader
from longflow.training.splits import Cohort
from tests.tasks.segment.cohort import SHAPE, TIMES, filled, ramp, segment_plans, with_voxel, write_cohort

PATCH = (4, 8, 8)


def samples_of(kind, folder, subjects, plans=None, seed=0, augmented=False, **cohort):
    plans = plans or segment_plans()
    made = write_cohort(folder, plans, subjects)
    (name,) = plans.configurations
    return kind(Cohort(made.folder, made.scans, **cohort), plans, name, seed, augmented)


def equal(one, other):
    assert vars(one).keys() == vars(other).keys()
    for value, expected in zip(vars(one).values(), vars(other).values(), strict=True):
        pairs = zip(value, expected, strict=True) if isinstance(value, list) else [(value, expected)]
        if not all(a is b is None or torch.equal(a, b) for a, b in pairs):
            return False
    return True


def two_subjects():
    return {"a": [with_voxel((3, 7, 6)), None, with_voxel((1, 2, 3), 2)], "b": [with_voxel((2, 5, 5)), filled(0)]}


@pytest.mark.parametrize("kind", [LabelledSamples, LabelledSeriesSamples, PairSamples, LabelledPairSamples])
@pytest.mark.parametrize("augmented", [True, False])
def test_a_batch_is_decided_by_seed_and_number_alone(tmp_path, kind, augmented):
    """Whatever was drawn before, the global generators are, and in whichever process."""
    samples = samples_of(kind, tmp_path, two_subjects(), augmented=augmented)
    first = samples[7]
    assert not equal(samples[3], first)
    np.random.seed(1)
    torch.manual_seed(1)
    state = np.random.get_state()[1].copy()
    assert equal(samples[7], first) and equal(pickle.loads(pickle.dumps(samples))[7], first)
    assert np.array_equal(np.random.get_state()[1], state)
    assert not equal(samples_of(kind, tmp_path, two_subjects(), seed=1, augmented=augmented)[7], first)


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(tmp_path):
    samples = samples_of(LabelledPairSamples, tmp_path, two_subjects(), augmented=True)
    helped = training_loader(samples, 3, 1, workers=2, pin=False)
    assert all(equal(samples[number], batch) for number, batch in zip(range(3, 7), helped, strict=False))


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize(("dimensions", "patch"), [(3, (4, 8, 8)), (2, (8, 8)), (3, (2, 8, 8))])
def test_shapes_of_a_batch(tmp_path, dimensions, patch, augmented):
    strides = [[1] * dimensions, [1] * (dimensions - 1) + [2], [2] * dimensions]
    plans = segment_plans(batch_size=5, dimensions=dimensions, patch=patch, strides=strides)
    batch = samples_of(LabelledPairSamples, tmp_path, two_subjects(), plans, augmented=augmented)[0]
    assert batch.image.shape == (5, 1, *patch) and batch.image.dtype == torch.float32
    half = (*patch[:-1], patch[-1] // 2)
    assert [tuple(scale.shape) for scale in batch.labels] == [(5, 1, *patch), (5, 1, *half)]
    assert batch.pair.shape == batch.clean_pair.shape == (2, 2, 1, *patch)
    assert batch.pair_times.shape == (2, 2) and batch.pair_times.dtype == torch.float32
    assert batch.position.shape == batch.subject.shape == (2,) and batch.subject.dtype == torch.int64


def test_each_kind_draws_what_it_says(tmp_path):
    plans = segment_plans(batch_size=1)
    labelled = samples_of(LabelledSamples, tmp_path, two_subjects(), plans)[0]
    pairs = samples_of(PairSamples, tmp_path, two_subjects(), plans)[0]
    both = samples_of(LabelledPairSamples, tmp_path, two_subjects(), plans)[0]
    assert labelled.pair is labelled.clean_pair is labelled.pair_times is labelled.position is labelled.subject is None
    assert pairs.image is pairs.labels is None and len(pairs.pair) == 1
    # unet and unet_consistent see the same labelled patches
    assert torch.equal(both.image, labelled.image) and torch.equal(both.labels[0], labelled.labels[0])


def test_the_trainer_finds_the_three_kinds():
    for name, kind in [
        ("labelled", LabelledSamples),
        ("labelled_series", LabelledSeriesSamples),
        ("pairs", PairSamples),
        ("labelled_pairs", LabelledPairSamples),
    ]:
        assert SAMPLES.get(name) is kind


def test_the_last_third_of_a_batch_holds_a_structure(tmp_path):
    """One voxel in a scan of 1008, patches of 256: by chance alone far fewer would."""
    plans = segment_plans(batch_size=6)
    samples = samples_of(
        LabelledSamples, tmp_path, {"a": [with_voxel((0, 0, 0))], "b": [with_voxel((5, 13, 11))]}, plans
    )
    hits = np.mean([[(label == 1).any().item() for label in samples[number].labels[0]] for number in range(40)], axis=0)
    assert (hits[4:] == 1).all() and (hits[:4] < 0.5).all()


def test_every_class_of_a_scan_is_centred_on_as_often(tmp_path):
    label = filled(0)
    label[:, :4], label[5, 13, 11] = 1, 2
    samples = samples_of(LabelledSamples, tmp_path, {"a": [label]}, segment_plans(batch_size=3))
    rare = np.mean([(samples[number].labels[0][2] == 2).any().item() for number in range(100)])
    assert 0.4 < rare < 0.65


def test_image_and_labels_are_read_at_the_same_place(tmp_path):
    """The ramp tells where a patch was read; outside the scan the image is 0 and the label background."""
    label = filled(1)
    label.ravel()[::3] = 2
    samples = samples_of(LabelledSamples, tmp_path, {"a": [label]}, segment_plans(patch=(8, 8, 8), batch_size=2))
    series = load_prepared(tmp_path, "a")
    label_of = dict(zip(np.asarray(series.images[0]).ravel().tolist(), label.ravel().tolist(), strict=True))
    for number in range(10):
        batch = samples[number]
        found = [label_of.get(value, 0) for value in batch.image.ravel().tolist()]
        assert torch.equal(torch.tensor(found), batch.labels[0].ravel().long())
        outside = batch.labels[0] == 0
        assert outside.float().mean() >= 0.25 and (batch.image[outside] == 0).all()


def test_only_labels_that_may_be_used_are(tmp_path):
    """Each scan's label has a value of its own; subject b is not among the labelled ones, scan 1 of a has no label."""
    labels = {"background": 0} | {f"s{value}": value for value in range(1, 6)}
    subjects = {"a": [filled(1), None, filled(3)], "b": [filled(4), filled(5)]}
    plans = segment_plans(labels)

    def seen(**cohort):
        samples = samples_of(LabelledPairSamples, tmp_path, subjects, plans, **cohort)
        assert {int(subject) for number in range(20) for subject in samples[number].subject} == {0, 1}
        return {int(value) for number in range(20) for value in samples[number].labels[0].unique()} - {0}

    assert seen() == {1, 3, 4, 5}
    assert seen(labelled=frozenset({"a"})) == {1, 3}


def test_scans_are_drawn_uniformly(tmp_path):
    """Three labelled scans of one subject, one of the other: not half of the draws each."""
    labels = {"background": 0} | {f"s{value}": value for value in range(1, 5)}
    subjects = {"a": [filled(1), filled(2), filled(3)], "b": [filled(4)]}
    samples = samples_of(LabelledSamples, tmp_path, subjects, segment_plans(labels, batch_size=1))
    drawn = [int(samples[number].labels[0].max()) for number in range(200)]
    assert all(0.15 < drawn.count(value) / 200 < 0.35 for value in range(1, 5))


def test_pairs_are_neighbours_at_one_place(tmp_path):
    """The ramp is the same in all scans, so equal patches were read at one place; intervals are 10, 20 and 40 days."""
    samples = samples_of(PairSamples, tmp_path, {"a": [None] * 4, "b": [None] * 2})
    intervals = set()
    for number in range(30):
        batch = samples[number]
        assert torch.equal(batch.pair, batch.clean_pair) and torch.equal(batch.pair[:, 0], batch.pair[:, 1])
        assert (batch.pair_times[:, 0] == 0).all()
        found = batch.pair_times[:, 1].round(decimals=5).tolist()
        intervals |= {(int(subject), time) for subject, time in zip(batch.subject, found, strict=True)}
    gaps = (np.diff(TIMES) / 10).tolist()
    assert intervals == {(0, gap) for gap in gaps} | {(1, gaps[0])}


def test_augmented_pairs_share_the_warp_and_not_the_intensities(tmp_path):
    samples = samples_of(PairSamples, tmp_path, {"a": [None] * 2}, augmented=True)
    batches = [samples[number] for number in range(20)]
    assert all(torch.equal(batch.clean_pair[:, 0], batch.clean_pair[:, 1]) for batch in batches)
    assert np.mean([torch.equal(batch.pair[:, 0], batch.pair[:, 1]) for batch in batches]) < 0.3


@pytest.mark.parametrize("dimensions", [2, 3])
def test_position_is_that_of_the_centre_along_the_first_axis(tmp_path, dimensions):
    """Each slice has one value, so the mean of a patch tells its centre."""

    def slices(shape):
        return np.broadcast_to(np.arange(1.0, shape[0] + 1, dtype=np.float32)[:, None, None], shape)

    plans = segment_plans(dimensions=dimensions)
    cohort = write_cohort(tmp_path, plans, {"a": [None, None]}, image=slices)
    (name,) = plans.configurations
    samples = PairSamples(cohort, plans, name, 0, augmented=False)
    values = np.asarray(load_prepared(tmp_path, "a").images[0, 0, :, 0, 0])
    positions = []
    for number in range(10):
        batch = samples[number]
        centre = np.interp(batch.pair.mean(), values, np.arange(SHAPE[0]))
        assert batch.position.item() == pytest.approx((centre + 0.5) / SHAPE[0], abs=1e-4)
        positions.append(batch.position.item())
    assert len(set(positions)) > 1 and min(positions) > 0 and max(positions) < 1


def test_pretraining_needs_no_labels_at_all(tmp_path):
    batch = samples_of(PairSamples, tmp_path, {"a": [None] * 2}, segment_plans(labels={}), augmented=True)[0]
    assert torch.isfinite(batch.pair).all()


def test_a_subject_with_one_scan_is_left_out_of_pairs_and_used_with_its_label(tmp_path):
    labels = {"background": 0, "alone": 1, "pair": 2}
    samples = samples_of(LabelledPairSamples, tmp_path, {"a": [filled(1)], "b": [filled(2)] * 2}, segment_plans(labels))
    assert samples.subjects == ["b"]
    assert {1, 2} <= {int(value) for number in range(10) for value in samples[number].labels[0].unique()}


def test_no_subject_with_two_scans(tmp_path):
    with pytest.raises(DataError, match=r"None of the 2 subjects has two scans.*method 'unet'"):
        samples_of(PairSamples, tmp_path, {"a": [filled(1)], "b": [None]})
    assert subjects_with_pairs(Cohort(tmp_path, {"a": ["a_0"], "b": ["b_0", "b_1"]})) == ["b"]


@pytest.mark.parametrize("subjects", [{"a": [None], "b": [None]}, {"a": [None], "b": [None], "c": [filled(1)]}])
def test_no_label(tmp_path, subjects):
    with pytest.raises(DataError, match=r"None of the . subjects .* has a label.*labelsTr"):
        samples_of(LabelledSamples, tmp_path, subjects, labelled=frozenset({"a", "b"}))


@pytest.mark.parametrize(("usable", "said"), [(None, ""), ({"a"}, "None of the 1 labelled training scans has right")])
def test_a_structure_that_no_training_scan_has(tmp_path, caplog, usable, said):
    subjects = {"a": [filled(1), None], "b": [filled(0), with_voxel((0, 0, 0), 2)]}
    samples = samples_of(LabelledSamples, tmp_path, subjects, labelled=usable and frozenset(usable))
    assert said in caplog.text and bool(said) == bool(caplog.records)
    assert torch.isfinite(samples[0].image).all()


def test_regions_are_centred_on_and_become_targets(tmp_path):
    plans = segment_plans({"background": 0, "whole": [1, 2], "core": [2]}, (1, 2), batch_size=2)
    samples = samples_of(LabelledSamples, tmp_path, {"a": [with_voxel((0, 0, 0), 1)]}, plans)
    for number in range(5):
        labels = samples[number].labels[0]
        assert labels.shape == (2, 2, *PATCH) and labels.dtype == torch.bool
        assert labels[1, 0].sum() == 1 and not labels[:, 1].any()


def test_where_classes_are_by_the_keys_of_nnunet(tmp_path):
    label = filled(3)
    label[0, 0, :3] = [0, 1, 2]
    plans = segment_plans({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, (1, 2))
    write_cohort(tmp_path, plans, {"a": [label]})
    found = class_locations(load_prepared(tmp_path, "a"), 0, label_manager(plans.labels, plans.regions_class_order))
    expected = {(1, 2): [1, 2], 2: [2], (2,): [2], (-1, 0, 1, 2): [0, 1, 2]}
    assert len(found) == 3
    for key, positions in found.items():
        assert positions.tolist() == [[0, 0, 0, x] for x in expected[key]], key


def test_with_an_ignore_label_every_patch_is_centred_on_what_is_annotated(tmp_path):
    label = filled(2)
    label[3, 7, 6] = 0
    plans = segment_plans({"background": 0, "left": 1, "ignore": 2}, batch_size=3)
    samples = samples_of(LabelledSamples, tmp_path, {"a": [label]}, plans)
    series = load_prepared(tmp_path, "a")
    expected = float(series.images[0, 0, 3, 7, 6])
    for number in range(5):
        assert (samples[number].image[:, 0, 2, 4, 4] == expected).all()


def test_positions_of_labels_are_those_of_the_segmentation(tmp_path):
    label = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)
    write_cohort(tmp_path, segment_plans(), {"a": [None, label]})
    found = label_positions(load_prepared(tmp_path, "a"), 1)
    for value in (1, 2):
        assert sorted(found[value].tolist()) == np.argwhere(label == value).tolist()


def test_the_helper_has_a_different_value_at_every_voxel():
    assert len(np.unique(ramp())) == np.prod(SHAPE)


def test_the_plan_can_say_how_many_pairs_a_step_has(tmp_path):
    """Ren et al. train on three crops in both stages; half of a batch of three would be one."""
    plans = segment_plans(batch_size=3)
    (plan,) = plans.configurations.values()
    labels = two_subjects()
    assert len(samples_of(PairSamples, tmp_path, labels, plans)[0].pair) == 1
    plan.pairs_per_batch = 3
    batch = samples_of(LabelledPairSamples, tmp_path, labels, plans)[0]
    assert len(batch.image) == len(batch.pair) == len(batch.clean_pair) == len(batch.subject) == 3
    largest = LabelledPairSamples.largest_batch(plans, "3d_fullres", 3)
    assert largest.pair.shape == batch.pair.shape


def test_intensities_of_a_pair_are_drawn_once_where_the_plan_says_so(tmp_path):
    """All scans of the cohort are the same ramp: the scans of a pair differ by their draws alone."""
    plans = segment_plans(batch_size=8)
    for shared in (False, True):
        plans.training.shared_intensity = shared
        samples = samples_of(PairSamples, tmp_path, two_subjects(), plans, augmented=True)
        assert all(torch.equal(*pair) for number in range(4) for pair in samples[number].pair) == shared


def test_left_and_right_structures_are_warned_of_while_patches_are_mirrored(tmp_path, caplog):
    plans = segment_plans({"background": 0, "kidney_left": 1, "kidney_right": 2})
    samples_of(LabelledSamples, tmp_path, two_subjects(), plans)
    assert not caplog.records  # nothing is augmented
    samples_of(LabelledSamples, tmp_path, two_subjects(), plans, augmented=True)
    (record,) = caplog.records
    message = record.getMessage()
    assert "along the axes [0, 1, 2]" in message and "'kidney_left' and 'kidney_right'" in message
    assert 'set "mirror_axes" of 3d_fullres' in message and "the last: [0, 1]), then train again" in message
    caplog.clear()
    plans.configurations["3d_fullres"].mirror_axes = []
    samples_of(LabelledSamples, tmp_path, two_subjects(), plans, augmented=True)
    one_side = segment_plans({"background": 0, "kidney_left": 1, "tumour": 2})
    samples_of(LabelledSamples, tmp_path, two_subjects(), one_side, augmented=True)
    assert not caplog.records


def series_samples(folder, subjects=None, other_scans=2, augmented=False, batch_size=4):
    plans = segment_plans(batch_size=batch_size)
    plans.configurations["3d_fullres"].other_scans = other_scans
    return samples_of(LabelledSeriesSamples, folder, subjects or two_subjects(), plans, augmented=augmented)


def test_a_labelled_patch_has_other_scans_of_its_subject_at_the_same_place(tmp_path):
    """All scans of the cohort are the same ramp, so that equal patches were read at the same place."""
    samples, counts = series_samples(tmp_path, {"a": [filled(1), None, None, None]}, other_scans=3), []
    for number in range(12):
        batch = samples[number]
        assert batch.others.shape == (4, 3, 1, *PATCH) and batch.other_times.shape == batch.other_mask.shape == (4, 3)
        for image, others, times, mask in zip(
            batch.image, batch.others, batch.other_times, batch.other_mask, strict=True
        ):
            assert all(torch.equal(other, image) for other in others[mask]) and not others[~mask].any()
            # scan 0 is the labelled one; times are in units of 10 days
            assert set(times[mask].tolist()) <= {1.0, 3.0, 7.0} and times[mask].diff().gt(0).all()
            assert not times[~mask].any()
            counts.append(int(mask.sum()))
    assert set(counts) == {0, 1, 2, 3}


def test_other_scans_are_augmented_by_the_spatial_draw_of_the_image(tmp_path):
    samples = series_samples(tmp_path, {"a": [filled(1)] * 4}, augmented=True)
    equal_ones = []
    for number in range(8):
        batch = samples[number]
        for image, others, mask in zip(batch.image, batch.others, batch.other_mask, strict=True):
            for other in others[mask]:
                equal_ones.append(torch.equal(image, other))
                assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.5
    assert 0 < np.mean(equal_ones) < 1  # often neither scan's intensities are changed


def test_a_scan_that_is_shifted_is_marked_and_named(tmp_path, caplog):
    def image(shape):
        return next(arrays)

    def blob(shift):
        z, y, x = np.indices((16, 40, 40))
        return (100 * (np.hypot(y - 20, x - 12 - shift) < 8) + z).astype(np.float32)

    arrays = iter([blob(0), blob(16), blob(0)])
    plans = segment_plans(batch_size=6)
    made = write_cohort(tmp_path, plans, {"a": [filled(1, (16, 40, 40)), None, None]}, image)
    samples = LabelledSeriesSamples(Cohort(made.folder, made.scans), plans, "3d_fullres", 0, False)
    assert "a_0 and a_1" in caplog.text and "--set unregistered=on" in caplog.text
    aligned = {
        time: bool(one)
        for batch in map(samples.__getitem__, range(4))
        for times, mask, ones in zip(batch.other_times, batch.other_mask, batch.other_aligned, strict=True)
        for time, one in zip(times[mask].tolist(), ones[mask], strict=True)
    }
    assert aligned == {1.0: False, 3.0: True}


def test_other_scans_need_a_subject_with_two(tmp_path):
    with pytest.raises(DataError, match=r"None of the 1 subjects has two scans.*the method 'unet'"):
        series_samples(tmp_path, {"a": [filled(1)]})


def test_memory_is_estimated_for_the_most_other_scans():
    plans = segment_plans()
    plans.configurations["3d_fullres"].other_scans = 3
    assert LabelledSeriesSamples.largest_batch(plans, "3d_fullres", 2).others.shape == (2, 3, 1, *PATCH)
