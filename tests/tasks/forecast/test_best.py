import csv
from dataclasses import replace

import numpy as np
import pytest

from longflow.data.images import write_volume
from longflow.errors import DataError, NotFoundError
from longflow.files import write_json
from longflow.inference.selection import recorded_best
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from longflow.registration.motion import Carried
from longflow.tasks.forecast import best as best_module
from longflow.tasks.forecast.best import (
    MOTION_STEPS,
    SHRINKAGES,
    advantage_over_ladder,
    all_candidates,
    find_best,
    first_minimum,
    nested_estimate,
    subject_weights,
)
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.shrinkage import FoldShare
from tests.methods.helpers import minimal_plans
from tests.tasks.conftest import GEOMETRY, SHAPE

FOLDS = {0: ["s1", "s2"], 1: ["s3", "s4"]}


@pytest.fixture(autouse=True)
def without_networks(monkeypatch):
    """The models here have no weights, so how much their folds differ cannot be measured (test_shrinkage.py)."""
    monkeypatch.setattr("longflow.tasks.forecast.shrinkage.measure_fold_share", lambda *_: None)


@pytest.fixture
def scans(paths, write_scan):
    """Four subjects with two context scans and a target; the last has two targets."""
    generator = np.random.default_rng(0)
    volumes = {}
    for number, subject in enumerate(("s1", "s2", "s3", "s4")):
        last = generator.random(SHAPE).astype(np.float32)
        first = last + 0.5 * generator.standard_normal(SHAPE).astype(np.float32)
        for target in range(2 if subject == "s4" else 1):
            wanted = last + (0.1 + 0.05 * number) * generator.standard_normal(SHAPE).astype(np.float32)
            volumes[f"{subject}_{target + 2}"] = (first, last, wanted)
            write_scan(paths.raw / "imagesTr", f"{subject}_{target + 2}", wanted)
        write_scan(paths.raw / "imagesTr", f"{subject}_0", first)
        write_scan(paths.raw / "imagesTr", f"{subject}_1", last)
    return volumes


@pytest.fixture
def train(paths, scans, write_forecast):
    """Write what a trained model leaves behind: predictions = LCI + share of the change + noise."""

    def write(method, seed, share, noise, reductions=("last",), folds=(0, 1), skip=(), **sidecar):
        generator = np.random.default_rng(seed)
        model = paths.model(method, "longflowPlans", "3d_fullres")
        write_plans(minimal_plans(), model.plans)
        write_json({"dataset": 1}, model.dataset_json)
        for fold in folds:
            model.fold(fold).folder.mkdir(parents=True)
            model.fold(fold).final.touch()
            for case, (_, last, wanted) in scans.items():
                subject = case.split("_")[0]
                if subject not in FOLDS[fold] or case in skip:
                    continue
                for reduction in reductions:
                    prediction = last + share * (wanted - last) + noise * generator.standard_normal(SHAPE)
                    folder = model.fold(fold).validation(reduction)
                    context = [f"{subject}_0", f"{subject}_1"]
                    write_forecast(folder, case, prediction.astype(np.float32), context, method=method, **sidecar)
        return model

    return write


def prediction_of(model, case, reduction="last"):
    from longflow.data.images import read_scan

    fold = next(fold for fold, subjects in FOLDS.items() if case.split("_")[0] in subjects)
    return read_scan((model.fold(fold).validation(reduction) / f"{case}_0000.nii.gz",)).array


def brute_force(scans, predict):
    """Mean over subjects of NRMSE for each shrinkage, by making each volume."""
    means = []
    for s in SHRINKAGES:
        by_subject = {}
        for case, (_, last, wanted) in scans.items():
            shrunk = last[None] + s * (predict(case) - last[None])
            by_subject.setdefault(case.split("_")[0], []).append(nrmse(shrunk, wanted[None]))
        means.append(np.mean([np.mean(values) for values in by_subject.values()]))
    return np.array(means)


