from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from longflow import registry
from longflow.data.dataset import read_rows
from longflow.errors import ConfigurationError, NotFoundError
from longflow.importers import registry as importers
from longflow.importers.registry import IMPORTERS, Importer, all_importers, flag
from longflow.importers.scans import Destination, HeldOut, ImportedDataset, ImportedScan
from tests.data.helpers import tiny_array, write_image

FOLDER = Path(importers.__file__).parent


def test_every_module_is_an_importer_of_its_name_or_shared():
    names = [importer.name for importer in all_importers()]
    assert names == IMPORTERS.names() == ["acdc", "bids", "dicom", "isles24", "join", "lumiere", "nifti4d", "phases"]
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert modules == {*names, *importers.SHARED}


def test_a_flag_of_several_layouts_is_parsed_alike():
    declared = {}
    for importer in all_importers():
        for one in importer.flags:
            arguments = {key: value for key, value in one.metadata.items() if key != "help"}
            assert declared.setdefault(one.name, arguments) == arguments, one.name
            assert one.metadata["help"]


@pytest.mark.parametrize(
    ("layout", "tasks"),
    [("acdc", ["forecast", "segment"]), ("isles24", ["forecast"]), ("phases", ["translate"])],
)
def test_tasks_that_a_layout_serves(layout, tasks):
    importer = IMPORTERS.get(layout)
    assert importer.tasks() == tasks and importer.checked_task(None) == tasks[0]
    with pytest.raises(ConfigurationError, match="--task other"):
        importer.checked_task("other")


@dataclass(frozen=True)
class Options:
    ending: str = field(default="_a.nii.gz", metadata=flag("end of the names"))


def read(source, options):
    found = sorted(source.glob(f"*{options.ending}"))
    scans = [ImportedScan(path.name[:4], path.name[:2], float(path.name[3]), path) for path in found]
    return ImportedDataset(scans, "days", "T1", {"ending": options.ending}, test_subjects=["p2"])


OUTSIDE = Importer("flat", read, Options)


@pytest.fixture
def outside(monkeypatch):
    """An installed package that brings the layout ``flat``."""
    point = EntryPoint("flat", f"{__name__}:OUTSIDE", "longflow.importers")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])


@pytest.fixture
def source(tmp_path):
    for subject in ("p1", "p2", "p3"):
        for time in (0, 1, 2):
            write_image(tiny_array(time), tmp_path / "flat" / f"{subject}_{time}_b.nii.gz")
    return tmp_path / "flat"


def test_an_outside_package_brings_a_layout(outside, source, tmp_path):
    assert "flat" in IMPORTERS.names() and OUTSIDE in all_importers()
    raw = tmp_path / "Dataset001_Flat"
    to = Destination(raw, processes=1)
    assert IMPORTERS.get("flat").run(source, to, HeldOut(["p3"], 2), ending="_b.nii.gz")
    assert [row.case for row in read_rows(raw / "scans.csv")] == ["p1_0", "p1_1", "p1_2"]
    # subjects of the source's own tests and those of the user
    assert sorted(path.name[:4] for path in (raw / "imagesTs").glob("*.nii.gz")) == ["p2_0", "p3_0"]
    assert len(list((raw / "targetsTs").iterdir())) == 4
    assert not IMPORTERS.get("flat").run(source, to, HeldOut(["p3"], 2), ending="_b.nii.gz")
    with pytest.raises(NotFoundError, match="Did you mean 'p3'"):
        IMPORTERS.get("flat").run(source, to, HeldOut(["p4"]), ending="_b.nii.gz")


def test_an_installed_layout_that_cannot_be_loaded_is_skipped_until_it_is_named(monkeypatch):
    point = EntryPoint("broken", "no_such_module:IMPORTER", "longflow.importers")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert len(all_importers()) == 8
    with pytest.raises(ConfigurationError, match=r"layout 'broken' .* cannot be loaded"):
        IMPORTERS.get("broken")
