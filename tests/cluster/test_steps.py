import os
from dataclasses import replace
from pathlib import Path

import pytest

from longflow.cluster.request import read_study_data
from longflow.cluster.steps import depths, folders_of, study_steps, unfinished
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths, results_root
from longflow.plans import read_plans, write_plans
from tests.cluster.helpers import NAME, finish, request_of


@pytest.fixture
def data(phantom_home):
    return read_study_data(DatasetPaths(NAME))


def names(steps):
    return [step.name for step in steps]


def play(steps, request, data, until=None):
    """Finish the steps in turn, up to one of that name."""
    for step in steps:
        if step.name == until:
            return
        finish(step, request, data)


def test_a_step_stands_after_those_that_it_depends_on(data):
    request = request_of(methods=("cronos", "tfm"), pretrained="convlstm")
    steps = study_steps(request, data, parts=3)
    seen = set()
    for step in steps:
        assert set(step.depends_on) <= seen
        seen.add(step.name)
    assert names(steps)[:4] == ["prepare", *(f"preprocess part {part} of 3" for part in (1, 2, 3))]
    assert names(steps)[-4:] == ["find best", "predict imagesTs", "evaluate", "report"]
    (fold,) = [step for step in steps if step.name == "train tfm 3d_fullres fold 1"]
    assert fold.depends_on == ("train convlstm 3d_fullres fold 1",)
    assert fold.commands[0].typed.startswith(f"longflow_train {NAME} 3d_fullres 1 -m tfm -p longflowPlans --seed 0")
    assert "--pretrained convlstm" in fold.commands[0].typed
    assert depths(steps)["evaluate"] == 6
    assert steps[-1].commands[0].typed == f"longflow_report -d {NAME} -i {request.paths.predictions.resolve()}"


def test_what_is_done_is_read_from_the_disk(data):
    request = request_of()
    steps = study_steps(request, data)
    for step in steps:
        assert unfinished(steps)[0] == step
        finish(step, request, data)
    assert unfinished(steps) == []


def test_a_finished_fold_needs_no_prepared_subjects(data):
    request = request_of()
    steps = study_steps(request, data)
    play(steps, request, data)
    for file in request.paths.cache("longflowPlans", "3d_fullres").glob("*.json"):
        file.unlink()
    assert unfinished(steps) == []
    steps[2].fold.final.unlink()
    assert names(unfinished(steps)) == [
        *("preprocess", "train cronos 3d_fullres fold 0", "find best", "predict imagesTs", "evaluate", "report")
    ]


def test_a_new_fold_makes_choice_and_predictions_again(data):
    play(study_steps(request_of(), data), request_of(), data)
    request = request_of(folds=(0, 1, 2))
    steps = study_steps(request, data)
    assert names(unfinished(steps)) == [
        *("train cronos 3d_fullres fold 2", "find best", "predict imagesTs", "evaluate", "report")
    ]
    finish(steps[4], request, data)
    later = steps[4].fold.final.stat().st_mtime + 10
    os.utime(steps[4].fold.final, (later, later))
    assert names(unfinished(steps)) == ["find best", "predict imagesTs", "evaluate", "report"]


def test_a_prediction_that_lacks_a_case_is_not_done(data):
    request = request_of()
    steps = study_steps(request, data)
    play(steps, request, data)
    (request.paths.predictions / "x0.json").unlink()
    assert names(unfinished(steps)) == ["predict imagesTs", "evaluate", "report"]


def test_a_report_is_made_again_after_what_it_shows(data):
    request = request_of()
    steps = study_steps(request, data)
    play(steps, request, data)
    metrics = request.paths.predictions / "metrics.json"
    later = metrics.stat().st_mtime + 10
    os.utime(metrics, (later, later))
    assert names(unfinished(steps)) == ["report"]


def test_a_study_without_test_scans_is_reported_without_predictions(data):
    steps = study_steps(request_of(), replace(data, requested=0))
    assert names(steps)[-2:] == ["find best", "report"] and steps[-1].depends_on == ("find best",)
    assert steps[-1].commands[0].typed == f"longflow_report -d {NAME}"


