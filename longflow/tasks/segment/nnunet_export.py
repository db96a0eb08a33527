"""Export a trained segmentation model as a folder that ``nnUNetv2_predict_from_modelfolder`` reads."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longflow.errors import ConfigurationError
from longflow.files import atomic_write, write_json
from longflow.inference.selection import Selection
from longflow.methods.method import Method
from longflow.methods.segmentation.unet import uses_batch_dice
from longflow.methods.weights import load_method
from longflow.networks.unet import UNet, describe_architecture
from longflow.nnunet import IMAGE_RESAMPLING, LABEL_RESAMPLING, LOGITS_RESAMPLING, RESAMPLING_FUNCTION, Resampling
from longflow.plans import ChannelPlan, Plans, read_plans
from longflow.reading import read_json

#: nnU-Net's trainer with the same network, preprocessing and mirroring as a model of longflow
TRAINER = "nnUNetTrainer"

#: intensity limits that clip nothing: the largest numbers of float32
NO_LIMITS = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))


def export_to_nnunet(selection: Selection, output: Path, overwrite: bool = False) -> list[int]:
    """Write ``plans.json``, ``dataset.json`` and ``fold_X/checkpoint_final.pth`` of each selected fold.

    nnU-Net then predicts the same labels as longflow. ``plans.json`` is written last, so that an incomplete folder is
    not taken for a model.

    :param selection: one model and its folds.
    :param output: folder for the model.
    :param overwrite: replace a model in that folder.
    :returns: the exported folds.
    :raises ConfigurationError: the model does not segment, is an ensemble, or the folder holds a model already.
    """
    if len(selection.members) > 1:
        raise ConfigurationError(
            "longflow_find_best chose an ensemble of two models, but a model folder of nnU-Net holds one. Choose one "
            "with -m and -c: "
            + ", ".join(f"-m {one.model.method} -c {one.model.configuration}" for one in selection.members)
        )
    if (output / "plans.json").exists() and not overwrite:
        raise ConfigurationError(
            f"{output} holds a model already. Give another folder with -o, or replace the model with --overwrite."
        )
    (member,) = selection.members
    model, name = member.model, member.model.configuration
    plans = read_plans(model.plans)
    converted = nnunet_plans(plans, name)
    for fold in member.folds:
        method = load_method(model.fold(fold).final, model.method, plans, name)
        _write_weights(method, name, fold, output / f"fold_{fold}" / "checkpoint_final.pth")
    write_json(nnunet_dataset(plans, read_json(model.dataset_json)), output / "dataset.json")
    write_json(converted, output / "plans.json")
    return list(member.folds)


def nnunet_plans(plans: Plans, configuration: str) -> dict[str, Any]:
    """Convert plans to nnU-Net's format, with one configuration alone.

    :param configuration: its name.
    :returns: content of nnU-Net's plans.json.
    :raises ConfigurationError: the plans are not for segmentation, or nnU-Net lacks their normal form.
    """
    if plans.task != "segment":
        raise ConfigurationError(
            f"{plans.dataset_name} is planned for '{plans.task}', but nnU-Net reads only models that segment. Choose a "
            "model that segments with -d and -m."
        )
    plan = plans.configuration(configuration)
    return {
        "dataset_name": plans.dataset_name,
        "plans_name": plans.plans_name,
        "original_median_spacing_after_transp": plan.spacing,
        "original_median_shape_after_transp": [round(size) for size in plan.median_image_size],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": plans.transpose_forward,
        "transpose_backward": plans.transpose_backward,
        "configurations": {
            configuration: {
                "data_identifier": f"{plans.plans_name}_{plan.data_identifier}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": plan.batch_size,
                "patch_size": plan.patch_size,
                "median_image_size_in_voxels": plan.median_image_size[-plan.network.dimensions :],
                # three numbers in 2D too: nnU-Net then resamples between slices, as longflow does
                "spacing": plan.spacing,
                "normalization_schemes": [_scheme(channel) for channel in plans.channels],
                # the statistics of the whole box, see preprocessing/normal_form.py
                "use_mask_for_norm": [False for _ in plans.channels],
                **_resampling("data", IMAGE_RESAMPLING),
                **_resampling("seg", LABEL_RESAMPLING),
                **_resampling("probabilities", LOGITS_RESAMPLING),
                "architecture": describe_architecture(plan.network),
                "batch_dice": uses_batch_dice(plans, configuration),
            }
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(index): _intensities(channel) for index, channel in enumerate(plans.channels)
        },
    }


def nnunet_dataset(plans: Plans, described: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``dataset.json`` for nnU-Net.

    :param described: the dataset's own content. Its further keys are kept; channels, labels and file ending are the
        plans'.
    """
    dataset = {
        **described,
        "channel_names": {str(index): name for index, name in enumerate(plans.channel_names)},
        "labels": plans.labels,
        "file_ending": plans.file_ending,
    }
    return dataset | ({"regions_class_order": plans.regions_class_order} if plans.regions_class_order else {})


def _write_weights(method: Method, configuration: str, fold: int, path: Path) -> None:
    if method.uses_other_scans:
        raise ConfigurationError(
            f"The method '{type(method).__name__}' looks at the other scans of a subject, but nnU-Net segments each "
            "scan by itself. Export a model of unet or unet_consistent (-m)."
        )
    if not method.predicts or not isinstance(getattr(method, "network", None), UNet):
        raise ConfigurationError(
            f"The method '{type(method).__name__}' does not segment with a network of nnU-Net. Export a model of "
            "unet or unet_consistent (-m)."
        )
    content = {
        "network_weights": method.network.unet.state_dict(),
        "trainer_name": TRAINER,
        "init_args": {"configuration": configuration, "fold": fold},
        "inference_allowed_mirroring_axes": (method.configuration.mirrored or None) if method.mirrors else None,
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _scheme(channel: ChannelPlan) -> str:
    if channel.normal_form in ("per_subject", "matched"):
        raise ConfigurationError(
            f"The channel '{channel.name}' has the normal form '{channel.normal_form}', which nnU-Net does not have: "
            "it reads each scan alone. Plan with 'per_scan' or 'absolute' (normalization in dataset.json) and train "
            "again."
        )
    schemes = {"absolute": "CTNormalization", "per_scan": "ZScoreNormalization", "min_max": "RescaleTo01Normalization"}
    return schemes[channel.normal_form]


def _resampling(kind: str, how: Resampling) -> dict[str, Any]:
    """Return nnU-Net's entries for one kind of volume."""
    return {f"resampling_fn_{kind}": RESAMPLING_FUNCTION, f"resampling_fn_{kind}_kwargs": asdict(how)}


def _intensities(channel: ChannelPlan) -> dict[str, float]:
    """Return what CTNormalization reads: limits, mean and standard deviation; other channels need none."""
    low, high = channel.clip or NO_LIMITS
    return {
        "mean": channel.offset or 0.0,
        "std": channel.scale or 1.0,
        "percentile_00_5": low,
        "percentile_99_5": high,
    }
