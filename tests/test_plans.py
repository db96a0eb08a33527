import copy
import json
from pathlib import Path

import pytest

from longflow.errors import ConfigurationError, DataError, NotFoundError
from longflow.plans import Plans, read_plans, write_plans
from tests.methods.helpers import minimal_plans

AGE = {"name": "age", "mean": 60, "standard_deviation": 9, "minimum": 40, "maximum": 80}
CONTENT = {
    "dataset_name": "Dataset101_Cine",
    "plans_name": "longflowPlans",
    "task": "forecast",
    "preset": "tiny",
    "gpu_memory": 8,
    "channel_names": ["T1"],
    "file_ending": ".nii.gz",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "temporal": {
        "time_unit": "days",
        "time_scale": 30,
        "sequence_length": 3,
        "shortest_interval": 10,
        "longest_span": 90,
        "longest_horizon": 80,
        "grid": {
            "spacing": 30,
            "length": 4,
            "overwritten": 0,
            "rounding_error": 0.1,
            "filled": 0.2,
            "clipped": 0,
            "score": 0.3,
        },
        "regular": False,
        "reasons": ["the median interval is 30 days"],
    },
    "channels": [{"name": "T1", "normal_form": "per_scan", "reason": "separate visits"}],
    "configurations": {
        "3d_fullres": {
            "data_identifier": "3d_fullres",
            "spacing": [5, 1.5, 1.5],
            "median_image_size": [6, 64, 64],
            "patch_size": [8, 64, 64],
            "batch_size": 2,
            "network": {
                "features_per_stage": [16, 32, 64],
                "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                "attention": False,
            },
        }
    },
    "training": {"epochs": 10, "iterations_per_epoch": 5, "learning_rate": 1e-4},
}


def edited(path, value):
    """CONTENT with one value changed (or, for None, removed); ``path`` is dotted."""
    content = copy.deepcopy(CONTENT)
    *folders, last = path.split(".")
    place = content
    for key in folders:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def read_edited(tmp_path, path, value, **changes):
    (tmp_path / "plans.json").write_text(json.dumps({**edited(path, value), **changes}))
    return read_plans(tmp_path / "plans.json")


def test_a_2d_patch_is_a_slice_of_a_volume():
    plan = Plans.model_validate(CONTENT).configurations["3d_fullres"]
    assert plan.tile == (8, 64, 64)
    assert plan.model_copy(update={"patch_size": [64, 32]}).tile == (1, 64, 32)


def test_plans_are_read_back(tmp_path):
    plans = Plans.model_validate(CONTENT)
    write_plans(plans, tmp_path / "plans.json")
    assert read_plans(tmp_path / "plans.json") == plans
    assert plans.inference.steps == 10 and plans.version == "1"


