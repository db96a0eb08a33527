import numpy as np
import pytest
import torch

from longflow.errors import ConfigurationError
from longflow.methods.registry import build_method, method_class, named_with_network, network_of
from longflow.networks.timeresnet import PAPER_BLOCKS, PAPER_FEATURES
from longflow.planning import plan as planning
from longflow.planning.memory import training_memory
from longflow.planning.plan import make_plans
from longflow.plans import ConfigurationPlan, read_plans, write_plans
from longflow.task import get_task
from tests.planning.helpers import description, fingerprint, phase_fingerprint

CINE = [[float(frame) for frame in range(6)]] * 3


@pytest.fixture
def quick_memory(monkeypatch):
    """Voxels of a batch times 4 kB instead of a training step."""

    def voxels(method, plans, configuration, device, bf16):
        plan = plans.configuration(configuration)
        return float(np.prod(plan.patch_size) * plan.batch_size * 4000)

    monkeypatch.setattr(planning, "training_memory", voxels)


def test_plans_are_valid_and_survive_the_disk(tmp_path, quick_memory):
    plans = make_plans(fingerprint(CINE, [9, 250, 216], [10, 1.5, 1.5], "frames"), description("frames"), "tiny")
    write_plans(plans, tmp_path / "plans.json")
    assert read_plans(tmp_path / "plans.json") == plans
    assert plans.temporal.sequence_length == 5
    assert plans.channels[0].normal_form == "per_subject"
    for plan in plans.configurations.values():
        assert plan.reasons
        assert set(plan.memory_estimate) == set(get_task("forecast").planned_methods(plans, True))
        assert max(plan.memory_estimate.values()) <= plans.gpu_memory


def test_more_memory_gives_larger_patches(quick_memory):
    found = fingerprint(CINE, [64, 256, 256], [3, 1, 1])
    small, large = (make_plans(found, description(), "M", memory).configurations["3d_fullres"] for memory in (4, 16))
    assert np.prod(small.patch_size) < np.prod(large.patch_size)


def test_the_preset_gives_the_memory(quick_memory):
    found = fingerprint(CINE, [16, 64, 64], [3, 1, 1])
    assert make_plans(found, description(), "S").gpu_memory == 4
    assert make_plans(found, description(), "L").training.epochs == 1000


def test_the_real_estimate_fits_the_budget():
    found = fingerprint([[0.0, 1]] * 3, [6, 64, 64], [10, 1.5, 1.5])
    plans = make_plans(found, description(), "tiny", gpu_memory=0.05)
    for plan in plans.configurations.values():
        assert max(plan.memory_estimate.values()) <= 0.05
    assert plans.configurations["3d_fullres"].patch_size != [6, 64, 64]


