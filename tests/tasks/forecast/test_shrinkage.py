import shutil

import numpy as np
import pytest

from longflow.inference.selection import Member, Selection
from longflow.plans import read_plans
from longflow.tasks.forecast import shrinkage
from longflow.tasks.forecast.best import SHRINKAGES
from longflow.tasks.forecast.pairs import ForecastPrediction
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.shrinkage import FoldShare, GivenScans, measure_fold_share, own_and_whole, prepared_scans
from longflow.tasks.forecast.windows import Times
from tests.training.helpers import finished_model


def simulated(generator, subjects, folds=5, voxels=2000, agreement=1.0):
    """Changes of the target and of each fold's forecast: what is common, and what is a fold's own.

    The powers are those for which single folds choose s = 0.46 where 0.86 is right for five of them.
    """
    target = generator.standard_normal((subjects, voxels))
    common = 0.798 * target + np.sqrt(0.726 - 0.798**2) * generator.standard_normal((subjects, voxels))
    own = np.sqrt(1.009) * generator.standard_normal((subjects, folds, voxels))
    return target, common[:, None] + agreement * own


def error(s, forecasts, target):
    """RMSE of the average of the folds, shrunk, over that of LCI."""
    return np.sqrt(np.square(target - s * forecasts.mean(1)).mean() / np.square(target).mean())


def fitted(forecasts, target, left=1.0):
    """The shrinkage that longflow_find_best chooses: each subject is forecast by one fold."""
    subjects = np.arange(len(target))
    d = forecasts[subjects, subjects % forecasts.shape[1]]
    dd, dr, rr = (d * d).sum(1), (d * target).sum(1), (target * target).sum(1)
    curves = np.sqrt(SHRINKAGES[:, None] ** 2 * left * dd - 2 * SHRINKAGES[:, None] * dr + rr)
    return SHRINKAGES[curves.mean(1).argmin()]


def share_of(forecasts):
    own, whole = np.sum([own_and_whole(one) for one in forecasts], axis=0)
    return FoldShare(own / whole, "imagesTs", len(forecasts))


@pytest.mark.parametrize("seed", range(5))
def test_the_right_shrinkage_is_found_where_the_truth_is_known(seed):
    generator = np.random.default_rng(seed)
    target, forecasts = simulated(generator, 20)
    _, held_out = simulated(generator, 6)
    right = SHRINKAGES[np.argmin([error(s, forecasts, target) for s in SHRINKAGES])]
    uncorrected = fitted(forecasts, target)
    corrected = fitted(forecasts, target, share_of(held_out).of_average(5))
    assert (uncorrected, right) == pytest.approx((0.46, 0.86), abs=0.02)
    assert corrected == pytest.approx(right, abs=0.1)
    assert error(uncorrected, forecasts, target) > 1.15 * error(right, forecasts, target)
    assert error(corrected, forecasts, target) <= 1.05 * error(right, forecasts, target)


def test_folds_that_agree_more_on_what_they_were_trained_on_give_something_between():
    """Never above the right one: the share of training subjects is a lower bound."""
    generator = np.random.default_rng(0)
    target, forecasts = simulated(generator, 20)
    found = [
        fitted(forecasts, target, share_of(simulated(generator, 6, folds=4, agreement=agreement)[1]).of_average(5))
        for agreement in (0.0, 0.5, 0.8, 1.0)
    ]
    assert found[0] == fitted(forecasts, target) and found == sorted(found) and found[-1] <= 0.9


def test_the_estimates_are_unbiased():
    generator = np.random.default_rng(0)
    common, own = generator.standard_normal(200_000), generator.standard_normal((3, 200_000))
    found = np.array(own_and_whole(2.0 * common + 0.5 * own)) / common.size
    assert found == pytest.approx([0.25, 4.25], rel=0.02)
    assert own_and_whole(np.repeat(common[None], 3, axis=0))[0] == pytest.approx(0, abs=1e-6 * common.size)


