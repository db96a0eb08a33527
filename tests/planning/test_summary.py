from io import StringIO

from rich.console import Console

from longflow.planning.plan import make_plans
from longflow.planning.summary import summarize
from tests.planning.helpers import description, fingerprint


def test_the_summary_fits_a_screen_and_says_why():
    found = fingerprint([[0, 30, 60, 120], [0, 30, 90]], [8, 32, 32], [3, 1, 1])
    plans = make_plans(found, description(), "tiny")
    console = Console(width=160, record=True, file=StringIO())
    console.print(summarize(found, plans))
    text = console.export_text()
    assert len(text.splitlines()) < 45
    for word in ("Time scale", "Runners-up", "per_scan", "3d_fullres", "Target spacing", "learning rate"):
        assert word in text
