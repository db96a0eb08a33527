import subprocess
import sys

import pytest

from longflow.cli.preprocess import main
from tests.preprocessing.helpers import make_dataset


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    return make_dataset(subjects=1)


def test_a_dataset_is_preprocessed_and_kept(dataset, capsys):
    assert main(["-d", "901", "-np", "1"]) == 0
    assert "1 subjects prepared, 0 kept" in capsys.readouterr().out
    assert main(["-d", "Dataset901_Test", "-c", "3d_fullres"]) == 0
    assert "0 subjects prepared, 1 kept" in capsys.readouterr().out
    assert (dataset.cache("longflowPlans", "3d_fullres") / "s0.json").is_file()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "a/b"])
def test_a_part_has_a_number(dataset, capsys, text):
    with pytest.raises(SystemExit):
        main(["-d", "901", "--part", text])
    assert "is no part; expected, for the second of four, 2/4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "902"], "There is no dataset '902'"),
        (["-d", "901", "-c", "3d_fulres"], "Did you mean '3d_fullres'"),
        (["-d", "901", "-p", "others"], "Run: longflow_plan -d 901"),
    ],
)
def test_unknown_names(dataset, capsys, arguments, message):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom longflow.cli.preprocess import main\ntry: main(['--help'])\n"
        "except SystemExit: pass\nassert not {'torch', 'nnunetv2', 'SimpleITK'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "longflow_preprocess -d 101 -c 3d_fullres -np 4" in answer.stdout
