"""Installs longflow: pip install ."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "longflow" / "version.py").read_text()).group(1)

COMMANDS = {
    "longflow": "overview",
    "longflow_import": "import_dataset",
    "longflow_verify": "verify",
    "longflow_register": "register",
    "longflow_extract_fingerprint": "extract_fingerprint",
    "longflow_plan": "plan",
    "longflow_preprocess": "preprocess",
    "longflow_plan_and_preprocess": "plan_and_preprocess",
    "longflow_train": "train",
    "longflow_find_best": "find_best",
    "longflow_predict": "predict",
    "longflow_evaluate": "evaluate",
    "longflow_compare": "compare",
    "longflow_export": "export",
    "longflow_translate_dataset": "translate_dataset",
    "longflow_demo": "demo",
}

setup(
    name="longflow",
    version=VERSION,
    description="Self-configuring forecasting and segmentation of longitudinal 3D medical images",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["longflow", "longflow.*"]),
    package_data={"longflow": ["py.typed"]},
    install_requires=[
        "torch>=2.4",
        "nnunetv2>=2.8,<3",
        "batchgenerators>=0.25",
        "batchgeneratorsv2>=0.3",
        "SimpleITK>=2.2.1",
        "nibabel>=5",
        "acvl-utils>=0.2.3",
        "dynamic-network-architectures>=0.4.1",
        "monai>=1.4",
        "torchdiffeq>=0.2.5",
        "numpy",
        "scipy",
        "scikit-image>=0.22",
        "surface-distance>=0.1",
        "blosc2>=3",
        "safetensors>=0.4",
        "pydantic>=2.5",
        "rich>=13",
        "matplotlib",
        "tensorboard",
        "psutil",
    ],
    extras_require={"registration": ["antspyx>=0.6"], "test": ["pytest>=8", "pytest-xdist", "ruff"]},
    entry_points={
        "console_scripts": [f"{command} = longflow.cli.{module}:main" for command, module in COMMANDS.items()]
    },
)
