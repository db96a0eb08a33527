"""Start from the weights of another training: of longflow, nnU-Net or nnssl (``longflow_train --pretrained``).

nnU-Net's U-Net takes the weights of all three, which train the same library networks. Every other network takes those
of a method of the same task, which may have another number of scans. Tensors are matched by name and shape. Nothing is
unpickled.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longflow.errors import ConfigurationError, ModelError, NotFoundError, first_few
from longflow.methods.method import Method
from longflow.methods.registry import method_class
from longflow.methods.torch_file import read_torch_file
from longflow.methods.weights import check_finite, read_checkpoint
from longflow.networks.unet import UNet
from longflow.task import get_task

#: endings of files that torch writes
TORCH_ENDINGS = (".pth", ".pt", ".ckpt")

#: prefix of the library's network in longflow's methods
OURS = "network.unet."

#: least share of tensors that must fit: of the encoder's for nnU-Net's U-Net, of all for other networks
LEAST_SHARE = 0.5


@dataclass
class Transfer:
    """Which pretrained weights were taken over.

    :param loaded: names of the tensors that were taken over, whole or in part.
    :param skipped: name and reason of every other tensor, of the file and of the network, and of parts.
    :param share: of the network's numbers that were taken over, 0 to 1.
    """

    loaded: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    share: float = 0.0


@dataclass
class _Source:
    """Tensors of a checkpoint, named as in nnU-Net's networks, and whether its output layers segment."""

    tensors: dict[str, Tensor]
    segments: bool


def load_pretrained(method: Method, source: Path) -> Transfer:
    """Put the weights of another training into a method; what does not fit keeps its random start.

    In nnU-Net's U-Net, encoder and decoder are taken over by name and shape. Output layers (``decoder.seg_layers``) are
    taken from a segmentation alone, where they have the same shape: those of pretraining have another purpose.

    Every other network takes the tensors of the same name and shape. Those that belong to the scans of a stack
    (``last_places`` of the network) are taken for the last scans that both networks have.

    :param source: a checkpoint of longflow (.safetensors); for nnU-Net's U-Net also one of nnU-Net (.pth) or nnssl
        (.pth, with its adaptation plan).
    :param method: the method.
    :returns: which tensors were taken over.
    :raises ConfigurationError: the file comes from a method of another task.
    :raises ModelError: the file is missing, damaged or holds more than weights, or comes from a network of another
        kind, dimension, number of channels or plan.
    """
    network = getattr(method, "network", None)
    if not isinstance(network, UNet):
        return _from_same_task(method, source)
    unet = network.unet
    own = dict(unet.named_parameters())
    found = _read(source, residual=hasattr(unet.encoder, "stem") and unet.encoder.stem is not None)
    tensors = _under_own_names(found.tensors, unet)
    _check_fit(tensors, own, source)
    reasons = {name: _why_not(name, tensors.get(name), parameter, found.segments) for name, parameter in own.items()}
    return _take_over(own, tensors, reasons, source)


def check_same_task(source: str, kind: type[Method]) -> None:
    """Refuse weights of another task: the networks have no layer in common.

    :param source: name of the method that was trained.
    :param kind: class of the method to train.
    :raises ConfigurationError: the tasks differ.
    """
    trained = method_class(source)
    if trained.task == kind.task:
        return
    purpose = f"for the task '{trained.task}'" if trained.predicts else f"a pretraining for the task '{trained.task}'"
    own, other = get_task(kind.task).default_method, get_task(trained.task).default_method
    raise ConfigurationError(
        f"--pretrained: the method '{source}' is {purpose}, and no layer of its network fits one for the task "
        f"'{kind.task}'. Its weights fit methods such as '{other}'. A method for the task '{kind.task}' starts from "
        f"one of the same task, such as '{own}', of this or another dataset."
    )