class TestSegment:
    """Plans of the task segment."""

    LABELS = {"background": 0, "anterior": 1, "posterior": 2}  # noqa: RUF012

    def test_one_scan_of_each_subject_is_enough(self, quick_memory):
        found = fingerprint([[0.0]] * 9, [35, 50, 35], [1, 1, 1], "visits")
        plans = make_plans(found, description("visits", task="segment", labels=self.LABELS), "tiny")
        plan = plans.configurations["3d_fullres"]
        assert plans.labels == self.LABELS
        # the patch that nnU-Net itself plans for these images
        assert plan.patch_size == [40, 56, 40]
        assert plan.network.features_per_stage == [16, 32, 64, 128]
        assert (plan.network.encoder, plan.network.attention) == ("plain", False)
        assert set(plan.memory_estimate) == {"unet"}
        assert plans.training.epochs < 1000

    def test_pairs_are_planned_for_where_there_are_some(self, quick_memory):
        found = fingerprint([[0.0, 1], [0]], [16, 32, 32], [1, 1, 1])
        plans = make_plans(found, description(task="segment", labels=self.LABELS), "tiny")
        assert set(plans.configurations["2d"].memory_estimate) == set(get_task(plans.task).planned_methods(plans, True))
        assert "unet_consistent" in plans.configurations["2d"].memory_estimate
        assert plans.temporal.time_scale == 1

    def test_labels_are_not_needed(self, quick_memory):
        found = fingerprint([[0.0, 1]] * 3, [16, 32, 32], [1, 1, 1])
        for labels in ({}, {"background": 0}):
            plans = make_plans(found, description(task="segment", labels=labels), "tiny")
            methods = set(plans.configurations["3d_fullres"].memory_estimate)
            assert not methods & {"unet", "unet_consistent"}

    def test_mirroring_is_not_for_the_smallest(self, quick_memory):
        found = fingerprint([[0.0, 1]] * 3, [16, 32, 32], [1, 1, 1])
        requested = description(task="segment", labels=self.LABELS)
        for name, mirrors in (("tiny", False), ("S", True)):
            plans = make_plans(found, requested, name)
            assert build_method("unet", plans, "3d_fullres").mirrors is mirrors

    def test_what_predicts_decides_the_patch_and_pretraining_beyond_it_is_said(self, monkeypatch):
        """Projectors of a set size must not shrink the patch of the network that they are thrown away from."""
        size = {"unet": 0.2, "unet_consistent": 0.8, "unet_longitudinal": 1.2, "spatiotemporal": 1.6}
        monkeypatch.setattr(planning, "training_memory", lambda method, *_: size[method] * planning.GB)
        found = fingerprint([[0.0, 1]] * 3, [16, 32, 32], [1, 1, 1])
        plan = make_plans(found, description(task="segment", labels=self.LABELS), "tiny").configurations["3d_fullres"]
        assert plan.patch_size == [16, 32, 32] and plan.memory_estimate == size
        assert any("'unet_longitudinal' takes 1.20 GB" in reason and "other_scans" in reason for reason in plan.reasons)
        assert not any("unet_consistent" in reason for reason in plan.reasons)
        assert any("'spatiotemporal' takes 1.60 GB, more than the 1 GB" in reason for reason in plan.reasons)

    def test_unet_decides_the_patch_also_where_there_are_pairs(self, monkeypatch):
        """unet_consistent takes the memory of unet, so that its patch is nnU-Net's, too."""
        size = {"unet": 1, "unet_consistent": 100, "unet_longitudinal": 100, "spatiotemporal": 100}
        monkeypatch.setattr(planning, "training_memory", lambda method, *_: size[method] * 1e8)
        requested = description(task="segment", labels=self.LABELS)
        alone, pairs = (
            make_plans(fingerprint(times, [35, 50, 35], [1, 1, 1]), requested, "tiny").configurations["3d_fullres"]
            for times in ([[0.0]] * 9, [[0.0, 1]] * 9)
        )
        assert pairs.patch_size == alone.patch_size == [40, 56, 40]

    def test_regions_need_their_order(self):
        found = fingerprint([[0.0]] * 3, [16, 32, 32], [1, 1, 1])
        regions = {"background": 0, "whole": [1, 2], "core": [2]}
        with pytest.raises(ConfigurationError, match="regions_class_order"):
            make_plans(found, description(task="segment", labels=regions), "tiny")

    @pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "b": 3}, {"a": 1}])
    def test_labels_that_cannot_be(self, labels):
        found = fingerprint([[0.0]] * 3, [16, 32, 32], [1, 1, 1])
        with pytest.raises(ConfigurationError, match="counted without a gap"):
            make_plans(found, description(task="segment", labels=labels), "tiny")

    def test_residual_encoder_and_full_depth(self, quick_memory):
        found = fingerprint([[0.0]] * 40, [128, 128, 128], [1, 1, 1])
        requested = description(task="segment", labels=self.LABELS)
        plans = make_plans(found, requested, "M", gpu_memory=40, encoder="residual")
        network = plans.configurations["3d_fullres"].network
        assert (network.encoder, network.blocks_per_stage) == ("residual", [1, 3, 4, 6, 6, 6])
        assert network.features_per_stage == [32, 64, 128, 256, 320, 320]
        assert (plans.training.epochs, plans.training.iterations_per_epoch) == (1000, 250)
        assert plans.identity("3d_fullres") != make_plans(found, requested, "M", gpu_memory=40).identity("3d_fullres")

    def test_an_encoder_is_no_matter_of_forecasts(self):
        found = fingerprint(CINE, [16, 32, 32], [1, 1, 1])
        with pytest.raises(ConfigurationError, match="--encoder residual has no meaning"):
            make_plans(found, description(), "tiny", encoder="residual")

    @pytest.mark.parametrize(
        "labels", [LABELS, {**LABELS, "ignore": 3}, {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}]
    )
    def test_the_real_estimate_fits_the_budget(self, labels):
        order = [1, 2] if "whole" in labels else []
        requested = description(task="segment", labels=labels, regions_class_order=order)
        found = fingerprint([[0.0]] * 3, [16, 16, 16], [1, 1, 1])
        plans = make_plans(found, requested, "tiny", gpu_memory=0.05)
        assert 0 < plans.configurations["3d_fullres"].memory_estimate["unet"] <= 0.05
        assert plans.labels == labels


