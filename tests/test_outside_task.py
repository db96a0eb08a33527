"""A fourth task is one package: ``tests/longflow_count``, installed as by pip, runs through all commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan
from longflow.demo.writing import PhantomScan, centred_geometry, write_cohort_dataset
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from tests.conftest import OWN_VARIABLES

SHAPE = (8, 16, 16)
NAME = "Dataset777_Blobs"
ENTRY_POINTS = """
[longflow.tasks]
count = longflow_count.task:TASK

[longflow.methods]
brightness = longflow_count.method:METHOD
"""


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder for PYTHONPATH with the package, and the metadata by which entry points are found."""
    site = tmp_path / "site"
    shutil.copytree(Path(__file__).parent / "longflow_count", site / "longflow_count")
    information = site / "longflow_count-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: longflow-count\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def blob(number: int):
    """A dark noisy scan with a bright box, which is its label."""
    generator = np.random.default_rng(number)
    image = generator.normal(100, 5, SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    z, y, x = generator.integers(2, 6, 3)
    label[1 : 1 + z, 3 : 3 + y, 4 : 4 + x] = 1
    image[label > 0] += 400
    scan = Scan(f"s{number}_0", f"s{number}", 0.0, ())
    yield PhantomScan(scan, image.astype(np.int16), centred_geometry(SHAPE, (2, 2, 2)), label)


@pytest.fixture
def home(tmp_path) -> Path:
    """A LONGFLOW_HOME with five training subjects and two held-out ones."""
    description = DatasetDescription.model_construct(
        channel_names={"0": "MR"},
        file_ending=".nii.gz",
        time_unit="days",
        labels={"background": 0, "blob": 1},
        task="count",
    )
    settings = {"subjects": 5, "test_subjects": 2}
    write_cohort_dataset(tmp_path / "home" / "raw" / NAME, description, settings, blob)
    return tmp_path / "home"


def run(home: Path, site: Path | None, command: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a command in an environment in which the package is installed, or not (``site`` None)."""
    environment = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    path = [str(site)] if site else []
    path += [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    environment |= {"LONGFLOW_HOME": str(home), "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "200"}
    code = f"from longflow.cli.{command} import main; raise SystemExit(main())"
    arguments = [str(argument) for argument in arguments]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_fourth_task_needs_no_change_of_longflow(home, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(home))
    paths, out = DatasetPaths(NAME), tmp_path / "out"

    def done(command, *arguments) -> str:
        result = run(home, installed, command, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    said = done("plan_and_preprocess", "-d", 777, "--preset", "tiny", "-np", 1)
    assert "Next: longflow_train 777 3d_fullres 0" in said
    for fold in (0, 1):
        done("train", 777, "3d_fullres", fold, "--iterations", 60, "--device", "cpu", "-np", 0)
    model = paths.model("brightness", "longflowPlans", "3d_fullres")
    assert (model.fold(0).final).is_file() and list(model.fold(0).validation("counts").glob("*.txt"))
    assert "Best: brightness" in done("find_best", "-d", 777, "-np", 1)
    assert read_json(paths.best)["members"][0]["folds"] == [0, 1]
    done("predict", "-d", 777, "-i", paths.raw / "imagesTs", "-o", out, "--device", "cpu")
    sidecar = read_json(out / "s5_0.json")
    assert sidecar["method"] == ["brightness"] and sidecar["folds"] == [[0, 1]] and "longflow_version" in sidecar
    assert (out / "scans.csv").is_file() and read_json(out / "dataset.json")["task"] == "count"
    assert "Mean error:" in done("evaluate", "-d", 777, "-i", out, "-np", 1)
    # an untrained threshold counts about half of the 2048 voxels
    assert read_json(out / "metrics.json")["overall"]["mean"] < 40
    assert "Counts: the number of bright voxels" in " ".join(done("predict", "--help").split())
    assert "brightness (count)" in " ".join(done("train", "--help").split())


def test_without_its_package_the_task_is_unknown(home):
    result = run(home, None, "plan_and_preprocess", "-d", 777, "--preset", "tiny", "-np", 1)
    said = " ".join((result.stderr + result.stdout).split())
    assert result.returncode == 1 and "count" in said and "Traceback" not in said
