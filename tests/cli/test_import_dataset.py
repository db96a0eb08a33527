import json
import subprocess
import sys

import numpy as np
import pytest

from longflow.cli.import_dataset import main, new_dataset_name, parser
from longflow.cli.verify import main as verify
from longflow.errors import ConfigurationError
from longflow.importers.registry import all_importers
from tests.data.helpers import phase_array, phase_label, write_image
from tests.importers.test_acdc import write_patient
from tests.importers.test_bids import write_bids
from tests.importers.test_isles24 import write_patient as write_isles_patient
from tests.importers.test_lumiere import write_visit
from tests.importers.test_nifti4d import write_cine


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_acdc(home, tmp_path, capsys):
    write_patient(tmp_path / "acdc" / "patient001")
    arguments = ["acdc", str(tmp_path / "acdc"), "-d", "101", "-np", "1"]
    assert main(arguments) == 0
    assert (home / "raw" / "Dataset101_ACDC" / "imagesTr" / "patient001_frame01_0000.nii.gz").is_file()
    assert "longflow_verify -d 101" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "Imported before, nothing to do" in capsys.readouterr().out
    assert verify(["-d", "101", "-np", "1"]) == 0
    assert main([*arguments, "--time", "frames"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--time", "frames", "--overwrite"]) == 0


def test_nifti4d_with_all_flags(home, tmp_path):
    for subject in ("s1", "s2"):
        write_cine(tmp_path / "cine", subject)
    arguments = ["nifti4d", str(tmp_path / "cine"), "-d", "102", "-n", "Cine", "--images", "{subject}_cine.nii.gz"]
    arguments += ["--labels", "{subject}_mask.nii.gz", "--label_names", "LV cavity", "--channel", "cine MRI"]
    arguments += ["--times", "{subject}.json", "--key", "trigger", "--time_unit", "ms"]
    arguments += ["--test", "s2", "--test_targets", "2", "-np", "2"]
    assert main(arguments) == 0
    raw = home / "raw" / "Dataset102_Cine"
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "LV cavity": 1}
    assert description["channel_names"] == {"0": "cine MRI"} and description["numTraining"] == 5
    assert len(list((raw / "targetsTs").iterdir())) == 2
    assert verify(["-d", "102", "-np", "1"]) == 0


def test_a_source_that_cannot_be_used_ends_with_1(home, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["nifti4d", str(tmp_path / "empty"), "-d", "102", "-n", "Cine"]) == 1
    assert "no file with a name as {subject}.nii.gz" in capsys.readouterr().err
    write_cine(tmp_path / "cine", "s1")
    path = tmp_path / "cine" / "s1_cine.nii.gz"
    path.write_bytes(np.random.default_rng(0).bytes(500))
    assert (
        main(["nifti4d", str(tmp_path / "cine"), "-d", "102", "-n", "Cine", "--images", "{subject}_cine.nii.gz"]) == 1
    )
    assert "s1_cine.nii.gz is not NIfTI" in capsys.readouterr().err


def test_new_dataset_name(home):
    assert new_dataset_name("7", "Bond") == "Dataset007_Bond"
    assert new_dataset_name("Dataset102_Cine", None) == "Dataset102_Cine"
    with pytest.raises(ConfigurationError, match="cannot name a dataset"):
        new_dataset_name("102", None)
    with pytest.raises(ConfigurationError, match="cannot name a dataset"):
        new_dataset_name("102", "a b")
    (home / "raw" / "Dataset102_Other").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="id 102 is used by Dataset102_Other"):
        new_dataset_name("102", "Cine")


def test_an_unknown_layout_ends_with_1(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["nrrd", "x", "-d", "1"])
    assert raised.value.code == 1 and "acdc" in capsys.readouterr().err


