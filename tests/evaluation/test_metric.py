"""A metric of an installed package in an evaluated folder: tests/cli/test_evaluate.py."""

import logging
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from longflow import registry
from longflow.errors import ConfigurationError, NotFoundError
from longflow.evaluation.metric import (
    METRICS,
    Compared,
    Metric,
    compute_metrics,
    mean_of_all,
    mean_of_defined,
    metrics_of,
)
from longflow.task import all_tasks, get_task


def volume_of(compared):
    return float(compared.prediction.sum())


OWN = Metric("volume", task="segment", function=volume_of, definition="voxels")
TAKEN = Metric("dice", task="segment", function=volume_of, definition="another Dice")
NO_METRIC = "volume"


@pytest.fixture
def install(monkeypatch):
    """Announce attributes of this module as metrics of an installed package."""

    def announce(**places):
        points = [EntryPoint(name, f"{__name__}:{place}", "longflow.metrics") for name, place in places.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "longflow.metrics" else [])

    return announce


def test_every_metric_of_a_task_is_one():
    for task in all_tasks():
        metrics = metrics_of(task)
        assert [metric.name for metric in metrics[: len(task.metrics)]] == list(task.metrics)
        assert all(metric.task == task.name and metric.definition for metric in metrics)
        assert all(metric.better in ("higher", "lower") for metric in metrics if metric.heading)


def test_a_metric_is_found_by_task_and_name():
    assert METRICS.get("forecast.mae") is not METRICS.get("translate.mae")
    with pytest.raises(NotFoundError, match=r"Did you mean 'segment\.dice'"):
        METRICS.get("segment.dize")


def test_metrics_of_packages_follow_those_of_the_task(install):
    install(voxels="OWN")
    assert metrics_of(get_task("segment"))[-1] is OWN
    assert OWN not in metrics_of(get_task("forecast"))


def test_a_name_that_the_task_has_is_refused(install):
    install(mine="TAKEN")
    with pytest.raises(ConfigurationError, match=r"'mine' .* is called 'dice'"):
        metrics_of(get_task("segment"))
    assert metrics_of(get_task("forecast"))


@pytest.mark.parametrize("place", ["NO_METRIC", "nothing"])
def test_a_metric_that_cannot_be_loaded_is_skipped_with_a_warning(install, caplog, monkeypatch, place):
    install(broken=place)
    monkeypatch.setattr(logging.getLogger("longflow"), "propagate", True)
    assert len(metrics_of(get_task("segment"))) == len(get_task("segment").metrics)
    assert "'broken'" in caplog.text and "missing from the results" in caplog.text


def test_numbers_by_name():
    compared = Compared(np.ones((1, 2, 3)), np.zeros((1, 2, 3)), (1.0, 1.0, 1.0))
    assert compute_metrics([OWN], compared) == {"volume": 6.0}


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ({"heading": "SSIM"}, "SSIM"),
        ({"heading": "PSNR", "unit": "dB"}, "PSNR [dB]"),
        ({"heading": "MAE\n", "unit": "input units"}, "MAE\n[HU]"),
        ({"heading": "error", "unit": "input units/mm"}, "error [HU/mm]"),
    ],
)
def test_titles(metric, title):
    assert Metric("x", task="forecast", function=volume_of, definition="", **metric).title("HU") == title


def test_means_of_numbers_that_may_be_undefined():
    assert mean_of_defined([1.0, None, 3.0]) == mean_of_all([1.0, 3.0]) == 2.0
    assert mean_of_defined([None]) is mean_of_all([1.0, None]) is mean_of_all([]) is None
