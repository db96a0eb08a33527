import json
import struct
import time

import pytest
import torch

from longflow.errors import DataError, ModelError
from longflow.methods.registry import build_method
from longflow.methods.weights import (
    Checkpoint,
    _refused_where_shapes_differ,
    load_method,
    load_weights,
    read_checkpoint,
    record_steps,
    write_checkpoint,
)
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


@pytest.mark.parametrize(("record", "reduction"), [("mean", "mean"), ("median", "last"), (None, "last"), ([1], "last")])
def test_the_reduction_that_chose_the_weights_comes_back(tmp_path, record, reduction):
    saved(tmp_path / "a.safetensors", reduction=record)
    assert load_method(tmp_path / "a.safetensors", "cronos", minimal_plans(), "3d_fullres").reduction == reduction


MEASURED = {"solver": "euler", "planned": 10, "equal": 2}


@pytest.mark.parametrize(
    ("record", "steps"),
    [
        (MEASURED, 2),
        ({}, 10),
        # measured for other plans: those in use are followed
        ({**MEASURED, "planned": 20}, 10),
        ({**MEASURED, "solver": "rk4"}, 10),
        # a number that was never measured
        *(({**MEASURED, "equal": strange}, 10) for strange in (0, -1, 50, 1.5, "2", None, True)),
    ],
)
def test_the_steps_that_equal_the_planned_ones_come_back(tmp_path, record, steps):
    saved(tmp_path / "a.safetensors", solver_steps=record)
    assert load_method(tmp_path / "a.safetensors", "cronos", minimal_plans(), "3d_fullres").steps == steps


def test_the_record_of_steps_names_the_plan_that_it_was_measured_for():
    method, header = build_method("cronos", minimal_plans(), "3d_fullres"), {}
    method.steps = 2
    record_steps(header, method)
    assert header == {"solver_steps": MEASURED}


def test_a_record_of_steps_of_another_form_is_refused(tmp_path):
    saved(tmp_path / "a.safetensors", solver_steps=[1])
    with pytest.raises(ModelError, match="not one that longflow wrote"):
        read_checkpoint(tmp_path / "a.safetensors")


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


def test_a_header_that_claims_more_than_the_file_is_refused_at_once(tmp_path):
    path = tmp_path / "a.safetensors"
    for size in (2**60, 2**64 - 1, 9 * 2**20):
        path.write_bytes(struct.pack("<Q", size) + b"{}")
        with pytest.raises(ModelError, match=f"header would have {size} bytes, expected at most 8388608"):
            read_checkpoint(path)


def made_up(path, tensors, header='{"method": "cronos"}', size=0):
    """Write a safetensors file by hand; its numbers are a hole of the file, which takes no disk.

    :param tensors: name -> (kind, shape, first and last byte).
    """
    places = {name: dict(zip(("dtype", "shape", "data_offsets"), of, strict=True)) for name, of in tensors.items()}
    text = json.dumps({"__metadata__": {"longflow": header}, **places}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        "null",
        "[]",
        "3",
        '"text"',
        "{",
        '{"method": []}',
        f'{{"method": "{"a" * 101}"}}',
        '{"options": [1]}',
        '{"options": "a"}',
        '{"stage": "1"}',
        '{"stage": NaN}',
        f'{{"stage": {"9" * 5000}}}',
    ],
    ids=lambda header: header[:20],
)
def test_a_header_of_another_kind_is_explained(tmp_path, header):
    with pytest.raises(ModelError, match=r"a\.safetensors is (damaged|a safetensors file, but not one)"):
        read_checkpoint(made_up(tmp_path / "a.safetensors", {}, header))


@pytest.mark.parametrize(
    "tensor",
    [
        ("F32", [2**62], [0, 2**64 - 1]),
        ("F32", [-1], [0, 4]),
        ("F32", [2**40, 2**40], [0, 8]),
        ("F32", [1], [8, 4]),
        ("F32", [1], [0, 8]),
        ("X7", [1], [0, 8]),
        ("F32", [1] * 500, [0, 4]),
        ("F4", [2], [0, 1]),
        ("F8_E8M0", [8], [0, 8]),
        ("C64", [1], [0, 8]),
    ],
    ids=str,
)
def test_a_tensor_that_is_not_in_the_file_is_explained(tmp_path, tensor):
    path = made_up(tmp_path / "a.safetensors", {"weights.a": tensor}, size=8)
    method = build_method("cronos", minimal_plans(), "3d_fullres")
    with pytest.raises(ModelError, match=r"a\.safetensors"):
        load_weights(method, read_checkpoint(path).part("weights"), path)


