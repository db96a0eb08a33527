import pickle
import zipfile

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from longflow.errors import ConfigurationError, ModelError
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.methods.transfer import load_pretrained
from longflow.methods.weights import Checkpoint, write_checkpoint
from longflow.networks.unet import UNet, describe_architecture
from tests.methods.helpers import minimal_plans
from tests.methods.segmentation.helpers import segmentation_plans


def network(plans, name="unet", seed=0) -> Method:
    torch.manual_seed(seed)
    return build_method(name, plans, next(iter(plans.configurations)))


def longflow_file(method: Method, path, name="unet"):
    weights = {f"weights.{key}": value for key, value in method.state_dict().items()}
    write_checkpoint(Checkpoint(weights, {"method": name}), path / "checkpoint_final.safetensors")
    return path / "checkpoint_final.safetensors"


def torch_file(weights, path, **content):
    torch.save({"network_weights": weights, **content}, path / "checkpoint_final.pth")
    return path / "checkpoint_final.pth"


def same(method: Method, other: Method, part: str = "") -> bool:
    mine, theirs = method.state_dict(), other.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine if part in key)


@pytest.mark.parametrize("encoder", ["plain", "residual"])
def test_a_segmentation_of_longflow_is_taken_over_whole(tmp_path, encoder):
    plans = segmentation_plans(encoder=encoder)
    source, method = network(plans), network(plans, "unet_consistent", seed=1)
    transfer = load_pretrained(method, longflow_file(source, tmp_path))
    assert same(method, source)
    assert not transfer.skipped
    assert sorted(transfer.loaded) == sorted(name for name, _ in method.network.unet.named_parameters())


class Pretrained(Method):
    """Like pretraining methods: the same network with the image's channels as outputs, and something more."""

    task, predicts = "segment", False

    def __init__(self, plans, configuration):
        super().__init__(plans, configuration)
        self.network = UNet(1, 3, self.configuration.network)
        self.projector = torch.nn.Linear(2, 2)


def test_output_layers_of_a_pretraining_are_not_taken_over_even_if_they_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("longflow.methods.transfer.method_class", lambda name: Pretrained)
    plans = segmentation_plans()
    method, source = network(plans), Pretrained(plans, "3d_fullres")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    transfer = load_pretrained(method, longflow_file(source, tmp_path, "spatiotemporal"))
    assert same(method, source, "encoder")
    assert same(method, source, "transpconvs")
    outputs = [name for name in before if ".seg_layers." in name]
    assert all(torch.equal(method.state_dict()[name], before[name]) for name in outputs)
    assert {name for name, why in transfer.skipped if "pretraining" in why} == {
        name.removeprefix("network.unet.") for name in outputs
    }


def test_output_layers_of_other_structures_start_from_scratch(tmp_path):
    other = segmentation_plans()
    other.labels = {"background": 0, "all": 1}
    source, method = network(other), network(segmentation_plans(), seed=1)
    transfer = load_pretrained(method, longflow_file(source, tmp_path))
    assert same(method, source, "encoder")
    assert ("decoder.seg_layers.1.weight", "shape [2, 8, 1, 1, 1], expected [3, 8, 1, 1, 1]") in transfer.skipped


def test_a_checkpoint_of_nnunet_is_taken_over_with_its_numpy_numbers_and_wrappers(tmp_path):
    plans = segmentation_plans()
    method = network(plans)
    words = describe_architecture(plans.configurations["3d_fullres"].network)
    theirs = get_network_from_plans(
        words["network_class_name"], words["arch_kwargs"], words["_kw_requires_import"], 1, 3, deep_supervision=True
    )
    for prefix in ("", "module.", "_orig_mod."):
        weights = {f"{prefix}{name}": torch.randn_like(value) for name, value in theirs.state_dict().items()}
        log = {"train_losses": [np.float64(0.1), np.float32(0.2)], "epoch": np.int64(3)}
        path = torch_file(weights, tmp_path, _best_ema=np.float64(0.5), logging=log, init_args={"fold": 0})
        transfer = load_pretrained(method, path)
        assert not transfer.skipped
        own = method.network.unet.state_dict()
        assert all(torch.equal(own[name], weights[prefix + name]) for name in transfer.loaded)


