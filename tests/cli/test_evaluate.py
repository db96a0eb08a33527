import csv
import sys

import numpy as np
import pytest

from longflow.cli import evaluate
from longflow.data.dataset import DatasetDescription, Scan, write_description, write_scans
from longflow.data.images import write_volume
from longflow.files import write_json
from longflow.paths import DatasetPaths
from longflow.reading import read_json
from longflow.task import all_tasks
from tests.data.helpers import write_phase_dataset
from tests.methods.helpers import minimal_plans
from tests.tasks.conftest import GEOMETRY, SHAPE, write_translation  # noqa: F401 - a fixture
from tests.tasks.forecast.segmenting import segmenter_dataset
from tests.training.helpers import finished_model


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Forecasts of three subjects at two horizons, halfway between the last context image and the reference."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw = tmp_path / "raw" / "Dataset101_Tiny"
    write_description(
        DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months"), raw / "dataset.json"
    )
    generator = np.random.default_rng(0)
    for subject in ("s1", "s2", "s3"):
        last = generator.random(SHAPE)
        write_volume(last, GEOMETRY, "float32", raw / "imagesTs" / f"{subject}_0_0000.nii.gz")
        for horizon in (1, 2):
            truth = last + horizon * 0.3 * generator.random(SHAPE)
            case = f"{subject}_{horizon}"
            write_volume(truth, GEOMETRY, "float32", raw / "targetsTs" / f"{case}_0000.nii.gz")
            write_volume((last + truth) / 2, GEOMETRY, "float32", tmp_path / "out" / f"{case}_0000.nii.gz")
            sidecar = {"case": case, "subject": subject, "target_time": horizon, "horizon": horizon}
            sidecar |= {"context": [f"{subject}_0"], "context_times": [0.0], "method": "cronos"}
            write_json(sidecar, tmp_path / "out" / f"{case}.json")
    return tmp_path / "out"