FULL = "configurations.3d_fullres"
EACH_STAGE = ("features_per_stage", "strides", "kernel_sizes")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.epoch", 10, "training.epoch: this key is not known; a typo"),
        ("training.epochs", None, "training.epochs: missing"),
        ("training.epochs", 0, r"training.epochs: .*greater than or equal to 1 \(found: 0\)"),
        ("training.learning_rate", "fast", r"training.learning_rate: .*number.* \(found: 'fast'\)"),
        ("preset", "huge", r"preset: .*'tiny', 'S', 'M', 'L' or 'paper' \(found: 'huge'\)"),
        ("temporal.time_unit", "fortnights", "temporal.time_unit: .*'days'"),
        ("temporal.time_scale", 0, "temporal.time_scale: .*greater than 0"),
        ("temporal.grid.filled", 1.5, "temporal.grid.filled: .*less than or equal to 1"),
        ("version", "2", "version: .*'1'"),
        ("inference", {"solver": "eular"}, r"inference.solver: .*'euler'.* \(found: 'eular'\)"),
        (f"{FULL}.patch_size", [8, 64, 66], r"not divisible .* along axis 2 \(4\); the next possible size there is 68"),
        (f"{FULL}.patch_size", [64, 64], r"patch_size \[64, 64\] has 2 axes, but the network's strides have 3"),
        (f"{FULL}.spacing", [5, 1.5], "spacing: .*at least 3"),
        (f"{FULL}.network.features_per_stage", [16, 32], "one entry per stage, but have 2, 3 and 3"),
        (f"{FULL}.network.features_per_stage", [16, 32, 60], r"multiples of 8 .*\[16, 32, 60\]"),
        (f"{FULL}.patch_size", [10**9, 64, 64], "patch_size.0: .*less than or equal to 10000"),
        (f"{FULL}.patch_size", [8192, 8192, 64], "patch_size .* has more than 536870912 voxels"),
        (f"{FULL}.batch_size", 10**9, "batch_size: .*less than or equal to 10000"),
        (f"{FULL}.network.features_per_stage", [16, 32, 10**9], "features_per_stage.2: .*less than or equal to 10000"),
        (f"{FULL}.network.blocks_per_stage", [1, 1, 10**4], "at most 16 stages of 100 blocks"),
        ("inference", {"steps": 10**9}, "inference.steps: .*less than or equal to 10000"),
        ("inference", {"tile_step_size": 1e-9}, "inference.tile_step_size: .*greater than or equal to 0.01"),
        ("temporal.grid.length", 10**9, "temporal.grid.length: .*less than or equal to 10000"),
        ("temporal.sequence_length", 10**9, "temporal.sequence_length: .*less than or equal to 10000"),
        ("labels", {str(label): label for label in range(5000)}, "labels: .*at most 4096 items"),
        ("channels.0.normal_form", "absolute", "needs numbers for offset and scale"),
        (f"{FULL}.data_identifier", "../../elsewhere", "data_identifier: expected letters, digits"),
        ("phases", ["native", "../../x"], "phases: .*without slashes"),
        ("phases", ["native", "arterial\n"], "phases: .*control characters"),
        ("phases", ["native", "a" * 41], "phases: .*at most 40 bytes"),
        ("phases", ["native"], "phases: .*two different names"),
        ("channel_names", ["T1\x1b[2J"], "channel_names.0: .*without control characters"),
        ("labels", {"a" * 161: 1}, "labels.*at most 160 bytes"),
        ("dataset_name", "../x", "dataset_name: .*without slashes"),
        ("plans_name", "x/y", "plans_name: .*without slashes"),
        ("file_ending", "/../x", "file_ending: .*without slashes"),
        ("file_ending", ".nii\0", "file_ending: .*control characters"),
        (f"{FULL}.data_identifier", "3d\n", "data_identifier: expected letters, digits"),
        (f"{FULL}.data_identifier", "a" * 300, "data_identifier: .*at most 160"),
        ("transpose_forward", [0, 0, 1], "transpose_forward needs the axes 0, 1 and 2, each once"),
        ("transpose_backward", [0, 1, 5], "transpose_backward must undo it"),
        ("transpose_forward", [1, 2, 0], r"must undo it; found \[1, 2, 0\] and \[0, 1, 2\]"),
        ("channels", [], "one entry for each of channel_names: found 0 and 1"),
        ("gpu_memory", "inf", "gpu_memory: .*finite number"),
        ("temporal.time_scale", "nan", "temporal.time_scale: .*number"),
        (
            f"{FULL}.network",
            {**CONTENT["configurations"]["3d_fullres"]["network"], "strides": []},
            "one entry per stage",
        ),
        (f"{FULL}.network.strides", [[1, 1, 1], [1, 2], [2, 2, 2]], "one number per axis, 2 or 3"),
        (
            f"{FULL}.network",
            {**CONTENT["configurations"]["3d_fullres"]["network"], **{key: [] for key in EACH_STAGE}},
            "features_per_stage: .*at least 1 item",
        ),
        (
            "configurations.3d/full",
            CONTENT["configurations"]["3d_fullres"],
            "configurations.3d/full.*: expected letters, digits",
        ),
    ],
)
def test_an_edit_that_makes_no_sense_has_a_message_with_key_and_allowed_values(tmp_path, path, value, message):
    with pytest.raises(ConfigurationError, match=f"(?s)plans.json holds values that cannot be used.*{message}"):
        read_edited(tmp_path, path, value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{FULL}.mirror_axes", [0, 3], r"mirror_axes.1: .*less than or equal to 2 \(found: 3\)"),
        (f"{FULL}.mirror_axes", [1, 1], r"each of the patch's axes 0 to 2 at most once; found \[1, 1\]"),
        (f"{FULL}.pairs_per_batch", 0, "pairs_per_batch: .*greater than or equal to 1"),
        ("training.shared_intensity", "perhaps", "shared_intensity: .*boolean"),
    ],
)
def test_impossible_samples_of_scans(tmp_path, path, value, message):
    with pytest.raises(ConfigurationError, match=f"(?s)plans.json holds values that cannot be used.*{message}"):
        read_edited(tmp_path, path, value, task="segment")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{FULL}.mirror_axes", []),
        (f"{FULL}.pairs_per_batch", 2),
        (f"{FULL}.other_scans", 3),
        ("training.shared_intensity", True),
    ],
)
def test_samples_of_scans_are_no_matter_of_forecasts(tmp_path, path, value):
    name = path.rpartition(".")[2]
    with pytest.raises(ConfigurationError, match=f"{name} can only be set for the task 'segment', not 'forecast'"):
        read_edited(tmp_path, path, value)
    assert read_edited(tmp_path, path, value, task="segment").task == "segment"


