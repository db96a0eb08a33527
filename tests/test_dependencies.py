"""No release with a known code execution can be installed, neither as a lower bound nor here."""

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]

#: package, first release without it, what was found in the earlier ones. Add a line when an advisory appears; only a
#: weakness by which somebody else's code can run, or memory be overwritten, needs one
KNOWN = (
    ("torch", "2.10.0", "CVE-2026-24747, CVE-2025-32434: code in a file of weights"),
    ("monai", "1.6.0", "CVE-2025-58756, CVE-2025-58757, GHSA-89gg-p5r5-q6r4, GHSA-rghg-q7wp-9767, GHSA-qxq5-qhx6-94qw"),
    ("monai", "1.5.2", "CVE-2025-58755, CVE-2026-21851: an archive writes outside its folder"),
    ("SimpleITK", "2.5.3", "CVE-2025-11266, CVE-2024-22391: memory overwritten by a DICOM file"),
    ("python-gdcm", "3.2.2", "CVE-2025-11266: memory overwritten by a DICOM file"),
    ("numpy", "1.16.3", "CVE-2019-6446: np.load unpickles"),
    ("scipy", "1.8.0", "CVE-2023-29824: use of freed memory"),
    ("blosc2", "2.5.0", "CVE-2024-3203, CVE-2024-3204: memory overwritten by a damaged file"),
    ("psutil", "5.6.6", "CVE-2019-18874: memory freed twice"),
    ("setuptools", "78.1.1", "CVE-2025-47273, CVE-2024-6345: a package index writes files and runs code"),
    ("pytest", "9.0.3", "CVE-2025-71176: other users of the machine may gain rights"),
    # no dependency of ours, but of theirs: only the installed release can be checked
    ("pillow", "12.2.0", "CVE-2026-25990, CVE-2023-50447, CVE-2023-4863: memory overwritten or code run by an image"),
    ("joblib", "1.2.0", "CVE-2022-21797: eval of an argument"),
    ("Jinja2", "3.1.6", "CVE-2025-27516: code in a template"),
    ("Werkzeug", "3.0.3", "CVE-2024-34069: code by the debugger"),
    ("PyYAML", "5.4", "CVE-2020-14343: code in a file"),
)


def requirements() -> dict[str, Requirement]:
    """Return what setup.py and pyproject.toml ask for, extras and the building included, by name in small letters."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (call,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    lines = [*ast.literal_eval(given["install_requires"])]
    lines += [line for extra in ast.literal_eval(given["extras_require"]).values() for line in extra]
    built_with = re.search(
        r"^requires = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    lines += ast.literal_eval(built_with[1])
    return {requirement.name.lower(): requirement for requirement in map(Requirement, lines)}


def lower_bound(requirement: Requirement) -> Version | None:
    bounds = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
    return max(bounds, default=None)


def admitted(requirement: Requirement, safe: str) -> bool:
    """Tell whether a requirement lets in a release before the first safe one."""
    bound = lower_bound(requirement)
    return bound is None or bound < Version(safe)


@pytest.mark.parametrize(
    ("text", "safe", "expected"),
    [
        ("torch>=2.4,<2.16", "2.10.0", True),
        ("torch>=2.9.1", "2.10.0", True),
        ("torch", "2.10.0", True),
        ("torch<2.16", "2.10.0", True),
        ("torch>=2.10,<2.16", "2.10.0", False),
        ("torch~=2.11.0", "2.10.0", False),
    ],
)
def test_what_a_requirement_lets_in(text, safe, expected):
    assert admitted(Requirement(text), safe) is expected


def test_no_lower_bound_lets_in_a_known_code_execution():
    asked = requirements()
    weak = [
        f"{asked[name.lower()]}: {found}"
        for name, safe, found in KNOWN
        if name.lower() in asked and admitted(asked[name.lower()], safe)
    ]
    assert not weak
    assert {"torch", "monai", "simpleitk", "numpy", "setuptools", "pytest"} <= set(asked)


def test_every_dependency_has_a_lower_bound():
    assert not [str(one) for one in requirements().values() if lower_bound(one) is None]


@pytest.mark.parametrize(("name", "safe", "found"), KNOWN, ids=[f"{name} {safe}" for name, safe, _ in KNOWN])
def test_no_installed_release_has_a_known_code_execution(name, safe, found):
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert Version(installed) >= Version(safe), found


OFFLINE = """
import pkgutil, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise AssertionError(f"{event} {arguments}")
sys.addaudithook(refuse)
import longflow
for module in pkgutil.walk_packages(longflow.__path__, "longflow."):
    __import__(module.name)
from longflow.methods.registry import build_method
from tests.methods.helpers import minimal_plans, random_batch
method = build_method("cronos", minimal_plans(), "3d_fullres")
method.training_step(random_batch()).backward()
"""


def test_nothing_opens_a_connection():
    """Every module is imported, with the libraries that it imports, and a step is trained."""
    subprocess.run([sys.executable, "-c", OFFLINE], cwd=ROOT, check=True, timeout=300)
