from longflow.cli.progress import progress_bar


def test_progress_is_shown_on_stderr(capsys):
    with progress_bar("Checking") as progress:
        for done in range(1, 4):
            progress(done, 3, f"subject{done}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Checking" in captured.err and "3/3" in captured.err and "subject3" in captured.err
