from longflow.cli.progress import duration, progress_bar


def test_progress_is_shown_on_stderr(capsys):
    with progress_bar("Checking") as progress:
        for done in range(1, 4):
            progress(done, 3, f"subject{done}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Checking" in captured.err and "3/3" in captured.err and "subject3" in captured.err


def test_durations():
    assert [duration(seconds) for seconds in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]
