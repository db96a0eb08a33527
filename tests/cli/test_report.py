from longflow.cli import report
from tests.report.conftest import evaluated, studied  # noqa: F401 - fixtures


def test_report(evaluated, capsys):  # noqa: F811
    assert report.main(["-i", str(evaluated)]) == 0
    assert f"Report: {evaluated / 'report' / 'index.html'}" in capsys.readouterr().out
    assert (evaluated / "report" / "subject_s1.html").is_file()


def test_folders_that_do_not_exist(evaluated, capsys):  # noqa: F811
    assert report.main(["-i", str(evaluated), "-r", str(evaluated / "nowhere")]) == 1
    assert "folder of -r does not exist" in capsys.readouterr().err
    assert report.main(["-i", str(evaluated / "nowhere")]) == 1
    assert "has no scans.csv" in capsys.readouterr().err


def test_the_report_of_a_dataset(studied, evaluated, capsys):  # noqa: F811
    assert report.main(["-d", "101", "-i", str(evaluated)]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert str(studied.report / "index.html") in shown and str(evaluated / "report" / "index.html") in shown
    assert 'href="../../../out/report/index.html"' in (studied.report / "index.html").read_text()


def test_what_is_reported_must_be_said(evaluated, capsys):  # noqa: F811
    assert report.main([]) == 1
    assert "A report of what?" in capsys.readouterr().err
    assert report.main(["-d", "101", "-r", str(evaluated)]) == 1
    assert "-r is for the predictions" in capsys.readouterr().err
