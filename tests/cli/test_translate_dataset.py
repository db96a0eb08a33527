import shutil

import pytest

from longflow.cli import translate_dataset
from longflow.files import write_json
from longflow.paths import DatasetPaths, raw_root
from longflow.reading import read_json
from tests.data.helpers import write_phase_dataset
from tests.inference.helpers import translation_model, use_one_convolution

SUBJECTS = ("p1", "p2")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Two labelled subjects in two phases and a model of fold 0, which trained p2 and validated p1."""
    use_one_convolution(monkeypatch)
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    paths = DatasetPaths("Dataset104_Phases")
    write_phase_dataset(paths.raw, SUBJECTS, shapes=((4, 12, 10),))
    translation_model(paths)
    write_json([{"train": ["p2"], "val": ["p1"]}, {"train": ["p1"], "val": ["p2"]}], paths.splits)
    return paths


def run(output, *arguments, phase="native"):
    return translate_dataset.main(["-d", "104", "--to", phase, "-o", str(output), "--device", "cpu", *arguments])


def test_a_dataset_with_this_name(dataset, capsys):
    assert run("Dataset204_Native") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Dataset104_Phases / mfm__longflowPlans__3d_fullres, folds 0" in shown
    assert "Labelled scans translated from arterial to native: 2, in" in shown
    assert (
        "by folds that were not trained on their subject: 1 by folds that were, as there is no other: 1 (p2_" in shown
    )
    assert "No clinical conclusions should be drawn from synthesised images alone." in shown
    assert "Next: longflow_plan_and_preprocess -d 204" in shown and "without a label" not in shown
    raw = raw_root() / "Dataset204_Native"
    assert {path.name for path in raw.iterdir()} >= {"dataset.json", "scans.csv", "imagesTr", "labelsTr"}
    assert run("Dataset204_Native") == 0
    assert "Translated before, nothing to do" in capsys.readouterr().out


def test_a_path_flags_and_what_has_no_label(dataset, tmp_path, capsys):
    (dataset.raw / "labelsTr" / "p2_0_native.nii.gz").unlink()
    output = tmp_path / "nnUNet_raw" / "Dataset205_Arterial"
    model = ["-c", "3d_fullres", "-m", "mfm", "-f", "0"]
    assert run(output, *model, "--solver", "midpoint", "--steps", "3", "--mirror", phase="arterial") == 0
    assert "Scans in the phase native without a label, excluded: 1" in capsys.readouterr().out
    sidecar = read_json(output / "imagesTr" / "p1_0_native_arterial.json")
    assert (sidecar["solver"], sidecar["steps"], sidecar["mirror"], sidecar["folds"]) == ("midpoint", 3, True, [[0]])
    assert run(output, phase="arterial") == 1
    assert "or replace it with --overwrite" in capsys.readouterr().err
    assert run(output, "--overwrite", phase="arterial") == 0


@pytest.mark.parametrize(
    ("output", "arguments", "message"),
    [
        ("Native", "", "'Native' is no name for a dataset. Expected"),
        ("out/native", "", "'native' is no name for a dataset"),
        ("Dataset104_Native", "", "The id 104 is used by Dataset104_Phases"),
        ("Dataset104_Phases", "--overwrite", "was not written by longflow_translate_dataset"),
        ("Dataset204_Native", "-m regresion", "There is no trained method 'regresion'"),
        ("Dataset204_Native", "--device tpu", "The device 'tpu' cannot be used on this machine"),
    ],
)
def test_what_cannot_be_done_ends_with_1(dataset, capsys, output, arguments, message):
    before = sorted(dataset.raw.parent.iterdir())
    assert run(output, *arguments.split()) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown and "Traceback" not in shown and sorted(dataset.raw.parent.iterdir()) == before


def test_an_unknown_phase_and_a_dataset_without_labels(dataset, capsys):
    assert run("Dataset204_Native", phase="artrial") == 1
    assert "Did you mean 'arterial'" in capsys.readouterr().err
    shutil.rmtree(dataset.raw / "labelsTr")
    assert run("Dataset204_Native") == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "Dataset104_Phases has no labels" in shown and "longflow_predict -i IN -o OUT -d 104 --to native" in shown


def test_a_phase_is_needed(dataset, capsys):
    with pytest.raises(SystemExit) as raised:
        translate_dataset.main(["-d", "104", "-o", "Dataset204_Native"])
    assert raised.value.code == 1 and "--to" in capsys.readouterr().err
