"""A request is checked before anything is trained."""

import shutil
from pathlib import Path

import pytest

from longflow.compare.comparison import Budget
from longflow.compare.request import ComparisonRequest, resolve
from longflow.errors import ConfigurationError, InUseError, NotFoundError
from longflow.paths import lock_in
from longflow.plans import read_plans, write_plans
from longflow.reading import read_json
from tests.conftest import another_process_holds


def resolved(*methods, **further):
    return resolve(ComparisonRequest("1", methods, **further))


def test_methods_as_requested(dataset):
    found = resolved("cronos", "lci", "cronos", budget=Budget(iterations=9), seeds=(2, 1), folds=(1, 0, 1))
    assert [variant.name for variant in found.variants] == ["cronos", "lci"]
    assert found.budget == Budget(iterations=9) and found.seeds == (2, 1) and found.folds == (1, 0)
    assert found.configuration == "3d_fullres" and found.device == "cpu"
    assert found.paths.folder == dataset.results / "comparisons" / "methods_9_iterations"
    for fold in (0, 1):
        stored = read_json(dataset.validation_targets)["protocols"]["random"][fold]
        assert found.targets[fold].subjects == {one["target"]: one["subject"] for one in stored}


def test_without_a_budget_it_is_the_plans(dataset):
    found = resolved("lci")
    assert found.budget == Budget(epochs=read_plans(dataset.plans()).training.epochs)


def test_a_study_with_its_targets_and_its_name(dataset):
    found = resolved(study="masking", budget=Budget(max_time=120))
    assert [variant.hidden for variant in found.variants if variant.hidden] == [
        "first:1",
        "first:2",
        "last:1",
        "last:2",
    ]
    assert found.targets[0].context_scans == 3 and found.paths.folder.name == "masking_120s"
    few = resolved("tfm", study="nfe", evaluations=(1, 3), name="mine")
    assert [variant.steps for variant in few.variants if variant.steps] == [1, 3] and few.paths.folder.name == "mine"


def test_a_folder_in_place_of_the_validation_targets(dataset, tmp_path):
    folder = resolved("lci").targets[0].folder
    requested = shutil.copytree(folder, tmp_path / "requested")
    found = resolved("lci", input=requested, references=(folder,), folds=(0, 1))
    assert found.targets[0] is found.targets[1] and found.targets[0].folder == requested
    assert found.targets[0].references == (folder, dataset.raw / "imagesTr")
    assert len(found.runs) == 1 and found.paths.folder.name.endswith("_requested")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"methods": ()}, ConfigurationError, "methods with -m, or a study with --study"),
        ({"methods": ("crones",)}, NotFoundError, "Did you mean 'cronos'"),
        ({"methods": ("unet",)}, ConfigurationError, "'unet' is for the task 'segment'"),
        ({"evaluations": (2,)}, ConfigurationError, "--evaluations is for --study nfe"),
        ({"references": (Path("x"),)}, ConfigurationError, "Give -i, or omit -r"),
        ({"input": Path("x"), "references": (Path("nowhere"),)}, NotFoundError, "does not exist: nowhere"),
        ({"folds": (77,)}, NotFoundError, "There is no fold 77"),
        ({"configuration": "3d_lowres"}, NotFoundError, "3d_lowres"),
        ({"name": "../elsewhere"}, ConfigurationError, "cannot be the name of a folder"),
    ],
)
def test_impossible_requests(dataset, settings, error, message):
    with pytest.raises(error, match=message):
        resolve(ComparisonRequest("1", **{"methods": ("lci",)} | settings))


def test_studies_that_hide_need_something_to_hide(dataset, tmp_path):
    folder = shutil.copytree(resolved("lci").targets[0].folder, tmp_path / "requested")
    rows = (folder / "scans.csv").read_text().splitlines()
    target = next(row.split(",")[0] for row in rows[1:] if "_from_" not in row)
    of_target = [row for row in rows[1:] if row.split(",")[1] == target]
    (folder / "scans.csv").write_text("\n".join([rows[0], *of_target[-2:]]) + "\n")
    for image in folder.glob("*.nii.gz"):
        if not any(image.name.startswith(f"{row.split(',')[0]}_0") for row in of_target[-2:]):
            image.unlink()
    with pytest.raises(ConfigurationError, match="has one context scan"):
        resolved(study="masking", input=folder)


def test_plans_of_a_task_without_comparisons(dataset):
    plans = read_plans(dataset.plans())
    write_plans(plans.model_copy(update={"task": "segment"}), dataset.plans())
    with pytest.raises(ConfigurationError, match=r"planned for the task 'segment'\. Only methods .* 'forecast'"):
        resolved("lci")


def test_one_process_performs_a_comparison_at_a_time(dataset):
    """The links of its targets are not touched either."""
    paths = resolved("lci").paths
    links = {path: path.stat().st_ctime_ns for path in paths.targets(0).iterdir()}
    with (
        another_process_holds(lock_in(paths.folder)),
        pytest.raises(InUseError, match=r"The comparison methods_.* is being performed by another process"),
    ):
        resolved("lci")
    assert {path: path.stat().st_ctime_ns for path in paths.targets(0).iterdir()} == links
