"""Start from the weights of another training: of longflow, nnU-Net or nnssl (``longflow_train --pretrained``).

All of these train the same library networks, so tensors are matched by name and shape. Nothing is unpickled.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from longflow.errors import ConfigurationError, ModelError, NotFoundError, first_few
from longflow.methods.method import Method
from longflow.methods.registry import method_class
from longflow.methods.torch_file import read_torch_file
from longflow.methods.weights import check_finite, read_checkpoint
from longflow.networks.unet import UNet

#: endings of files that torch writes
TORCH_ENDINGS = (".pth", ".pt", ".ckpt")

#: prefix of the library's network in longflow's methods
OURS = "network.unet."

#: least share of the encoder's tensors that must fit
LEAST_SHARE = 0.5


@dataclass
class Transfer:
    """Which pretrained weights were taken over.

    :param loaded: names of the tensors that were taken over.
    :param skipped: name and reason of every other tensor, of the file and of the network.
    """

    loaded: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Source:
    """Tensors of a checkpoint, named as in nnU-Net's networks, and whether its output layers segment."""

    tensors: dict[str, Tensor]
    segments: bool


def load_pretrained(method: Method, source: Path) -> Transfer:
    """Put the weights of another training into a method's U-Net; what does not fit keeps its random start.

    Encoder and decoder are taken over by name and shape. Output layers (``decoder.seg_layers``) are taken from a
    segmentation alone, where they have the same shape: those of pretraining have another purpose.

    :param source: a checkpoint of longflow (.safetensors), nnU-Net (.pth) or nnssl (.pth, with its adaptation plan).
    :param method: with a U-Net.
    :returns: which tensors were taken over.
    :raises ConfigurationError: the method has no such network.
    :raises ModelError: the file is missing, damaged or holds more than weights, or comes from a network of another
        dimension, number of channels or plan.
    """
    if not isinstance(getattr(method, "network", None), UNet):
        raise ConfigurationError(
            f"'{type(method).__name__}' has no U-Net of nnU-Net's kind; pretrained weights are for segmentation."
        )
    unet = method.network.unet
    own = dict(unet.named_parameters())
    found = _read(source, residual=hasattr(unet.encoder, "stem") and unet.encoder.stem is not None)
    tensors = _under_own_names(found.tensors, unet)
    _check_fit(tensors, own, source)
    reasons = {name: _why_not(name, tensors.get(name), parameter, found.segments) for name, parameter in own.items()}
    check_finite({name: tensors[name] for name, reason in reasons.items() if not reason}, source)
    transfer = Transfer()
    with torch.no_grad():
        for name, parameter in own.items():
            if reasons[name]:
                transfer.skipped.append((name, reasons[name]))
            else:
                parameter.copy_(tensors[name])
                transfer.loaded.append(name)
    transfer.skipped += [(name, "this network has no such layer") for name in tensors if name not in own]
    return transfer


def _why_not(name: str, tensor: Tensor | None, parameter: Tensor, segments: bool) -> str:
    """Say why a tensor of the network is not taken over; empty if it is."""
    if ".seg_layers." in name and not segments:
        return "output layers of pretraining are not taken over"
    if tensor is None:
        return "not in the file"
    if tensor.shape != parameter.shape:
        return f"shape {list(tensor.shape)}, expected {list(parameter.shape)}"
    if not tensor.is_floating_point():
        return f"numbers of the kind {tensor.dtype}, expected {parameter.dtype}"
    return ""


def _under_own_names(tensors: dict[str, Tensor], unet: torch.nn.Module) -> dict[str, Tensor]:
    """Name each tensor once: the library's networks hold the same parameter under several names.

    The decoder has the encoder as an attribute (``decoder.encoder.*``), and a block its layers as ``all_modules`` too.
    """
    first = {id(parameter): name for name, parameter in unet.named_parameters()}
    aliases = {name: first[id(parameter)] for name, parameter in unet.named_parameters(remove_duplicate=False)}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = re.sub(r"^decoder\.encoder\.", "encoder.", name)
        plain = aliases.get(name) or aliases.get(plain) or plain
        if ".all_modules." not in plain:  # second name of a layer that this network lacks
            own.setdefault(plain, tensor)
    return own


def _read(source: Path, residual: bool) -> _Source:
    if source.suffix == ".safetensors":
        return _read_longflow(source)
    if source.suffix in TORCH_ENDINGS:
        return _read_torch(source, residual)
    raise ModelError(
        f"{source} is not a checkpoint. Expected a file of longflow (checkpoint_final.safetensors), nnU-Net or nnssl "
        f"({', '.join(TORCH_ENDINGS)})."
    )


