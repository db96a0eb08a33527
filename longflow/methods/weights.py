"""Weights on disk: safetensors, never pickle. Everything that is not a tensor is JSON in the file's own header."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from longflow.errors import ModelError, first_few
from longflow.files import atomic_write
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.plans import Plans

HEADER_KEY = "longflow"

#: of the header's record of solver steps
STEPS_KEY = "solver_steps"

#: of the header's record of the reduction that chose the weights
REDUCTION_KEY = "reduction"

#: most bytes of the names and places of tensors, and most letters of a method's name; ours have some 300,000 and 30
LARGEST_HEADER, LONGEST_NAME = 8 * 2**20, 100

#: what to do about weights that do not fit
OTHER_NETWORK = (
    "The weights are of another network: that of another method, or of an earlier version of longflow, whose changelog "
    "names the methods that have changed. Train the fold again (longflow_train --overwrite)."
)


@dataclass
class Checkpoint:
    """Tensors by name, and a header of further facts."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors below ``prefix.``, with the prefix removed."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    :raises DataError: the disk is full or cannot be written to.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    with atomic_write(path) as temporary:
        # an empty file first: safetensors would make it readable for its owner alone, and groups share models
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, metadata={HEADER_KEY: json.dumps(checkpoint.header)})
        except SafetensorError as error:  # a full disk, most often; its number is only in the text
            raise OSError(0, str(error)) from error
        temporary.chmod(mode)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; the numbers of a tensor are read when it is used.

    :raises ModelError: the file is missing, damaged, or was not written by longflow.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"its header would have {size} bytes, expected at most {LARGEST_HEADER}")
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"{path} is damaged and cannot be read ({str(error)[:200]}). Copy it again from its source."
        ) from error
    if not _is_header(header):
        raise ModelError(f"{path} is a safetensors file, but not one that longflow wrote.")
    return Checkpoint(tensors, header)


def _is_header(header: Any) -> bool:
    """Tell whether the facts that are used before the weights are of the right kind."""
    if not isinstance(header, dict):
        return False
    method = header.get("method", "")
    return (
        isinstance(method, str)
        and len(method) <= LONGEST_NAME
        and isinstance(header.get("options") or {}, dict)
        and type(header.get("stage", 0)) is int
        and isinstance(header.get(STEPS_KEY, {}), dict)
    )


def check_identity(header: dict[str, Any], path: Path, method: str, plans: Plans, configuration: str) -> None:
    """Refuse weights that belong to another method or plan.

    :param header: of the checkpoint.
    :param path: of the checkpoint, for messages.
    :param method: expected name of the method.
    :param plans: in use.
    :param configuration: in use.
    :raises ModelError: names the difference and the remedy.
    """
    if header.get("method") != method:
        raise ModelError(f"{path} was trained by the method '{header.get('method')}', not by '{method}'.")
    if (found := header.get("plan_identity")) != plans.identity(configuration):
        raise ModelError(
            f"{path} was trained with another plan (identity {str(found)[:LONGEST_NAME]}) than the one in use "
            f"(identity {plans.identity(configuration)} of configuration {configuration}): spacing, patch size, time "
            "scale, intensities or network were changed since. Restore the plan it was trained with, or train again "
            "(longflow_train --overwrite)."
        )


def load_method(path: Path, name: str, plans: Plans, configuration: str) -> Method:
    """Load a trained method on the CPU, in evaluation mode.

    :param path: of the checkpoint.
    :param name: of the method, on the command line.
    :param plans: in use.
    :param configuration: in use.
    :returns: the method.
    :raises ModelError: the weights belong to another method or plan, or lack a tensor.
    """
    checkpoint = read_checkpoint(path)
    check_identity(checkpoint.header, path, name, plans, configuration)
    options, weights = checkpoint.header.get("options"), checkpoint.part("weights")
    # a plan may describe a network that no memory holds; the file then holds another one
    try:
        with _refused_where_shapes_differ(weights):
            method = build_method(name, plans, configuration, options)
    except RuntimeError:
        # without contents; importing what torch needs for it takes a second. Some networks compute while they are built
        with suppress(RuntimeError), torch.device("meta"):
            check_fit(build_method(name, plans, configuration, options).state_dict(), weights, path)
        method = build_method(name, plans, configuration, options)
    load_weights(method, weights, path)
    method.stage = checkpoint.header.get("stage", 0)
    method.steps = recorded_steps(checkpoint.header, method)
    method.reduction = recorded_reduction(checkpoint.header, method)
    method.file = path
    return method.eval()


