from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from longflow.data.dataset import read_description
from longflow.data.images import Geometry, read_scan
from longflow.errors import DataError
from longflow.tasks.translate import figures as translations
from longflow.tasks.translate.evaluation import INPUT, TRANSLATION, evaluate_translation_pairs
from longflow.tasks.translate.figures import (
    ABDOMEN_WINDOW,
    TranslationPanel,
    draw_translations,
    in_standard_orientation,
    translation_figure,
    translation_panel,
    worst_cases,
)
from longflow.tasks.translate.pairs import find_translation_pairs, translations_of_folder
from tests.data.helpers import write_phase_dataset
from tests.tasks.conftest import write_translation  # noqa: F401 - a fixture

UPRIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


def rows(*cases):
    """(case, subject, phase, body MAE)"""
    place = {"round_trip": False, "mae": 1.0}
    return [
        {**place, "case": case, "subject": subject, "target_phase": phase, "body_mae": error, "image": image}
        for case, subject, phase, error in cases
        for image in (TRANSLATION, INPUT)
    ]


def panel(**changes):
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.uniform(-200, 300, (4, 10, 12)).astype(np.float32)
        for name in ("input", "translation", "target")
    }
    given = {"title": "p1", "spacing": (5.0, 1.0, 2.0), "window": ABDOMEN_WINDOW, "unit": "HU", **arrays}
    return TranslationPanel(**{**given, **changes})


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, kept open."""
    figures = []
    monkeypatch.setattr(translations, "save", lambda figure, path: figures.append((figure, path)))
    yield figures
    plt.close("all")


def test_worst_subjects_first_and_directions_in_turn():
    found = worst_cases(
        rows(
            ("a_1", "a", "native", 3.0),
            ("a_2", "a", "native", 9.0),
            ("b_1", "b", "native", 5.0),
            ("a_3", "a", "arterial", 1.0),
            ("b_2", "b", "arterial", 2.0),
            ("c_1", "c", "arterial", 0.5),
        )
    )
    assert found == ["a_2", "b_2", "b_1", "a_3", "c_1"]


def test_a_scan_without_a_body_is_ordered_by_the_error_of_the_whole_image():
    assert worst_cases(rows(("a", "a", "native", 0.5), ("b", "b", "native", None))) == ["b", "a"]


def test_the_way_back_is_a_direction_of_its_own():
    there, back = rows(("a", "a", "native", 3.0)), rows(("b", "a", "native", 2.0))
    assert worst_cases([*there, *({**row, "round_trip": True} for row in back)]) == ["a", "b"]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        (UPRIGHT, lambda array: array),
        ((-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), lambda array: array[:, :, ::-1]),
        ((1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0), lambda array: array[::-1]),
        # acquired in sagittal slices: the file's axes x, y, z run to the back, to the head, to the left
        ((0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0), lambda array: array.transpose(1, 2, 0)),
    ],
)
def test_axes_are_turned_to_the_standard_orientation(direction, expected):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    geometry = Geometry((4, 3, 2), (1.0, 2.0, 5.0), (0.0, 0.0, 0.0), direction)
    (turned,), spacing = in_standard_orientation([array], geometry)
    np.testing.assert_array_equal(turned, expected(array))
    assert spacing == ((5.0, 2.0, 1.0) if expected(array).shape == (2, 3, 4) else (2.0, 1.0, 5.0))


def test_planes_are_upright_and_in_proportion(drawn):
    """The one voxel that differs decides every plane; the head is up in coronal and sagittal ones."""
    target = np.zeros((4, 10, 12), np.float32)
    source = target.copy()
    source[3, 6, 7] = 100
    translation_figure([panel(input=source, translation=target, target=target)], Path("figure.png"))
    ((figure, path),) = drawn
    axes = np.array([axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]).reshape(3, 5)
    inputs = [axis.images[0].get_array() for axis in axes[:, 0]]
    assert [image.shape for image in inputs] == [(10, 12), (4, 12), (4, 10)]
    assert [np.argwhere(image == 100).tolist() for image in inputs] == [[[6, 7]], [[0, 7]], [[0, 6]]]
    assert [axis.get_aspect() for axis in axes[:, 0]] == [1 / 2, 5 / 2, 5 / 1]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["axial, z = 3", "coronal, y = 6", "sagittal, x = 7"]
    assert path == Path("figure.png")


def test_images_share_the_window_and_differences_a_scale(drawn):
    one = panel(body_mae=12.5, input_mae=None)
    translation_figure([one], Path("figure.png"))
    ((figure, _),) = drawn
    axes = [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"][:5]
    assert [axis.images[0].get_clim() for axis in axes[:3]] == [ABDOMEN_WINDOW] * 3
    largest = np.percentile(np.abs(one.input - one.target), 99.5)
    assert [axis.images[0].get_clim() for axis in axes[3:]] == [pytest.approx((-largest, largest))] * 2
    index = np.clip(one.input, *ABDOMEN_WINDOW) - np.clip(one.target, *ABDOMEN_WINDOW)
    plane = np.abs(index).sum(axis=(1, 2)).argmax()
    np.testing.assert_array_equal(axes[3].images[0].get_array(), (one.translation - one.target)[plane])
    np.testing.assert_array_equal(axes[4].images[0].get_array(), (one.input - one.target)[plane])
    titles = [axis.get_title() for axis in axes]
    assert titles[3:] == ["translation − target\nMAE 12.5 HU", "input − target\nMAE not defined"]
    assert axes[0].get_title(loc="left") == "p1\ninput"


def test_planes_and_colours_are_those_of_the_body(drawn):
    """Between modalities the air differs most."""
    inside, air = np.zeros((4, 10, 12), np.float32), np.full((4, 10, 12), 900.0, np.float32)
    body = np.zeros_like(inside, dtype=np.uint8)
    body[2, 5, 6] = 1
    air[2, 5, 6] = 40
    translation_figure([panel(input=air, translation=inside, target=inside, body=body)], Path("figure.png"))
    ((figure, _),) = drawn
    axes = [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    assert [axis.get_ylabel() for axis in axes[::5]] == ["axial, z = 2", "coronal, y = 5", "sagittal, x = 6"]
    assert axes[4].images[0].get_clim() == pytest.approx((-40, 40))


def test_a_file_is_written_even_where_nothing_differs(tmp_path):
    flat = np.zeros((1, 3, 3), np.float32)
    translation_figure([panel(input=flat, translation=flat, target=flat, window=(0.0, 0.0))], tmp_path / "a" / "f.png")
    assert (tmp_path / "a" / "f.png").stat().st_size > 1000


def test_nothing_to_show():
    with pytest.raises(DataError, match="no translation to show"):
        translation_figure([], Path("figure.png"))


@pytest.fixture
def evaluated(tmp_path, write_translation):  # noqa: F811
    """The rows and pairs of a folder with two translations."""

    def evaluate(**dataset):
        raw = write_phase_dataset(tmp_path / "raw", **dataset)
        write_translation(tmp_path / "out", "p1_0_arterial", "native", 5.0)
        write_translation(tmp_path / "out", "p2_0_arterial", "native", 20.0)
        description = read_description(raw / "dataset.json")
        translations = translations_of_folder(tmp_path / "out", description)
        pairs, _ = find_translation_pairs(translations, [raw / "imagesTr"], description)
        return evaluate_translation_pairs(pairs, description, processes=1), pairs, description

    return evaluate


def test_panel_of_a_pair(evaluated, tmp_path):
    found, pairs, description = evaluated()
    one = translation_panel(pairs[1], found, description)
    reference = read_scan((tmp_path / "raw" / "imagesTr" / "p2_0_native_0000.nii.gz",)).array[0]
    np.testing.assert_array_equal(one.target, reference)
    np.testing.assert_allclose(one.translation, reference + 20)
    assert (one.title, one.window, one.unit) == ("p2: arterial → native", ABDOMEN_WINDOW, "HU")
    assert one.body_mae == pytest.approx(20, abs=1e-3) and one.input_mae == found[3]["body_mae"]
    assert one.spacing == pytest.approx((5.0, 1.5, 1.5))


def test_mr_is_shown_between_percentiles_of_the_target(evaluated):
    found, pairs, description = evaluated(channel="T1")
    one = translation_panel(pairs[0], found, description)
    assert one.window == pytest.approx(np.percentile(one.target, [0.5, 99.5])) and one.unit == "input units"


def test_the_figure_of_a_folder(evaluated, monkeypatch):
    found, pairs, description = evaluated()
    shown = []
    monkeypatch.setattr(translations, "translation_figure", lambda panels, path: shown.append((panels, path)))
    draw_translations(found, pairs, description, Path("figure.png"), most=1)
    ((panels, path),) = shown
    assert ([one.title for one in panels], path) == (["p2: arterial → native"], Path("figure.png"))