def test_closed_form_equals_brute_force(paths, scans, train):
    model = train("cronos", 1, 0.5, 0.15)
    expected = brute_force(scans, lambda case: prediction_of(model, case))
    found = find_best(paths, 1)
    row = next(row for row in found["table"] if row["candidate"].startswith("cronos"))
    assert 0 < row["shrinkage"] < 1
    assert row["shrinkage"] == SHRINKAGES[expected.argmin()]
    assert row["nrmse"] == pytest.approx(expected.min(), rel=1e-5)
    assert row["nrmse_unshrunk"] == pytest.approx(expected[-1], rel=1e-5)
    assert found["lci_nrmse"] == pytest.approx(expected[0], rel=1e-5)
    assert found["nrmse"] == row["nrmse"] < found["lci_nrmse"]
    assert (found["subjects"], found["targets"], found["folds"]) == (4, 5, [0, 1])


def test_motion_that_folds_is_said_once_for_all_targets_and_steps(paths, train, monkeypatch, caplog):
    train("cronos", 1, 0.5, 0.15)
    monkeypatch.setattr("longflow.tasks.forecast.ladder.carried_on", lambda last, _, factor: Carried(last, factor / 10))
    find_best(paths, 1)
    (message,) = (record.message for record in caplog.records if "folds" in record.message)
    assert "folds in 5 of 5 forecasts, at worst in 10 % of the voxels" in message


def test_references_are_read_in_the_units_of_validation(paths, scans, train, monkeypatch):
    """A gain between target and last context scan that nobody can forecast is no error."""
    train("cronos", 1, 0.5, 0.15)
    expected = find_best(paths, 1)
    for case, (*_, wanted) in scans.items():
        write_volume(2 * wanted + 3, GEOMETRY, "float32", paths.raw / "imagesTr" / f"{case}_0000.nii.gz")
    assert find_best(paths, 1)["nrmse"] > 2 * expected["nrmse"]

    def known(pairs, models, dataset):
        assert [model.method for model in models] == ["cronos"] and dataset == paths
        return [replace(pair, units=((0.5, -1.5),)) for pair in pairs]

    monkeypatch.setattr(best_module, "with_units", known)
    found = find_best(paths, 1)
    assert [found[name] for name in ("nrmse", "lci_nrmse")] == pytest.approx(
        [expected[name] for name in ("nrmse", "lci_nrmse")], rel=1e-5
    )


def test_the_shrinkage_is_fitted_to_the_average_of_all_folds(paths, scans, train, monkeypatch):
    """Two folds: half of a fold's own share of d.d is left."""
    train("cronos", 1, 0.5, 0.15)
    alone = find_best(paths, 1)
    assert alone["average_of_folds"] is None
    monkeypatch.setattr(
        "longflow.tasks.forecast.shrinkage.measure_fold_share", lambda *_: FoldShare(0.4, "imagesTs", 6)
    )
    found = find_best(paths, 1)
    average = found["average_of_folds"]
    assert read_json(paths.best) == found and found["table"] == alone["table"]
    assert average["shrinkage_of_a_fold"] == alone["shrinkage"] < found["shrinkage"]
    assert average["nrmse"] < found["nrmse"] == alone["nrmse"]
    # with NumPy: mean over subjects of the root of s^2 0.8 d.d - 2 s d.r + r.r
    expected = {}
    for case, (_, last, wanted) in scans.items():
        d, r = prediction_of(paths.models()[0], case)[0] - last, wanted - last
        squared = SHRINKAGES**2 * 0.8 * (d**2).sum() - 2 * SHRINKAGES * (d * r).sum() + (r**2).sum()
        expected.setdefault(case.split("_")[0], []).append(np.sqrt(squared / d.size) / np.ptp(wanted))
    means = np.mean([np.mean(curves, axis=0) for curves in expected.values()], axis=0)
    assert found["shrinkage"] == SHRINKAGES[means.argmin()]
    assert average["nrmse"] == pytest.approx(means.min(), rel=1e-5)


def test_ensemble_of_two_equals_brute_force(paths, scans, train):
    one, two = train("cronos", 1, 0.6, 0.1), train("tfm", 2, 0.6, 0.1)
    expected = brute_force(scans, lambda case: (prediction_of(one, case) + prediction_of(two, case)) / 2)
    found = find_best(paths, 1)
    assert found["candidate"] == "cronos__longflowPlans__3d_fullres (last) + tfm__longflowPlans__3d_fullres (last)"
    assert found["nrmse"] == pytest.approx(expected.min(), rel=1e-5)
    assert found["shrinkage"] == SHRINKAGES[expected.argmin()]
    assert found["members"] == [
        {"method": method, "plans_name": "longflowPlans", "configuration": "3d_fullres", "folds": [0, 1]}
        for method in ("cronos", "tfm")
    ]
    assert found["reduction"] == "last"


