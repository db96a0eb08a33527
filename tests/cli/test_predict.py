import shutil
import subprocess
import sys

import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread

from longflow.cli import evaluate, predict, verify
from longflow.paths import DatasetPaths
from longflow.plans import read_plans
from longflow.reading import read_json
from longflow.task import all_tasks
from tests.data.helpers import write_phase_dataset
from tests.dicom.phantom import make_series, phantom_array
from tests.inference.helpers import segmentation_model, translation_model, use_one_convolution
from tests.training.helpers import finished_model


@pytest.fixture
def images(dataset):
    """The training scans as an input folder, and a model that repeats the last one."""
    finished_model(dataset, read_plans(dataset.plans()))
    folder = dataset.raw / "imagesTr"
    shutil.copy(dataset.raw / "scans.csv", folder / "scans.csv")
    return folder


def run(images, out, *arguments):
    return predict.main(["-i", str(images), "-o", str(out), "--device", "cpu", *arguments])


def test_two_flags_and_times_suffice(images, tmp_path, capsys):
    assert run(images, tmp_path / "out", "-t", "60", "70.5") == 0
    shown = capsys.readouterr().out
    assert "Dataset001_Test / cronos__longflowPlans__3d_fullres, folds 0 (the only trained model that fits)" in shown
    assert "12 forecasts are in" in shown
    assert (tmp_path / "out" / "s5_t70.5_0000.nii.gz").is_file()


def test_a_report_in_the_same_command(images, tmp_path, capsys):
    assert run(images, tmp_path / "out", "-t", "60", "--report") == 0
    assert f"Report: {tmp_path / 'out' / 'report' / 'index.html'}" in capsys.readouterr().out
    page = (tmp_path / "out" / "report" / "subject_s0.html").read_text()
    assert "acquired scan, s0_0" in page and "prediction, s0_t60" in page


def test_context_scans_can_be_hidden(images, tmp_path):
    assert run(images, tmp_path / "out", "-t", "60", "--hide_context", "last:2") == 0
    content = read_json(tmp_path / "out" / "s0_t60.json")
    assert (content["hide_context"], content["context"], content["horizon"]) == ("last:2", ["s0_0", "s0_1"], 50.0)


def test_flags_reach_the_forecast(images, tmp_path):
    model = ["-d", "1", "-c", "3d_fullres", "-m", "cronos", "-f", "0"]
    assert run(images, tmp_path / "out", "-t", "60", *model, "--solver", "midpoint", "--steps", "3", "--mirror") == 0
    content = read_json(tmp_path / "out" / "s0_t60.json")
    assert (content["solver"], content["steps"], content["mirror"], content["folds"]) == ("midpoint", 3, True, [[0]])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("-d Dataset001_Tset", "Did you mean 'Dataset001_Test'"),
        ("-c 3d_fulres", "Did you mean '3d_fullres'"),
        ("-m crones", "Did you mean 'cronos'"),
        ("-f 3", "Fold 3 of cronos__longflowPlans__3d_fullres is not trained. Trained: 0"),
        ("-t -4", "A forecast needs at least one earlier scan"),
        ("-t inf", "The requested time inf is not a finite number"),
        ("", "requests no forecast"),
        ("-t 60 --hide_context 2", "--hide_context is '2', expected first:K or last:K"),
        ("--device tpu", "The device 'tpu' cannot be used on this machine"),
    ],
)
def test_what_cannot_be_done_ends_with_1(images, tmp_path, flags, message, capsys):
    assert run(images, tmp_path / "out", *flags.split()) == 1
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split()) and "Traceback" not in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("-t 2024-01-31", "'2024-01-31' is not a number"),
        ("-t 2019_01", "'2019_01' is not a number"),
        ("-t 3,5", "decimals after a point"),
        ("--steps 0", "0 is not above zero"),
        ("--solver eular", "'euler'"),
    ],
)
def test_flags_that_cannot_be(images, tmp_path, flags, message, capsys):
    with pytest.raises(SystemExit) as raised:
        run(images, tmp_path / "out", *flags.split())
    assert raised.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["dead link", "other letters", "unused"])