def test_tables_and_files(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert evaluate.main(["-d", "101", "-i", str(out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "6 targets of 3 subjects" in shown
    assert "By horizon" in shown
    for name in ("(cronos)", "image (LCI)", "PSNR [dB]", "[months]", "changed region", "6 of 6 targets (100%"):
        assert name in shown
    assert "too few subjects for a verdict" in shown
    for name in ("metrics.csv", "metrics.json", "figures/forecasts.png"):
        assert (out / name).is_file()


def test_reference_folder_that_does_not_exist(out, capsys):
    assert evaluate.main(["-d", "101", "-i", str(out), "-r", str(out / "nowhere")]) == 1
    assert "folder of -r does not exist" in capsys.readouterr().err


def test_folder_without_forecasts(out, capsys):
    assert evaluate.main(["-d", "101", "-i", str(out.parent)]) == 1
    assert "holds no forecasts" in capsys.readouterr().err


def test_unchanged_subjects_are_shown_as_not_defined(out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    targets = out.parent / "raw" / "Dataset101_Tiny" / "targetsTs"
    for path in targets.iterdir():
        write_volume(np.full(SHAPE, 2.0), GEOMETRY, "float32", path)
    assert evaluate.main(["-d", "101", "-i", str(out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "not defined" in shown
    assert "NRMSE of forecast: 6" in shown


def test_structures_of_forecasts(out, capsys):
    segmenter_dataset()
    arguments = ["-d", "101", "-i", str(out), "--segmenter", "103", "--device", "cpu", "-np", "1"]
    assert evaluate.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Segmented by Dataset103_Segment unet 3d_fullres" in shown and "forecast − LCI" in shown
    assert "Without a label map: whole in 6 targets, core in 6 targets" in shown
    assert "metrics_structures.csv, segmented/ in" in shown
    with open(out / "metrics_structures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["structure"] for row in rows} == {"whole", "core"} and len({row["case"] for row in rows}) == 6
    assert all(float(row["volume_change"]) == 0 for row in rows if row["method"] == "lci")
    assert read_json(out / "metrics.json")["structures"]["segmenter"]["folds"] == [[0]]
    assert evaluate.main([*arguments, "-m", "unet", "-f", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segmenter", "199"], "dataset '199'"),
        (["--segmenter", "104"], "No model has been trained for Dataset104_Empty"),
        (["--segmenter", "105"], "a model for the task 'forecast', not for 'segment'"),
        (["--segmenter", "106"], "2 channels (MR, T2), but the forecasts of Dataset101_Tiny have 1 channel (MR)"),
        (["--segmenter", "103", "-m", "cronos"], "trained method 'cronos'"),
        (["--segmenter", "103", "-f", "3"], "Fold 3 of unet__longflowPlans__3d_fullres is not trained"),
        (["--segmenter", "103", "--device", "cuda:77"], "The device 'cuda:77' cannot be used"),
        (["-m", "unet"], "--method is for the model that segments. Name its dataset with --segmenter"),
        (["-f", "0"], "--folds is for the model that segments"),
        (["--device", "cpu"], "--device is for the model that segments"),
    ],
)
def test_segmenters_that_cannot_be_used(out, capsys, arguments, message):
    segmenter_dataset()
    segmenter_dataset(("MR", "T2"), name="Dataset106_Channels")
    one_channel = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months")
    for name in ("Dataset104_Empty", "Dataset105_Forecast"):
        write_description(one_channel, DatasetPaths(name).raw / "dataset.json")
    finished_model(DatasetPaths("Dataset105_Forecast"), minimal_plans())
    assert evaluate.main(["-d", "101", "-i", str(out), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (out / "metrics.csv").exists()


@pytest.fixture
def labels_out(tmp_path, monkeypatch):
    """Label maps of two subjects with two scans each: the reference grows, the prediction does not."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw = tmp_path / "raw" / "Dataset103_Tiny"
    description = {"channel_names": {"0": "MR"}, "file_ending": ".nii.gz", "time_unit": "months", "task": "segment"}
    write_description(DatasetDescription(**description, labels={"background": 0, "core": 1}), raw / "dataset.json")
    scans = []
    for subject in ("s1", "s2"):
        for time in (0, 1):
            array = np.zeros(SHAPE)
            array[:, 2:5, 2:5] = 1
            write_volume(array, GEOMETRY, "uint8", tmp_path / "out" / f"{subject}_{time}.nii.gz")
            array[:, 2:5, 5] = time
            write_volume(array, GEOMETRY, "uint8", raw / "labelsTs" / f"{subject}_{time}.nii.gz")
            scans.append(Scan(f"{subject}_{time}", subject, float(time), ()))
    write_scans(scans, tmp_path / "out" / "scans.csv")
    return tmp_path / "out"


def test_segmentations(labels_out, capsys):
    assert evaluate.main(["-d", "103", "-i", str(labels_out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "4 scans of 2 subjects" in shown
    assert "over-smoothed takes 6 subjects with several scans" in shown
    assert (labels_out / "metrics.json").is_file()
    for name in ("metrics.csv", "metrics_pairs.csv", "metrics_subjects.csv", "volumes.png", "volume_changes.png"):
        assert name in shown
        assert any((folder / name).is_file() for folder in (labels_out, labels_out / "figures"))


def test_segmentations_of_single_scans_have_no_figures(labels_out, capsys):
    for subject in ("s1", "s2"):
        (labels_out / f"{subject}_1.nii.gz").unlink()
    assert evaluate.main(["-d", "103", "-i", str(labels_out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Every subject has one scan" in shown
    assert not (labels_out / "figures").exists()


def test_label_maps_need_no_segmenter(labels_out, capsys):
    assert evaluate.main(["-d", "103", "-i", str(labels_out), "--segmenter", "103"]) == 1
    assert (
        "(--structures) is for forecasts and translations; the predictions of this dataset are label maps"
        in capsys.readouterr().err
    )


def test_folder_without_label_maps(labels_out, capsys):
    assert evaluate.main(["-d", "103", "-i", str(labels_out.parent)]) == 1
    assert "holds no label maps" in capsys.readouterr().err


@pytest.fixture
def translations_out(tmp_path, monkeypatch, write_translation):  # noqa: F811
    """Translations of a held-out subject in both directions, 10 HU off, and one of them back again."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    write_phase_dataset(tmp_path / "raw", subjects=("p1",))
    write_translation(tmp_path / "out", "p1_0_arterial", "native", 10.0)
    write_translation(tmp_path / "out", "p1_0_native", "arterial", 10.0)
    write_translation(tmp_path / "back", "p1_0_arterial_native", "arterial", 15.0, round_trip=True)
    raw = tmp_path / "raw" / "Dataset104_Tiny"
    raw.mkdir()
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "raw" / part).rename(raw / part.replace("Tr", "Ts"))
    (tmp_path / "raw" / "scans.csv").rename(raw / "imagesTs" / "scans.csv")
    (tmp_path / "raw" / "dataset.json").rename(raw / "dataset.json")
    return tmp_path / "out"


def test_translations(translations_out, capsys):
    assert evaluate.main(["-d", "104", "-i", str(translations_out), "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "native to arterial: 1 scan of 1 subject" in shown and "arterial to native: 1 scan" in shown
    assert "MAE in the body [HU]" in shown and "MAE in vessel [HU]" in shown
    for name in ("metrics.csv", "metrics.json", "figures/translations.png"):
        assert name in shown and (translations_out / name).is_file()


def test_translations_there_and_back(translations_out, capsys):
    arguments = ["-d", "104", "-i", str(translations_out.parent / "back"), "-r", str(translations_out), "-np", "1"]
    assert evaluate.main(arguments) == 0
    assert "There and back, native to arterial: 1 scan of 1 subject" in capsys.readouterr().out


def test_the_way_back_without_the_way_there(translations_out, capsys):
    assert evaluate.main(["-d", "104", "-i", str(translations_out.parent / "back")]) == 1
    assert "Give the folder that was translated: -r" in capsys.readouterr().err


def test_folder_without_translations(translations_out, capsys):
    assert evaluate.main(["-d", "104", "-i", str(translations_out.parent)]) == 1
    assert "holds no translations" in capsys.readouterr().err


def test_the_help_says_what_every_task_compares():
    text = " ".join(evaluate.parser().format_help().split())
    for task in all_tasks():
        assert task.words.help["evaluate"] in text


PACKAGE = """
import numpy as np

from longflow.evaluation.metric import Metric


def largest(compared):
    return float(np.abs(compared.prediction.astype(float) - compared.reference).max())


METRIC = Metric("largest", {task!r}, largest, "largest error", "lower", heading="largest error", format=".2f")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay out a package with a metric of a task as pip would install it, where this process and its workers find it."""

    def lay_out(task):
        site = tmp_path / "site"
        information = site / "toy-1.0.dist-info"
        information.mkdir(parents=True)
        (site / "toy_metric.py").write_text(PACKAGE.format(task=task))
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[longflow.metrics]\ntoy = toy_metric:METRIC\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "toy_metric", raising=False)

    return lay_out


@pytest.mark.parametrize(
    ("task", "folder", "dataset", "place"),
    [
        ("forecast", "out", "101", ("overall", "forecast")),
        ("segment", "labels_out", "103", ("by_structure", "core")),
        ("translate", "translations_out", "104", ("by_direction", "native", "translation")),
    ],
)
def test_a_metric_of_an_installed_package(install, task, folder, dataset, place, request, capsys, monkeypatch):
    """It is a column of metrics.csv, is summarised in metrics.json, and is a row or column of the table."""
    monkeypatch.setenv("COLUMNS", "200")
    install(task)
    out = request.getfixturevalue(folder)
    assert evaluate.main(["-d", dataset, "-i", str(out), "-np", "2" if task == "forecast" else "1"]) == 0
    assert "largest error" in capsys.readouterr().out
    results = read_json(out / "metrics.json")
    assert results["definitions"]["largest"] == "largest error"
    for key in place:
        results = results[key]
    assert results["largest"]["undefined"] == 0
    with open(out / "metrics.csv", newline="") as file:
        values = [float(row["largest"]) for row in csv.DictReader(file)]
    assert len(values) and max(values) > 0