def test_the_mean_of_a_model_and_a_rung_equals_brute_force_and_is_recorded_with_both(
    paths, scans, train, write_forecast
):
    """The prediction errs by as much as the context mean, to the other side."""
    model = train("cronos", 1, 0.5, 0.05)
    means = {case: (first + last) / 2 for case, (first, last, _) in scans.items()}
    for fold, subjects in FOLDS.items():
        for case, (_, _, wanted) in scans.items():
            if (subject := case.split("_")[0]) in subjects:
                mirrored, context = (2 * wanted - means[case]).astype(np.float32), [f"{subject}_0", f"{subject}_1"]
                write_forecast(model.fold(fold).validation("last"), case, mirrored, context, method="cronos")
    expected = brute_force(scans, lambda case: (prediction_of(model, case) + means[case][None]) / 2)
    found = find_best(paths, 1)
    assert found["candidate"] == "cronos__longflowPlans__3d_fullres (last) + context_mean"
    assert found["nrmse"] == pytest.approx(expected.min(), abs=1e-6) and found["shrinkage"] == 1
    members = [(entry["method"], entry["folds"]) for entry in found["members"]]
    assert members == [("cronos", [0, 1]), ("context_mean", [])]
    assert found["reduction"] == "last"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_never_worse_than_any_rung(paths, scans, train, share):
    train("cronos", 1, share, 0.5, reductions=("last", "mean"), period=2.5)
    found = find_best(paths, 1)
    rows = {row["candidate"]: row for row in found["table"]}
    ladder = ["lci", "context_mean", "linear", *MOTION_STEPS, "periodic"]
    assert [rung for rung in ladder if rung not in rows] == []
    rungs = {rung: rows[rung]["nrmse_unshrunk"] for rung in ladder}
    assert found["best_rung_nrmse"] == min(rungs.values()) == rungs[found["best_rung"]]
    assert found["nrmse"] <= min(rungs.values()) <= found["lci_nrmse"]
    assert rungs[f"motion,step={found['motion_step']:g}"] == min(rungs[name] for name in MOTION_STEPS)


def test_a_rung_that_wins_is_recorded_as_what_it_is(paths, scans, train, write_scan):
    """Scans that repeat after two time units: the target is the first scan."""
    train("cronos", 1, -1.0, 0.0, period=2.0)
    for case, (first, *_) in scans.items():
        if case != "s4_3":
            write_scan(paths.raw / "imagesTr", case, first)
    found = find_best(paths, 1)
    assert (found["candidate"], found["best_rung"], found["shrinkage"]) == ("periodic", "periodic", 1.0)
    assert_gets_a_folder("periodic", found, paths)


def test_without_a_period_there_is_no_such_rung(paths, scans, train):
    train("cronos", 1, 0.5, 0.1)
    assert not any("periodic" in row["candidate"] for row in find_best(paths, 1)["table"])


def test_the_chosen_step_of_motion_is_predicted_with(paths, scans, train, monkeypatch):
    train("cronos", 1, 0.5, 0.15)
    monkeypatch.setattr(best_module, "first_minimum", lambda means: (5, 100))
    found = find_best(paths, 1)
    assert found["candidate"] == "motion,step=0.75"
    assert found["members"][0]["method"] == "motion"
    (member,) = recorded_best(paths).members
    assert member.options == {"step": 0.75} and member.folds == ()


def test_lci_is_chosen_where_nothing_is_better(paths, scans, train, write_scan):
    train("cronos", 1, -1.0, 0.0)
    for case, (_, last, _) in scans.items():  # nothing changed before: every rung is LCI
        write_scan(paths.raw / "imagesTr", f"{case.split('_')[0]}_0", last)
    found = find_best(paths, 1)
    assert found["candidate"] == "lci"
    assert found["shrinkage"] == 0
    assert found["nrmse"] == found["lci_nrmse"]
    assert found["reduction"] == "forecast"
    assert_gets_a_folder("lci", found, paths)


