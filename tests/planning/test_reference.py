from pathlib import Path

import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError, DataError
from longflow.fingerprint.covariates import CovariateFingerprint
from longflow.methods.registry import SAMPLES, build_method
from longflow.planning.reference import grid_of_length, plans_of_reference
from longflow.plans import Plans, read_plans, write_plans
from tests.planning.helpers import description, fingerprint, phase_fingerprint

PLANS = Path(__file__).parents[2] / "plans"
FRAMES = [[frame / 30 for frame in range(30)]] * 3

#: context scans, patch, batch size, learning rate, (z, y, x) after transposition: plans/README.md says from where
PAPERS = {
    "acdc": (11, [32, 128, 128], 4, 1e-4),
    "isles24": (7, [16, 128, 128], 4, 1e-4),
    "lumiere": (7, [96, 96, 64], 4, 1e-4),
    "oasis3": (1, [128, 128, 128], 3, 2e-4),
    "abdominal_ct": (1, [512, 512], 2, 2e-5),
}
#: what each of them is for
METHODS = {
    **dict.fromkeys(("acdc", "isles24", "lumiere"), ("cronos", "cronos_discrete", "tfm")),
    "oasis3": ("spatiotemporal",),
    "abdominal_ct": ("mfm", "mfm-unet"),
}


def only(plans: Plans):
    (plan,) = plans.configurations.values()
    return plan


@pytest.mark.parametrize("name", PAPERS)
def test_reference_plans_have_the_papers_sizes(name):
    plans = read_plans(PLANS / f"{name}.json")
    plan = only(plans)
    found = plans.temporal.sequence_length, plan.patch_size, plan.batch_size, plans.training.learning_rate
    assert found == PAPERS[name]
    assert plans.temporal.grid.length == plans.temporal.sequence_length


