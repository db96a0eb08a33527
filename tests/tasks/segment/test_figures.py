import numpy as np
import pytest
from matplotlib import pyplot as plt

from longflow.errors import DataError
from longflow.tasks.segment import figures as volumes
from longflow.tasks.segment.evaluation import Rows
from longflow.tasks.segment.figures import change_figure, draw_segmentations, volume_figure, worst_first


@pytest.fixture
def drawn(monkeypatch):
    """Figures are kept instead of being written."""
    kept = []
    monkeypatch.setattr(volumes, "save", lambda figure, path: kept.append(figure))
    yield kept
    plt.close("all")


def scan(subject, time, structure, predicted, reference):
    volumes = {"volume_ml": predicted, "true_volume_ml": reference}
    return {"subject": subject, "time": time, "structure": structure, **volumes}


def summary(subject, structure, error, scans=2, slope=1.0):
    numbers = {"volume_error": error, "slope": slope, "true_slope": slope}
    return {"subject": subject, "structure": structure, "scans": scans, **numbers}


def cohort(number, structures=("x",)):
    """Subject n has an error of n %."""
    names = [f"s{index:02d}" for index in range(number)]
    scans = [scan(name, time, one, 5 + time, 4 + time) for name in names for one in structures for time in (0.0, 1.0)]
    return scans, [summary(name, one, index / 100) for index, name in enumerate(names) for one in structures]


def test_worst_subjects_first_and_undefined_last():
    rows = [summary("a", "x", 0.1), summary("b", "x", 0.3), summary("b", "y", 0.1), summary("c", "x", None)]
    assert worst_first([*rows, summary("d", "x", 0.15)], "subject") == ["b", "d", "a", "c"]
    assert worst_first(rows, "structure") == ["x", "y"]


def test_panels_hold_the_volumes_of_subject_and_structure(drawn):
    volume_figure(
        [scan("a", 0.0, "x", 1, 2), scan("a", 3.0, "x", 3, 4), scan("a", 0.0, "y", 5, 6), scan("a", 3.0, "y", 7, 8)],
        [summary("a", "x", 0.1), summary("a", "y", 0.2)],
        "",
        "months",
    )
    (figure,) = drawn
    lines = [{line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()} for axis in figure.axes]
    assert lines == [
        {"reference": [[0, 2], [3, 4]], "prediction": [[0, 1], [3, 3]]},
        {"reference": [[0, 6], [3, 8]], "prediction": [[0, 5], [3, 7]]},
    ]
    assert [axis.get_title().splitlines()[0] for axis in figure.axes] == ["x", "y"]
    assert "ml/month" in figure.axes[0].get_title()


def test_only_the_worst_subjects_are_shown_and_it_is_said(drawn):
    volume_figure(*cohort(11), "", "days")
    (figure,) = drawn
    assert [axis.get_ylabel().splitlines()[0] for axis in figure.axes] == [
        f"s{index:02d}" for index in range(10, 2, -1)
    ]
    assert figure.get_suptitle() == "the 8 of 11 subjects with the largest error of volume, worst first"


def test_only_the_worst_structures_are_shown_in_the_order_of_the_dataset(drawn):
    scans, rows = cohort(1, structures="abcdefg")
    for row in rows:
        row["volume_error"] = {"b": 0.0, "e": 0.1}.get(row["structure"], 0.2)
    volume_figure(scans, rows, "", "days")
    assert [axis.get_title()[0] for axis in drawn[0].axes] == list("acdfg")
    assert "structures: the worst" in drawn[0].get_suptitle()


def test_subjects_with_one_scan_are_not_drawn(drawn):
    scans, rows = cohort(2)
    rows[1]["scans"] = 1
    volume_figure(scans, rows, "", "ms")
    assert len(drawn[0].axes) == 1
    assert "ml/ms" in drawn[0].axes[0].get_title()
    with pytest.raises(DataError, match="No subject has more than one scan"):
        volume_figure(scans, rows[1:], "", "ms")


def test_a_structure_in_no_scan_is_said(drawn):
    volume_figure(
        [scan("a", 0.0, "x", 0, 0), scan("a", 1.0, "x", 0, 0)], [summary("a", "x", None, slope=None)], "", "days"
    )
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["in no scan"]


def pair(structure, predicted, reference):
    return {"structure": structure, "change": predicted, "true_change": reference}


def test_bland_altman_panels(drawn):
    pairs = [pair("x", 3.0, 1.0), pair("x", -1.0, 1.0), pair("y", 0.0, 0.0)]
    agreement = {"x": {"bias": 0.0, "limits": [-4.0, 4.0]}, "y": {"bias": 0.0, "limits": None}}
    change_figure(pairs, agreement, "")
    first, second = drawn[0].axes
    np.testing.assert_array_equal(first.collections[0].get_offsets(), [[2, 2], [0, -2]])
    assert [line.get_ydata()[0] for line in first.get_lines()] == [0, 0, -4, 4]
    assert [text.get_text() for text in first.texts] == ["bias\n+0", "−1.96 SD\n-4", "+1.96 SD\n+4"]
    assert len(second.texts) == 1
    assert min(second.get_ylim()) < 0 < max(second.get_ylim())


def test_many_structures(drawn):
    names = [f"structure {number}" for number in range(11)]
    change_figure([pair(name, 1.0, 0.0) for name in names], {name: {"bias": 1.0, "limits": None} for name in names}, "")
    assert len(drawn[0].axes) == 9
    assert "9 of 11 structures" in drawn[0].get_suptitle()


def test_no_changes():
    with pytest.raises(DataError, match="No subject has more than one scan"):
        change_figure([], {}, "")


def test_both_files_of_a_folder(tmp_path):
    scans, rows = cohort(1)
    agreement = {"bias": 0.0, "limits": None}
    results = {"time_unit": "days", "by_structure": {"x": {"trajectories": {"bland_altman": agreement}}}}
    assert draw_segmentations(results, Rows(scans, [pair("x", 1.0, 1.0)], rows), tmp_path) == [
        "volumes.png",
        "volume_changes.png",
    ]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("volumes.png", "volume_changes.png"))
    assert draw_segmentations(results, Rows(scans, [], rows), tmp_path) == []