def assert_gets_a_folder(method, found, paths):
    """A baseline is recorded as the method that it is, and can be predicted with; it is no trained model."""
    assert found["members"] == [
        {"method": method, "plans_name": "longflowPlans", "configuration": "3d_fullres", "folds": []}
    ]
    folder = paths.model(method, "longflowPlans", "3d_fullres")
    assert read_plans(folder.plans) == minimal_plans() and read_json(folder.dataset_json) == {"dataset": 1}
    assert [model.method for model in paths.models()] == ["cronos"]
    (member,) = recorded_best(paths).members
    assert (member.model, member.folds) == (folder, ())


def test_whatever_is_shrunk_to_nothing_is_recorded_as_lci(paths, scans, train, monkeypatch):
    train("cronos", 1, 0.5, 0.15)
    monkeypatch.setattr(best_module, "first_minimum", lambda means: (2, 0))
    found = find_best(paths, 1)
    assert (found["candidate"], found["shrinkage"], found["nrmse"]) == ("lci", 0.0, found["lci_nrmse"])
    assert found["members"][0]["method"] == "lci"


def test_the_context_mean_is_recorded_as_what_it_is(paths, scans, train, write_scan):
    train("cronos", 1, -1.0, 0.0)
    for case, (first, last, _) in scans.items():
        write_scan(paths.raw / "imagesTr", case, (first + last) / 2)
    found = find_best(paths, 1)
    assert (found["candidate"], found["shrinkage"], found["reduction"]) == ("context_mean", 1.0, "forecast")
    assert_gets_a_folder("context_mean", found, paths)


def test_context_mean_is_a_candidate(paths, scans, train):
    train("cronos", 1, 0.5, 0.15)
    found = find_best(paths, 1)
    row = next(row for row in found["table"] if row["candidate"] == "context_mean")
    errors = {}
    for case, (first, last, wanted) in scans.items():
        errors.setdefault(case.split("_")[0], []).append(nrmse((first + last)[None] / 2, wanted[None]))
    expected = np.mean([np.mean(values) for values in errors.values()])
    assert row["nrmse_unshrunk"] == pytest.approx(expected, rel=1e-5)
    assert found["context_mean_nrmse"] == row["nrmse_unshrunk"]


def test_the_better_reduction_is_chosen_and_files_are_written(paths, scans, train):
    train("cronos", 1, 0.5, 0.1, reductions=("last", "mean"))
    found = find_best(paths, 1)
    assert read_json(paths.best) == found
    with open(paths.best_table, newline="") as file:
        rows = list(csv.DictReader(file))
    # without a period: 7 rungs, 4 of them steps of motion; 2 reductions, and their means with the rungs but LCI
    assert len(rows) == 7 + 2 + 2 * 6
    assert [float(row["nrmse"]) for row in rows] == sorted(float(row["nrmse"]) for row in rows)
    assert rows[0]["candidate"] == found["candidate"]


def test_portions_of_voxels_add_up(paths, scans, train, monkeypatch):
    train("cronos", 1, 0.5, 0.15)
    at_once = find_best(paths, 1)["nrmse"]
    monkeypatch.setattr(best_module, "_VOXELS_AT_A_TIME", 17)
    assert find_best(paths, 1)["nrmse"] == pytest.approx(at_once, rel=1e-12)


def test_in_worker_processes(paths, scans, train):
    train("cronos", 1, 0.5, 0.15)
    assert find_best(paths, 2) == find_best(paths, 1)


def test_nested_estimate_chooses_without_the_fold_it_judges():
    # two candidates, four targets of four subjects, two folds: in each fold the other candidate is better
    curves = np.ones((2, 4, len(SHRINKAGES)))
    curves[0, :2, 50], curves[1, 2:, 70] = 0.5, 0.5
    candidates = all_candidates([], ["lci", "context_mean"])
    found = nested_estimate(curves, candidates, ["a", "b", "c", "d"], np.array([0, 0, 1, 1]))
    assert found["choices"] == [
        {"fold": 0, "candidate": "context_mean", "shrinkage": 0.7},
        {"fold": 1, "candidate": "lci", "shrinkage": 0.5},
    ]
    assert found["nrmse"] == 1.0
    # chosen on all targets, either of them has half of the targets at 0.5
    assert found["optimism"] == pytest.approx(1 - 0.75)


