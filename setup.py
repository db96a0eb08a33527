"""Installs longflow: pip install ."""

import ast
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def constant(module: str, name: str):
    """Read a literal of a module of longflow without importing it: nothing that it imports is installed yet."""
    tree = ast.parse((HERE / "longflow" / module).read_text(encoding="utf-8"))
    assignments = (node for node in tree.body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in assignments if node.targets[0].id == name)


setup(
    name="longflow",
    version=constant("version.py", "__version__"),
    description="Self-configuring forecasting, translation and segmentation of longitudinal 3D medical images",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["longflow", "longflow.*"]),
    package_data={"longflow": ["py.typed"], "longflow.report": ["templates/*", "vendor/*"]},
    # upper bounds are what was tested. Before raising one, run tests/test_nnunet.py and tests/test_library_contracts.py
    # no lower bound lets in a release with a known code execution: tests/test_dependencies.py
    install_requires=[
        "torch>=2.10,<2.16",
        "nnunetv2>=2.8,<2.9",
        "batchgenerators>=0.25",
        "batchgeneratorsv2>=0.3",
        "SimpleITK>=2.5.3",
        "nibabel>=5",
        "acvl-utils>=0.2.3",
        "dynamic-network-architectures>=0.4.1",
        "monai>=1.6,<1.7",
        "torchdiffeq>=0.2.5",
        "numpy>=1.24",
        "scipy>=1.10",
        "scikit-image>=0.22",
        "surface-distance>=0.1",
        "blosc2>=3.3.2,<5",
        "safetensors>=0.4",
        "pydantic>=2.5",
        "rich>=13",
        "matplotlib>=3.8",
        "jinja2>=3.1.6,<4",
        "tensorboard>=2.15",
        "psutil>=5.9",
    ],
    extras_require={
        "cluster": ["submitit>=1.5.2,<1.6"],
        "dicom": ["pydicom>=3.0.2,<4", "highdicom>=0.28,<0.29", "python-gdcm>=3.2.2"],
        "registration": ["antspyx>=0.6"],
        "test": [
            "bids-validator-deno>=3,<4",
            "dcm2niix>=1.0.20250506",
            "highdicom>=0.28,<0.29",
            "hypothesis>=6.100",
            "mypy>=1.11",
            "playwright>=1.50",
            "pydicom>=3.0.2,<4",
            "pylibjpeg>=2.0.1",
            "pylibjpeg-openjpeg>=2.4",
            "pytest>=9.0.3",
            "pytest-cov>=5",
            "pytest-xdist>=3",
            "python-gdcm>=3.2.2",
            "ruff>=0.6",
            "submitit>=1.5.2,<1.6",
        ],
    },
    entry_points={
        "console_scripts": [
            f"{name} = longflow.cli.{module}:main" for name, module, _ in constant("commands.py", "COMMANDS")
        ]
    },
)