def test_a_changed_table_is_planned_again_before_a_training(data):
    request = request_of()
    steps = study_steps(request, data)
    play(steps, request, data, until="train cronos 3d_fullres fold 0")
    assert names(unfinished(steps))[0] == "train cronos 3d_fullres fold 0"
    later = request.paths.plans().stat().st_mtime + 10
    os.utime(request.paths.raw / "scans.csv", (later, later))
    assert names(unfinished(steps))[0] == "prepare"


def test_another_preset_is_planned_again(data):
    steps = study_steps(request_of(), data)
    play(steps, request_of(), data, until="find best")
    assert names(unfinished(study_steps(request_of(planning=("--preset", "L"), folds=(0, 1, 2)), data)))[0] == "prepare"


def test_a_fold_with_another_seed_is_no_fold_of_this_study(data):
    play(study_steps(request_of(), data), request_of(), data)
    with pytest.raises(ConfigurationError, match="begun with seed = 0, this study has 1"):
        unfinished(study_steps(request_of(seeds=(1,)), data))


def test_further_seeds_have_results_of_their_own(data):
    request = request_of(seeds=(3, 1, 2), folds=(0,))
    steps = study_steps(request, data)
    first, *further = [step for step in steps if step.kind == "train"]
    assert names([first, *further]) == [f"train cronos 3d_fullres fold 0{end}" for end in ("", " seed 1", " seed 2")]
    assert [step.commands[0].arguments[-2:] for step in (first, *further)] == [("--seed", seed) for seed in "312"]
    folders = [Path(folders_of(step)["longflow_results"]) for step in (first, *further)]
    assert folders == [results_root(), *(request.paths.results / "seeds" / f"seed_{seed}" for seed in (1, 2))]
    for step, folder in zip((first, *further), folders, strict=True):
        assert step.fold.folder == folder / NAME / "cronos__longflowPlans__3d_fullres" / "fold_0"
    assert len({step.fold.folder for step in (first, *further)}) == 3
    (best,) = [step for step in steps if step.kind == "find_best"]
    assert best.depends_on == (first.name,)


def test_a_further_seed_is_trained_without_another_choice(data):
    play(study_steps(request_of(), data), request_of(), data)
    request = request_of(seeds=(0, 1))
    steps = study_steps(request, data)
    assert names(unfinished(steps)) == [f"train cronos 3d_fullres fold {fold} seed 1" for fold in (0, 1)]
    play(steps, request, data)
    assert unfinished(steps) == []


def test_each_seed_begins_with_its_own_pretraining(data):
    request = request_of(seeds=(0, 1), folds=(0,), pretrained="tfm")
    steps = {step.name: step for step in study_steps(request, data)}
    step = steps["train cronos 3d_fullres fold 0 seed 1"]
    assert step.depends_on == ("train tfm 3d_fullres fold 0 seed 1",)
    assert folders_of(step) == folders_of(steps["train tfm 3d_fullres fold 0 seed 1"])
    assert steps["train cronos 3d_fullres fold 0"].depends_on == ("train tfm 3d_fullres fold 0",)


def test_pretraining_alone_chooses_and_predicts_nothing(data):
    steps = study_steps(request_of(predicts=False), data)
    assert names(steps)[-1] == "train cronos 3d_fullres fold 1"


def test_a_measured_study_trains_nothing(data):
    request = request_of(methods=("cronos", "tfm"), pretrained="convlstm", measures=2)
    steps = study_steps(request, data)
    assert names(steps) == [
        *("prepare", "preprocess", "measure convlstm 3d_fullres", "measure cronos 3d_fullres", "measure tfm 3d_fullres")
    ]
    typed = steps[-1].commands[0].typed
    assert typed == f"longflow_train {NAME} 3d_fullres 0 -m tfm -p longflowPlans --seed 0 --measure"
    for step in steps:
        assert unfinished(steps)[0] == step
        finish(step, request, data)
    assert unfinished(steps) == []
    # another number of processes, or another plan, is another measurement
    assert len(unfinished(study_steps(request_of(measures=1), data))) == 1
    plans = read_plans(request.paths.plans())
    plans.configurations["3d_fullres"].batch_size += 1
    write_plans(plans, request.paths.plans())
    assert len(unfinished(steps)) == 3