def test_training_has_as_many_steps_as_the_papers_say():
    oasis, abdomen = (read_plans(PLANS / f"{name}.json").training for name in ("oasis3", "abdominal_ct"))
    assert oasis.epochs * oasis.iterations_per_epoch == 35_000
    assert (abdomen.epochs, abdomen.iterations_per_epoch) == (30, 34_992 // 2)


@pytest.mark.parametrize(("name", "method"), [(name, one) for name, methods in METHODS.items() for one in methods])
def test_methods_are_built_of_reference_plans(name, method):
    plans = read_plans(PLANS / f"{name}.json")
    with torch.device("meta"):
        built = build_method(method, plans, next(iter(plans.configurations)))
    assert sum(parameter.numel() for parameter in built.parameters()) > 1e5


def test_pairs_and_widths_of_oasis3_are_those_of_the_paper_and_its_code():
    plans = read_plans(PLANS / "oasis3.json")
    plan = only(plans)
    assert (plan.pairs_per_batch, plan.batch_size, plans.training.shared_intensity) == (3, 3, True)
    assert plan.network.features_per_stage == [16, 32, 64, 128, 256]
    batch = SAMPLES.get("labelled_pairs").largest_batch(
        plans.model_copy(update={"labels": {"background": 0, "a": 1}}), *plans.configurations, 3
    )
    assert batch.image.shape[0] == batch.pair.shape[0] == 3


def test_networks_of_cronos_are_as_in_its_appendix():
    network = only(read_plans(PLANS / "acdc.json")).network
    assert network.features_per_stage == [32, 32, 64, 128]
    assert network.strides == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


def test_images_are_resized_to_the_patch_and_times_are_those_of_the_data():
    found = fingerprint(FRAMES, [10, 200, 256], [9.6, 1.6, 1.5], unit="cycles")
    plans = plans_of_reference(PLANS / "acdc.json", found, description("cycles", ("cine MRI",)))
    plan = plans.configuration("3d_fullres")
    np.testing.assert_allclose(plan.spacing, [96 / 32, 320 / 128, 384 / 128])
    assert plan.median_image_size == [32, 128, 128] and plan.patch_size == [32, 128, 128]
    assert (plans.dataset_name, plans.plans_name) == ("Dataset950_MadeUp", "acdc")
    assert (plans.temporal.time_scale, plans.temporal.longest_span) == pytest.approx((1 / 30, 29 / 30))
    assert plans.temporal.grid.spacing == pytest.approx(1 / 30)
    assert plans.channels[0].normal_form == "per_subject"
    assert plans.temporal.reasons[1] == "Sequence length 11: as in acdc.json."
    # every frame lies on it, but 22 are drawn from and 11 have a slot
    assert not plans.temporal.regular and plans.temporal.grid.clipped > 0.25
    assert plans.temporal.reasons[-1].startswith("Irregular: scans lie 0.0% of Δ from the grid")


def test_a_reference_has_the_conditions_that_dataset_json_names_and_no_others():
    found = fingerprint(FRAMES, [10, 200, 256], [9.6, 1.6, 1.5], unit="cycles")
    assert plans_of_reference(PLANS / "acdc.json", found, description("cycles", ("MRI",))).temporal.period is None
    age = {"name": "age", "scans": 60, "known": 60, "mean": 61, "standard_deviation": 9, "minimum": 40, "maximum": 82}
    found = found.model_copy(update={"covariates": [CovariateFingerprint(**age)]})
    named = description("cycles", ("MRI",), period=1, covariates=["age"])
    plans = plans_of_reference(PLANS / "acdc.json", found, named)
    assert plans.temporal.period == 1 and plans.covariates[0].mean == 61


def test_axes_are_in_the_order_of_the_reference():
    found = fingerprint([[0, 0.5, 12, 30]] * 3, [182, 218, 160], [1, 1, 1], unit="weeks")
    plans = plans_of_reference(PLANS / "lumiere.json", found, description("weeks", ("CT1",)))
    np.testing.assert_allclose(only(plans).spacing, [160 / 96, 218 / 96, 182 / 64])
    assert plans.transpose_forward == [2, 1, 0] and plans.channels[0].normal_form == "per_scan"
    assert plans.temporal.sequence_length == 7  # the paper's, though three contexts are the most there are


def test_crops_have_the_spacing_of_nnunet_and_labels_those_of_the_data(tmp_path):
    found = fingerprint([[0, 400]] * 3, [160, 256, 240], [1.2, 1, 1])
    labels = {"background": 0, "hippocampus": 1}
    plans = plans_of_reference(PLANS / "oasis3.json", found, description(task="segment", labels=labels))
    np.testing.assert_allclose(only(plans).spacing, [1.2, 1, 1])
    assert only(plans).median_image_size == [160, 256, 240] and plans.labels == labels
    with torch.device("meta"):
        network = build_method("unet_consistent", plans, "3d_fullres").state_dict()
    assert any(tensor.shape[:1] == (2,) for tensor in network.values())
    write_plans(plans, tmp_path / "plans.json")
    assert read_plans(tmp_path / "plans.json") == plans


def test_slices_keep_their_grid_and_phases_are_those_of_the_data():
    found = phase_fingerprint([80, 500, 500], [2.5, 0.8, 0.8])
    plans = plans_of_reference(PLANS / "abdominal_ct.json", found, description(names=("CT",), task="translate"))
    plan = only(plans)
    assert plan.own_grid and plan.spacing == [2.5, 0.8, 0.8] and plan.patch_size == [512, 512]
    assert plans.phases == ["native", "arterial"] and plans.channels[0].clip == (-1000, 1000)


def test_two_configurations_of_one_resolution_share_its_spacing():
    found = fingerprint([[0, 40, 90, 120]] * 3, [24, 128, 128], [4, 1.1, 1.1], unit="ms")
    plans = plans_of_reference(PLANS / "phantom_tiny.json", found, description("ms", ("MR",)))
    assert list(plans.configurations) == ["2d", "3d_fullres"]
    np.testing.assert_allclose(plans.configuration("2d").spacing, [8, 2.2, 2.2])
    assert plans.configuration("2d").spacing == plans.configuration("3d_fullres").spacing


def test_the_grid_of_a_length_costs_least():
    days = [np.array([0.0, 28, 56, 84, 112]), np.array([0.0, 56, 84])]
    grid = grid_of_length(days, scale=28, scans=4, length=4)
    assert (grid.spacing, grid.length, grid.overwritten, grid.clipped, grid.rounding_error) == (28, 4, 0, 0, 0)
    single = grid_of_length([np.array([0.0, 30]), np.array([0.0, 90])], scale=60, scans=3, length=3)
    assert (single.spacing, single.length, single.filled) == (60, 3, 0)


def test_a_reference_that_cannot_be_used(tmp_path):
    found = fingerprint(FRAMES, [10, 200, 256], [10, 1.5, 1.5])
    with pytest.raises(ConfigurationError, match=r"oasis3.json is for the task 'segment', but .* 'forecast'"):
        plans_of_reference(PLANS / "oasis3.json", found, description())
    with pytest.raises(DataError, match="does not exist"):
        plans_of_reference(tmp_path / "acdc.json", found, description())
    with pytest.raises(DataError, match="nothing to forecast"):
        plans_of_reference(PLANS / "acdc.json", fingerprint([[0.0]] * 2, [9, 9, 9], [1, 1, 1]), description())