@contextmanager
def _refused_where_shapes_differ(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop building a network at its first parameter of a shape that a file does not have, or with too many numbers.

    Some networks replace a layer while they are built, so twice as many numbers as in the file are allowed.

    :param weights: of the file, by name.
    :raises RuntimeError: there is such a parameter; its memory was not written to.
    """
    shapes = {tensor.shape for tensor in weights.values()}
    left = 2 * sum(tensor.numel() for tensor in weights.values())

    def check(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        nonlocal left
        left -= parameter.numel()
        if parameter.shape not in shapes or left < 0:
            raise RuntimeError(f"{name} of {type(module).__name__} has shape {list(parameter.shape)}")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def record_steps(header: dict[str, Any], method: Method) -> None:
    """Record how many solver steps predictions take that equal those of the planned number.

    :param header: of the checkpoint, changed in place.
    :param method: with this number as its ``steps``.
    """
    planned = method.plans.inference
    header[STEPS_KEY] = {"solver": planned.solver, "planned": planned.steps, "equal": method.steps}


def recorded_steps(header: Mapping[str, Any], method: Method) -> int:
    """Return the number of solver steps to predict with: the recorded one, where it was measured for these plans.

    Plans that were changed since ask for another precision, and are followed.

    :param header: of the checkpoint.
    :param method: with the plans in use.
    :returns: at most the planned number.
    """
    planned, record = method.plans.inference, header.get(STEPS_KEY, {})
    equal = record.get("equal")
    measured = (record.get("solver"), record.get("planned")) == (planned.solver, planned.steps)
    return equal if measured and type(equal) is int and 0 < equal < planned.steps else planned.steps


def recorded_reduction(header: Mapping[str, Any], method: Method) -> str:
    """Return the reduction to predict with: the one whose validation chose the weights, where it is recorded.

    :param header: of the checkpoint.
    :param method: with the names of its reductions.
    :returns: one of them.
    """
    recorded = header.get(REDUCTION_KEY)
    return recorded if recorded in method.reductions else method.reductions[0]


def load_weights(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a method.

    :param weights: every tensor of the method, with its shape and kind of numbers.
    :param path: of the checkpoint, for messages.
    :raises ModelError: a tensor is missing, has another shape or kind of numbers, is unknown, or is not finite.
    """
    check_fit(method.state_dict(), weights, path)
    check_finite(weights, path)
    method.load_state_dict(weights)


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights with values that are no finite numbers. It reads all of them: check first that they fit.

    :param weights: of a checkpoint, by name.
    :param path: of the checkpoint, for messages.
    :raises ModelError: names the first tensors.
    """
    if infinite := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise ModelError(
            f"{path} holds values that are no finite numbers, in {first_few(infinite, most=3)}. Either the training "
            "has diverged, or the file is damaged. Copy it again from its source, or train again (longflow_train "
            "--overwrite), with a lower --lr if it diverged."
        )


def check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and kinds of numbers; no number is read.

    :param expected: tensors by name.
    :param weights: of a checkpoint, by name.
    :param path: of the checkpoint, for messages.
    :raises ModelError: names the first difference.
    """
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelError(f"{path} lacks the tensor {name}. {OTHER_NETWORK}")
        if weights[name].shape != tensor.shape:
            found = f"{name} has shape {list(weights[name].shape)}, expected {list(tensor.shape)}"
            raise ModelError(f"{path}: {found}. {OTHER_NETWORK}")
        if weights[name].dtype != tensor.dtype:
            raise ModelError(f"{path}: {name} holds {weights[name].dtype}, expected {tensor.dtype}. {OTHER_NETWORK}")
    if extra := sorted(set(weights) - set(expected)):
        shown = first_few((name[:LONGEST_NAME] for name in extra), most=3)
        raise ModelError(f"{path} holds tensors that the method does not have: {shown}. {OTHER_NETWORK}")
