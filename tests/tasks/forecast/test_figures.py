from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from longflow.data.images import Geometry, write_volume
from longflow.errors import DataError
from longflow.tasks.forecast import figures
from longflow.tasks.forecast.figures import ForecastPanel, draw_forecasts, forecast_figure, forecast_panel, pick_targets
from longflow.tasks.forecast.metrics import nrmse
from longflow.tasks.forecast.pairs import ForecastPrediction
from tests.report.test_drawing import drawn  # noqa: F401 - a fixture

SHAPE = (3, 6, 5)
GEOMETRY = Geometry((5, 6, 3), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def pair(subject, horizon, **files):
    place = {"target_time": 3.0, "horizon": horizon, "context": ("c",), "context_times": (0.0,)}
    given = {"images": (), **files}
    return ForecastPrediction(case=f"{subject}_{horizon:g}", subject=subject, method="cronos", **place, **given)


def test_one_target_of_each_of_evenly_spaced_subjects():
    pairs = [pair(f"s{number}", horizon) for number in range(7) for horizon in (1.0, 2.0)]
    assert [one.case for one in pick_targets(pairs, 4)] == ["s0_2", "s2_2", "s4_2", "s6_2"]


@pytest.mark.parametrize(("most", "expected"), [(4, 3), (3, 3), (2, 2)])
def test_targets_of_one_subject(most, expected):
    assert len(pick_targets([pair("s1", horizon) for horizon in (1.0, 2.0, 3.0)], most)) == expected


@pytest.fixture
def volumes(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {name: generator.random(SHAPE).astype(np.float32) for name in ("reference", "forecast", "early", "last")}
    for name, array in arrays.items():
        write_volume(array, GEOMETRY, "float32", tmp_path / f"{name}_0000.nii.gz")
    return arrays


@pytest.fixture
def pair_of_files(volumes, tmp_path):
    files = {name: (tmp_path / f"{name}_0000.nii.gz",) for name in volumes}
    context = (files["early"], files["last"])
    return pair("s1", 2.0, images=files["forecast"], reference=files["reference"], context_images=context)


def test_panel_of_a_pair(volumes, pair_of_files):
    panel = forecast_panel(pair_of_files)
    np.testing.assert_array_equal(panel.last_context, volumes["last"])
    np.testing.assert_array_equal(panel.target, volumes["reference"])
    np.testing.assert_array_equal(panel.forecast, volumes["forecast"])
    assert (panel.spacing, panel.last_time, panel.target_time) == ((4.0, 2.0, 1.0), 1.0, 3.0)
    assert panel.nrmse == pytest.approx(nrmse(volumes["forecast"][None], volumes["reference"][None]))
    assert panel.lci_nrmse == pytest.approx(nrmse(volumes["last"][None], volumes["reference"][None]))


def test_the_figure_of_a_folder(pair_of_files, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "forecast_figure", lambda panels, path, unit: shown.append((panels, path, unit)))
    draw_forecasts([pair_of_files], Path("figure.png"), "months")
    ((panels, path, unit),) = shown
    assert ([panel.title for panel in panels], path, unit) == (["s1"], Path("figure.png"), "months")


@pytest.fixture
def panel():
    generator = np.random.default_rng(0)
    target = generator.random((5, 12, 10)).astype(np.float32)
    last = target.copy()
    last[3] += 1  # the slice of largest change
    return ForecastPanel("s1", last, target, (last + target) / 2, (8.0, 2.0, 1.0), 0.0, 2.5, 0.02, 0.04)


def test_a_row_of_five_for_each_target(panel, tmp_path, drawn):  # noqa: F811
    forecast_figure([panel, replace(panel, title="s2")], tmp_path / "a" / "figure.png", "months")
    images = [axis for axis in drawn[0].axes if axis.images]
    assert len(images) == 10
    assert matplotlib.image.imread(tmp_path / "a" / "figure.png").std() > 0


def test_slice_of_largest_change_with_the_aspect_of_the_voxels(panel, tmp_path, drawn):  # noqa: F811
    forecast_figure([panel], tmp_path / "figure.png", "months")
    first = drawn[0].axes[0]
    np.testing.assert_array_equal(first.images[0].get_array(), panel.last_context[3])
    assert first.get_aspect() == 2.0
    assert "z = 3" in first.get_ylabel()


def test_slices_lie_across_the_axis_of_the_largest_spacing(panel):
    slices, label, aspect = figures._slices(replace(panel, spacing=(1.0, 1.0, 3.0)))
    assert slices[0].shape == (5, 12)
    assert label.startswith("x = ")
    assert aspect == 1.0


def test_errors_share_one_colour_scale_and_images_one_grey_scale(panel, tmp_path, drawn):  # noqa: F811
    forecast_figure([panel], tmp_path / "figure.png", "months")
    limits = [axis.images[0].get_clim() for axis in drawn[0].axes[:5]]
    assert limits[0] == limits[1] == limits[2]
    assert limits[3] == limits[4]
    assert limits[3][0] == 0


def test_captions_hold_times_units_and_both_errors(panel, tmp_path, drawn):  # noqa: F811
    forecast_figure([replace(panel, nrmse=None)], tmp_path / "figure.png", "months")
    texts = [axis.get_title() for axis in drawn[0].axes[:5]]
    assert texts[0] == "last context\nt = 0 months"
    assert texts[2] == "forecast\n2.5 months ahead"
    assert texts[3].endswith("NRMSE 0.0400")
    assert texts[4].endswith("NRMSE not defined")


def test_constant_volumes_are_drawn(panel, tmp_path):
    flat = np.zeros((5, 12, 10), np.float32)
    forecast_figure([replace(panel, last_context=flat, target=flat, forecast=flat)], tmp_path / "figure.png", "days")
    assert (tmp_path / "figure.png").is_file()


def test_nothing_to_show(tmp_path):
    with pytest.raises(DataError, match="no forecast to show"):
        forecast_figure([], tmp_path / "figure.png", "days")
