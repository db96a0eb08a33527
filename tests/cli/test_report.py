from longflow.cli import report
from tests.report.conftest import evaluated  # noqa: F401 - a fixture


def test_report(evaluated, capsys):  # noqa: F811
    assert report.main(["-i", str(evaluated)]) == 0
    assert f"Report: {evaluated / 'report' / 'index.html'}" in capsys.readouterr().out
    assert (evaluated / "report" / "subject_s1.html").is_file()


def test_folders_that_do_not_exist(evaluated, capsys):  # noqa: F811
    assert report.main(["-i", str(evaluated), "-r", str(evaluated / "nowhere")]) == 1
    assert "folder of -r does not exist" in capsys.readouterr().err
    assert report.main(["-i", str(evaluated / "nowhere")]) == 1
    assert "has no scans.csv" in capsys.readouterr().err
