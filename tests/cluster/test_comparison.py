"""A comparison as a study: its steps, and what of them is done."""

import os
import subprocess
import sys

import pytest

from longflow.cluster.comparison import read_study_record, study_of_comparison, study_record
from longflow.cluster.settings import ClusterSettings
from longflow.cluster.steps import folders_of
from longflow.cluster.submit import print_scripts
from longflow.compare.comparison import Budget
from longflow.compare.request import ComparisonRequest
from longflow.files import write_json
from tests.compare.helpers import CRONOS, LCI, MEAN, NOISY, comparison_of, trained

REQUEST = ComparisonRequest("1", ("cronos", "lci"), budget=Budget(iterations=3), name="test")


def names(steps):
    return [step.name for step in steps]


def write_table(record, **changes):
    found = {
        "plan_identity": record.plan_identity,
        "folds": record.folds,
        "seeds": record.seeds,
        "failures": [],
        "table": [{"variant": name} for name in record.variants],
    }
    write_json({**found, **changes}, record.paths.table_json)


def test_each_training_is_a_step_and_the_last_one_is_the_command_itself(dataset):
    comparison = comparison_of(dataset, CRONOS, MEAN, LCI, NOISY, folds=(0, 1), seeds=(0, 1))
    study = study_of_comparison(study_record(comparison, REQUEST))
    *train, compare = study.steps
    assert names(train) == [
        f"train {training} fold {fold} seed {seed}"
        for seed in (0, 1)
        for fold in (0, 1)
        for training in ("cronos", "cronos,noise=0.1")
    ]
    assert compare.depends_on == tuple(names(train))
    assert compare.commands[0].typed.startswith("longflow_compare -d 1 -m cronos lci -f 0 --seeds 0")
    for step, run in zip(train, [run for run in comparison.runs if run.variant in (CRONOS, NOISY)], strict=True):
        assert step.commands == (comparison.training(run),)
        assert folders_of(step)["longflow_results"] == str(comparison.own_results(run).resolve())
        assert step.fold == comparison.fold(run)
    assert study.iterations == 3 and study.max_time is None and study.dataset == dataset
    assert study.files == comparison.paths.study and study.unfinished == list(study.steps)


def test_a_reused_model_needs_no_step(dataset):
    trained(dataset, dataset.results.parent)
    comparison = comparison_of(dataset, CRONOS, LCI, seeds=(0, 1))
    assert names(study_of_comparison(study_record(comparison, REQUEST)).steps) == [
        "train cronos fold 0 seed 1",
        "compare",
    ]


def test_what_is_done_is_read_from_the_disk(dataset):
    comparison = comparison_of(dataset, CRONOS, LCI)
    record = study_record(comparison, REQUEST)
    study = study_of_comparison(record)
    trained(dataset, comparison.own_results(comparison.runs[0]))
    assert names(study.unfinished) == ["compare"]
    write_table(record)
    assert study.unfinished == []
    assert names(study_of_comparison(record, measured=False).unfinished) == ["compare"]


@pytest.mark.parametrize(
    "changes",
    [
        *({"folds": [0, 1]}, {"seeds": [1]}, {"plan_identity": "older"}, {"failures": [{"run": "x", "why": "y"}]}),
        {"table": [{"variant": "cronos"}]},
    ],
)
def test_a_table_of_something_else_is_not_that_of_the_comparison(dataset, changes):
    comparison = comparison_of(dataset, CRONOS, LCI)
    record = study_record(comparison, REQUEST)
    trained(dataset, comparison.own_results(comparison.runs[0]))
    write_table(record, **changes)
    assert names(study_of_comparison(record).unfinished) == ["compare"]


@pytest.mark.parametrize("newer", ["weights", "targets"])
def test_a_table_older_than_its_sources_is_made_again(dataset, newer):
    comparison = comparison_of(dataset, CRONOS)
    record = study_record(comparison, REQUEST)
    model = trained(dataset, comparison.own_results(comparison.runs[0]))
    write_table(record)
    file = model.fold(0).final if newer == "weights" else record.targets[0]
    later = record.paths.table_json.stat().st_mtime + 10
    os.utime(file, (later, later))
    assert names(study_of_comparison(record).unfinished) == ["compare"]


def test_a_record_is_written_and_read(dataset):
    record = study_record(comparison_of(dataset, CRONOS, LCI), REQUEST)
    write_json(record.model_dump(mode="json"), record.paths.study.request)
    (paths,) = dataset.submitted_comparisons()
    assert read_study_record(paths) == record


def test_its_scripts_train_in_an_array_and_compare_in_one_process(dataset):
    settings = ClusterSettings(gpus=2, scratch="/fast")
    study = study_of_comparison(study_record(comparison_of(dataset, CRONOS, NOISY), REQUEST))
    train, compare, _ = (path.read_text() for path in print_scripts(study, settings))
    assert "--array=0-1\n" in train and "--overwrite" not in train and "--scratch /fast" in train
    assert "-m longflow.cli.compare -d 1 -m cronos lci" in compare and "srun" not in compare
    assert "--ntasks-per-node=1\n" in compare and "--gres=gpu:2\n" in compare


def test_torch_is_not_imported_for_the_status():
    code = "import sys, longflow.cluster.comparison, longflow.cli.status; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
