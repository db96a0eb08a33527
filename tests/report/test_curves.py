import base64

import pytest

from longflow.files import write_csv, write_json
from longflow.reading import read_json
from longflow.report import curves
from longflow.report.curves import volume_curves
from longflow.report.timeline import read_results

COLUMNS = ["subject", "case", "time", "structure", "volume_ml"]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figures, kept until the test has looked at them."""
    kept = []
    monkeypatch.setattr(curves.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    for figure in kept:
        curves.plt.close(figure)


def rows(**further):
    return [
        {
            "subject": "s1",
            "case": f"s1_{time}",
            "time": time,
            "structure": "tumour $x",
            "volume_ml": 2 * time,
            **further,
        }
        for time in (1.5, 0.0)
    ]


def test_values_are_those_of_the_table(evaluated, drawn):
    write_csv(COLUMNS, rows(), evaluated / "volumes.csv")
    results = read_results(evaluated)
    (curve,) = volume_curves(results, results.subjects[1])
    (axis,) = drawn[0].axes
    assert axis.lines[0].get_xydata().tolist() == [[0.0, 0.0], [1.5, 3.0]]
    assert base64.b64decode(curve["svg"]).startswith(b"<?xml")
    assert "tumour $x" in curve["alt"]
    assert volume_curves(results, results.subjects[0]) == []


def test_references_where_they_are_known(evaluated, drawn):
    write_csv(COLUMNS, rows(), evaluated / "volumes.csv")
    write_csv([*COLUMNS, "true_volume_ml"], rows(true_volume_ml=7.0), evaluated / "metrics_labels.csv")
    results = read_results(evaluated)
    volume_curves(results, results.subjects[1])
    predicted, reference = drawn[0].axes[0].lines
    assert reference.get_ydata().tolist() == [7.0, 7.0]
    assert predicted.get_label() == "predicted labels" and reference.get_label() == "reference"


def test_intervals_of_forecasts(evaluated, drawn):
    observed, forecast = rows()[1], {**rows()[0], "lower_ml": 2.0, "upper_ml": 4.5}
    write_csv([*COLUMNS, "lower_ml", "upper_ml"], [observed, forecast], evaluated / "volumes.csv")
    results = read_results(evaluated)
    volume_curves(results, results.subjects[1])
    (interval,) = drawn[0].axes[0].collections
    assert [part.tolist() for part in interval.get_segments()] == [[[1.5, 2.0], [1.5, 4.5]]]
    assert interval.get_label() == "interval"


def test_corrected_volumes(evaluated, drawn):
    further = {"volume_calibrated_ml": 2.5, "calibrated_low_ml": 2.0, "calibrated_high_ml": 3.0}
    write_csv([*COLUMNS, *further], rows(**further), evaluated / "volumes.csv")
    results = read_results(evaluated)
    volume_curves(results, results.subjects[1])
    _, corrected = drawn[0].axes[0].lines
    assert corrected.get_label() == "corrected volumes" and corrected.get_ydata().tolist() == [2.5, 2.5]


def test_no_volumes(evaluated):
    results = read_results(evaluated)
    assert volume_curves(results, results.subjects[1]) == []


def test_volumes_of_forecasts_with_their_intervals_and_references(evaluated, drawn):
    table = [
        {"subject": "s1", "time": 0.0, "structure": "core", "source": "observed", "volume_ml": 2.0},
        {
            "subject": "s1",
            "time": 4.0,
            "structure": "core",
            "source": "forecast",
            "volume_ml": 3.0,
            "lower_ml": 2.5,
            "upper_ml": 4.0,
        },
    ]
    write_csv(
        ["subject", "time", "structure", "source", "volume_ml", "lower_ml", "upper_ml"],
        table,
        evaluated / "volumes.csv",
    )
    structures = [
        {
            "subject": "s1",
            "target_time": 4.0,
            "method": method,
            "structure": "core",
            "volume_ml": 9,
            "true_volume_ml": 3.5,
        }
        for method in ("forecast", "lci")
    ]
    write_csv(list(structures[0]), structures, evaluated / "metrics_structures.csv")
    results = read_results(evaluated)
    volume_curves(results, results.subjects[1])
    (axis,) = drawn[0].axes
    points = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert points == {
        "acquired scans, segmented": [[0.0, 2.0]],
        "forecast, segmented": [[4.0, 3.0]],
        "reference": [[4.0, 3.5]],
    }
    assert axis.collections[0].get_segments()[0].tolist() == [[4.0, 2.5], [4.0, 4.0]]


@pytest.mark.parametrize(("unit", "shown"), [("months", "+24 mL per year (reference -12)"), ("ms", "+2 mL per ms")])
def test_slopes_are_per_year_where_the_unit_is_one_of_the_calendar(evaluated, drawn, unit, shown):
    write_csv(COLUMNS, rows(), evaluated / "volumes.csv")
    slopes = [{"subject": "s1", "structure": "tumour $x", "slope": 2.0, "true_slope": -1.0}]
    write_csv(list(slopes[0]), slopes, evaluated / "metrics_subjects.csv")
    write_json(read_json(evaluated / "dataset.json") | {"time_unit": unit}, evaluated / "dataset.json")
    results = read_results(evaluated)
    volume_curves(results, results.subjects[1])
    assert shown in drawn[0].axes[0].get_title()
