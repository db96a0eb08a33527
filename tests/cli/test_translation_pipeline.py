"""From pairs of contrast phases to a labelled dataset in the other phase, with the commands as a user types them.

What a process of its own adds is tested with one of them; the others run in this one, where torch is loaded.
"""

import numpy as np
import pytest

from longflow.data.dataset import read_rows
from longflow.data.images import read_scan
from longflow.demo.abdomen_cohort import DATASET_NAME, write_abdomen_cohort
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.reading import read_json
from tests.cli.test_segmentation_pipeline import here

ID, MADE = 902, "Dataset302_Native"
SUBJECTS = [f"abdomen{number:03d}" for number in range(3)]
PHASES = ["native", "arterial"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def journey(tmp_path_factory, run_command):
    """Home, and what each command said: three subjects of 8 x 32 x 40 voxels in both phases, one more to test."""
    home, said = tmp_path_factory.mktemp("journey"), {}
    raw = home / "raw" / DATASET_NAME
    write_abdomen_cohort(raw, subjects=3, test_subjects=1, shape=(8, 32, 40))

    def go(key, *arguments):
        code, said[key] = here(*arguments)
        assert code == 0, f"{key}: {said[key]}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGFLOW_HOME", str(home))
        patch.setenv("COLUMNS", "200")
        go("plan", "plan_and_preprocess", "-d", ID, "--preset", "tiny", "--gpu_memory", 0.2, "-np", 1)
        go("train", "train", ID, "2d", 0, "--network", "unet", "--iterations", 12)
        model = ("-d", ID, "--mirror")
        go("native", "predict", "-i", raw / "imagesTs", "-o", home / "out", "--to", "native", *model)
        go("arterial", "predict", "-i", raw / "imagesTs", "-o", home / "out", "--to", "arterial", *model)
        go("there", "predict", "-i", raw / "imagesTs", "-o", home / "there", "--to", "native")
        go("back", "predict", "-i", home / "there", "-o", home / "back")
        go("evaluate", "evaluate", "-d", ID, "-i", home / "out", "-np", 1)
        go("round trip", "evaluate", "-d", ID, "-i", home / "back", "-r", home / "there", "-np", 1)
        result = run_command("longflow_translate_dataset", "-d", ID, "--to", "native", "-o", MADE, home=home)
        assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
        said["made"] = " ".join(result.stdout.split())
        go("verify", "verify", "-d", 302, "-np", 1)
    return home, said


@pytest.fixture
def home(journey, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(journey[0]))
    monkeypatch.setenv("COLUMNS", "200")
    return journey[0]


def read(folder, case):
    return read_scan((folder / f"{case}_0000.nii.gz",))


def test_slices_are_planned_on_the_grid_of_their_files(home):
    plans = read_plans(DatasetPaths(DATASET_NAME).plans())
    assert (plans.task, plans.phases) == ("translate", PHASES) and plans.configuration("2d").own_grid
    (channel,) = plans.channels
    assert (channel.offset, channel.scale, channel.clip) == (0, 1000, (-1000, 1000))


def test_one_network_was_validated_both_ways(home):
    fold = DatasetPaths(DATASET_NAME).model("mfm-unet", "longflowPlans", "2d").fold(0)
    (subject,) = read_json(DatasetPaths(DATASET_NAME).splits)[0]["val"]
    expected = {f"{subject}_{source}_{target}" for source, target in (PHASES, PHASES[::-1])}
    assert {row.case for row in read_rows(fold.validation("translation") / "scans.csv")} == expected


def test_translations_are_scans_of_the_other_phase(home):
    images, out = home / "raw" / DATASET_NAME / "imagesTs", home / "out"
    rows = {row.case: row.covariates["phase"] for row in read_rows(out / "scans.csv")}
    assert rows == {f"abdomen003_{source}_{target}": target for source, target in (PHASES, PHASES[::-1])}
    for case in rows:
        source, found = read(images, case.rpartition("_")[0]), read(out, case)
        assert found.data_type == "int16" and not found.geometry.differences(source.geometry)
        assert not np.array_equal(found.array, source.array)
        sidecar = read_json(out / f"{case}.json")
        assert (sidecar["method"], sidecar["slices"], sidecar["mirror"]) == (["mfm-unet"], 8, True)
        assert "synthesised images alone" in sidecar["intended_use"] and not sidecar["round_trip"]


def test_there_and_back(home):
    (row,) = read_rows(home / "back" / "scans.csv")
    assert (row.case, row.covariates["phase"]) == ("abdomen003_arterial_native_arterial", "arterial")
    assert read_json(home / "back" / f"{row.case}.json")["round_trip"] is True


def test_the_untranslated_scan_stands_beside_every_number(home, journey):
    metrics = read_json(home / "out" / "metrics.json")
    assert metrics["task"] == "translate"
    for words in ("native to arterial", "arterial to native", "MAE in the body [HU]", "untranslated", "s per slice"):
        assert words in journey[1]["evaluate"]
    assert "There and back, native to arterial: 1 scan" in journey[1]["round trip"]


def test_a_labelled_dataset_in_the_phase_that_lacks(home, journey):
    """The subject that validated fold 0 was not known to it; the two others were, which is said."""
    raw, made = home / "raw" / DATASET_NAME, home / "raw" / MADE
    cases = [f"{subject}_arterial_native" for subject in SUBJECTS]
    assert [row.case for row in read_rows(made / "scans.csv")] == cases
    for case in cases:
        label = f"{case.removesuffix('_native')}.nii.gz"
        assert (made / "labelsTr" / f"{case}.nii.gz").read_bytes() == (raw / "labelsTr" / label).read_bytes()
    (subject,) = read_json(DatasetPaths(DATASET_NAME).splits)[0]["val"]
    knew = {case: read_json(made / "imagesTr" / f"{case}.json")["trained_on"] for case in cases}
    assert knew == {case: not case.startswith(subject) for case in cases}
    assert "not trained on their subject: 1" in journey[1]["made"] and "no other: 2" in journey[1]["made"]
    assert "warning" not in journey[1]["verify"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--to", "venous"), "There is no phase 'venous'"),
        (("-t", "30"), "Times (-t) are for forecasts, but mfm-unet__longflowPlans__2d translates"),
        ((), "holds scans of both phases"),
    ],
)
def test_what_cannot_be_translated(home, tmp_path, flags, message):
    images = home / "raw" / DATASET_NAME / "imagesTs"
    code, said = here("predict", "-i", images, "-o", tmp_path / "out", *flags)
    assert code == 1 and message in said and not (tmp_path / "out").exists()
