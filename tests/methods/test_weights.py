import pytest
import torch

from longflow.errors import DataError, ModelError
from longflow.methods.registry import build_method
from longflow.methods.weights import Checkpoint, load_method, read_checkpoint, write_checkpoint
from tests.conftest import small_disk
from tests.methods.helpers import minimal_plans


def saved(path, plans=None, name="cronos", **header):
    plans = plans or minimal_plans()
    method = build_method(name, plans, "3d_fullres")
    tensors = {f"weights.{key}": value for key, value in method.state_dict().items()}
    header = {"method": name, "plan_identity": plans.identity("3d_fullres"), **header}
    write_checkpoint(Checkpoint(tensors, header), path)
    return method


def test_weights_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    method = saved(path, nrmse=0.5)
    loaded = load_method(path, "cronos", minimal_plans(), "3d_fullres")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in method.state_dict().items())
    assert not loaded.training and loaded.file == path
    assert read_checkpoint(path).header["nrmse"] == 0.5


def test_the_stage_of_training_comes_back(tmp_path):
    saved(tmp_path / "a.safetensors", name="latent_diffusion", stage=1)
    assert load_method(tmp_path / "a.safetensors", "latent_diffusion", minimal_plans(), "3d_fullres").stage == 1
    saved(tmp_path / "a.safetensors")
    assert load_method(tmp_path / "a.safetensors", "cronos", minimal_plans(), "3d_fullres").stage == 0


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    path = tmp_path / "a.safetensors"
    tensors = {"weights.a": torch.zeros(3), "weights.b": torch.tensor([0.0, value]), "weights.c": torch.tensor(1)}
    write_checkpoint(Checkpoint(tensors, {}), path)
    with pytest.raises(ModelError, match=r"a\.safetensors holds values that are no finite numbers, in weights\.b\."):
        read_checkpoint(path)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    saved(tmp_path / "a.safetensors")
    plans = minimal_plans()
    plans.temporal.time_scale = 20
    with pytest.raises(ModelError, match="another plan"):
        load_method(tmp_path / "a.safetensors", "cronos", plans, "3d_fullres")


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    saved(tmp_path / "a.safetensors", name="tfm")
    with pytest.raises(ModelError, match="'tfm', not by 'cronos'"):
        load_method(tmp_path / "a.safetensors", "cronos", minimal_plans(), "3d_fullres")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"\x80\x04pickle", lambda b: b""])
def test_a_damaged_file_is_explained(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    saved(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match="damaged"):
        read_checkpoint(path)


def test_missing_and_superfluous_tensors_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    saved(path)
    checkpoint = read_checkpoint(path)
    removed = checkpoint.tensors.pop("weights.network.head.weight")
    write_checkpoint(checkpoint, path)
    with pytest.raises(ModelError, match=r"lacks the tensor network\.head\.weight"):
        load_method(path, "cronos", minimal_plans(), "3d_fullres")
    checkpoint.tensors["weights.network.head.weight"] = removed
    checkpoint.tensors["weights.further"] = removed
    write_checkpoint(checkpoint, path)
    with pytest.raises(ModelError, match="does not have: further"):
        load_method(path, "cronos", minimal_plans(), "3d_fullres")


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.safetensors"
    method = saved(path)
    before = path.read_bytes()
    message = r"a\.safetensors could not be written: .*Free some space"
    with pytest.raises(DataError, match=message), small_disk(1024):
        write_checkpoint(Checkpoint(dict(method.state_dict()), {}), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
