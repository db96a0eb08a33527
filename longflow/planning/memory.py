"""Estimate the memory of a training step by running one without computing anything.

The step runs on fake tensors (shapes without contents), and every tensor that it makes is counted from its creation to
its end: parameters, the batch, everything that autograd really saves for backward, gradients and temporary tensors. So
the figure is that of the network, number of scans, batch and precision that will be trained. Copies that operations
make inside themselves, the optimizer's moments and the averaged weights, which a step does not make, are added.

``benchmarks/memory.py`` compares with measured peaks. On a CPU the figure is resident memory where glibc returns what
is freed (:func:`longflow.private.return_freed_memory`): training has it do so where memory is short. Elsewhere glibc
keeps up to as much again. On a GPU it is what the caching allocator reserves; the context of CUDA is not in it.
"""

import weakref
from collections.abc import Iterable
from contextlib import nullcontext

import torch

from longflow.methods.method import Options
from longflow.methods.registry import build_method, method_class, samples_of
from longflow.networks.precision import channels_last
from longflow.plans import Plans
from longflow.private import fake_tensors, storage_key, watch_operations

GB = 1024**3
#: numbers that optimizers keep of each weight: Adam's first and second moment, the momentum of SGD
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}
#: temporary copies of the parameters during the weights' update
UPDATE_COPIES = 2
#: CUDA's caching allocator rounds a block to the first; blocks from 10 MiB on are taken one by one, rounded to the
#: second. Smaller ones share segments of 2 and of 20 MiB, of which one each is partly empty
CUDA_BLOCK, CUDA_LARGE, CUDA_SEGMENT, CUDA_POOLS = 512, 10 * 1024**2, 2 * 1024**2, 22 * 1024**2


class LiveBytes:
    """Count the bytes of tensors that are alive, and their peak, while the mode is on.

    Views share their storage and are counted once.

    :param device: "cuda" rounds as its allocator does.
    """

    def __init__(self, device: str):
        self.live = 0
        self.peak = 0
        self._rounded = device == "cuda"
        self._known: dict[int, int] = {}
        self._watch = watch_operations(self._after)

    def __enter__(self) -> "LiveBytes":
        self._watch.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._watch.__exit__(*error)

    def _after(self, operation, args: tuple, made: list[torch.Tensor]) -> None:
        for tensor in made:
            self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.live + inner_copies(operation, args))

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage_key(storage)
        if key in self._known:
            return
        cost = storage.nbytes()
        if self._rounded:
            unit = CUDA_BLOCK if cost < CUDA_LARGE else CUDA_SEGMENT
            cost = -(-cost // unit) * unit
        self._known[key] = cost
        self.live += cost
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)


def inner_copies(operation, args: tuple) -> int:
    """Return the bytes that an operation takes for itself and frees before it ends.

    The gradient of a convolution copies the larger of its two large inputs: oneDNN into its own order (measured). On a
    GPU the same stands for cuDNN's workspace, which was not measured.

    :param operation: ``torch.ops.aten...``.
    :param args: its positional arguments.
    :returns: bytes.
    """
    if operation is torch.ops.aten.convolution_backward.default:
        return max(tensor.untyped_storage().nbytes() for tensor in args[:2])
    return 0


def training_memory(
    method: str,
    plans: Plans,
    configuration: str,
    device: str = "cpu",
    bf16: bool = False,
    batch_size: int | None = None,
    options: Options | None = None,
) -> float:
    """Estimate the peak of a training step on its device, in bytes; 0 for a method that does not train.

    For a method with several stages it is that of the largest.

    :param device: kind of device, "cpu" or "cuda".
    :param bf16: whether the step runs in bf16 autocast.
    :param batch_size: None: the configuration's.
    :param method: name on the command line.
    :param configuration: name of one of the plans' configurations.
    :param options: of the method that differ from its defaults.
    :returns: bytes.
    """
    kind = method_class(method)
    if not kind.trains:
        return 0.0
    # imported before the mode is on, in which tensors that a module makes would be fake
    samples = samples_of(kind)
    plan = plans.configuration(configuration)
    peaks = []
    with fake_tensors(), LiveBytes(device) as memory:
        model = build_method(method, plans, configuration, options)
        for parameter in model.parameters():
            if parameter.ndim == 2 + plan.network.dimensions:  # as longflow/training/run.py arranges them
                parameter.data = parameter.contiguous(memory_format=channels_last(plan.network.dimensions))
        recipe = model.recipe
        batch = samples.largest_batch(plans, configuration, batch_size or plan.batch_size)
        for stage in range(len(model.stages)):
            model.zero_grad()
            memory.peak = memory.live
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                if stage:
                    model.begin_stage(stage, batch)
                loss = model.training_step(batch)
            loss.backward()
            del loss
            trained = _bytes(parameter for parameter in model.parameters() if parameter.grad is not None)
            peak = max(memory.peak, memory.live + UPDATE_COPIES * trained)
            peaks.append(peak + MOMENTS[recipe.optimizer] * trained)
    pools = CUDA_POOLS if device == "cuda" else 0
    return max(peaks) + (recipe.ema_decay > 0) * _bytes(model.parameters()) + pools


def _bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
