import matplotlib.pyplot as plt
import pytest
from matplotlib.collections import PathCollection

from longflow.compare import figures as comparisons
from longflow.compare.figures import Cost, Line, cost_figure, learning_figure, line_figure
from longflow.errors import DataError

COSTS = [
    Cost("cronos", 0.030, 0.001, 200.0, 2.0, 3e9),
    Cost("convlstm", 0.31, None, 200.0, 0.3, None),
    Cost("linear", 0.05, None, None, 0.1, None),
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures, kept open."""
    figures = []
    monkeypatch.setattr(comparisons, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def names_in_legend(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_figures_are_written(tmp_path):
    cost_figure(COSTS, {"LCI": 0.04}, tmp_path / "cost.png")
    line_figure([Line("a", [(0, 1), (1, 2)])], {"LCI": [(0, 2), (1, 2)]}, "horizon", tmp_path / "line.png")
    learning_figure({"a": [[(0.0, 1.0), (1.0, 0.5)]]}, 0.7, tmp_path / "learning.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("cost", "line", "learning"))
    assert not plt.get_fignums()


def test_bubbles_stand_at_their_cost_with_memory_as_their_area(drawn, tmp_path):
    cost_figure(COSTS, {"LCI": 0.04, "motion": 0.035}, tmp_path / "cost.png")
    training, predicting = drawn[0].axes
    bubbles = [one for one in training.collections if isinstance(one, PathCollection)]
    where = {tuple(bubble.get_offsets()[0].tolist()): float(bubble.get_sizes()[0]) for bubble in bubbles}
    assert where.keys() == {(200.0, 0.03), (200.0, 0.31)}  # linear is not trained
    assert where[200.0, 0.03] == 3 * comparisons.BUBBLE
    assert names_in_legend(drawn[0]) == ["cronos", "convlstm", "LCI", "motion", "linear"]
    # errors differ tenfold, times of training do not
    assert training.get_yscale() == "log" and training.get_xscale() == "linear" and predicting.get_xscale() == "log"


def test_lines_in_order_with_intervals(drawn, tmp_path):
    lines = [Line("a", [(2, 0.2), (1, 0.1)], [(0.15, 0.25), (0.05, 0.15)]), Line("b", [(1, 0.3)], [None])]
    line_figure(lines, {"LCI of: a": [(1, 0.5)]}, "steps", tmp_path / "x.png", log=True)
    (axes,) = drawn[0].axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.2]]
    assert len(axes.collections) == 1  # the interval of a
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "steps"
    assert names_in_legend(drawn[0]) == ["a", "b", "LCI of: a"]
    assert axes.lines[2].get_color() == axes.lines[0].get_color()


def test_every_run_is_a_line_of_its_variants_colour(drawn, tmp_path):
    learning_figure({"a": [[(1, 0.5)], [(1, 0.6)], []], "b": [[(2, 0.4)]]}, None, tmp_path / "x.png")
    (axes,) = drawn[0].axes
    one, other, third = axes.lines
    assert one.get_color() == other.get_color() != third.get_color()
    assert names_in_legend(drawn[0]) == ["a", "b"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: cost_figure([], {}, path),
        lambda path: line_figure([Line("a", [])], {}, "x", path),
        lambda path: learning_figure({"a": [[]]}, None, path),
    ],
)
def test_nothing_to_show(draw, tmp_path):
    with pytest.raises(DataError, match="There is no"):
        draw(tmp_path / "x.png")