def _read_longflow(source: Path) -> _Source:
    checkpoint = read_checkpoint(source)
    name = checkpoint.header.get("method", "")
    weights = checkpoint.part("weights")
    tensors = {key.removeprefix(OURS): tensor for key, tensor in weights.items() if key.startswith(OURS)}
    if not tensors:
        raise ModelError(
            f"{source} was trained by the method '{name}', whose network is not a U-Net of nnU-Net's kind. Expected a "
            "pretraining (spatiotemporal, ...) or a segmentation (unet, unet_consistent)."
        )
    try:
        segments = method_class(name).predicts
    except (NotFoundError, ConfigurationError):  # of a package that is not installed here
        segments = False
    return _Source(tensors, segments)


def _read_torch(source: Path, residual: bool) -> _Source:
    content = read_torch_file(source, "network_weights")
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(one, Tensor) for one in weights.values()):
        found = first_few(key[:100] for key in content) if isinstance(content, dict) else type(content).__name__
        raise ModelError(
            f"{source} has no 'network_weights' (tensors by name), so it is not a checkpoint of nnU-Net or nnssl. "
            f"Found: {found}."
        )
    # prefixes of torch's wrappers for several GPUs and for compilation
    tensors = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in weights.items()}
    plan = content.get("nnssl_adaptation_plan")
    if isinstance(plan, dict):
        return _Source(_named_as_nnunet(tensors, plan, residual), segments=False)
    return _Source(tensors, segments=True)


def _named_as_nnunet(tensors: dict[str, Tensor], plan: dict, residual: bool) -> dict[str, Tensor]:
    """Rename nnssl's tensors by its adaptation plan, which names the places of encoder stages and stem."""
    places = {_place(plan, "key_to_encoder", "encoder.stages"): "encoder.stages"}
    if residual:
        places[_place(plan, "key_to_stem", "encoder.stem")] = "encoder.stem"
    named = {}
    for name, tensor in tensors.items():
        inside = max((place for place in places if name.startswith(f"{place}.")), key=len, default=None)
        named[places[inside] + name[len(inside) :] if inside else name] = tensor
    return named


def _place(plan: dict, key: str, usual: str) -> str:
    named = plan.get(key)
    return named if isinstance(named, str) and named else usual


def _check_fit(tensors: dict[str, Tensor], own: dict[str, Tensor], source: Path) -> None:
    """Refuse weights of another network, and name the difference."""
    encoder = [name for name in own if name.startswith("encoder.")]
    first = next(name for name in encoder if name.endswith("conv.weight"))
    if first in tensors and tensors[first].ndim == own[first].ndim:
        found_channels, channels = tensors[first].shape[1], own[first].shape[1]
        if found_channels != channels:
            raise ModelError(
                f"{source} was trained on images of {_counted(found_channels, 'channel')}, but this dataset has "
                f"{_counted(channels, 'channel')} ({first}: found {list(tensors[first].shape)}, expected "
                f"{list(own[first].shape)}). Pretrain on the same channels."
            )
    dimensions = {tensor.ndim - 2 for name, tensor in tensors.items() if name.endswith("conv.weight")}
    expected = own[first].ndim - 2
    if dimensions and expected not in dimensions:
        raise ModelError(
            f"{source} holds a {min(dimensions)}D network, but the configuration in use is {expected}D. Use weights "
            f"of a {'2d' if expected == 2 else '3d'} configuration, or train the other configuration (-c)."
        )
    fitting = [name for name in encoder if name in tensors and tensors[name].shape == own[name].shape]
    if len(fitting) < LEAST_SHARE * len(encoder):
        raise ModelError(
            f"{source} comes from a network of another plan: {len(fitting)} of the encoder's {len(encoder)} tensors "
            f"fit. Found: {_described(tensors)}; expected: {_described(own)}.{_first_difference(tensors, own)} "
            "Pretrain with the plan in use, or plan this dataset like the other (edit features_per_stage, "
            "kernel_sizes, encoder and blocks_per_stage in the plans, then preprocess)."
        )


def _described(tensors: dict[str, Tensor]) -> str:
    """Describe the encoder: kind, stages, features of each."""
    features: dict[int, int] = {}
    for name, tensor in tensors.items():
        if (stage := re.match(r"encoder\.stages\.(\d{1,3})\..*conv\d?\.(?:conv\.)?weight$", name)) and tensor.ndim > 2:
            features[int(stage[1])] = tensor.shape[0]
    if not features:
        return "no encoder of this kind"
    kind = "residual" if any(name.startswith("encoder.stem.") for name in tensors) else "plain"
    values = [features[stage] for stage in sorted(features)]
    return f"a {kind} encoder of {_counted(len(values), 'stage')} with {values} features"


def _first_difference(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    for name, parameter in own.items():
        if name in tensors and tensors[name].shape != parameter.shape:
            return f" {name} has shape {list(tensors[name].shape)}, expected {list(parameter.shape)}."
    return ""


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
