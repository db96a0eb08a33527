from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from longflow.data.images import Geometry, read_scan, write_volume
from longflow.errors import ConfigurationError
from longflow.files import write_json
from longflow.inference.selection import Member, Selection
from longflow.inference.windows import WindowSettings
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, load_method, write_checkpoint
from longflow.paths import DatasetPaths, ModelPaths
from longflow.plans import ChannelPlan, Plans, write_plans
from longflow.preprocessing.restore import export_labels
from longflow.preprocessing.series import RawSeries, prepare_volumes
from longflow.tasks.segment.nnunet_export import export_to_nnunet, nnunet_dataset, nnunet_plans
from longflow.tasks.segment.windows import predict_logits
from tests.methods.helpers import minimal_plans
from tests.methods.segmentation.helpers import segmentation_plans

REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def trained(folder: Path, plans: Plans, name: str = "unet", folds: tuple[int, ...] = (0,)) -> Selection:
    """A model with random weights, also of biases and norms, so that more than the background is predicted."""
    (configuration,) = plans.configurations
    model = ModelPaths(folder / f"{name}__longflowPlans__{configuration}")
    model.folder.mkdir(parents=True)
    write_plans(plans, model.plans)
    write_json({"name": "Test", "time_unit": "days"}, model.dataset_json)
    for fold in folds:
        torch.manual_seed(fold)
        method = build_method(name, plans, configuration)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        header = {"method": name, "plan_identity": plans.identity(configuration)}
        weights = {f"weights.{key}": value for key, value in method.state_dict().items()}
        write_checkpoint(Checkpoint(weights, header), model.fold(fold).final)
    return Selection(DatasetPaths(plans.dataset_name), (Member(model, folds),))


