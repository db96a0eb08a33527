"""The demo runs in a folder of its own."""


def test_demo_refuses_a_folder_that_holds_something_else(phantom_dataset, run_command):
    result = run_command("longflow_demo", "--folder", phantom_dataset)
    assert result.returncode == 1
    assert "holds another dataset" in result.stderr and "Traceback" not in result.stderr
