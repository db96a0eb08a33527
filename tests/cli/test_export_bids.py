from longflow.cli.export_bids import main
from tests.exporters.test_bids import predictions


def test_predictions_are_written_and_counted(tmp_path, capsys):
    words = ["-i", str(predictions(tmp_path / "in")), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    assert f"6 images are in {tmp_path / 'out'}" in capsys.readouterr().out


def test_errors_are_messages(tmp_path, capsys):
    assert main(["-i", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "has no scans.csv" in capsys.readouterr().err