def test_mirrored_axes_and_pairs_by_default():
    """All axes, as nnU-Net; half of the batch, at least one pair."""
    plan = Plans.model_validate(CONTENT).configurations["3d_fullres"]
    assert (plan.mirrored, plan.pairs) == ((0, 1, 2), 1)
    edited_plan = plan.model_copy(update={"mirror_axes": [2, 0], "batch_size": 5})
    assert (edited_plan.mirrored, edited_plan.pairs) == ((0, 2), 2)


def test_all_problems_are_listed(tmp_path):
    content = edited("training.epochs", 0)
    content["gpu_memory"] = -1
    (tmp_path / "plans.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"(?s)gpu_memory.*training\.epochs"):
        read_plans(tmp_path / "plans.json")


def test_a_message_is_short_however_many_values_are_wrong(tmp_path):
    content = {**CONTENT, "channel_names": [1] * 1000, "labels": {"x" * 10_000: "y" * 10_000}}
    (tmp_path / "plans.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"and [0-9]+ more") as raised:
        read_plans(tmp_path / "plans.json")
    assert len(str(raised.value)) < 5000


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite(tmp_path, text):
    (tmp_path / "plans.json").write_text(json.dumps(edited("gpu_memory", 1234.5)).replace("1234.5", text))
    with pytest.raises(DataError, match=f"{text}, expected a finite number"):
        read_plans(tmp_path / "plans.json")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(DataError, match=r"does not exist. longflow_plan_and_preprocess makes"):
        read_plans(tmp_path / "plans.json")
    (tmp_path / "plans.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_plans(tmp_path / "plans.json")


def test_an_unknown_configuration_names_the_nearest():
    with pytest.raises(NotFoundError, match="Did you mean '3d_fullres'"):
        Plans.model_validate(CONTENT).configuration("3d_fulres")


def test_a_network_of_many_stages_is_refused(tmp_path):
    content = json.loads(json.dumps(CONTENT))
    network, stages = content["configurations"]["3d_fullres"]["network"], 10**4
    network |= {"features_per_stage": [8] * stages, "strides": [[1] * 3] * stages, "kernel_sizes": [[3] * 3] * stages}
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="at most 16 stages"):
        read_plans(path)


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("training.epochs", 99, True),
        ("gpu_memory", 80, True),
        ("inference", {"steps": 2}, True),
        (f"{FULL}.batch_size", 4, True),
        ("temporal.reasons", ["others"], True),
        ("temporal.time_scale", 31, False),
        (f"{FULL}.patch_size", [8, 32, 32], False),
        (f"{FULL}.network.features_per_stage", [16, 32, 72], False),
        ("channels.0.normal_form", "per_subject", False),
        ("temporal.period", 400, False),
        ("covariates", [], True),
        ("covariates", [AGE], False),
        ("excluded_covariates", {"sex": "constant"}, True),
    ],
)
def test_identity_changes_with_what_a_trained_network_depends_on(path, value, same):
    one = Plans.model_validate(CONTENT).identity("3d_fullres")
    other = Plans.model_validate(edited(path, value)).identity("3d_fullres")
    assert (one == other) is same


def test_a_period_changes_the_identity_but_that_of_plans_without_one_is_what_it_was():
    plans = Plans.model_validate(CONTENT)
    assert "period" not in plans.temporal.numbers() and plans.temporal.period is None
    periodic = plans.model_copy(update={"temporal": plans.temporal.model_copy(update={"period": 60.0})})
    assert periodic.identity("3d_fullres") != plans.identity("3d_fullres")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "plans").glob("*.json")), ids=lambda path: path.name
)
def test_reference_plans_are_valid_and_explained(path):
    plans = read_plans(path)
    assert plans.temporal.reasons
    assert path.name in (path.parent / "README.md").read_text()


def test_plans_of_earlier_versions_keep_the_identity_that_stands_in_their_checkpoints():
    """Computed with the version before a plan could have a period and covariates."""
    assert minimal_plans().identity("3d_fullres") == "eea8ba7cb6757826"