@pytest.mark.parametrize(("share", "folds", "left"), [(0.0, 5, 1.0), (1.0, 5, 0.2), (0.5, 2, 0.75), (0.5, 1, 1.0)])
def test_what_is_left_of_the_squared_change(share, folds, left):
    assert FoldShare(share, "", 1).of_average(folds) == pytest.approx(left)


@pytest.fixture
def chosen(dataset):
    """A model of three folds with random weights."""
    plans = read_plans(dataset.plans())
    for fold in (0, 1, 2):
        model = finished_model(dataset, plans, random=True, fold=fold, seed=fold)
    return Selection(dataset, (Member(model, (0, 1, 2)),), reduction="last", shrinkage=0.3, steps=1)


def pair_of(dataset, subject, fold):
    scans = [(dataset.raw / "imagesTr" / f"{subject}_{index}_0000.nii.gz",) for index in range(4)]
    return ForecastPrediction(
        case=f"{subject}_3", subject=subject, images=(), method="cronos", target_time=40.0, horizon=15.0, fold=fold,
        context=tuple(f"{subject}_{index}" for index in range(3)), context_times=(0.0, 10.0, 25.0),
        context_images=tuple(scans[:3]), reference=scans[3],
    )  # fmt: skip


def expected_share(dataset, chosen, given):
    """With the forecasts that each fold makes alone, before shrinkage."""
    powers = []
    for one in given:
        changes = []
        for fold in one.folds:
            forecaster = Forecaster.load(dataset=1, folds=[fold], device="cpu", steps=1)
            for member in forecaster.models.members:
                member.plans.inference.tile_step_size = 1.0
            context = prepared_scans(one, forecaster)
            last = context.last.array
            changes.append((forecaster.forecast_from(context) - last) / np.ptp(last))
        variance = np.var(changes, axis=0, ddof=1).sum()
        powers.append((variance, np.square(changes).sum() / len(changes)))
    own, whole = np.sum(powers, axis=0)
    return own / whole


def test_without_held_out_subjects_the_folds_trained_on_a_subject_are_compared(dataset, chosen):
    pairs = [pair_of(dataset, "s0", 0), pair_of(dataset, "s1", 1)]
    found = measure_fold_share(chosen, pairs)
    assert (found.measured_on, found.forecasts) == ("training subjects", 2)
    given = [
        GivenScans(pair.subject, Times(pair.context_times, 40.0), pair.context_images, folds)
        for pair, folds in zip(pairs, [(1, 2), (0, 2)], strict=True)
    ]
    assert found.share == pytest.approx(expected_share(dataset, chosen, given), rel=1e-4)
    assert 0 < found.share < 1


def test_held_out_subjects_are_preferred_and_their_targets_are_never_read(dataset, chosen, monkeypatch):
    folder = dataset.raw / "imagesTs"
    folder.mkdir()
    rows = ["case,subject,time"]
    for index, time in enumerate((0, 10, 25)):
        shutil.copy(dataset.raw / "imagesTr" / f"s2_{index}_0000.nii.gz", folder / f"new_{index}_0000.nii.gz")
        rows.append(f"new_{index},new,{time}")
    shutil.copy(dataset.raw / "imagesTr" / "s0_0_0000.nii.gz", folder / "single_0_0000.nii.gz")
    (folder / "scans.csv").write_text("\n".join([*rows, "single_0,single,0", "new_9,new,90"]) + "\n")
    read, read_scan = [], shrinkage.read_scan
    monkeypatch.setattr(shrinkage, "read_scan", lambda files: read.append(files[0].name) or read_scan(files))
    found = measure_fold_share(chosen, [pair_of(dataset, "s0", 0)])
    assert (found.measured_on, found.forecasts) == ("imagesTs", 2)  # one subject of three scans has two targets
    assert read and "new_2_0000.nii.gz" not in read


def test_one_fold_or_two_of_which_one_was_trained_on_the_subject_measure_nothing(dataset, chosen):
    (member,) = chosen.members
    pairs = [pair_of(dataset, "s0", 0)]
    for folds in ((), (0,), (0, 1)):
        assert measure_fold_share(Selection(dataset, (Member(member.model, folds),)), pairs) is None
