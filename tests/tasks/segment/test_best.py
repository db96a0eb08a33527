import numpy as np
import pytest

from longflow.data.dataset import write_description
from longflow.data.images import write_volume
from longflow.errors import DataError, NotFoundError
from longflow.files import file_digest
from longflow.inference.selection import recorded_best
from longflow.plans import write_plans
from longflow.reading import read_json
from longflow.tasks.segment import best as best_segmentation
from longflow.tasks.segment.best import find_best
from longflow.tasks.segment.calibration import calibration_of
from longflow.tasks.segment.keep_largest import recorded_steps
from longflow.tasks.segment.overlap import with_agreed_absence
from longflow.tasks.segment.probabilities import probability_file, write_probabilities
from tests.inference.helpers import plans_to_segment
from tests.tasks.conftest import GEOMETRY, SHAPE

#: (fold, case, subject)
SCANS = ((0, "a_0", "a"), (0, "a_1", "a"), (1, "b_0", "b"))


def labels(columns, core=1):
    """Ten voxels high; the first ``core`` columns are core."""
    array = np.zeros(SHAPE, np.uint8)
    array[0, :5, :columns] = 1
    array[0, :5, :core] = 2
    return array


def as_certain(model, fold, case, array, whole=255, core=255):
    """Write the probabilities that these labels have, of both regions."""
    volume = np.stack([whole * np.isin(array, (1, 2)), core * (array == 2)]).astype(np.uint8)
    write_probabilities(volume, file_digest(model.fold(fold).final), probability_file(model, fold, case))


#: with the labels of the dataset
PLANS = plans_to_segment({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])


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
                as_certain(model, fold, case, labels(width))
        write_plans(PLANS, model.plans)
        return model

    return write


def test_the_highest_dice_over_structures_and_subjects(paths, train):
    """unet: a 1 and 6 / 7, b 6 / 7; the other: 1 everywhere but for b."""
    train("unet", (4, 3, 3))
    train("unet", (4, 4, 3), configuration="2d")
    best = find_best(paths, processes=1)
    a, b = (1 + np.mean([1, 6 / 7])) / 2, (1 + 6 / 7) / 2
    names = [f"unet__longflowPlans__{name}" for name in ("2d", "3d_fullres")]
    # of both a voxel is the mean, and above one half only where both have it: that of the second
    assert [row["candidate"] for row in best["table"]] == [names[0], names[1], " + ".join(names)]
    for row in best["table"][1:]:
        assert row["dice"] == pytest.approx((a + b) / 2)
        assert row["difference_to_best"] == pytest.approx((a - 1) / 2)
        assert row["dice whole"] == pytest.approx((np.mean([1, 6 / 7]) + 6 / 7) / 2)
        assert row["dice core"] == 1
    assert best["dice"] == pytest.approx((1 + b) / 2)
    assert (best["subjects"], best["scans"], best["folds"]) == (2, 3, [0, 1])
    assert read_json(paths.best) == best
    assert paths.best_table.is_file()


def test_two_models_that_miss_different_parts_are_better_together(paths, train):
    """One misses the left columns and is not sure of the others, the other the right ones: both miss nothing."""
    left, right = train("unet", (4, 4, 4)), train("unet", (4, 4, 4), configuration="2d")
    for fold, case, _ in SCANS:
        for model, missed in ((left, slice(0, 2)), (right, slice(2, 4))):
            array = labels(4)
            array[..., missed] = 0
            write_volume(array, GEOMETRY, "uint8", model.fold(fold).validation("labels") / f"{case}.nii.gz")
            sure, unsure = labels(4), np.full(SHAPE, 0, np.uint8)
            unsure[..., missed] = 1
            volume = np.stack([np.isin(sure, (1, 2)), sure == 2]) * np.where(unsure, 100, 200)
            write_probabilities(
                volume.astype(np.uint8), file_digest(model.fold(fold).final), probability_file(model, fold, case)
            )
    best = find_best(paths, processes=1)
    assert best["candidate"] == f"{right.folder.name} + {left.folder.name}" and best["dice"] == 1.0
    assert [(one.model, one.folds) for one in recorded_best(paths).members] == [(right, (0, 1)), (left, (0, 1))]
    assert best["nested"]["dice"] == 1.0
    assert {one["candidate"] for one in best["nested"]["choices"]} == {best["candidate"]}
    assert len(best["keep_largest"]["weights"]) == 4
    alone = find_best(paths, processes=1, ensembles=False)
    assert alone["candidate"] == left.folder.name or alone["candidate"] == right.folder.name
    assert len(alone["table"]) == 2 and alone["dice"] < 1


def test_models_with_other_labels_are_no_ensemble(paths, train):
    train("unet", (4, 3, 3))
    other = train("unet", (4, 4, 3), configuration="2d")
    write_plans(plans_to_segment(), other.plans)
    assert len(find_best(paths, processes=1)["table"]) == 2


def with_satellite(size=1):
    """Whole, and a component of its own further down."""
    array = labels(4)
    array[0, 7 : 7 + size, 6:8] = 1
    return array


def test_a_satellite_is_removed_where_dice_rises(paths, train, write_labels, monkeypatch):
    model = train("unet", (4, 4, 4))
    for fold, case, _ in SCANS:
        write_labels(model.fold(fold).validation("labels"), case, with_satellite())
    assert find_best(paths, processes=1)["keep_largest"]["steps"] == []  # two subjects say too little
    monkeypatch.setattr("longflow.tasks.segment.keep_largest.FEWEST_SUBJECTS", 2)
    best = find_best(paths, processes=1)
    assert best["keep_largest"]["steps"] == [["whole", "core"]]
    assert best["keep_largest"]["dice"] == 1.0 and best["dice"] < 1
    whole = best["volume_calibration"]["structures"]["whole"]
    assert whole["subjects"] == 2  # volumes are those without it
    assert recorded_steps(paths.best, model.folder.name, best["keep_largest"]["weights"], {"whole": (), "core": ()})


def test_a_satellite_stays_where_the_reference_has_it(paths, train, write_labels, monkeypatch):
    monkeypatch.setattr("longflow.tasks.segment.keep_largest.FEWEST_SUBJECTS", 2)
    model = train("unet", (4, 4, 4))
    for fold, case, _ in SCANS:
        for folder in (paths.raw / "labelsTr", model.fold(fold).validation("labels")):
            write_labels(folder, case, with_satellite())
    best = find_best(paths, processes=1)
    assert best["keep_largest"]["steps"] == [] and best["keep_largest"]["dice"] == best["dice"] == 1.0


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
    found = with_agreed_absence(rows)
    assert [row["dice"] for row in found["careful"]] == [0.5, 1.0, None]
    assert [row["dice"] for row in found["inventive"]] == [0.6, 0.0, None]


def test_a_model_that_invents_is_not_ranked_first(paths, train, write_labels):
    """Of b there is nothing to see: the first model draws nothing; the second draws something, and is better on a."""
    careful, inventive = train("unet", (3, 3, 4)), train("unet", (4, 4, 4), configuration="2d")
    nothing = np.zeros(SHAPE, np.uint8)
    write_labels(paths.raw / "labelsTr", "b_0", nothing)
    write_labels(careful.fold(1).validation("labels"), "b_0", nothing)
    best = find_best(paths, processes=1, ensembles=False)
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
