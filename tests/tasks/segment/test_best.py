import numpy as np
import pytest

from longflow.data.dataset import write_description
from longflow.errors import DataError, NotFoundError
from longflow.files import file_digest
from longflow.inference.selection import recorded_best
from longflow.reading import read_json
from longflow.tasks.segment import best as best_segmentation
from longflow.tasks.segment.best import find_best
from longflow.tasks.segment.calibration import calibration_of
from tests.tasks.conftest import GEOMETRY, SHAPE

#: (fold, case, subject)
SCANS = ((0, "a_0", "a"), (0, "a_1", "a"), (1, "b_0", "b"))


def labels(columns, core=1):
    """Ten voxels high; the first ``core`` columns are core."""
    array = np.zeros(SHAPE, np.uint8)
    array[0, :5, :columns] = 1
    array[0, :5, :core] = 2
    return array


@pytest.fixture
def raw(paths, labelled, write_labels, write_table):
    write_description(labelled, paths.raw / "dataset.json")
    for _, case, _ in SCANS:
        write_labels(paths.raw / "labelsTr", case, labels(4))
    write_table(paths.raw / "scans.csv", *((case, subject, float(case[-1])) for _, case, subject in SCANS))
    return paths.raw


@pytest.fixture
def train(paths, raw, write_labels):
    """What a trained model leaves behind: its folds and what they predicted for their validation scans."""

    def write(method, columns, folds=(0, 1), skip=(), configuration="3d_fullres"):
        model = paths.model(method, "longflowPlans", configuration)
        for fold in folds:
            model.fold(fold).folder.mkdir(parents=True)
            model.fold(fold).final.touch()
        for (fold, case, _), width in zip(SCANS, columns, strict=True):
            if fold in folds and case not in skip:
                write_labels(model.fold(fold).validation("labels"), case, labels(width))
        return model

    return write


def test_the_highest_dice_over_structures_and_subjects(paths, train):
    """unet: a 1 and 6 / 7, b 6 / 7; the other: 1 everywhere but for b."""
    train("unet", (4, 3, 3))
    train("unet", (4, 4, 3), configuration="2d")
    best = find_best(paths, processes=1)
    a, b = (1 + np.mean([1, 6 / 7])) / 2, (1 + 6 / 7) / 2
    assert [row["candidate"] for row in best["table"]] == [
        f"unet__longflowPlans__{name}" for name in ("2d", "3d_fullres")
    ]
    assert best["table"][1]["dice"] == pytest.approx((a + b) / 2)
    assert best["dice"] == pytest.approx((1 + b) / 2)
    assert best["table"][1]["difference_to_best"] == pytest.approx((a - 1) / 2)
    assert best["table"][1]["dice whole"] == pytest.approx((np.mean([1, 6 / 7]) + 6 / 7) / 2)
    assert best["table"][1]["dice core"] == 1
    assert (best["subjects"], best["scans"], best["folds"]) == (2, 3, [0, 1])
    assert read_json(paths.best) == best
    assert paths.best_table.is_file()


def test_prediction_follows_the_record(paths, train):
    model = train("unet", (4, 3, 3))
    find_best(paths, processes=1)
    selection = recorded_best(paths)
    assert [(member.model, member.folds) for member in selection.members] == [(model, (0, 1))]
    assert (selection.reduction, selection.shrinkage) == (None, 1.0)


@pytest.fixture
def pretraining(monkeypatch):
    """A method ``spatiotemporal`` that does not predict, in addition to the real ones."""
    known = best_segmentation.method_class
    nothing = type("Pretraining", (), {"predicts": False})
    monkeypatch.setattr(
        best_segmentation, "method_class", lambda name: nothing if name == "spatiotemporal" else known(name)
    )


def test_pretraining_is_never_a_candidate(paths, train, pretraining):
    """Though it has more finished folds than the model that segments."""
    train("unet", (4, 3, 3), folds=(0,))
    train("spatiotemporal", (4, 4, 4))
    best = find_best(paths, processes=1)
    assert [row["candidate"] for row in best["table"]] == ["unet__longflowPlans__3d_fullres"]
    assert best["folds"] == [0]


def test_pretraining_alone(paths, train, pretraining):
    train("spatiotemporal", (4, 4, 4))
    with pytest.raises(
        NotFoundError, match=r"All trained models .* are for pretraining: .*--pretrained spatiotemporal"
    ):
        find_best(paths)