def scan_files(folder: Path, channels: int = 1) -> list[Path]:
    """A scan with a dark border that is cropped away, anisotropic, off the plan's spacing of 1 mm."""
    generator = np.random.default_rng(0)
    array = np.zeros((channels, 7, 18, 20), np.float32)
    array[:, 1:, 2:-1, 1:-3] = generator.normal(100, 30, (channels, 6, 15, 16))
    geometry = Geometry((20, 18, 7), (0.9, 1.1, 2.0), (3.0, -4.0, 5.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    files = [folder / f"scan_{index:04d}.nii.gz" for index in range(channels)]
    for path, channel in zip(files, array, strict=True):
        write_volume(channel, geometry, "float32", path)
    return files


def labels_of_longflow(selection: Selection, plans: Plans, files: list[Path]) -> np.ndarray:
    (member,), (configuration,) = selection.members, plans.configurations
    methods = [
        load_method(member.model.fold(fold).final, member.model.method, plans, configuration) for fold in member.folds
    ]
    prepared = prepare_volumes(RawSeries.of_scan("scan", read_scan(tuple(files))), plans, configuration)
    logits = predict_logits(methods, np.asarray(prepared.images[0]), WindowSettings(mirror=True))
    return export_labels(logits, prepared.properties, plans)


def labels_of_nnunet(folder: Path, files: list[Path], folds: tuple[int, ...] = (0,)) -> np.ndarray:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    image, properties = SimpleITKIO().read_images([str(path) for path in files])
    return predictor.predict_single_npy_array(image, properties)


CASES = {
    "3D": segmentation_plans(),
    "2D, residual, two channels": segmentation_plans(2, channels=2, encoder="residual"),
    "transposed": segmentation_plans(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0]),
    "regions": segmentation_plans(labels=REGIONS, regions_class_order=[1, 2]),
    "CT": segmentation_plans(channels=2),
    "minimum to maximum": segmentation_plans(),
}
CASES["minimum to maximum"].channels = [ChannelPlan(name="channel 0", normal_form="min_max")]
CASES["CT"].channels = [
    ChannelPlan(name="CT", normal_form="absolute", offset=90, scale=25, clip=(60, 140)),
    ChannelPlan(name="perfusion", normal_form="absolute", offset=110, scale=20),
]


@pytest.mark.parametrize("case", CASES)
def test_nnunet_predicts_the_same_labels(tmp_path, case):
    plans = CASES[case]
    selection, files = trained(tmp_path, plans, folds=(0, 1)), scan_files(tmp_path, len(plans.channels))
    assert export_to_nnunet(selection, tmp_path / "out") == [0, 1]
    expected = labels_of_longflow(selection, plans, files)
    found = labels_of_nnunet(tmp_path / "out", files, (0, 1))
    assert np.array_equal(found, expected)
    assert 0.005 < (expected > 0).mean() < 0.995


@pytest.mark.parametrize("case", CASES)
def test_nnunet_prepares_the_same_voxels_bit_identically(tmp_path, case):
    plans, (configuration,) = CASES[case], CASES[case].configurations
    files = scan_files(tmp_path, len(plans.channels))
    manager = PlansManager(nnunet_plans(plans, configuration))
    preprocessor = manager.get_configuration(configuration).preprocessor_class(verbose=False)
    image, properties = SimpleITKIO().read_images([str(path) for path in files])
    expected, _, _ = preprocessor.run_case_npy(
        image, None, properties, manager, manager.get_configuration(configuration), nnunet_dataset(plans, {})
    )
    prepared = prepare_volumes(RawSeries.of_scan("scan", read_scan(tuple(files))), plans, configuration)
    assert np.array_equal(prepared.images[0], expected)


def test_a_consistent_model_is_exported_too(tmp_path):
    selection = trained(tmp_path, segmentation_plans(), "unet_consistent")
    export_to_nnunet(selection, tmp_path / "out")
    assert (tmp_path / "out" / "fold_0" / "checkpoint_final.pth").is_file()


def test_a_model_that_looks_at_other_scans_is_refused(tmp_path):
    selection = trained(tmp_path, segmentation_plans(), "unet_longitudinal")
    with pytest.raises(ConfigurationError, match=r"looks at the other scans .* nnU-Net segments each scan by itself"):
        export_to_nnunet(selection, tmp_path / "out")
    assert not (tmp_path / "out" / "plans.json").exists()


def test_unlimited_intensities_have_limits_that_clip_nothing():
    entries = nnunet_plans(CASES["CT"], "3d_fullres")["foreground_intensity_properties_per_channel"]
    assert (entries["0"]["percentile_00_5"], entries["0"]["percentile_99_5"]) == (60, 140)
    assert entries["1"]["percentile_00_5"] < -1e38 and entries["1"]["percentile_99_5"] > 1e38


def test_dataset_json_keeps_further_keys_and_takes_the_plans_values():
    plans = CASES["regions"]
    described = {"name": "Heart", "labels": {"background": 0, "old": 1}, "licence": "CC0"}
    dataset = nnunet_dataset(plans, described)
    assert (dataset["name"], dataset["licence"]) == ("Heart", "CC0")
    assert (dataset["labels"], dataset["regions_class_order"]) == (REGIONS, [1, 2])
    assert (dataset["channel_names"], dataset["file_ending"]) == ({"0": "channel 0"}, ".nii.gz")


def test_a_model_in_the_folder_is_not_replaced_without_overwrite(tmp_path):
    selection = trained(tmp_path, segmentation_plans())
    export_to_nnunet(selection, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        export_to_nnunet(selection, tmp_path / "out")
    assert export_to_nnunet(selection, tmp_path / "out", overwrite=True) == [0]


def test_an_ensemble_and_a_forecast_are_refused(tmp_path):
    selection = trained(tmp_path, segmentation_plans())
    (member,) = selection.members
    with pytest.raises(ConfigurationError, match="-m unet -c 3d_fullres"):
        export_to_nnunet(Selection(selection.dataset, (member, member)), tmp_path / "out")
    with pytest.raises(ConfigurationError, match="planned for 'forecast'"):
        nnunet_plans(minimal_plans(), "3d_fullres")
    assert not (tmp_path / "out").exists()


def test_a_normal_form_that_nnunet_does_not_have_is_refused():
    plans = segmentation_plans()
    plans.channels[0].normal_form = "per_subject"
    with pytest.raises(ConfigurationError, match="'channel 0' has the normal form 'per_subject'"):
        nnunet_plans(plans, "3d_fullres")
