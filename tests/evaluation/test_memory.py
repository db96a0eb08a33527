import logging

import numpy as np
import psutil
import pytest

from longflow.data.parallel import available_cores
from longflow.evaluation import memory as memory_module
from longflow.evaluation.memory import processes_that_fit

from .conftest import SHAPE


@pytest.fixture
def scan(tmp_path, write_scan):
    write_scan(tmp_path, "a", np.zeros(SHAPE, np.float32))
    return (tmp_path / "a_0000.nii.gz",)


def test_all_cores_where_memory_allows(scan):
    assert processes_that_fit(None, [scan], 4) == available_cores()
    assert processes_that_fit(3, [scan], 4) == 3


@pytest.mark.parametrize(("volumes", "expected"), [(2.5, 2), (0.1, 1)])
def test_memory_bounds_the_number_of_processes(scan, volumes, expected, monkeypatch, caplog):
    needed = memory_module._PROCESS + 4 * np.prod(SHAPE) * 10
    memory = type("Memory", (), {"available": int(volumes * needed / 0.8)})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with caplog.at_level(logging.INFO, "longflow"):
        assert processes_that_fit(8, [scan], 10) == expected
    assert f"{expected} instead of 8 processes" in caplog.text


def test_an_unreadable_file_is_left_to_its_reader(tmp_path):
    (tmp_path / "a.nii.gz").write_text("no image")
    assert processes_that_fit(1, [(tmp_path / "a.nii.gz",)], 10) == 1
