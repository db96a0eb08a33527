"""The shape of the package: who may import whom, how long files are, what has a test."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "longflow"
LONGEST_FILE = 500
#: variables that a command sets for the libraries that it loads
SET_BY_COMMANDS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ONEDNN_MAX_CPU_ISA")

#: a room imports only from itself and from rooms before it
ORDER = [
    *(
        "errors",
        "version",
        "stop",
        "spread",
        "reading",
        "files",
        "registry",
        "paths",
        "schema",
        "parallel",
        "distributed",
        "random_state",
        "commands",
        "task",
        "fitness",
        "plans",
        "job",
        "nnunet",
        "private",
        "flow",
        "networks",
        "data",
        "integrity",
    ),
    *("registration", "dicom", "importers", "exporters", "fingerprint", "preprocessing"),
    *("methods", "planning", "inference", "evaluation", "training", "report", "tasks", "compare"),
    *("cluster", "demo", "cli"),
]

#: files without a test file of their own, and where they are tested
TESTED_ELSEWHERE = {
    "longflow/__init__.py": "test_public_interface.py",
    "longflow/version.py": "test_public_interface.py",
    "longflow/task.py": "test_tasks.py",
    "longflow/tasks/forecast/task.py": "test_tasks.py",
    "longflow/tasks/segment/planning.py": "planning/test_presets.py",
    "longflow/tasks/segment/task.py": "test_tasks.py",
    "longflow/tasks/translate/planning.py": "planning/test_presets.py",
    "longflow/tasks/translate/task.py": "test_tasks.py",
    "longflow/inference/finished.py": "inference/test_predictor.py",
    "longflow/inference/output.py": "inference/test_predictor.py",
    "longflow/integrity/problems.py": "integrity/test_dataset.py",
    "longflow/integrity/voxels.py": "integrity/test_dataset.py",
    "longflow/methods/forecasting/_direct.py": "methods/forecasting/test_direct.py",
    "longflow/methods/forecasting/_flow.py": "methods/forecasting/test_flows.py",
    "longflow/methods/pretraining/_pretraining.py": "methods/pretraining/test_spatiotemporal.py",
    "longflow/methods/method.py": "methods/test_registry.py",
    "longflow/methods/translation/_translation.py": "methods/translation/test_mfm.py",
    "longflow/training/progress.py": "report/test_drawing.py",
    "longflow/demo/law.py": "demo/test_phantom.py",
    "longflow/private.py": "test_library_contracts.py",
}
#: test files that test several files, or the whole
TESTS_OF_SEVERAL = {
    "tests/report/test_in_browser.py",
    "tests/test_rooms.py",
    "tests/test_dependencies.py",
    "tests/test_container.py",
    "tests/test_library_contracts.py",
    "tests/test_public_interface.py",
    "tests/test_documentation.py",
    "tests/test_outside_task.py",
    "tests/test_generated_text.py",
    "tests/test_tasks.py",
    "tests/data/test_nifti_headers.py",
    "tests/dicom/test_pacs.py",
    "tests/tasks/translate/test_modalities.py",
    "tests/methods/translation/test_translation.py",
    "tests/cli/test_pipeline.py",
    "tests/cli/test_segmentation_pipeline.py",
    "tests/cli/test_translation_pipeline.py",
    "tests/cli/test_killed.py",
    "tests/cli/test_hostile.py",
    "tests/cluster/test_on_slurm.py",
    "tests/cluster/test_training_on_slurm.py",
    "tests/methods/test_outside_method.py",
    "tests/methods/test_outside_network.py",
    "tests/methods/test_waiting.py",
    "tests/methods/forecasting/test_direct.py",
    "tests/methods/forecasting/test_flows.py",
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(name: str) -> str:
    """``longflow.data.images`` to ``data``; ``longflow`` itself comes before all rooms."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(path: Path) -> set[str]:
    """Modules of longflow that a file imports anywhere, but for type checkers alone."""
    found = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node):
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return
            self.generic_visit(node)

        def visit_Import(self, node):
            found.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            # `from longflow import paths` imports a room too
            inside = node.module == "longflow" and [alias.name for alias in node.names if alias.name in ORDER]
            found.update([f"longflow.{name}" for name in inside] if inside else [node.module])

    Visitor().visit(ast.parse(path.read_text()))
    return {name for name in found if name.split(".")[0] == "longflow"}


def test_every_room_is_known():
    found = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if path.name[0] not in "_." and path.suffix != ".typed"
    }
    assert found <= set(ORDER)


def test_every_room_says_what_it_is_for():
    silent = [path for path in PACKAGE.rglob("__init__.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_above_it(path):
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own == "__init__":  # the public interface: each name is imported when it is first used
        assert imported(path) == {"longflow.version"}
        return
    for name in imported(path):
        room = room_of(name)
        assert not room or ORDER.index(room) <= ORDER.index(own), f"{own} imports {name}"


def test_the_walk_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from longflow.cli import train\n    import longflow.data.images\n")
    assert imported(file) == {"longflow.cli", "longflow.data.images"}


def test_no_file_is_long():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in modules()}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_every_file_has_its_test_file():
    missing = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        if not (ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}").is_file()
        and (path.name != "__init__.py" or path.parent == PACKAGE)
    }
    assert missing == set(TESTED_ELSEWHERE)
    for elsewhere in TESTED_ELSEWHERE.values():
        assert (ROOT / "tests" / elsewhere).is_file()


def test_every_test_file_has_its_file():
    strange = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        inside = path.relative_to(ROOT / "tests")
        if str(path.relative_to(ROOT)) in TESTS_OF_SEVERAL:
            continue
        if not (PACKAGE / inside.parent / inside.name.removeprefix("test_")).is_file():
            strange.append(str(inside))
    assert not strange


def test_every_method_has_a_test_file_of_its_own():
    methods = [path for path in (PACKAGE / "methods").glob("*/*.py") if not path.name.startswith("_")]
    assert len(methods) >= 5
    for path in methods:
        assert (ROOT / "tests" / "methods" / path.parent.name / f"test_{path.name}").is_file(), path


@pytest.mark.parametrize("module", ["longflow", "longflow.cli.overview", "longflow.cli.train", "longflow.cli.predict"])
def test_importing_longflow_does_not_wait_for_torch(module):
    code = f"import sys, {module}; print({{'torch', 'nnunetv2', 'skimage', 'SimpleITK', 'scipy'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("module", ["longflow", "longflow.cli.train"])
def test_importing_longflow_sets_no_environment_variable(module):
    code = f"import os; before = dict(os.environ); import {module}; assert dict(os.environ) == before"
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_COMMANDS}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)


def test_no_file_names_a_place_of_the_machine_it_is_on():
    """Neither this checkout, nor the folder around it, nor the environment, nor anybody's home."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    places = {str(place) for place in (ROOT, ROOT.parent, Path(sys.prefix)) if len(place.parts) > 1}
    here = re.compile(rf"(?<![\w.<>-])(({'|'.join(map(re.escape, places))})\b|/(home|root|Users)/\w)")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix in (".png", ".jpg", ".gif", ".gz"):
            continue
        if path.parent.name == "vendor":  # published by others, as their hashes say: report/test_pages.py
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
            if here.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found
