import logging

import numpy as np
import pytest
import torch

from longflow.cli import evaluate, predict
from longflow.data.body import body_mask
from longflow.data.dataset import read_rows
from longflow.data.images import read_scan, write_volume
from longflow.errors import DataError
from longflow.job import FoldJob
from longflow.methods.method import Method
from longflow.methods.registry import build_method, validation_class_of
from longflow.preprocessing.series import load_prepared
from longflow.reading import read_json
from longflow.tasks.translate import validation as phase_validation
from longflow.tasks.translate.validation import Error, PhaseValidation, summarised
from longflow.training.splits import Cohort
from tests.tasks.translate.cohort import make_pairs, phase_plans
from tests.training.helpers import prepare_all, trained_model

PHASES = ["native", "arterial"]


class Brighter(Method):
    """To arterial everything is 100 HU brighter, to native 100 HU darker."""

    task, samples, validation, reductions = "translate", "phases", "phases", ("translation",)
    mirrors = integrates = True

    def predict(self, batch):
        return {"translation": batch.source + (0.1 if batch.source_phase[0] == 0 else -0.1)}


class Unchanged(Brighter):
    def predict(self, batch):
        return {"translation": batch.source}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))


def validation_on(paths, cohort, plans=None, fold=0) -> PhaseValidation:
    plans = plans or phase_plans()
    (name,) = plans.configurations
    return PhaseValidation(FoldJob(paths, plans, name, "mfm", fold), cohort, torch.device("cpu"))


def method_of(kind=Brighter, plans=None):
    plans = plans or phase_plans()
    (name,) = plans.configurations
    return kind(plans, name).eval()


def raw(paths, case):
    return read_scan((paths.raw / "imagesTr" / f"{case}_0000.nii.gz",)).array[0].astype(float)


def errors_in_numpy(paths, subject, target, change, slices=slice(None)):
    """MAE of the source plus a change, and of the source; inside the body of the reference, clipped to 1000 HU."""
    (other,) = set(PHASES) - {target}
    reference, source = (np.clip(raw(paths, f"{subject}_0_{phase}"), -1000, 1000) for phase in (target, other))
    body = body_mask(reference, True)[slices]
    return [np.abs(np.clip(source + added, -1000, 1000) - reference)[slices][body].mean() for added in (change, 0)]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_score_is_that_of_the_files_in_numpy(dimensions):
    """Nothing is resampled, so that the prepared grid is the files' grid; subjects of two sizes."""
    plans = phase_plans(dimensions)
    paths, cohort = make_pairs(plans, shapes=((4, 24, 20), (5, 20, 24)))
    score = validation_on(paths, cohort, plans).score(method_of(plans=plans))
    ratios = []
    for phase, change in (("arterial", 100), ("native", -100)):
        found = [errors_in_numpy(paths, subject, phase, change) for subject in ("p1", "p2")]
        assert score.columns[f"mae_to_{phase}"] == pytest.approx(np.mean([mae for mae, _ in found]), rel=1e-4)
        assert score.columns[f"input_mae_to_{phase}"] == pytest.approx(np.mean([was for _, was in found]), rel=1e-4)
        ratios.append(np.mean([mae / was for mae, was in found]))
        assert score.columns[f"ratio_to_{phase}"] == pytest.approx(ratios[-1], rel=1e-4)
    assert score.value == score.columns["ratio"] == pytest.approx(np.mean(ratios), rel=1e-4)
    assert score.note == f"MAE {np.mean(ratios):.2f} of the input's" and score.value > 1


def test_what_is_left_as_it_is_has_the_ratio_one():
    score = validation_on(*make_pairs()).score(method_of(Unchanged))
    assert score.value == 1 and score.columns["mae_to_native"] == score.columns["input_mae_to_native"] > 0


def test_what_numbers_of_solver_steps_are_compared_by():
    """The untranslated scans have the ratio 1; every translation has its own ratio, and its change of 0.1."""
    score = validation_on(*make_pairs()).score(method_of())
    assert score.baseline == 1 and [len(ratios) for ratios in score.errors] == [1] * 4
    assert np.mean(score.errors) == pytest.approx(score.value)
    assert [change.mean() for change in score.changes] == pytest.approx([0.1, -0.1] * 2, abs=1e-6)


def test_errors_are_those_of_the_units_of_the_files():
    """MR: source and reference have normal forms of their own; the translation has that of the source."""
    plans = phase_plans(channel="T1", normal_form="per_scan")
    paths, cohort = make_pairs(plans)
    score = validation_on(paths, cohort, plans).score(method_of(plans=plans))
    found = []
    for subject in ("p1", "p2"):
        reference, source = raw(paths, f"{subject}_0_arterial"), raw(paths, f"{subject}_0_native")
        change = 0.1 * load_prepared(cohort.folder, subject).properties.scale[1][0]
        found.append(np.abs(source + change - reference)[body_mask(reference, False)].mean())
    assert score.columns["mae_to_arterial"] == pytest.approx(np.mean(found), rel=1e-4)


