"""Weights on disk: safetensors, never pickle. Everything that is not a tensor is JSON in the file's own header."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longflow.errors import ModelError, first_few
from longflow.files import atomic_write
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.plans import Plans

HEADER_KEY = "longflow"


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
    """Read a checkpoint.

    :raises ModelError: the file is missing, damaged, was not written by longflow, or holds values that are no numbers.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged and cannot be read ({error}). Copy it again from its source.") from error
    if header is None:
        raise ModelError(f"{path} is a safetensors file, but not one that longflow wrote.")
    if infinite := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ModelError(
            f"{path} holds values that are no finite numbers, in {first_few(infinite, most=3)}. Either the training "
            "has diverged, or the file is damaged. Copy it again from its source, or train again (longflow_train "
            "--overwrite), with a lower --lr if it diverged."
        )
    return Checkpoint(tensors, header)


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
    if header.get("plan_identity") != plans.identity(configuration):
        raise ModelError(
            f"{path} was trained with another plan (identity {header.get('plan_identity')}) than the one in use "
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
    method = build_method(name, plans, configuration, checkpoint.header.get("options"))
    load_weights(method, checkpoint.part("weights"), path)
    method.stage = checkpoint.header.get("stage", 0)
    method.file = path
    return method.eval()


def load_weights(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a method.

    :param weights: every tensor of the method, with its shape.
    :param path: of the checkpoint, for messages.
    :raises ModelError: a tensor is missing, has another shape, or is unknown.
    """
    expected = method.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelError(f"{path} lacks the tensor {name}.")
        if weights[name].shape != tensor.shape:
            raise ModelError(f"{path}: {name} has shape {list(weights[name].shape)}, expected {list(tensor.shape)}.")
    if extra := sorted(set(weights) - set(expected)):
        raise ModelError(f"{path} holds tensors that the method does not have: {first_few(extra, most=3)}.")
    method.load_state_dict(weights)