def test_all_that_the_trainer_of_nnunet_stores_is_read(tmp_path):
    plans = segmentation_plans()
    source, method = network(plans).network.unet, network(plans, seed=1)
    optimizer = torch.optim.SGD(source.parameters(), 0.01, momentum=0.99, nesterov=True)
    for parameter in source.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    further = {
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 3},
        "logging": {"dice_per_class_or_region": [[np.float64(0.5), np.float32(0.25)]], "epoch_end_timestamps": [1.7e9]},
        "current_epoch": 3,
        "init_args": {"plans": {"a": [1, None]}, "fold": 0, "unpack_dataset": True, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    transfer = load_pretrained(method, torch_file(source.state_dict(), tmp_path, **further))
    assert not transfer.skipped
    assert all(
        torch.equal(value, method.network.unet.state_dict()[name]) for name, value in source.state_dict().items()
    )


def test_numbers_written_with_numpy_1_are_read(tmp_path):
    method = network(segmentation_plans())
    path, old = torch_file(method.network.unet.state_dict(), tmp_path, _best_ema=np.float64(0.5)), tmp_path / "old.pth"
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(old, "w") as file:
        for name in new.namelist():
            file.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert not load_pretrained(method, old).skipped


def test_an_encoder_that_only_the_decoder_names_is_found(tmp_path):
    plans = segmentation_plans()
    source, method = network(plans), network(plans, seed=1)
    weights = {name: value for name, value in source.network.unet.state_dict().items() if name.startswith("decoder.")}
    assert any(name.startswith("decoder.encoder.") for name in weights)
    load_pretrained(method, torch_file(weights, tmp_path))
    assert same(method, source)


def test_a_checkpoint_of_nnssl_is_read_by_its_adaptation_plan(tmp_path):
    plans = segmentation_plans(encoder="residual")
    source, method = network(plans), network(plans, seed=1)
    weights = {
        name.replace("encoder.stages.", "student.blocks.").replace("encoder.stem.", "student.start."): value
        for name, value in source.network.unet.state_dict().items()
        if name.startswith("encoder.")
    }
    weights["mask_token"] = torch.zeros(1)
    plan = {"key_to_encoder": "student.blocks", "key_to_stem": "student.start", "pretrain_num_input_channels": 1}
    transfer = load_pretrained(method, torch_file(weights, tmp_path, nnssl_adaptation_plan=plan))
    assert same(method, source, "unet.encoder")
    reasons = dict(transfer.skipped)
    assert reasons["mask_token"] == "this network has no such layer"
    assert reasons["decoder.transpconvs.0.weight"] == "not in the file"
    assert "pretraining" in reasons["decoder.seg_layers.0.weight"]
    assert all(name.startswith("encoder.") for name in transfer.loaded)


def test_weights_of_another_dimension_are_refused(tmp_path):
    path = longflow_file(network(segmentation_plans(2)), tmp_path)
    with pytest.raises(ModelError, match="a 2D network, but the configuration in use is 3D"):
        load_pretrained(network(segmentation_plans(3)), path)


def test_weights_of_another_number_of_channels_are_refused(tmp_path):
    path = longflow_file(network(segmentation_plans(channels=2)), tmp_path)
    message = (
        r"images of 2 channels, but this dataset has 1 channel .*found \[8, 2, 3, 3, 3\], expected \[8, 1, 3, 3, 3\]"
    )
    with pytest.raises(ModelError, match=message):
        load_pretrained(network(segmentation_plans()), path)


def test_weights_of_another_plan_are_refused_with_what_differs(tmp_path):
    plans = segmentation_plans()
    plans.configurations["3d_fullres"].network.features_per_stage = [16, 32, 32]
    method = network(segmentation_plans())
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with pytest.raises(ModelError, match="another plan") as caught:
        load_pretrained(method, longflow_file(network(plans), tmp_path))
    message = str(caught.value)
    assert "Found: a plain encoder of 3 stages with [16, 32, 32] features" in message
    assert "expected: a plain encoder of 3 stages with [8, 8, 16] features" in message
    assert "has shape [16, 1, 3, 3, 3], expected [8, 1, 3, 3, 3]" in message
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_another_encoder_is_another_plan(tmp_path):
    path = longflow_file(network(segmentation_plans(encoder="residual")), tmp_path)
    with pytest.raises(ModelError, match="Found: a residual encoder of 3 stages"):
        load_pretrained(network(segmentation_plans()), path)


def test_one_stage_less_is_a_start_and_the_missing_one_is_named(tmp_path):
    plans = segmentation_plans()
    wide = segmentation_plans()
    wide.configurations["3d_fullres"].network.features_per_stage = [8, 8, 32]
    source, method = network(wide), network(plans, seed=1)
    transfer = load_pretrained(method, longflow_file(source, tmp_path))
    assert same(method, source, "unet.encoder.stages.0")
    assert any(name.startswith("encoder.stages.2") and "shape" in why for name, why in transfer.skipped)


def forecasting(name="cronos", seed=0, **plan) -> Method:
    return random_weights(network(minimal_plans(**plan), name), seed)


def random_weights(method: Method, seed: int) -> Method:
    """Layers that start at zero or one are random too, so that what was copied can be seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return method


@pytest.mark.parametrize("name", ["cronos", "tfm", "tfm-diffusion_unet", "cronos_motion", "convlstm"])
def test_a_forecast_is_taken_over_whole(tmp_path, name):
    source, method = forecasting(name), forecasting(name, seed=1)
    transfer = load_pretrained(method, longflow_file(source, tmp_path, name))
    assert same(method, source) and not transfer.skipped and transfer.share == 1


def test_the_network_of_another_flow_method_is_taken_over_and_the_rest_is_named(tmp_path):
    source, method = forecasting("cronos", scans=4), forecasting("tfm", seed=1, grid_length=4)
    transfer = load_pretrained(method, longflow_file(source, tmp_path, "cronos"))
    assert same(method, source, "network.encoder") and same(method, source, "network.stem")
    reasons = dict(transfer.skipped)
    assert reasons["mixing.weights_of.0.weight"] == "this network has no such layer"
    own = dict(method.named_parameters())
    loaded = sum(own[name].numel() for name in transfer.loaded)
    assert transfer.share == loaded / sum(parameter.numel() for parameter in own.values())


@pytest.mark.parametrize("name", ["cronos", "cronos-diffusion_unet"])
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_weights_of_scans_belong_to_the_last_places(tmp_path, name, before, after):
    source, method = (forecasting(name, seed, scans=scans, channels=2) for seed, scans in ((0, before), (1, after)))
    start = {key: value.clone() for key, value in method.state_dict().items()}
    transfer = load_pretrained(method, longflow_file(source, tmp_path, name))
    theirs, mine, common = source.state_dict(), method.state_dict(), 2 * min(before, after)
    for key, axis in method.network.last_places.items():
        key = f"network.{key}"
        places = [one.movedim(axis, 0) for one in (mine[key], theirs[key], start[key])]
        assert torch.equal(places[0][-common:], places[1][-common:])
        assert torch.equal(places[0][:-common], places[2][:-common])
        assert dict(transfer.skipped)[
            key
        ] == f"places of scans: found {2 * before}, expected {2 * after}; the last " + ("ones are taken")
    if name == "cronos":
        assert same(method, source, "network.encoder") and same(method, source, "network.decoder")


def test_a_network_for_fewer_scans_sees_what_the_other_one_saw(tmp_path):
    """With the last scans alone, both compute the same velocity."""
    source, method = forecasting(scans=4), forecasting(scans=2, seed=1)
    load_pretrained(method, longflow_file(source, tmp_path, "cronos"))
    stack, code = torch.randn(1, 2, 4, 8, 8), torch.randn(1, method.network.code[0].in_features)
    torch.testing.assert_close(method.network(stack, code), source.network(stack, code))


def test_a_forecast_takes_no_weights_of_another_task_and_the_reverse(tmp_path):
    with pytest.raises(ModelError, match="trained by the method 'cronos'"):
        load_pretrained(network(segmentation_plans()), longflow_file(forecasting(), tmp_path, "cronos"))
    for name, words in (("unet", "for the task 'segment'"), ("spatiotemporal", "a pretraining for the task 'segment'")):
        path = longflow_file(network(segmentation_plans(), name), tmp_path, name)
        with pytest.raises(ConfigurationError, match=f"'{name}' is {words}, and no layer .* starts from .*'cronos'"):
            load_pretrained(forecasting(), path)
    with pytest.raises(ModelError, match="weights of nnU-Net and nnssl do not fit"):
        load_pretrained(forecasting(), torch_file({"a": torch.zeros(1)}, tmp_path))


def test_no_layer_of_the_pretraining_has_a_counterpart_in_the_flow_network():
    """The reason of the refusal: nnU-Net's layers and those of the FiLM U-Net share no name with one shape."""
    theirs = dict(network(segmentation_plans(), "spatiotemporal").named_parameters())
    own = dict(forecasting().named_parameters())
    assert not [name for name in own if name in theirs and theirs[name].shape == own[name].shape]


def test_forecasts_of_other_channels_dimensions_or_networks_are_refused(tmp_path):
    header = {"method": "cronos", "channel_names": ["FLAIR"]}
    weights = {f"weights.{key}": value for key, value in forecasting().state_dict().items()}
    write_checkpoint(Checkpoint(weights, header), tmp_path / "flair.safetensors")
    with pytest.raises(ModelError, match=r"the channels \['FLAIR'\], but this dataset has \['channel 0'\]"):
        load_pretrained(forecasting(seed=1), tmp_path / "flair.safetensors")
    with pytest.raises(ModelError, match="holds a 2D network, but the configuration in use is 3D"):
        load_pretrained(forecasting(), longflow_file(forecasting(dimensions=2), tmp_path, "cronos"))
    with pytest.raises(ModelError, match=r"another kind or plan: 0 of the method's \d+ tensors fit"):
        load_pretrained(forecasting(), longflow_file(forecasting("convlstm"), tmp_path, "convlstm"))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no checkpoint"])
def test_a_damaged_file_is_explained(tmp_path, damage):
    method = network(segmentation_plans())
    path = torch_file(method.network.unet.state_dict(), tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match="damaged"):
        load_pretrained(method, path)


class Evil:
    ran = False

    def __reduce__(self):
        return (exec, ("from tests.methods import test_transfer; test_transfer.Evil.ran = True",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(tmp_path, zipped):
    method, path = network(segmentation_plans()), tmp_path / "evil.pth"
    if zipped:
        torch.save({"network_weights": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"network_weights": Evil()}))
    with pytest.raises(ModelError, match=r"evil\.pth"):
        load_pretrained(method, path)
    assert not Evil.ran


def test_reading_leaves_the_process_as_it_was(tmp_path):
    """What this process accepts from pickles elsewhere stays what it was."""
    before = list(torch.serialization.get_safe_globals())
    load_pretrained(
        network(segmentation_plans()), torch_file(network(segmentation_plans()).network.unet.state_dict(), tmp_path)
    )
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("plan", [{"key_to_encoder": [[]], "key_to_stem": 3}, {"key_to_encoder": None}, {}])
def test_places_of_an_adaptation_plan_are_text_or_the_usual_ones(tmp_path, plan):
    plans = segmentation_plans(encoder="residual")
    source, method = network(plans), network(plans, seed=1)
    load_pretrained(method, torch_file(source.network.unet.state_dict(), tmp_path, nnssl_adaptation_plan=plan))
    assert same(method, source, "unet.encoder")


def test_numbers_of_another_kind_are_not_taken_over(tmp_path):
    method, source = network(segmentation_plans()), network(segmentation_plans(), seed=1)
    weights = {name: tensor.clone() for name, tensor in source.network.unet.state_dict().items()}
    first = next(iter(weights))
    weights[first] = torch.ones(weights[first].shape, dtype=torch.int64)
    transfer = load_pretrained(method, torch_file(weights, tmp_path))
    assert (first, "numbers of the kind torch.int64, expected torch.float32") in transfer.skipped


@pytest.mark.parametrize(
    "write", [longflow_file, lambda method, path: torch_file(method.network.unet.state_dict(), path)]
)
def test_weights_that_are_no_numbers_are_not_taken_over(tmp_path, write):
    source, method = network(segmentation_plans()), network(segmentation_plans(), seed=1)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.no_grad():
        next(source.network.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ModelError, match="no finite numbers"):
        load_pretrained(method, write(source, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_name_with_a_number_of_a_million_digits_is_no_stage(tmp_path):
    weights = {f"encoder.stages.{'9' * 10**6}.conv.weight": torch.zeros(1, 1, 1)}
    with pytest.raises(ModelError, match="no encoder of this kind"):
        load_pretrained(
            network(segmentation_plans(2)),
            torch_file({"encoder.stages.x.conv.weight": torch.zeros(1, 1, 1, 1), **weights}, tmp_path),
        )


def test_an_object_that_is_no_weight_is_refused_by_name(tmp_path):
    method, path = network(segmentation_plans()), tmp_path / "a.pth"
    torch.save({"network_weights": method.network.unet.state_dict(), "more": tmp_path}, path)
    with pytest.raises(ModelError, match=r"more than weights \(pathlib"):
        load_pretrained(method, path)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        [1],
        {"network_weights": {}},
        {"network_weights": {"a": 1}},
        {"network_weights": {1: torch.zeros(1)}},
    ],
)
def test_a_file_without_network_weights_is_explained(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="no 'network_weights'"):
        load_pretrained(network(segmentation_plans()), tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ModelError, match="does not exist"):
        load_pretrained(network(segmentation_plans()), tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a checkpoint"):
        load_pretrained(network(segmentation_plans()), tmp_path / "weights.h5")