class TestTranslate:
    """Plans of the task translate."""

    CT = description(names=("CT",), task="translate")

    def test_the_papers_setting(self, quick_memory):
        plans = make_plans(phase_fingerprint([100, 512, 512], [2.5, 0.75, 0.75]), self.CT, "L")
        slices = plans.configurations["2d"]
        assert (slices.patch_size, slices.batch_size, slices.own_grid) == ([512, 512], 2, True)
        assert slices.network.features_per_stage == list(PAPER_FEATURES)
        assert slices.network.blocks_per_stage == list(PAPER_BLOCKS)
        assert slices.network.kernel_sizes == [[3, 3]] * 5
        assert (plans.training.learning_rate, plans.training.weight_decay) == (2e-5, 0)
        assert (plans.inference.solver, plans.inference.steps, plans.inference.mirror) == ("heun2", 1, None)
        assert (plans.channels[0].offset, plans.channels[0].scale) == (0, 1000)
        parameters = sum(one.numel() for one in build_method("mfm", plans, "2d").parameters())
        assert 120e6 < parameters < 130e6

    def test_the_smallest_sees_whole_slices_on_a_cpu(self, quick_memory):
        plans = make_plans(phase_fingerprint([1, 256, 256], [5, 1, 1]), self.CT, "tiny")
        plan = plans.configurations["2d"]
        assert plan.network.features_per_stage == [16, 32, 64, 128]
        plan.patch_size = [256, 256]
        assert training_memory("mfm", plans, "2d", batch_size=2) <= plans.gpu_memory * planning.GB

    def test_phases_survive_the_disk_and_are_part_of_the_identity(self, tmp_path, quick_memory):
        found = phase_fingerprint([20, 64, 64], [5, 1, 1])
        plans = make_plans(found, self.CT, "tiny")
        write_plans(plans, tmp_path / "plans.json")
        assert read_plans(tmp_path / "plans.json") == plans
        assert plans.phases == ["native", "arterial"]
        found.phases.names.reverse()
        assert make_plans(found, self.CT, "tiny").identity("2d") != plans.identity("2d")

    def test_every_network_is_estimated_and_the_default_one_decides(self, monkeypatch):
        needed = dict.fromkeys(get_task("translate").planned_methods(None, True), 0.1 * planning.GB)
        needed["mfm-swin_unetr"] = 3 * planning.GB
        monkeypatch.setattr(planning, "training_memory", lambda method, *_: needed[method])
        plan = make_plans(phase_fingerprint([20, 64, 64], [5, 1, 1]), self.CT, "tiny").configurations["2d"]
        assert plan.patch_size == [64, 64]
        smaller = {"timeresnet_without_attention"}  # than the default
        assert set(plan.memory_estimate) == {
            named_with_network("mfm", network) for network in set(method_class("mfm").networks) - smaller
        }
        assert plan.reasons[-1] == (
            "With other networks (--network): unet 0.10 GB, segresnet 0.10 GB, swin_unetr 3.00 GB, umamba_bot 0.10 GB; "
            "where there is not as much, set a smaller batch_size or patch_size in the plans."
        )

    @pytest.mark.parametrize("method", get_task("translate").planned_methods(None, True))
    def test_the_estimate_of_every_network_is_real(self, method, quick_memory):
        plans = make_plans(phase_fingerprint([1, 32, 32], [5, 1, 1]), self.CT, "tiny")
        weights = sum(4 * one.numel() for one in build_method(method, plans, "2d").parameters())
        assert 4 * weights < training_memory(method, plans, "2d") < planning.GB

    def test_networks_of_the_papers_size_are_planned_estimated_and_built(self, tmp_path, monkeypatch):
        """Each with its own topology, which is part of the identity of the plan."""
        seen = {}

        def remember(method, plans, name, *_):
            seen[method] = plans.configuration(name).topology(network_of(method)[1]).features_per_stage[0]
            return 0.1 * planning.GB

        monkeypatch.setattr(planning, "training_memory", remember)
        found = phase_fingerprint([20, 64, 64], [5, 1, 1])
        plans = make_plans(found, self.CT, "paper")
        assert plans.preset == "paper" and plans.configurations["2d"].network.features_per_stage[0] == 64
        assert seen["mfm-segresnet"] == 88 and seen["mfm"] == seen["mfm-unet"] == 64
        with torch.device("meta"):
            network = build_method("mfm-segresnet", plans, "2d").network
        assert network.segresnet.init_filters == 88
        write_plans(plans, tmp_path / "plans.json")
        assert read_plans(tmp_path / "plans.json") == plans
        other = plans.model_copy(deep=True)
        other.configurations["2d"].networks = {}
        assert other.identity("2d") != plans.identity("2d")

    def test_a_network_of_another_number_of_axes_is_refused(self, quick_memory):
        plans = make_plans(phase_fingerprint([20, 64, 64], [5, 1, 1]), self.CT, "tiny")
        content = plans.configurations["2d"].model_dump()
        content["networks"] = {"unet": plans.configurations["3d_fullres"].network.model_dump()}
        with pytest.raises(ValueError, match="'unet' has strides of 3 axes, expected 2"):
            ConfigurationPlan.model_validate(content)

    def test_an_encoder_is_no_matter_of_translations(self):
        with pytest.raises(ConfigurationError, match="--encoder residual has no meaning"):
            make_plans(phase_fingerprint([8, 32, 32], [5, 1, 1]), self.CT, "tiny", encoder="residual")
