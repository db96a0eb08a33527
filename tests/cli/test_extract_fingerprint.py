from longflow.cli.extract_fingerprint import main
from longflow.paths import DatasetPaths

NAME = "Dataset900_Phantom"


def test_the_fingerprint_is_written(phantom_home, capsys):
    assert main(["-d", NAME, "-np", "1"]) == 0
    assert str(DatasetPaths(NAME).fingerprint) in capsys.readouterr().out.replace("\n", "")


def test_worker_processes_give_the_same(phantom_home):
    assert main(["-d", "900", "-np", "1"]) == 0
    one = DatasetPaths(NAME).fingerprint.read_text()
    assert main(["-d", "900", "-np", "2", "--overwrite"]) == 0
    assert DatasetPaths(NAME).fingerprint.read_text() == one


def test_a_truncated_image_is_named(phantom_home, capsys):
    image = next((phantom_home / "raw" / NAME / "imagesTr").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    assert main(["-d", "900", "-np", "1"]) == 1
    assert image.name in capsys.readouterr().err.replace("\n", "")