def test_a_subject_that_validates_in_two_folds_chooses_nothing_for_itself():
    """Subject a is in both folds, with one lucky candidate: without grouping, its other target would choose that."""
    curves = np.ones((2, 4, len(SHRINKAGES)))
    curves[1, [0, 2], 70] = 0.1  # both targets of a
    curves[0, [1, 3], 50] = 0.9
    candidates = all_candidates([], ["lci", "context_mean"])
    found = nested_estimate(curves, candidates, ["a", "b", "a", "c"], np.array([0, 0, 1, 1]))
    assert [choice["candidate"] for choice in found["choices"]] == ["lci", "lci"]
    assert found["nrmse"] == pytest.approx((1 + 0.9 + 0.9) / 3)


@pytest.mark.parametrize("subjects", ["aa", "abab"])
def test_folds_of_the_same_subjects_have_no_nested_estimate(subjects):
    curves, of_fold = np.ones((2, len(subjects), len(SHRINKAGES))), np.arange(len(subjects)) * 2 // len(subjects)
    assert nested_estimate(curves, all_candidates([], ["lci", "context_mean"]), list(subjects), of_fold) is None


def test_the_nested_estimate_is_that_of_new_subjects():
    """Of 30 candidates that are all alike, the best looks better by luck; the nested estimate does not."""
    generator = np.random.default_rng(0)
    candidates = all_candidates([], ["lci", *(f"rung {number}" for number in range(29))])
    subjects, of_fold = [str(number) for number in range(20)], np.arange(20) % 5
    found = []
    for _ in range(40):
        curves = np.repeat(generator.normal(1, 0.1, (30, 20, 1)), len(SHRINKAGES), axis=2)
        one = nested_estimate(curves, candidates, subjects, of_fold)
        found.append((one["nrmse"], one["nrmse"] - one["optimism"]))
    nested, chosen = np.mean(found, axis=0)
    error = 0.1 / np.sqrt(20 * 40)
    assert abs(nested - 1) < 4 * error and chosen < 1 - 8 * error


def test_nested_estimate_is_reported_with_two_folds_only(paths, scans, train):
    train("cronos", 1, 0.5, 0.1)
    found = find_best(paths, 1)
    assert found["nrmse"] <= found["nested"]["nrmse"] < found["lci_nrmse"]
    assert found["nested"]["lci_nrmse"] == pytest.approx(found["lci_nrmse"])
    assert [choice["fold"] for choice in found["nested"]["choices"]] == [0, 1]


def test_a_single_fold_has_no_nested_estimate(paths, scans, train):
    train("cronos", 1, 0.5, 0.1, folds=(0,))
    assert find_best(paths, 1)["nested"] is None


def test_the_advantage_over_the_best_rung():
    """Two rungs and a model that is better with s = 0.5; eight subjects with two targets each."""
    s = SHRINKAGES
    subjects = [f"s{number}" for number in range(8) for _ in range(2)]
    own = np.linspace(0, 0.1, 16)[:, None]
    curves = np.stack([own + 1 + 0 * s, own + 1 - 0.2 * s, own + 0.7 + (s - 0.5) ** 2])
    found = advantage_over_ladder(curves, subjects, ["lci", "linear"], "linear")
    assert (found["baseline"], found["probability"], found["recommended"]) == ("linear", 1.0, "choice")
    found = advantage_over_ladder(curves + np.array([0, 0, 1])[:, None, None], subjects, ["lci", "linear"], "linear")
    assert (found["probability"], found["recommended"], found["subjects"]) == (0.0, "baseline", 8)


def test_subject_weights():
    assert subject_weights(["a", "b", "b", "a", "a"]) == pytest.approx([1 / 6, 1 / 4, 1 / 4, 1 / 6, 1 / 6])


def test_ties_go_to_the_simplest_candidate():
    assert first_minimum(np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 3.0]])) == (0, 1)


