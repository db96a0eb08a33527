import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longflow.errors import DataError
from longflow.report import drawing as figures
from longflow.report.drawing import as_svg, learning_curves, plt, progress_figure
from longflow.tasks.forecast.validation import ForecastValidation
from longflow.tasks.segment.validation import LabelValidation
from longflow.tasks.translate.validation import PhaseValidation

HEADER = "epoch,iteration,seconds,loss,learning_rate,nrmse,lci_nrmse,context_mean_nrmse,epoch_seconds,data_wait_share"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, kept open until the test has looked at them."""
    kept = []
    monkeypatch.setattr(figures.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    for figure in kept:
        figures.plt.close(figure)


def test_progress_with_baselines_as_lines(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(f"{HEADER}\n0,9,1,0.5,1e-4,,,,1.0,0.1\n1,18,2,0.4,1e-4,0.05,0.06,0.055,1.1,0.2\n")
    progress_figure(table, tmp_path / "progress.png", ForecastValidation.progress)
    losses, errors, times, waiting = drawn[0].axes
    assert losses.lines[0].get_ydata().tolist() == [0.5, 0.4]
    assert errors.lines[0].get_xydata().tolist() == [[1.0, 0.05]]
    assert [line.get_ydata()[0] for line in errors.lines[1:]] == [0.06, 0.055]
    assert times.lines[0].get_ydata().tolist() == [1.0, 1.1]
    assert waiting.lines[0].get_ydata().tolist() == [10.0, 20.0]
    assert errors.get_ylabel() == "validation: NRMSE"
    assert errors.lines[1].get_label() == "last context image (LCI): 0.0600"
    assert (tmp_path / "progress.png").is_file()


def test_a_matplotlibrc_in_the_current_folder_has_no_say(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    code = "import longflow.report.drawing, matplotlib; assert not matplotlib.rcParams['text.usetex']"
    environment = {**os.environ, "PYTHONPATH": str(Path(figures.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=100)


def test_a_number_and_its_parts_are_told_apart_from_the_first_epoch_on(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(
        "epoch,loss,epoch_seconds,data_wait_share,loss_supervised,loss_consistency,dice,dice_liver,dice_spleen\n"
        "1,0.5,1.0,0.1,0.3,0.2,0.6,0.7,0.5\n"
    )
    progress_figure(table, tmp_path / "progress.png", LabelValidation.progress)
    losses, found, times, _ = drawn[0].axes
    for axis in (losses, found):
        assert len({line.get_color() for line in axis.lines}) == len(axis.lines) == 3
        assert all(line.get_marker() == "o" for line in axis.lines)  # a line of one point would not be seen
    assert found.get_ylabel() == "validation: Dice" and found.get_title("right").startswith("highest: 0.6")
    assert [tick for tick in times.get_xticks() if 0.5 < tick < 1.5] == [1]


def test_errors_in_units_are_not_drawn_with_ratios(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text(
        "epoch,loss,epoch_seconds,data_wait_share,ratio,ratio_to_native,mae_to_native,input_mae_to_native\n"
        "1,0.5,1.0,0.1,0.6,0.7,21,30\n"
    )
    progress_figure(table, tmp_path / "progress.png", PhaseValidation.progress)
    found = drawn[0].axes[1]
    assert [line.get_ydata()[0] for line in found.lines] == [0.6, 0.7]
    assert found.get_ylabel() == "validation: MAE, share of the input's" and "lowest: 0.6" in found.get_title("right")


def test_columns_that_nobody_declares_are_drawn_under_their_names(tmp_path, drawn):
    table = tmp_path / "progress.csv"
    table.write_text("epoch,loss,epoch_seconds,data_wait_share,count_error\n1,0.5,1.0,0.1,3\n2,0.5,1.0,0.1,2\n")
    progress_figure(table, tmp_path / "progress.png")
    found = drawn[0].axes[1]
    assert found.get_ylabel() == "validation: count error" and found.get_title("right") == "lowest: 2.0000 in epoch 2"


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


def test_learning_curves_have_the_line_of_the_best_baseline_in_its_folds(tmp_path):
    folds = {fold: tmp_path / f"{fold}.csv" for fold in range(4)}
    for fold in (0, 1, 3):
        folds[fold].write_text("epoch,loss,epoch_seconds,data_wait_share,nrmse\n1,1,1,0,0.5\n2,1,1,0,0.25\n")
    figure = learning_curves(folds, best_baseline=("linear", 0.375), of_folds=[1, 3])
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title("left") for axis in shown] == ["fold 0", "fold 1", "fold 3"]
    lines = [{line.get_label(): list(line.get_ydata()) for line in axis.lines} for axis in shown]
    assert lines[0] == {"nrmse": [0.5, 0.25]}
    assert lines[1] == lines[2] == {**lines[0], "best baseline, linear, mean of folds 1, 3: 0.3750": [0.375, 0.375]}
    plt.close(figure)
    assert learning_curves({0: tmp_path / "none.csv"}) is None


def test_the_same_figure_is_the_same_svg():
    def drawn():
        figure, axis = plt.subplots()
        axis.plot([1, 2], [3, 4])
        return as_svg(figure)

    open_before = plt.get_fignums()
    assert drawn() == drawn()
    assert b"<svg" in base64.b64decode(drawn())
    assert plt.get_fignums() == open_before
