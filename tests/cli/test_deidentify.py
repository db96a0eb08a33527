from longflow.cli.deidentify import main
from tests.dicom.helpers import write_series


def test_deidentify(tmp_path, capsys):
    write_series(tmp_path / "in")
    write_series(tmp_path / "in", series="2", BurnedInAnnotation="YES")
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "safe"), "--key", str(tmp_path / "key.csv"), "-np", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "6 files of 1 subjects written" in said and "Refused: 6 files, text is burned into its pixels" in said
    assert "Faces and text drawn into pixels are not removed" in said
    assert main([str(tmp_path / "no"), *arguments[1:]]) == 1
    assert "does not exist" in capsys.readouterr().err