@pytest.mark.parametrize("kind", [torch.float64, torch.int32, torch.float16])
def test_numbers_of_another_kind_are_refused(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    saved(path)
    checkpoint = read_checkpoint(path)
    checkpoint.tensors["weights.network.head.weight"] = checkpoint.tensors["weights.network.head.weight"].to(kind)
    write_checkpoint(checkpoint, path)
    with pytest.raises(ModelError, match=rf"network\.head\.weight holds {kind}, expected torch\.float32"):
        load_method(path, "cronos", minimal_plans(), "3d_fullres")


def test_a_network_that_no_memory_holds_is_compared_with_its_file_before_it_is_built(tmp_path):
    """A plan of 2.4 TB of weights; the file has one tensor of 2 GB, all of it a hole."""
    plans = minimal_plans()
    plans.configurations["3d_fullres"].network.features_per_stage = [10_000, 10_000]
    plans.configurations["3d_fullres"].network.kernel_sizes = [[15, 15, 15]] * 2
    header = json.dumps({"method": "cronos", "plan_identity": plans.identity("3d_fullres")})
    path = made_up(tmp_path / "a.safetensors", {"weights.a": ("F32", [2**29], [0, 2**31])}, header, size=2**31)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"a\.safetensors lacks the tensor"):
        load_method(path, "cronos", plans, "3d_fullres")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["cronos", "tfm", "convlstm", "ode_lstm", "simvp", "vivit", "latent_diffusion"])
def test_a_network_that_fits_its_file_is_built_once(tmp_path, monkeypatch, name):
    """What torch imports for a network without contents takes a second."""
    path, built = tmp_path / "a.safetensors", []
    saved(path, name=name)
    monkeypatch.setattr("longflow.methods.weights.build_method", lambda *of: built.append(of) or build_method(*of))
    load_method(path, name, minimal_plans(), "3d_fullres")
    assert len(built) == 1


def test_building_stops_at_an_unknown_shape_and_at_twice_the_numbers_of_the_file():
    def build(*sizes):
        module = torch.nn.Module()
        with _refused_where_shapes_differ({"a": torch.zeros(4), "b": torch.zeros(2)}):
            for place, size in enumerate(sizes):
                module.register_parameter(str(place), torch.nn.Parameter(torch.zeros(size)))
        return len(list(module.parameters()))

    assert build(4, 2) == 2 and build(4, 4, 4) == 3
    with pytest.raises(RuntimeError, match=r"1 of Module has shape \[3\]"):
        build(4, 3)
    with pytest.raises(RuntimeError, match=r"3 of Module has shape \[4\]"):
        build(4, 4, 4, 4)
    assert build() == 0 and torch.nn.Linear(3, 3)  # nothing is refused afterwards


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    path = tmp_path / "a.safetensors"
    saved(path)
    checkpoint = read_checkpoint(path)
    changed = checkpoint.tensors["weights.network.head.weight"].clone()
    changed.view(-1)[0] = value
    checkpoint.tensors["weights.network.head.weight"] = changed
    write_checkpoint(checkpoint, path)
    message = r"a\.safetensors holds values that are no finite numbers, in network\.head\.weight\."
    with pytest.raises(ModelError, match=message):
        load_method(path, "cronos", minimal_plans(), "3d_fullres")


def test_a_network_that_computes_while_it_is_built_can_be_loaded(tmp_path, monkeypatch):
    """Drop rates of many networks are made so."""
    path = tmp_path / "a.safetensors"
    saved(path)

    def build(*arguments):
        assert torch.linspace(0, 1, 3)[1].item() == 0.5
        return build_method(*arguments)

    monkeypatch.setattr("longflow.methods.weights.build_method", build)
    assert load_method(path, "cronos", minimal_plans(), "3d_fullres")


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
