import numpy as np
import pytest
import SimpleITK as sitk

from longflow.cli.register import first_free_id, main, new_name
from longflow.errors import ConfigurationError
from longflow.paths import DatasetPaths
from tests.registration.helpers import SHAPE, as_image, blobs, moved, write_moved


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return tmp_path / "raw"


def test_a_dataset_is_registered_and_run_again_goes_on(home, capsys):
    write_moved(home / "Dataset103_Visits", {"p": [blobs(), blobs(moved(6))], "q": [blobs()]})
    arguments = ["-d", "103", "--model", "rigid", "-np", "1"]
    assert main(arguments) == 0
    assert "longflow_plan_and_preprocess -d 104" in capsys.readouterr().out
    image = home / "Dataset104_VisitsRegistered/imagesTr/p_1_0000.nii.gz"
    written = image.stat().st_mtime_ns
    assert main(arguments) == 0 and image.stat().st_mtime_ns == written
    assert sorted(path.name for path in home.iterdir()) == ["Dataset103_Visits", "Dataset104_VisitsRegistered"]


def test_a_failure_is_shown_and_the_rest_is_written(home, capsys):
    noise = as_image(np.random.default_rng(0).normal(100, 30, SHAPE).astype(np.float32))
    write_moved(home / "Dataset103_Visits", {"noise": [blobs(), noise], "q": [blobs()]})
    assert main(["-d", "103", "--model", "rigid", "-o", "Other", "-np", "1"]) == 1
    shown = capsys.readouterr()
    assert "hardly agree" in " ".join(shown.out.split()) and "1 subject could not be registered" in shown.err
    table = (home / "Dataset104_Other/scans.csv").read_text()
    assert "q_0" in table and "noise" not in table
    assert sitk.ReadImage(str(home / "Dataset104_Other/labelsTr/q_0.nii.gz")).GetSize() == SHAPE[::-1]


def test_deformable_says_where_volumes_are_to_be_counted(home, capsys):
    write_moved(home / "Dataset103_Visits", {"q": [blobs()]})
    assert main(["-d", "103", "--model", "deformable", "-np", "1"]) == 0
    assert "Measure volumes in Dataset103_Visits" in capsys.readouterr().out


def test_contrast_phases_are_registered_to_the_native_scan(home, capsys):
    still, shifted = blobs(), blobs(noise=2)
    shifted.SetOrigin((4, 0, 0))
    raw = write_moved(home / "Dataset104_Phases", {"p": [still, shifted]}, task="translate")
    (raw / "scans.csv").write_text("case,subject,time,phase\np_0,p,0,t1\np_1,p,0,t1c\n")
    assert main(["-d", "104", "--model", "deformable", "-np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "same size in all scans of a pair. Measure volumes in Dataset104_Phases" in shown
    assert "Agreement of the phases in the body" in shown and "p_0 and p_1" in shown and "stands out." not in shown
    registered = home / "Dataset105_PhasesRegistered/imagesTr"
    name = "p_0_0000.nii.gz"
    assert (registered / name).read_bytes() == (raw / "imagesTr" / name).read_bytes()
    assert sitk.ReadImage(str(registered / "p_1_0000.nii.gz")).GetOrigin() == still.GetOrigin()


def test_names_of_the_new_dataset(home):
    for name in ("Dataset103_Visits", "Dataset104_Taken"):
        (home / name).mkdir(parents=True)
    source = DatasetPaths("Dataset103_Visits")
    assert new_name(source, "rigid", None) == "Dataset105_VisitsRegistered"
    assert new_name(source, "rigid", "7") == "Dataset007_VisitsRegistered"
    assert new_name(source, "rigid", "Aligned") == "Dataset105_Aligned"
    assert new_name(source, "rigid", "Dataset200_A") == "Dataset200_A"
    with pytest.raises(ConfigurationError, match="id 104 is used by Dataset104_Taken"):
        new_name(source, "rigid", "104")
    with pytest.raises(ConfigurationError, match="cannot name a dataset"):
        new_name(source, "rigid", "a b")


def test_ids_go_on_from_the_beginning(home):
    (home / "Dataset999_Last").mkdir(parents=True)
    assert first_free_id(998) == 1


def test_an_unknown_dataset_and_no_model_end_with_1(home, capsys):
    assert main(["-d", "103", "--model", "rigid"]) == 1
    with pytest.raises(SystemExit) as raised:
        main(["-d", "103"])
    assert raised.value.code == 1 and "--model" in capsys.readouterr().err
