import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import longflow
from longflow import errors
from longflow.inference.predictor import predict_folder
from longflow.tasks.forecast.predictor import Forecaster
from longflow.tasks.forecast.requests import ForecastRequest
from longflow.tasks.segment.predictor import Segmenter
from longflow.tasks.segment.requests import SegmentationRequest
from longflow.tasks.translate.predictor import Translator
from longflow.tasks.translate.requests import TranslationRequest

ROOT = Path(__file__).parents[1]
OBJECTS = (
    Forecaster, ForecastRequest, SegmentationRequest, Segmenter, TranslationRequest, Translator, predict_folder,
)  # fmt: skip


def test_all_names_are_those_of_their_modules():
    own_errors = [one for one in vars(errors).values() if isinstance(one, type) and one.__module__ == errors.__name__]
    offered = {one.__name__: one for one in (*OBJECTS, *own_errors)}
    assert {*offered, "__version__"} == set(longflow.__all__) <= set(dir(longflow))
    for name, thing in offered.items():
        assert getattr(longflow, name) is thing


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "longflow" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name for node in imports if node.module.startswith("longflow.") for alias in node.names}
    assert seen == set(longflow.__all__)
    assert (ROOT / "longflow" / "py.typed").is_file()


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="has no attribute 'Forcaster'"):
        longflow.Forcaster  # noqa: B018


def test_the_version_is_in_one_place():
    files = [*(ROOT / "longflow").rglob("*.py"), ROOT / "setup.py"]
    assert [path.name for path in files if longflow.__version__ in path.read_text()] == ["version.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", longflow.__version__)
    command = [sys.executable, "setup.py", "--version"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split()[-1] == longflow.__version__