def _from_same_task(method: Method, source: Path) -> Transfer:
    """Take over the weights of a method of the same task, with the same or another number of scans."""
    if source.suffix != ".safetensors":
        raise ModelError(
            f"{source} is not a checkpoint of longflow. '{type(method).__name__}' has no U-Net of nnU-Net's kind, so "
            f"weights of nnU-Net and nnssl do not fit. Expected the checkpoint_final.safetensors of a method for the "
            f"task '{method.task}'."
        )
    checkpoint = read_checkpoint(source)
    _check_origin(method, checkpoint.header, source)
    own = dict(method.named_parameters())
    places = getattr(getattr(method, "network", None), "last_places", {})
    tensors, notes = {}, []
    for name, tensor in checkpoint.part("weights").items():
        axis = places.get(name.removeprefix("network."))
        if axis is not None and name in own and _differ_in(axis, tensor, own[name]):
            found, expected = tensor.shape[axis], own[name].shape[axis]
            tensor = _at_last_places(tensor, own[name], axis)
            notes.append((name, f"places of scans: found {found}, expected {expected}; the last ones are taken"))
        tensors[name] = tensor
    reasons = {name: _why_not(name, tensors.get(name), own[name], segments=True) for name in own}
    _check_same_network(own, tensors, reasons, checkpoint.header, source)
    for name, _ in method.named_buffers():  # the plan's, such as the frequencies of times
        tensors.pop(name, None)
    transfer = _take_over(own, tensors, reasons, source)
    transfer.skipped = notes + transfer.skipped
    return transfer


def _take_over(own: dict[str, Tensor], tensors: dict[str, Tensor], reasons: dict[str, str], source: Path) -> Transfer:
    """Copy the tensors without a reason against it.

    :param own: parameters of the network, changed in place.
    :param tensors: of the file, under the network's names.
    :param reasons: for each parameter, why it is not taken over; empty if it is.
    """
    check_finite({name: tensors[name] for name, reason in reasons.items() if not reason}, source)
    transfer = Transfer(share=_share(own, reasons))
    with torch.no_grad():
        for name, parameter in own.items():
            if reasons[name]:
                transfer.skipped.append((name, reasons[name]))
            else:
                parameter.copy_(tensors[name])
                transfer.loaded.append(name)
    transfer.skipped += [(name, "this network has no such layer") for name in tensors if name not in own]
    return transfer


def _share(own: dict[str, Tensor], reasons: dict[str, str]) -> float:
    """Return the share of the network's numbers that are taken over."""
    taken = sum(parameter.numel() for name, parameter in own.items() if not reasons[name])
    return taken / max(1, sum(parameter.numel() for parameter in own.values()))


def _differ_in(axis: int, tensor: Tensor, parameter: Tensor) -> bool:
    """Tell whether two shapes differ along one axis alone."""
    if tensor.ndim != parameter.ndim or not tensor.is_floating_point():
        return False
    differing = [one for one in range(tensor.ndim) if tensor.shape[one] != parameter.shape[one]]
    return differing == [axis]


def _at_last_places(tensor: Tensor, parameter: Tensor, axis: int) -> Tensor:
    """Return a copy of a parameter whose last places along an axis are those of a tensor, as many as both have."""
    filled = parameter.detach().clone()
    common = min(tensor.shape[axis], filled.shape[axis])
    place, found = (one.narrow(axis, one.shape[axis] - common, common) for one in (filled, tensor))
    place.copy_(found)
    return filled


def _check_origin(method: Method, header: dict[str, Any], source: Path) -> None:
    """Refuse a file of another task or of images with other channels."""
    with suppress(NotFoundError):  # of a package that is not installed here; shapes decide
        check_same_task(header.get("method", ""), type(method))
    channels, found = method.plans.channel_names, header.get("channel_names")
    if found is not None and found != channels:  # files of earlier versions do not say
        raise ModelError(
            f"{source} was trained on images with the channels {str(found)[:200]}, but this dataset has {channels}. "
            "Weights are for the same channels in the same order. If they are the same, give them the same names in "
            "dataset.json and plan again."
        )


def _check_same_network(
    own: dict[str, Tensor], tensors: dict[str, Tensor], reasons: dict[str, str], header: dict[str, Any], source: Path
) -> None:
    """Refuse weights of which too few fit, and name the first difference."""
    for name, parameter in own.items():
        if name in tensors and min(tensors[name].ndim, parameter.ndim) > 3 and tensors[name].ndim != parameter.ndim:
            found, expected = tensors[name].ndim - 2, parameter.ndim - 2
            raise ModelError(
                f"{source} holds a {found}D network, but the configuration in use is {expected}D. Use weights of a "
                f"{'2d' if expected == 2 else '3d'} configuration, or train the other configuration."
            )
    fitting = sum(not reason for reason in reasons.values())
    if fitting < LEAST_SHARE * len(own):
        raise ModelError(
            f"{source} (method '{header.get('method', '')}') comes from a network of another kind or plan: {fitting} "
            f"of the method's {len(own)} tensors fit, expected at least half.{_first_difference(tensors, own)} Use "
            "weights of the same network (--network), trained with the same features_per_stage, strides and "
            "kernel_sizes; edit these in the plans where they differ."
        )


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
