import logging
import re
from pathlib import Path

import pytest

from longflow import paths
from longflow.errors import DataError, NotFoundError
from longflow.paths import DatasetPaths, ModelPaths, known_datasets, path_in, resolve_dataset_name


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", ".hidden", "a\n", "a\x1b[2J", "a\u2028", "\ud800", "a" * 256]
)
def test_a_name_that_leads_elsewhere_is_no_path(tmp_path, name):
    with pytest.raises(DataError, match="cannot be a file name"):
        path_in(tmp_path, name)


@pytest.mark.parametrize("name", ["a" * 255, "p01 [red] =x.nii.gz", "\u00e9\u4e2d\u200b"])
def test_other_names_are_paths(tmp_path, name):
    assert path_in(tmp_path, name) == tmp_path / name


#: the layouts of others are only read; a subject is checked first by the path of its properties
OTHERWISE = (
    *("importers/acdc.py", "importers/bids.py", "importers/isles24.py"),
    *("preprocessing/store.py", "paths.py", "cluster/steps.py"),
)


def test_names_from_files_become_paths_in_one_place():
    package = Path(paths.__file__).parent
    directly = re.compile(r'/ f"\{[a-z_.]*(case|subject|phase|structure)\b')
    found = {
        path.relative_to(package).as_posix(): directly.findall(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }
    assert [name for name, lines in found.items() if lines and name not in OTHERWISE] == []


def test_names_of_plans_models_and_comparisons_stay_in_their_folders(home):
    dataset = DatasetPaths("Dataset101_Cine")
    for lead_out in (
        lambda: dataset.plans("../x"),
        lambda: dataset.cache("../x", "3d_fullres"),
        lambda: dataset.cache("longflowPlans", "../../x"),
        lambda: dataset.model("cronos", "longflowPlans", "../x"),
        lambda: dataset.comparison("../x"),
    ):
        with pytest.raises(DataError, match="cannot be a file name"):
            lead_out()


@pytest.mark.parametrize("name", ["Dataset101_Cine\n", "Dataset\u0661\u0661\u0661_Cine"])
def test_a_folder_of_another_name_is_no_dataset(home, name):
    (home / "raw" / name).mkdir(parents=True)
    assert known_datasets() == []


def test_roots(home, monkeypatch, caplog):
    assert (paths.raw_root(), paths.results_root()) == (home / "raw", home / "results")
    monkeypatch.setenv("longflow_raw", "/elsewhere")
    assert (paths.raw_root(), paths.preprocessed_root()) == (Path("/elsewhere"), home / "preprocessed")


def test_the_default_is_said_once(home, monkeypatch, caplog):
    monkeypatch.delenv("LONGFLOW_HOME")
    monkeypatch.setattr(paths, "_said_default_home", False)
    monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="longflow"):
        assert paths.raw_root() == Path("longflow_data/raw")
        assert paths.results_root() == Path("longflow_data/results")
    assert len(caplog.records) == 1 and "longflow_data" in caplog.text


def test_a_dataset_by_id_and_by_name(home):
    (home / "raw" / "Dataset101_Cine").mkdir(parents=True)
    (home / "preprocessed" / "Dataset007_Bond").mkdir(parents=True)
    (home / "raw" / ".unfinished-import-Dataset008_Half").mkdir()
    (home / "raw" / "notes").mkdir()
    assert known_datasets() == ["Dataset007_Bond", "Dataset101_Cine"]
    for name in (101, "101", "Dataset101_Cine"):
        assert resolve_dataset_name(name) == "Dataset101_Cine"
    assert resolve_dataset_name("7") == resolve_dataset_name("007") == "Dataset007_Bond"
    assert resolve_dataset_name(DatasetPaths("Dataset007_Bond").id) == "Dataset007_Bond"


def test_an_unknown_dataset_names_the_nearest(home):
    (home / "raw" / "Dataset101_Cine").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="Did you mean 'Dataset101_Cine'"):
        resolve_dataset_name("Dataset101_Cin")
    with pytest.raises(NotFoundError, match="Known: Dataset101_Cine"):
        resolve_dataset_name(102)


def test_an_id_that_is_used_twice(home):
    (home / "raw" / "Dataset101_Cine").mkdir(parents=True)
    (home / "results" / "Dataset101_Other").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="used by several datasets"):
        resolve_dataset_name("101")


def test_a_model_folder_tells_what_it_is():
    model = ModelPaths(Path("cronos__longflowPlans__3d_fullres"))
    assert (model.method, model.plans_name, model.configuration) == ("cronos", "longflowPlans", "3d_fullres")


def test_only_finished_folds_and_models_count(home):
    dataset = DatasetPaths("Dataset101_Cine")
    model = dataset.model("cronos", "longflowPlans", "3d_fullres")
    assert model.finished_folds() == [] and dataset.models() == []
    for fold in (3, 0):
        model.fold(fold).folder.mkdir(parents=True)
    model.fold(3).final.touch()
    model.fold(0).latest.touch()
    assert model.finished_folds() == [3]
    assert [one.folder.name for one in dataset.models()] == ["cronos__longflowPlans__3d_fullres"]


def test_all_files_of_a_dataset_lie_in_its_folders(home):
    dataset = DatasetPaths("Dataset101_Cine")
    for path in (dataset.integrity, dataset.fingerprint, dataset.splits, dataset.validation_targets, dataset.plans()):
        assert path.parent == home / "preprocessed" / "Dataset101_Cine"
    for path in (dataset.best, dataset.best_table, dataset.best_solvers):
        assert path.parent == home / "results" / "Dataset101_Cine"


def test_what_identifies_patients_is_next_to_the_dataset_and_not_in_it():
    assert paths.review_folder(Path("raw/Dataset101_Liver")) == Path("raw/review_Dataset101_Liver")