def test_2d_networks_translate_evenly_spaced_slices(monkeypatch):
    monkeypatch.setattr(phase_validation, "SLICES", 3)
    plans = phase_plans(2)
    paths, cohort = make_pairs(plans, shapes=((10, 24, 20),), subjects=("p1",))
    image = paths.raw / "imagesTr" / "p1_0_arterial_0000.nii.gz"
    volume = read_scan((image,))
    volume.array[0, 5, 10:14, 8:12] += 300  # slices differ from each other
    write_volume(volume.array[0], volume.geometry, "int16", image)
    prepare_all(paths, plans)
    score = validation_on(paths, cohort, plans).score(method_of(plans=plans))
    mae, was = errors_in_numpy(paths, "p1", "arterial", 100, [1, 5, 8])
    assert score.columns["mae_to_arterial"] == pytest.approx(mae, rel=1e-5)
    assert score.columns["input_mae_to_arterial"] == pytest.approx(was, rel=1e-5)
    assert was != pytest.approx(errors_in_numpy(paths, "p1", "arterial", 100)[1], rel=1e-4)


def test_a_fixed_even_choice_of_pairs_is_scored(monkeypatch):
    monkeypatch.setattr(phase_validation, "MOST_PAIRS", 3)
    paths, cohort = make_pairs(subjects=("p1", "p2", "p3"), times=(0, 30))
    validation = validation_on(paths, cohort)
    assert [subject for subject, _ in validation.all_pairs] == ["p1", "p1", "p2", "p2", "p3", "p3"]
    assert validation.pairs == [validation.all_pairs[index] for index in (0, 2, 5)]


def test_bodies_are_looked_for_once(monkeypatch):
    calls = []
    find = phase_validation.body_of_scan
    monkeypatch.setattr(phase_validation, "body_of_scan", lambda *scan: calls.append(scan) or find(*scan))
    validation = validation_on(*make_pairs())
    first = validation.score(method_of())
    assert validation.score(method_of()) == first and len(calls) == 4


def test_no_validation_subject_has_a_pair():
    paths, cohort = make_pairs()
    plans = phase_plans()
    plans.phases = ["native", "venous"]
    with pytest.raises(DataError, match=r"None of the 2 subjects that validate fold 3 \(p1, p2\) has a pair"):
        validation_on(paths, cohort, plans, fold=3)


def test_phases_that_do_not_differ():
    paths, cohort = make_pairs(subjects=("p1",))
    for phase in PHASES:
        image = paths.raw / "imagesTr" / f"p1_0_{phase}_0000.nii.gz"
        volume = read_scan((paths.raw / "imagesTr" / "p1_0_native_0000.nii.gz",))
        write_volume(volume.array[0], volume.geometry, "int16", image)
    prepare_all(paths, phase_plans())
    with pytest.raises(DataError, match=r"nothing to score: .* validate fold 0 \(p1\)"):
        validation_on(paths, cohort).score(method_of())


def test_a_scan_without_body_does_not_spoil_the_others():
    paths, cohort = make_pairs()
    expected = validation_on(paths, Cohort(cohort.folder, {"p1": cohort.scans["p1"]})).score(method_of())
    for phase in PHASES:
        image = paths.raw / "imagesTr" / f"p2_0_{phase}_0000.nii.gz"
        volume = read_scan((image,))
        write_volume(np.full_like(volume.array[0], -990), volume.geometry, "int16", image)
    prepare_all(paths, phase_plans())
    assert validation_on(paths, cohort).score(method_of()) == expected


def test_means_are_over_a_subjects_translations_then_subjects_then_directions():
    errors = [
        Error("a", "native", 1, 2),
        Error("a", "native", 4, 4),
        Error("b", "native", 1, 10),
        Error("b", "arterial", 3, 5),
        Error("c", "arterial", 7, 0),
        Error("d", "arterial", None, None),
    ]
    found = summarised(errors, PHASES)
    assert found == {
        "ratio": pytest.approx(np.mean([np.mean([0.75, 0.1]), 0.6])),
        "ratio_to_native": pytest.approx(np.mean([0.75, 0.1])),
        "mae_to_native": np.mean([2.5, 1]),
        "input_mae_to_native": np.mean([3, 10]),
        "ratio_to_arterial": 0.6,
        "mae_to_arterial": np.mean([3, 7]),
        "input_mae_to_arterial": np.mean([5, 0]),
    }
    assert next(iter(found)) == "ratio"
    assert summarised(errors[4:], PHASES) == {"mae_to_arterial": 7, "input_mae_to_arterial": 0}


