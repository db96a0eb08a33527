from longflow.cli import export_reader_study
from tests.data.helpers import write_phase_dataset
from tests.tasks.conftest import write_translation  # noqa: F401 - a fixture


def test_a_study_is_written(tmp_path, monkeypatch, capsys, write_translation):  # noqa: F811
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    raw = write_phase_dataset(tmp_path / "raw" / "Dataset104_Contrast")
    for subject in ("p1", "p2"):
        write_translation(tmp_path / "out", f"{subject}_0_arterial", "native", 5.0, raw=raw)
    arguments = ["-d", "104", "-i", str(tmp_path / "out"), "-o", str(tmp_path / "study")]
    assert export_reader_study.main([*arguments, "--seed", "3"]) == 0
    assert "2 items are in" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "study" / "for_readers").iterdir()) == [
        *(f"item_00{number}_{letter}.nii" for number in (1, 2) for letter in "AB"),
        "sheet.csv",
    ]
    assert export_reader_study.main(arguments) == 1
    assert "is not empty" in capsys.readouterr().err
    assert export_reader_study.main([*arguments, "-r", "nowhere"]) == 1
    assert "folder of -r does not exist" in capsys.readouterr().err