def test_phases_with_all_flags(home, tmp_path, capsys):
    for subject in ("p1", "p2", "p3"):
        for phase in ("plain", "late"):
            write_image(phase_array(0, phase == "late"), tmp_path / "scans" / f"{subject}-0-{phase}.nii.gz")
            write_image(phase_label(), tmp_path / "scans" / f"{subject}.seg.nii.gz")
    arguments = [
        "phases",
        str(tmp_path / "scans"),
        "-d",
        "104",
        "-n",
        "CT",
        "--images",
        "{subject}-{time}-{phase}.nii.gz",
    ]
    arguments += ["--labels", "{subject}.seg.nii.gz", "--label_names", "vessel", "--channel", "CT"]
    arguments += ["--phases", "plain", "late", "--time_unit", "years", "--test", "p3", "-np", "1"]
    assert main([*arguments, "--task", "forecast"]) == 1
    assert "serve one task" in capsys.readouterr().err
    assert main(arguments) == 0
    description = json.loads((home / "raw" / "Dataset104_CT" / "dataset.json").read_text())
    assert (description["task"], description["phases"]) == ("translate", ["plain", "late"])
    assert description["labels"] == {"background": 0, "vessel": 1} and description["time_unit"] == "years"
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 4
    assert verify(["-d", "104", "-np", "1"]) == 0


def test_released_layouts(home, tmp_path, capsys):
    write_isles_patient(tmp_path / "isles", "sub-stroke0001")
    arguments = ["isles24", str(tmp_path / "isles"), "-d", "105", "--every", "2", "--space", "registered", "-np", "1"]
    assert main(arguments) == 0
    assert len(list((home / "raw" / "Dataset105_ISLES24" / "imagesTr").iterdir())) == 3
    write_visit(tmp_path / "lumiere" / "Patient-001", "week-000-1")
    write_visit(tmp_path / "lumiere" / "Patient-001", "week-012")
    assert main(["lumiere", str(tmp_path / "lumiere"), "-d", "106", "--modality", "T2", "-np", "1"]) == 0
    assert json.loads((home / "raw" / "Dataset106_LUMIERE" / "dataset.json").read_text())["time_unit"] == "weeks"
    write_bids(tmp_path / "bids", {"sub-1": ("ses-1", "ses-3"), "sub-2": ("ses-1", "ses-9")})
    arguments = ["bids", str(tmp_path / "bids"), "-d", "107", "-n", "Visits", "--modality", "FLAIR", "-np", "1"]
    assert main(arguments) == 1
    assert "Nothing says when the sessions" in capsys.readouterr().err
    assert main([*arguments, "--times", "labels", "--time_unit", "years", "--test", "sub-2"]) == 0
    assert len(list((home / "raw" / "Dataset107_Visits" / "targetsTs").iterdir())) == 1
    for number in ("105", "106", "107"):
        assert verify(["-d", number, "-np", "1"]) == 0


def test_the_help_imports_no_heavy_package():
    code = "import sys; from longflow.cli.import_dataset import parser; parser().format_help()"
    heavy = {"torch", "nnunetv2", "SimpleITK", "nibabel", "skimage", "scipy"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print({heavy} & set(sys.modules))"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_help_names_every_layout_next_to_its_flags():
    text = " ".join(parser().format_help().split())
    for importer in all_importers():
        assert importer.example.strip().splitlines()[0] in text
        for flag in importer.flag_names:
            assert f"--{flag} " in text
    assert "bids: how names of images end (default: T1w); lumiere: CT1" in text
    assert "isles24: always forecast; join: that of the source; phases: always translate" in text


def test_a_flag_of_another_layout_is_refused(home, tmp_path, capsys):
    assert main(["acdc", str(tmp_path), "-d", "101", "--modality", "T1"]) == 1
    assert (
        "--modality means nothing for the layout acdc. It takes: --frames, --time, --normalization, --task"
        in capsys.readouterr().err
    )
    assert main(["isles24", str(tmp_path), "-d", "105", "--task", "segment"]) == 1
    assert "--task means nothing for the layout isles24" in capsys.readouterr().err
