import re
from io import StringIO

import pytest
from rich.console import Console

from longflow.planning.plan import make_plans
from longflow.planning.summary import summarize
from tests.planning.helpers import description, fingerprint, phase_fingerprint


def shown(found, plans) -> str:
    console = Console(width=160, record=True, file=StringIO())
    console.print(summarize(found, plans))
    return console.export_text()


def test_the_summary_fits_a_screen_and_says_why():
    found = fingerprint([[0, 30, 60, 120], [0, 30, 90]], [8, 32, 32], [3, 1, 1])
    plans = make_plans(found, description(), "tiny")
    text = shown(found, plans)
    assert len(text.splitlines()) < 45
    for word in ("Time scale", "Runners-up", "per_scan", "3d_fullres", "Target spacing", "learning rate"):
        assert word in text


@pytest.mark.parametrize("times", [[[0.0]] * 3, [[0.0, 30], [0, 60]]])
def test_to_segment_structures_and_encoder_are_shown_and_nothing_of_forecasts(times, monkeypatch):
    monkeypatch.setattr("longflow.planning.plan.training_memory", lambda *_: 1e8)
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    requested = description(task="segment", labels=labels, regions_class_order=[1, 2])
    found = fingerprint(times, [16, 32, 32], [1, 1, 1])
    text = shown(found, make_plans(found, requested, "tiny", encoder="residual"))
    for word in ("whole", "1 + 2", "core", "ignored", "residual U-Net", "per_scan", "each method's own"):
        assert word in text
    for word in ("forecast", "context", "slot", "Runners-up", "Regular"):
        assert word not in text
    nothing = make_plans(found, description(task="segment"), "tiny")
    assert "the scans can serve pretraining alone" in shown(found, nothing)


def test_to_translate_phases_and_pairs_are_shown_and_nothing_of_forecasts(monkeypatch):
    step = {"mfm": 2e8, "mfm-swin_unetr": 9e8}
    monkeypatch.setattr("longflow.planning.plan.training_memory", lambda method, *_: step.get(method, 1e8))
    found = phase_fingerprint([16, 32, 32], [5, 0.8, 0.8], without_pair=["p7"], other_phases={"venous": 4})
    text = shown(found, make_plans(found, description(names=("CT",), task="translate"), "tiny"))
    for line in (
        *("t = 0     native", "t = 1     arterial", "pairs     3 of one subject and time", "p7", "4 venous"),
        *("3 with 1 pair of scans each", "5 x 0.8 x 0.8 (median)", "nothing is resampled", "-1 to 1 (MFM B.3)"),
        "swin_unetr 0.84 GB",
    ):
        assert line in text
    assert re.search(r"2d .* 11 22 22 22 +0\.19", text)
    for word in ("forecast", "context", "slot", "Runners-up", "Regular", "Time scale", "intervals", "horizon"):
        assert word not in text