def test_a_scan_that_is_not_found_is_not_invented(images, tmp_path, kind, capsys):
    """s0_2 of the middle of the series: it would be forecast, and the scans after it."""
    lost = images / "s0_2_0000.nii.gz"
    if kind == "dead link":
        lost.unlink()
        lost.symlink_to("../annex/none")
    else:
        lost.rename(lost.with_name("S0_2_0000.nii.gz" if kind == "other letters" else "x_0000.nii.gz"))
    assert run(images, tmp_path / "out", *([] if kind == "dead link" else ["-t", "60"])) == 1
    shown = " ".join(capsys.readouterr().err.split())
    found = {
        "dead link": "s0_2_0000.nii.gz: file: found a link to ../annex/none, which does not exist; expected the file",
        "other letters": "S0_2_0000.nii.gz: name: found other capital letters; expected the file s0_2_0000.nii.gz",
        "unused": "x_*.nii.gz: case: found a file without a line; expected a line for x in scans.csv",
    }
    assert found[kind] in shown and "Traceback" not in shown and not (tmp_path / "out").exists()


def test_input_and_output_are_two_folders(images, capsys):
    assert run(images, images / ".." / "imagesTr", "-t", "60") == 1
    assert "Input and output are the same folder" in capsys.readouterr().err


def test_nothing_trained(dataset, tmp_path, capsys):
    assert run(dataset.raw / "imagesTr", tmp_path / "out", "-t", "60") == 1
    assert "No model has been trained yet" in capsys.readouterr().err


def test_a_checkpoint_of_another_plan(images, dataset, tmp_path, capsys):
    model = dataset.model("cronos", "longflowPlans", "3d_fullres")
    model.plans.write_text(model.plans.read_text().replace('"time_scale": 10.0', '"time_scale": 11.0'))
    assert run(images, tmp_path / "out", "-t", "60") == 1
    assert "was trained with another plan" in capsys.readouterr().err


def test_a_model_that_segments_is_used_by_the_same_command(dataset, images, tmp_path, capsys):
    shutil.rmtree(dataset.results)
    segmentation_model(dataset)
    assert run(images, tmp_path / "out", "--no-mirror") == 0
    assert "24 label maps are in" in capsys.readouterr().out
    assert (tmp_path / "out" / "volumes.csv").is_file() and (tmp_path / "out" / "s5_3.nii.gz").is_file()
    assert read_json(tmp_path / "out" / "s0_0.json")["mirror"] is False


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("-t 60", "Times (-t) are for forecasts"),
        ("--samples 20", "Samples (--samples) are for forecasts"),
        ("--to native", "A phase (--to) is for translations"),
        ("--hide_context last:1", "Hidden context scans (--hide_context) are for forecasts"),
        ("--steps 3", "no solver"),
    ],
)
def test_flags_of_forecasts_are_refused_by_a_model_that_segments(dataset, images, tmp_path, flags, message, capsys):
    shutil.rmtree(dataset.results)
    segmentation_model(dataset)
    assert run(images, tmp_path / "out", *flags.split()) == 1
    assert message in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()


@pytest.fixture
def phases(tmp_path, monkeypatch):
    """Scans of two phases as an input folder, and a model that repeats them."""
    use_one_convolution(monkeypatch)
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    dataset = DatasetPaths("Dataset104_Phases")
    write_phase_dataset(dataset.raw, shapes=((4, 12, 10),))
    translation_model(dataset)
    shutil.copy(dataset.raw / "scans.csv", dataset.raw / "imagesTr" / "scans.csv")
    return dataset.raw / "imagesTr"


def test_a_model_that_translates_is_used_by_the_same_command(phases, tmp_path, capsys):
    assert run(phases, tmp_path / "out", "--to", "native", "--solver", "euler", "--steps", "3") == 0
    assert "2 translations are in" in capsys.readouterr().out
    sidecar = read_json(tmp_path / "out" / "p2_0_arterial_native.json")
    assert (sidecar["solver"], sidecar["steps"], sidecar["target_phase"]) == ("euler", 3, "native")
    assert run(tmp_path / "out", tmp_path / "back") == 0
    assert (tmp_path / "back" / "p2_0_arterial_native_arterial_0000.nii.gz").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "Request a phase with --to native or --to arterial"),
        ("--to artrial", "Did you mean 'arterial'"),
        ("--to native -t 60", "Times (-t) are for forecasts"),
    ],
)
def test_what_cannot_be_translated_ends_with_1(phases, tmp_path, flags, message, capsys):
    assert run(phases, tmp_path / "out", *flags.split()) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown and "Traceback" not in shown and not (tmp_path / "out").exists()