def test_ensembles_reduce_alike_and_need_two_models(paths, train):
    train("cronos", 1, 0.5, 0.1, reductions=("last", "mean"), folds=(0,))
    train("tfm", 2, 0.5, 0.1, reductions=("last", "mean"), folds=(0,))
    train("convlstm", 3, 0.5, 0.1, reductions=("forecast",), folds=(0,))
    names = [row["candidate"].replace("__longflowPlans__3d_fullres", "") for row in find_best(paths, 1)["table"]]
    ladder = ("context_mean", "linear", *MOTION_STEPS)
    assert sorted(name for name in names if "+" in name and not name.endswith(ladder)) == [
        "cronos (last) + tfm (last)",
        "cronos (mean) + tfm (mean)",
    ]


def test_models_with_fewer_folds_are_excluded_and_named(paths, train, caplog):
    train("cronos", 1, 0.5, 0.1)
    train("tfm", 2, 0.9, 0.0, folds=(0,))
    found = find_best(paths, 1)
    assert not any("tfm" in row["candidate"] for row in found["table"])
    assert "tfm__longflowPlans__3d_fullres is excluded: its finished folds are 0, those that are compared are 0, 1" in (
        caplog.text
    )


def test_constant_targets_are_counted_as_undefined(paths, scans, train, write_scan):
    train("cronos", 1, 0.5, 0.1)
    write_scan(paths.raw / "imagesTr", "s1_2", np.full(SHAPE, 3, np.float32))
    found = find_best(paths, 1)
    assert (found["undefined_targets"], found["targets"], found["subjects"]) == (1, 4, 3)


def test_only_constant_targets(paths, scans, train, write_scan):
    train("cronos", 1, 0.5, 0.1)
    for case in scans:
        write_scan(paths.raw / "imagesTr", case, np.full(SHAPE, 3, np.float32))
    with pytest.raises(DataError, match="All validation targets are constant"):
        find_best(paths, 1)


def test_nothing_trained(paths):
    with pytest.raises(NotFoundError, match=r"No model of Dataset101_Tiny .*longflow_train 101"):
        find_best(paths, 1)


def test_validation_predictions_missing(paths, train):
    model = train("cronos", 1, 0.5, 0.1, reductions=())
    with pytest.raises(DataError, match=r"no validation predictions.* cronos, 3d_fullres, fold 0"):
        find_best(paths, 1)
    assert model.finished_folds() == [0, 1]


def test_models_validated_on_different_targets(paths, train):
    train("cronos", 1, 0.5, 0.1)
    train("tfm", 2, 0.5, 0.1, skip=("s2_2",))
    with pytest.raises(DataError, match=r"cronos.* and tfm.* not validated on the same scans \(s2_2, fold 0\)"):
        find_best(paths, 1)


def test_models_validated_from_different_context(paths, train, scans, write_forecast):
    train("cronos", 1, 0.5, 0.1)
    model = train("tfm", 2, 0.5, 0.1)
    write_forecast(model.fold(1).validation("last"), "s3_2", scans["s3_2"][1], ["s3_0"])
    with pytest.raises(DataError, match=r"not validated on the same scans \(s3_2, fold 1\)"):
        find_best(paths, 1)


def test_raw_targets_missing(paths, train):
    train("cronos", 1, 0.5, 0.1)
    (paths.raw / "imagesTr" / "s1_2_0000.nii.gz").unlink()
    with pytest.raises(DataError, match=r"imagesTr lacks the references of validation scans: s1_2"):
        find_best(paths, 1)


def test_two_channels_each_with_its_own_range():
    generator = np.random.default_rng(0)
    d, r = generator.standard_normal((2, 3, 50)), generator.standard_normal((2, 50))
    sums = best_module.Sums(
        np.einsum("civ,cjv->cij", d, d), np.einsum("civ,cv->ci", d, r), (r**2).sum(1), np.array([2.0, 8.0]), 50
    )
    expected = np.mean([np.sqrt(np.mean((r[c] - 0.3 * (d[c, 0] + d[c, 2]) / 2) ** 2)) / (2, 8)[c] for c in range(2)])
    assert sums.nrmse((0, 2))[30] == pytest.approx(expected)
    half = replace(sums, ranges=np.array([2.0, 0.0]))
    assert half.nrmse(())[0] == pytest.approx(np.sqrt(np.mean(r[0] ** 2)) / 2)
    assert replace(sums, ranges=np.zeros(2)).nrmse((0,)) is None
