from pathlib import Path

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription
from longflow.data.images import Geometry, write_volume
from longflow.files import write_json
from longflow.tasks.forecast import figures as forecasts
from longflow.tasks.forecast.figures import draw_forecasts, panel_of, pick_evenly
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import Forecast, Pair

SHAPE = (3, 6, 5)
GEOMETRY = Geometry((5, 6, 3), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def pair(subject, horizon, **files):
    forecast = Forecast(
        f"{subject}_{horizon:g}", subject, 3.0, horizon, ("c",), (0.0,), "cronos", files.get("images", ())
    )
    return Pair(forecast, files.get("target", ()), files.get("context", ()))


def test_one_target_of_each_of_evenly_spaced_subjects():
    pairs = [pair(f"s{number}", horizon) for number in range(7) for horizon in (1.0, 2.0)]
    assert [one.forecast.case for one in pick_evenly(pairs, 4)] == ["s0_2", "s2_2", "s4_2", "s6_2"]


@pytest.mark.parametrize(("most", "expected"), [(4, 3), (3, 3), (2, 2)])
def test_targets_of_one_subject(most, expected):
    assert len(pick_evenly([pair("s1", horizon) for horizon in (1.0, 2.0, 3.0)], most)) == expected


@pytest.fixture
def volumes(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {name: generator.random(SHAPE).astype(np.float32) for name in ("truth", "forecast", "early", "last")}
    for name, array in arrays.items():
        write_volume(array, GEOMETRY, "float32", tmp_path / f"{name}_0000.nii.gz")
    return arrays


def test_panel_of_a_pair(volumes, tmp_path):
    files = {name: (tmp_path / f"{name}_0000.nii.gz",) for name in volumes}
    panel = panel_of(
        pair("s1", 2.0, images=files["forecast"], target=files["truth"], context=(files["early"], files["last"]))
    )
    np.testing.assert_array_equal(panel.last_context, volumes["last"])
    assert (panel.spacing, panel.last_time, panel.target_time) == ((4.0, 2.0, 1.0), 1.0, 3.0)
    assert panel.nrmse == pytest.approx(nrmse(volumes["forecast"][None], volumes["truth"][None]))
    assert panel.lci_nrmse == pytest.approx(nrmse(volumes["last"][None], volumes["truth"][None]))


def test_the_figure_of_a_folder(volumes, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_volume(volumes["forecast"], GEOMETRY, "float32", out / "truth_0000.nii.gz")
    sidecar = {"case": "truth", "subject": "s1", "target_time": 3.0, "horizon": 1.0, "context": ["early", "last"]}
    write_json(sidecar, out / "truth.json")
    shown = []
    monkeypatch.setattr(forecasts, "forecast_figure", lambda panels, path, unit: shown.append((panels, path, unit)))
    description = DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months")
    draw_forecasts(out, [tmp_path], description, Path("figure.png"))
    ((panels, path, unit),) = shown
    assert ([panel.title for panel in panels], path, unit) == (["s1"], Path("figure.png"), "months")
