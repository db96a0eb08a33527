"""The package of documentation/how-to/add_a_method.md, laid out as pip installs it, trained by the real command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longflow.methods.weights import read_checkpoint
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from tests.conftest import OWN_VARIABLES
from tests.training.helpers import make_dataset

PAGE = Path(__file__).parents[2] / "documentation" / "how-to" / "add_a_method.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder for PYTHONPATH that holds the module and the metadata by which entry points are found."""
    (module,), (project,) = blocks("python"), blocks("toml")
    name = re.match(r"# (\w+\.py)\n", module)[1]
    package, version = (re.search(rf'^{key} = "(.+)"$', project, re.MULTILINE)[1] for key in ("name", "version"))
    group = re.search(r'^\[project\.entry-points\."(.+)"\]\n(.+)$', project, re.MULTILINE)
    folder = tmp_path / "site"
    information = folder / f"{package}-{version}.dist-info"
    information.mkdir(parents=True)
    (folder / name).write_text(module)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    key, target = (part.strip().strip('"') for part in group[2].split("="))
    (information / "entry_points.txt").write_text(f"[{group[1]}]\n{key} = {target}\n")
    return folder


def run(home: Path, installed: Path, code: str, *arguments: str) -> subprocess.CompletedProcess:

    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    environment |= {"LONGFLOW_HOME": str(home), "PYTHONPATH": str(installed), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=200
    )


def test_an_outside_package_adds_a_method(installed, tmp_path, monkeypatch):
    """It is trained, stops being known when it is uninstalled, and predicts like any other."""
    home = tmp_path / "home"
    monkeypatch.setenv("LONGFLOW_HOME", str(home))
    make_dataset(subjects=3, scans=3)
    train = "from longflow.cli.train import main; raise SystemExit(main())"
    arguments = ("1", "3d_fullres", "0", "-m", "persistence_plus", "--iterations", "6", "--device", "cpu")
    result = run(home, installed, train, *arguments)
    assert result.returncode == 0, result.stderr
    fold = DatasetPaths("Dataset001_Test").model("persistence_plus", "longflowPlans", "3d_fullres").fold(0)
    drift = read_checkpoint(fold.final).part("weights")["drift"]
    assert drift.shape == (1,) and drift.item() != 0
    assert len(list(fold.validation("forecast").glob("*.nii.gz"))) == 2

    predict = "from longflow.cli.predict import main; raise SystemExit(main())"
    images = home / "raw" / "Dataset001_Test" / "imagesTr"
    shutil.copy(images.parent / "scans.csv", images / "scans.csv")
    result = run(home, installed, predict, "-i", str(images), "-o", str(tmp_path / "out"), "-t", "60")
    assert result.returncode == 0, result.stderr
    assert read_json(tmp_path / "out" / "s0_t60.json")["method"] == ["persistence_plus"]
    result = run(home, tmp_path, train, *arguments)
    assert result.returncode == 1 and "There is no method 'persistence_plus'" in result.stderr
