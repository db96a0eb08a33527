from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from longflow.errors import DataError
from longflow.report import drawing as figures
from longflow.report.drawing import Panel, forecast_figure, progress_figure

HEADER = "epoch,iteration,seconds,loss,learning_rate,nrmse,lci_nrmse,context_mean_nrmse,epoch_seconds,data_wait_share"


@pytest.fixture
def panel():
    generator = np.random.default_rng(0)
    target = generator.random((5, 12, 10)).astype(np.float32)
    last = target.copy()
    last[3] += 1  # the slice of largest change
    return Panel("s1", last, target, (last + target) / 2, (8.0, 2.0, 1.0), 0.0, 2.5, 0.02, 0.04)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, kept open until the test has looked at them."""
    kept = []
    monkeypatch.setattr(figures.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    for figure in kept:
        figures.plt.close(figure)


def test_a_row_of_five_for_each_target(panel, tmp_path, drawn):
    forecast_figure([panel, replace(panel, title="s2")], tmp_path / "a" / "figure.png", "months")
    images = [axis for axis in drawn[0].axes if axis.images]
    assert len(images) == 10
    assert matplotlib.image.imread(tmp_path / "a" / "figure.png").std() > 0


def test_slice_of_largest_change_with_the_aspect_of_the_voxels(panel, tmp_path, drawn):
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


def test_errors_share_one_colour_scale_and_images_one_grey_scale(panel, tmp_path, drawn):
    forecast_figure([panel], tmp_path / "figure.png", "months")
    limits = [axis.images[0].get_clim() for axis in drawn[0].axes[:5]]
    assert limits[0] == limits[1] == limits[2]
    assert limits[3] == limits[4]
    assert limits[3][0] == 0


def test_captions_hold_times_units_and_both_errors(panel, tmp_path, drawn):
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


def test_progress_with_baselines_as_lines(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(f"{HEADER}\n0,9,1,0.5,1e-4,,,,1.0,0.1\n1,18,2,0.4,1e-4,0.05,0.06,0.055,1.1,0.2\n")
    progress_figure(table, tmp_path / "progress.png")
    losses, errors, times, waiting = drawn[0].axes
    assert losses.lines[0].get_ydata().tolist() == [0.5, 0.4]
    assert errors.lines[0].get_xydata().tolist() == [[1.0, 0.05]]
    assert [line.get_ydata()[0] for line in errors.lines[1:]] == [0.06, 0.055]
    assert times.lines[0].get_ydata().tolist() == [1.0, 1.1]
    assert waiting.lines[0].get_ydata().tolist() == [10.0, 20.0]
    assert (tmp_path / "progress.png").is_file()


def test_a_number_and_its_parts_are_told_apart_from_the_first_epoch_on(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(
        "epoch,loss,epoch_seconds,data_wait_share,loss_supervised,loss_consistency,dice,dice_liver,dice_spleen\n"
        "1,0.5,1.0,0.1,0.3,0.2,0.6,0.7,0.5\n"
    )
    progress_figure(table, tmp_path / "progress.png")
    losses, found, times, _ = drawn[0].axes
    for axis in (losses, found):
        assert len({line.get_color() for line in axis.lines}) == len(axis.lines) == 3
        assert all(line.get_marker() == "o" for line in axis.lines)  # a line of one point would not be seen
    assert found.get_ylabel() == "validation: Dice"
    assert [tick for tick in times.get_xticks() if 0.5 < tick < 1.5] == [1]


def test_errors_in_units_are_not_drawn_beside_ratios(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(
        "epoch,loss,epoch_seconds,data_wait_share,ratio,ratio_to_native,mae_to_native,input_mae_to_native\n"
        "1,0.5,1.0,0.1,0.6,0.7,21,30\n"
    )
    progress_figure(table, tmp_path / "progress.png")
    found = drawn[0].axes[1]
    assert [line.get_ydata()[0] for line in found.lines] == [0.6, 0.7]
    assert found.get_ylabel() == "validation: MAE, share of the input's" and "lowest: 0.6" in found.get_title("right")


def test_progress_before_the_first_validation(tmp_path):
    table = tmp_path / "progress.csv"
    table.write_text(f"{HEADER}\n0,9,1,,1e-4,,,,,\n")
    progress_figure(table, tmp_path / "progress.png")
    assert (tmp_path / "progress.png").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (HEADER, "no line below its header"),
        ("epoch,loss\n0,1", "has no column epoch_seconds, data_wait_share"),
        (f"{HEADER}\n0,9,1,many,1e-4,,,,1.0,0.1", "not a number: .*'many'"),
    ],
)
def test_broken_progress(tmp_path, content, message):
    if content is not None:
        (tmp_path / "progress.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        progress_figure(tmp_path / "progress.csv", tmp_path / "progress.png")
