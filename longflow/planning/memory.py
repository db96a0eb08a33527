"""Estimate the memory of a training step by running one without computing anything.

The step runs on fake tensors (shapes without contents), and every tensor that it makes is counted from its creation to
its end: parameters, the batch, everything that autograd really saves for backward, gradients and temporary tensors. So
the figure is that of the network, number of scans, batch and precision that will be trained. The optimizer's moments
and the averaged weights, which a step does not make, are added.

On a CPU the figure is resident memory, which holds two things more; both were measured with ``benchmarks/memory.py``.
"""

import weakref
from contextlib import nullcontext

import torch

from longflow.methods.registry import build_method, method_class, samples_of
from longflow.plans import Plans
from longflow.private import fake_tensors, storage_key, watch_operations

GB = 1024**3
#: numbers that optimizers keep of each weight: Adam's first and second moment, the momentum of SGD
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}
#: temporary copies of the parameters during the weights' update
UPDATE_COPIES = 2
#: glibc takes blocks up to this size from its heap, which is full of holes after a step; larger ones come from the
#: system and return to it
HEAP_BLOCK = 32 * 1024**2
#: share of the heap's blocks that is lost to holes; measured 0.1 to 0.5, differently in each run
HOLES = 0.33


class LiveBytes:
    """Count the bytes of tensors that are alive, and their peak, while the mode is on.

    Views share their storage and are counted once.

    :param device: "cpu" adds the part of resident memory that is not tensors, once :attr:`fragments` is set.
    """

    def __init__(self, device: str):
        self.live = 0.0
        self.peak = 0.0
        self.fragments = False
        self._resident = device == "cpu"
        self._known: dict[int, float] = {}
        self._watch = watch_operations(self._after)

    def __enter__(self) -> "LiveBytes":
        self._watch.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._watch.__exit__(*error)

    def _after(self, operation, args: tuple, made: list[torch.Tensor]) -> None:
        for tensor in made:
            self._count(tensor.untyped_storage())
        within = 0
        if self._resident and operation is torch.ops.aten.convolution_backward.default:
            # oneDNN copies its two large inputs into its own order
            within = sum(tensor.untyped_storage().nbytes() for tensor in args[:2])
        self.peak = max(self.peak, self.live + within)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage_key(storage)
        if key in self._known:
            return
        cost = float(storage.nbytes())
        if self._resident and self.fragments and cost < HEAP_BLOCK:
            cost *= 1 + HOLES
        self._known[key] = cost
        self.live += cost
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)


def training_memory(
    method: str,
    plans: Plans,
    configuration: str,
    device: str = "cpu",
    bf16: bool = False,
    batch_size: int | None = None,
) -> float:
    """Estimate the peak of a training step on its device, in bytes; 0 for a method that does not train.

    For a method with several stages it is that of the largest.

    :param device: kind of device, "cpu" or "cuda".
    :param bf16: whether the step runs in bf16 autocast.
    :param batch_size: None: the configuration's.
    :param method: name on the command line.
    :param configuration: name of one of the plans' configurations.
    :returns: bytes.
    """
    kind = method_class(method)
    if not kind.trains:
        return 0.0
    # imported before the mode is on, in which tensors that a module makes would be fake
    samples = samples_of(kind)
    with fake_tensors(), LiveBytes(device) as memory:
        model = build_method(method, plans, configuration)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        memory.fragments = True
        batch = samples.largest_batch(plans, configuration, batch_size or plans.configuration(configuration).batch_size)
        for stage in range(len(model.stages)):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                if stage:
                    model.begin_stage(stage, batch)
                loss = model.training_step(batch)
            loss.backward()
            del loss
            memory.peak = max(memory.peak, memory.live + UPDATE_COPIES * weights)
    recipe = model.recipe
    return memory.peak + (MOMENTS[recipe.optimizer] + (recipe.ema_decay > 0)) * weights