def test_help_has_the_flags_of_every_task_and_waits_for_no_torch():
    code = (
        "import sys; from longflow.cli import predict\n"
        "try: predict.main(['--help'])\n"
        "except SystemExit: print({'torch', 'numpy', 'nnunetv2'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("set()\n")
    for task in all_tasks():
        _, _, group = shown.partition(f"models that {task.words.verb}:")
        assert group and all(text in group for flag in task.request_flags for text in flag.flags)


def test_a_test_protocol_is_drawn_predicted_and_evaluated(dataset, tmp_path, monkeypatch, capsys):
    """imagesTs has whole series; the model repeats the last scan that is given, so its error is that of LCI."""
    monkeypatch.setenv("COLUMNS", "200")
    finished_model(dataset, read_plans(dataset.plans()))
    images, out = dataset.raw / "imagesTs", tmp_path / "out"
    shutil.copytree(dataset.raw / "imagesTr", images)
    for file in images.iterdir():
        file.rename(file.with_name(f"t{file.name}"))
    rows = [line.split(",") for line in (dataset.raw / "scans.csv").read_text().splitlines()[1:]]
    table = "\n".join(["case,subject,time", *(f"t{case},t{subject},{time}" for case, subject, time, *_ in rows)])
    (images / "scans.csv").write_text(table)
    assert verify.main(["-d", "1", "-np", "1", "--test_protocol", "random", "--least_gap", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Test protocol: 6 targets of 6 test subjects (random contexts, least gap 2, seed 12345) in" in shown
    stored = read_json(dataset.raw / "test_protocol.json")["targets"]
    assert run(images, out) == 0
    written = {one["target"]: read_json(out / f"{one['target']}.json") for one in stored}
    assert len(list(out.glob("*_0000.nii.gz"))) == 6
    assert [written[one["target"]]["context"] for one in stored] == [one["context"] for one in stored]
    assert evaluate.main(["-d", "1", "-i", str(out), "-np", "1"]) == 0
    metrics = read_json(out / "metrics.json")
    assert metrics["test_protocols"] == ["random contexts, least gap 2, seed 12345"]
    assert metrics["without_truth"] == [] and metrics["subjects_of_training"] == []
    assert metrics["overall"]["forecast"]["nrmse"] == metrics["overall"]["lci"]["nrmse"]
    capsys.readouterr()
    assert verify.main(["-d", "1", "-np", "1", "--test_protocol", "random"]) == 1
    assert "holds another protocol (random contexts, least gap 2, seed 12345)" in " ".join(
        capsys.readouterr().err.split()
    )
    assert read_json(dataset.raw / "test_protocol.json")["targets"] == stored


@pytest.fixture
def export(tmp_path):
    """A DICOM export: two visits of a patient, 366 days apart."""
    for place, date in enumerate(("20200102", "20210102")):
        make_series(tmp_path / "export" / str(place), phantom_array() + 1000 + place, "MR", date=date)
    return tmp_path / "export"


def test_dicom_in_dicom_out_of_a_model_that_segments(dataset, export, tmp_path, capsys):
    segmentation_model(dataset)
    assert run(export, tmp_path / "out", "--dicom") == 0
    shown = capsys.readouterr().out
    assert f"2 label maps are in {tmp_path / 'out'}" in shown
    assert f"2 segmentations, 1 volume report in {tmp_path / 'out' / 'dicom'}" in shown
    made = segread(tmp_path / "out" / "dicom" / "P001_day0000_labels.dcm")
    assert made.PatientID == "P1"
    assert made.get_segment_description(1).segment_label == "core"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/*.dcm")}
    assert run(export, tmp_path / "out", "--dicom") == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/*.dcm")} == before


def test_dicom_in_dicom_out_of_a_model_that_repeats_the_last_scan(dataset, export, tmp_path, capsys):
    finished_model(dataset, read_plans(dataset.plans()))
    assert run(export, tmp_path / "out", "--dicom", "-t", "500", "--no_burned_in_text") == 0
    assert "1 synthetic series in" in capsys.readouterr().out
    slices = [dcmread(path) for path in sorted((tmp_path / "out" / "dicom" / "P001_t500_0000").iterdir())]
    pixels = np.stack([one.pixel_array for one in slices])
    assert np.abs(pixels - (phantom_array() + 1001)).max() <= 1
    assert slices[0].SeriesDescription.startswith("Synthetic, research only: forecast +134 days")
    assert slices[0].StudyInstanceUID == dcmread(next((export / "1").iterdir())).StudyInstanceUID