def test_nothing_trained(paths, raw):
    with pytest.raises(NotFoundError, match="longflow_train 101 3d_fullres 0"):
        find_best(paths)


def test_models_validated_on_different_scans(paths, train):
    train("unet", (4, 3, 3))
    train("unet", (4, 4, 3), configuration="2d", skip=["a_1"])
    with pytest.raises(DataError, match=r"not validated on the same scans \(a_1, fold 0\)"):
        find_best(paths, processes=1)


def test_a_fold_without_predictions(paths, train):
    model = train("unet", (4, 3, 3), skip=["b_0"])
    with pytest.raises(
        DataError, match=rf"{model.fold(1).validation('labels')} does not exist.*unet, 3d_fullres, fold 1"
    ):
        find_best(paths, processes=1)


def test_a_reference_that_is_missing(paths, train):
    train("unet", (4, 3, 3))
    (paths.raw / "labelsTr" / "a_1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"lacks the references of validation scans: a_1"):
        find_best(paths, processes=1)


def test_no_structure_anywhere(paths, train, write_labels):
    model = train("unet", (4, 3, 3))
    for fold, case, _ in SCANS:
        for folder in (paths.raw / "labelsTr", model.fold(fold).validation("labels")):
            write_labels(folder, case, np.zeros(SHAPE, np.uint8))
    with pytest.raises(DataError, match="No structure is in any of the 3 validation scans of folds 0, 1"):
        find_best(paths, processes=1)


def test_a_structure_that_another_model_invents_is_rightly_absent():
    """In the second scan it is in no reference; the second model invents it. In the third, none of them does."""
    rows = {
        "careful": [{"subject": "a", "structure": "x", "dice": value} for value in (0.5, None, None)],
        "inventive": [{"subject": "a", "structure": "x", "dice": value} for value in (0.6, 0.0, None)],
    }
    found = best_segmentation.with_agreed_absence(rows)
    assert [row["dice"] for row in found["careful"]] == [0.5, 1.0, None]
    assert [row["dice"] for row in found["inventive"]] == [0.6, 0.0, None]


def test_a_model_that_invents_is_not_ranked_first(paths, train, write_labels):
    """Of b there is nothing to see: the first model draws nothing; the second draws something, and is better on a."""
    careful, inventive = train("unet", (3, 3, 4)), train("unet", (4, 4, 4), configuration="2d")
    nothing = np.zeros(SHAPE, np.uint8)
    write_labels(paths.raw / "labelsTr", "b_0", nothing)
    write_labels(careful.fold(1).validation("labels"), "b_0", nothing)
    best = find_best(paths, processes=1)
    assert best["candidate"] == careful.folder.name
    (first, second) = best["table"]
    assert second["candidate"] == inventive.folder.name and second["dice"] == pytest.approx(1 / 2)
    assert second["difference_to_best"] == pytest.approx(second["dice"] - first["dice"])


def test_volumes_are_calibrated_on_out_of_fold_label_maps(paths, train, write_labels, write_table, monkeypatch):
    """Every structure is drawn a column too wide in five subjects; their references are 2 to 6 columns wide."""
    widths = {f"{subject}_0": width for subject, width in zip("cdefg", range(2, 7), strict=True)}
    scans = tuple((0, case, case[0]) for case in widths)
    monkeypatch.setitem(globals(), "SCANS", scans)
    for case, width in widths.items():
        write_labels(paths.raw / "labelsTr", case, labels(width))
    write_table(paths.raw / "scans.csv", *((case, case[0], 0.0) for case in widths))
    model = train("unet", tuple(width + 1 for width in widths.values()), folds=(0,))
    found = find_best(paths, processes=1)["volume_calibration"]
    assert found["weights"] == [file_digest(model.fold(0).final)]
    column = 5 * np.prod(GEOMETRY.array_spacing) / 1000
    whole, core = found["structures"]["whole"], found["structures"]["core"]
    assert (whole["slope"], whole["intercept"]) == pytest.approx((1, -column))
    assert (whole["error"], whole["calibrated_error"]) == pytest.approx((column, 0), abs=1e-6)
    assert core["refused"] == "all predicted or all reference volumes are equal"
    name = model.folder.name
    assert calibration_of(paths.best, name, found["weights"]) == found["structures"]