def test_the_trainer_finds_it():
    assert validation_class_of(Brighter) is PhaseValidation


def test_out_of_fold_translations_are_a_valid_folder(caplog):
    """Both ways, on the files' grid and in their units; what evaluation says of them is what is logged."""
    paths, cohort = make_pairs(times=(0, 30))
    validation = validation_on(paths, cohort)
    with caplog.at_level(logging.INFO, "longflow"):
        validation.finish(method_of())
    folder = validation.job.paths.validation("translation")
    cases = [
        f"{subject}_{time}_{source}_{target}"
        for subject in ("p1", "p2")
        for time in (0, 30)
        for source, target in (PHASES, PHASES[::-1])
    ]
    assert sorted(path.name for path in folder.glob("*.nii.gz")) == sorted(f"{case}_0000.nii.gz" for case in cases)
    assert sorted((row.case, row.covariates["phase"]) for row in read_rows(folder / "scans.csv")) == sorted(
        (case, case.split("_")[-1]) for case in cases
    )
    found = read_scan((folder / "p1_0_native_arterial_0000.nii.gz",))
    source = read_scan((paths.raw / "imagesTr" / "p1_0_native_0000.nii.gz",))
    assert np.array_equal(found.array, source.array + 100)
    assert found.data_type == "int16" and not found.geometry.differences(source.geometry)

    sidecar = read_json(folder / "p1_0_native_arterial.json")
    expected = {
        "subject": "p1",
        "time": 0,
        "source": "p1_0_native",
        "source_phase": "native",
        "target_phase": "arterial",
        "phases": PHASES,
        "method": ["mfm"],
        "folds": [[0]],
        "mirror": True,
        "round_trip": False,
        "solver": phase_plans().inference.solver,
    }
    assert {key: sidecar[key] for key in expected} == expected
    errors = errors_in_numpy(paths, "p1", "arterial", 100)
    assert [sidecar["body_mae"], sidecar["input_body_mae"]] == pytest.approx(errors)

    assert evaluate.main(["-d", "104", "-i", str(folder), "-np", "1"]) == 0
    results = read_json(folder / "metrics.json")
    assert "MAE inside the body of 8 out-of-fold translations: " in caplog.text
    for phase in PHASES:
        of_phase = results["by_direction"][phase]
        mae, was = (of_phase[image]["body_mae"]["mean"] for image in ("translation", "input"))
        assert f"{mae:.4g} to {phase} (untranslated {was:.4g})" in caplog.text


def test_longflow_predict_takes_out_of_fold_translations_for_its_own_and_translates_them_back(tmp_path):
    """Same fields, settings and files: every translation of the fold is finished."""
    validation = validation_on(*make_pairs())
    job = validation.job
    trained_model(job.dataset, job.plans, "mfm")
    validation.finish(build_method("mfm", job.plans, "3d_fullres").eval())
    folder = job.paths.validation("translation")
    before = {path.name: path.read_bytes() for path in folder.glob("p*")}
    arguments = ["-d", "104", "-m", "mfm", "-f", "0", "--device", "cpu"]
    for phase in PHASES:
        images = str(job.dataset.raw / "imagesTr")
        assert predict.main(["-i", images, "-o", str(folder), "--to", phase, *arguments]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("p*")} == before
    back = tmp_path / "back"
    assert predict.main(["-i", str(folder), "-o", str(back), "--to", "native", *arguments]) == 0
    sidecar, own = read_json(back / "p1_0_native_arterial_native.json"), read_json(folder / "p1_0_native_arterial.json")
    assert sidecar["round_trip"] and own.keys() - sidecar.keys() == {"body_mae", "input_body_mae"}


def test_at_the_end_tiles_overlap_and_inputs_are_mirrored_as_the_method_says_and_not_before(monkeypatch):
    calls = []
    during, at_end = phase_validation.predict_translation, phase_validation.translate_scan

    def noted(methods, image, source_phase, settings):
        calls.append((settings.step, settings.mirror))
        return during(methods, image, source_phase, settings)

    def noted_at_end(member, volume, source_phase, settings, case):
        calls.append((settings.step, settings.mirror, case))
        return at_end(member, volume, source_phase, settings, case)

    monkeypatch.setattr(phase_validation, "predict_translation", noted)
    monkeypatch.setattr(phase_validation, "translate_scan", noted_at_end)
    validation = validation_on(*make_pairs(subjects=("p1",)))
    validation.score(method_of())
    validation.finish(method_of())
    assert calls[:2] == [(1.0, False)] * 2
    assert calls[2:] == [(0.5, True, f"p1_0_{phase}") for phase in PHASES]
