import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from longflow.errors import ConfigurationError, DataError, InUseError, NotFoundError
from longflow.fingerprint.fingerprint import extract_fingerprint
from longflow.paths import DatasetPaths, lock_beside
from longflow.planning.run import plan_dataset
from tests.conftest import another_process_holds

NAME = "Dataset951_Tiny"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths(NAME)
    (paths.raw / "imagesTr").mkdir(parents=True)
    (paths.raw / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "FLAIR"}, "file_ending": ".nii.gz", "time_unit": "days"})
    )
    lines = ["case,subject,time"]
    for subject in ("a", "b"):
        for visit in range(2):
            image = sitk.GetImageFromArray(np.random.default_rng(visit).normal(size=(8, 16, 16)).astype(np.float32))
            sitk.WriteImage(image, str(paths.raw / "imagesTr" / f"{subject}{visit}_0000.nii.gz"))
            lines.append(f"{subject}{visit},{subject},{visit * 30}")
    (paths.raw / "scans.csv").write_text("\n".join(lines))
    return paths


def test_plans_are_written(dataset):
    extract_fingerprint(NAME, processes=1)
    planned = plan_dataset(NAME, "tiny", plans_name="otherPlans")
    assert dataset.plans("otherPlans").is_file()
    assert planned.plans.temporal.time_scale == 30


@pytest.mark.parametrize("plans", ["longflowPlans", str(Path(__file__).parents[2] / "plans" / "lumiere.json")])
def test_plans_hold_the_ranges_of_the_data_and_no_names(dataset, plans):
    """By nibabel: 8 x 16 x 16 voxels of 1 mm, and of 2 x 1 x 1 mm for the second subject."""
    for path in (dataset.raw / "imagesTr").glob("b*"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), np.diag([1, 1, 2, 1])), path)
    table = dataset.raw / "scans.csv"
    table.write_text(table.read_text().replace("b1,b,30", "b1,b,12.5"))
    extract_fingerprint(NAME, processes=1)
    data = plan_dataset(NAME, None if plans.endswith(".json") else "tiny", plans_name=plans).plans.training_data
    assert data.spacing == [(1, 2), (1, 1), (1, 1)] and data.field_of_view == [(8, 16), (16, 16), (16, 16)]
    assert data.shortest_interval == 12.5 and data.foreground == "bodies"
    voxels = np.concatenate([nibabel.load(path).get_fdata() for path in (dataset.raw / "imagesTr").iterdir()])
    (intensities,) = data.intensities
    body = voxels[voxels > voxels.mean()]
    expected = np.percentile(body, (0.5, 50, 99.5))
    assert np.allclose(list(intensities.model_dump().values()), expected, atol=0.15)
    assert '"a"' not in data.model_dump_json()


def test_edited_plans_are_kept(dataset):
    extract_fingerprint(NAME, processes=1)
    assert plan_dataset(NAME, "tiny").previous is None
    assert plan_dataset(NAME, "tiny").previous is None
    path = dataset.plans()
    path.write_text(path.read_text().replace('"steps": 10', '"steps": 5'))
    planned = plan_dataset(NAME, "tiny")
    assert '"steps": 5' in planned.previous.read_text()
    assert planned.plans.inference.steps == 10
    assert planned.previous.name == "longflowPlans_previous.json"


def test_without_a_fingerprint(dataset):
    with pytest.raises(DataError, match="longflow_extract_fingerprint -d Dataset951_Tiny"):
        plan_dataset(NAME, "tiny")


def test_a_stale_fingerprint_is_noticed(dataset):
    extract_fingerprint(NAME, processes=1)
    table = dataset.raw / "scans.csv"
    table.write_text(table.read_text().replace("a1,a,30", "a1,a,31"))
    with pytest.raises(DataError, match="have changed since"):
        plan_dataset(NAME, "tiny")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "XL"}, NotFoundError, "preset 'XL'"),
        ({"gpu_memory": -1}, ConfigurationError, "above 0"),
        ({"plans_name": "my__plans"}, ConfigurationError, "cannot be used"),
    ],
)
def test_flags_that_cannot_be(dataset, options, error, message):
    extract_fingerprint(NAME, processes=1)
    with pytest.raises(error, match=message):
        plan_dataset(NAME, **{"preset": "tiny", **options})


def test_a_reference_plan_is_made_the_datasets_own(dataset):
    extract_fingerprint(NAME, processes=1)
    file = Path(__file__).parents[2] / "plans" / "lumiere.json"
    planned = plan_dataset(NAME, plans_name=str(file))
    assert dataset.plans("lumiere").is_file() and planned.plans.dataset_name == NAME
    assert planned.plans.configuration("3d_fullres").patch_size == [96, 96, 64]
    with pytest.raises(ConfigurationError, match=r"lumiere.json has its own sizes\. Remove --preset"):
        plan_dataset(NAME, "tiny", plans_name=str(file))


def test_one_process_makes_plans_of_a_name_at_a_time(dataset):
    extract_fingerprint(NAME, processes=1)
    with (
        another_process_holds(lock_beside(dataset.plans())),
        pytest.raises(InUseError, match="The plans longflowPlans of Dataset951_Tiny are being made by another process"),
    ):
        plan_dataset(NAME, "tiny")
    assert not dataset.plans().exists()
    plan_dataset(NAME, "tiny")
