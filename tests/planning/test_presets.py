import json
from dataclasses import replace

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from longflow.errors import NotFoundError
from longflow.networks.registry import build_network
from longflow.networks.timeresnet import PAPER_BLOCKS, PAPER_FEATURES
from longflow.networks.unet import DECODER_BLOCKS
from longflow.planning.presets import PRESETS, preset
from longflow.planning.spatial import fit_network, own_topologies
from longflow.tasks.segment.planning import NNUNET_BLOCKS, NNUNET_MOST_STAGES
from longflow.tasks.segment.planning import preset as segmentation_preset
from longflow.tasks.translate.planning import preset as translation_preset


def test_features_grow_as_in_the_paper():
    assert preset("tiny").features(4) == [16, 16, 32, 64]
    assert preset("M").features(6) == [32, 32, 64, 128, 256, 256]


def test_sizes_grow():
    memory = [PRESETS[name].gpu_memory for name in ("tiny", "S", "M", "L")]
    assert memory == sorted(memory)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(NotFoundError, match="Did you mean 'tiny'"):
        preset("tinny")


@pytest.mark.parametrize("encoder", ["plain", "residual"])
def test_numbers_of_segmentation_are_those_of_nnunets_planner(encoder, tmp_path, monkeypatch):
    kind = {"plain": default_experiment_planner.ExperimentPlanner, "residual": ResEncUNetPlanner}[encoder]
    name = "Dataset950_MadeUp"
    (tmp_path / name / "imagesTr").mkdir(parents=True)
    (tmp_path / name / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "dataset": {}}))
    (tmp_path / name / "dataset_fingerprint.json").write_text("{}")
    monkeypatch.setattr(default_experiment_planner, "maybe_convert_to_dataset_name", lambda name: name)
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setattr(default_experiment_planner, folder, str(tmp_path))
    planner, size = kind(name), segmentation_preset("M", encoder)
    assert size.gpu_memory == planner.UNet_vram_target_GB
    assert size.base_features == planner.UNet_base_num_features
    assert size.most_features == {2: planner.UNet_max_features_2d, 3: planner.UNet_max_features_3d}
    assert size.batch_size[0] == planner.UNet_min_batch_size
    assert size.dataset_share == planner.max_dataset_covered
    assert NNUNET_BLOCKS[encoder] == planner.UNet_blocks_per_stage_encoder
    assert len(set(planner.UNet_blocks_per_stage_decoder)) == 1
    assert DECODER_BLOCKS[encoder] == planner.UNet_blocks_per_stage_decoder[0]


def test_steps_of_segmentation_are_those_of_nnunets_trainer(tmp_path, monkeypatch):
    for folder in ("nnUNet_results", "nnUNet_preprocessed"):
        monkeypatch.setenv(folder, str(tmp_path))
    plans = {"dataset_name": "Dataset950_MadeUp", "plans_name": "made_up", "continue_training": False}
    plans["configurations"] = {"2d": {"data_identifier": "made_up_2d", "architecture": {}}}
    description = {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    trainer, training = (
        nnUNetTrainer(plans, "2d", 0, description, torch.device("cpu")),
        segmentation_preset("L").training,
    )
    assert (training.epochs, training.iterations_per_epoch) == (trainer.num_epochs, trainer.num_iterations_per_epoch)


def test_a_tiny_segmentation_network_is_small():
    size = segmentation_preset("tiny")
    assert size.features(size.max_stages) == [16, 32, 64, 128]
    assert size.batch_size == (2, 2)
    assert segmentation_preset("S").max_stages == NNUNET_MOST_STAGES
    with pytest.raises(NotFoundError, match="Did you mean 'tiny'"):
        segmentation_preset("tinny")


def test_the_largest_translation_network_is_mfms_and_trains_as_long():
    size = translation_preset("L")
    assert tuple(size.features(size.max_stages, 2)) == PAPER_FEATURES
    assert size.blocks == PAPER_BLOCKS
    assert (size.batch_size, size.more_slices, size.gpu_memory) == ((2, 2), 1, 24)
    steps = size.training.epochs * size.training.iterations_per_epoch
    assert steps == pytest.approx(30 * 34992 / 2, rel=1e-3)  # epochs, slices and batch of the paper
    assert (size.training.learning_rate, size.training.weight_decay) == (2e-5, 0)


@pytest.mark.parametrize(
    ("network", "millions"),
    [("timeresnet", 124.7), ("unet", 104.3), ("segresnet", 214.1), ("swin_unetr", 120.1), ("umamba_bot", 141.6)],
)
def test_with_the_preset_paper_networks_have_the_parameters_of_mfms_tables(network, millions):
    """Table 3, and table 1 for UNet; slices of 512 x 512."""
    size = translation_preset("paper")
    _, plan = fit_network([0.8, 0.8], [512, 512], size)
    with torch.device("meta"):
        built = build_network(network, 1, 1, own_topologies(plan, size).get(network, plan))
    assert sum(one.numel() for one in built.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_the_preset_paper_is_l_but_for_these_networks():
    paper, large = translation_preset("paper"), translation_preset("L")
    assert (paper.name, set(paper.networks), dict(large.networks)) == ("paper", {"unet", "segresnet", "umamba_bot"}, {})
    assert replace(paper, name="L", networks={}) == large


def test_on_small_images_all_networks_of_the_paper_have_fewer_stages():
    size = translation_preset("paper")
    _, plan = fit_network([2, 2], [32, 40], size)
    assert len(plan.strides) == 4
    stages = {name: len(one.strides) for name, one in own_topologies(plan, size).items()}
    assert stages == {"unet": 5, "segresnet": 4, "umamba_bot": 5}


def test_other_tasks_have_no_preset_paper():
    with pytest.raises(NotFoundError, match="paper"):
        preset("paper")


def test_translation_networks_grow_with_the_preset():
    sizes = [translation_preset(name) for name in ("S", "M", "L")]
    assert [size.features(5, 2)[-1] for size in sizes] == [256, 512, 1024]
    tiny = translation_preset("tiny")
    assert tiny.features(tiny.max_stages) == [16, 32, 64, 128]
    assert (tiny.training.learning_rate, tiny.training.ema_decay) == (1e-3, 0.99)
    assert (tiny.batch_size, tiny.more_slices) == ((2, 2), 1)
    with pytest.raises(NotFoundError, match="Did you mean 'tiny'"):
        translation_preset("tinny")
