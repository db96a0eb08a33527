import pytest

from longflow.errors import DataError, NotFoundError
from longflow.files import write_json
from longflow.job import FoldJob
from longflow.plans import read_plans
from longflow.reading import read_json


def test_a_job_knows_its_folders_and_what_its_predictions_depend_on(dataset):
    job = FoldJob.resolve(dataset, "longflowPlans", "3d_fullres", "tfm", 1)
    assert job.plans == read_plans(dataset.plans()) and job.plan == job.plans.configuration("3d_fullres")
    assert job.paths == dataset.model("tfm", "longflowPlans", "3d_fullres").fold(1)
    assert job.cache == dataset.cache("longflowPlans", "3d_fullres") and job.cache.is_dir()
    assert job.task.name == "forecast"
    assert job.with_fold(3).paths == job.model.fold(3)
    assert job.provenance() == {
        "dataset": "Dataset001_Test",
        "method": ["tfm"],
        "configuration": ["3d_fullres"],
        "plans": ["longflowPlans"],
        "plan_identity": [job.plans.identity("3d_fullres")],
        "folds": [[1]],
    }


def test_without_a_method_it_is_the_default_of_the_task(dataset):
    assert FoldJob.resolve(dataset, "longflowPlans", "3d_fullres").method == "cronos"


def test_copied_plans_have_folders_of_their_own(dataset):
    """The file is copied and edited, the name inside it is still that of the original."""
    write_json(read_json(dataset.plans()), dataset.plans("wider"))
    job = FoldJob.resolve(dataset, "wider", "3d_fullres")
    assert job.model.plans_name == job.plans.plans_name == "wider"
    assert job.cache == dataset.cache("wider", "3d_fullres")


def test_names_that_do_not_exist(dataset):
    with pytest.raises(DataError, match=r"otherPlans\.json does not exist"):
        FoldJob.resolve(dataset, "otherPlans", "3d_fullres")
    with pytest.raises(NotFoundError, match="Did you mean '3d_fullres'"):
        FoldJob.resolve(dataset, "longflowPlans", "3d_fulres")
