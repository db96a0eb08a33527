import pytest

from longflow.cli import export
from longflow.paths import DatasetPaths
from tests.methods.segmentation.helpers import segmentation_plans
from tests.tasks.segment.test_nnunet_export import trained


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths("Dataset103_Test")
    paths.results.mkdir(parents=True)
    return paths


def test_the_only_model_is_written_and_nnunets_command_shown(dataset, tmp_path, capsys):
    trained(dataset.results, segmentation_plans(), folds=(0, 2))
    output = tmp_path / "out"
    assert export.main(["-d", "103", "-o", str(output)]) == 0
    assert f"-m {output} -f 0 2" in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["dataset.json", "fold_0", "fold_2", "plans.json"]


def test_flags_choose_the_model_and_its_folds(dataset, tmp_path):
    trained(dataset.results, segmentation_plans(), folds=(0, 2))
    trained(dataset.results, segmentation_plans(), "unet_consistent")
    output = str(tmp_path / "out")
    assert export.main(["-d", "103", "-m", "unet", "-c", "3d_fullres", "-f", "2", "-o", output]) == 0
    assert not (tmp_path / "out" / "fold_0").exists()


def test_what_cannot_be_exported_is_explained(dataset, tmp_path, capsys):
    output = str(tmp_path / "out")
    assert export.main(["-d", "103", "-o", output]) == 1
    assert "No model has been trained" in capsys.readouterr().err
    trained(dataset.results, segmentation_plans())
    trained(dataset.results, segmentation_plans(), "unet_consistent")
    assert export.main(["-d", "103", "-o", output]) == 1
    assert "-m unet_consistent -c 3d_fullres" in capsys.readouterr().err
