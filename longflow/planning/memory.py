"""How much memory a training step takes, found by going through one without computing anything.

The step is run on fake tensors (shapes without contents) and every tensor that it makes is counted from its making to
its end: parameters, the batch, all that autograd really saves for backward, gradients and what is alive beside them for
a moment. So the figure is that of the network, number of scans, batch and precision that will be trained. Added to it
is what a step does not make: the optimizer's moments and the averaged weights.

On a CPU the figure is resident memory, which holds two things more; both were measured with ``benchmarks/memory.py``.
"""

import weakref
from contextlib import nullcontext

import torch

from longflow.data.labels import label_manager, structures
from longflow.methods.batches import Batch, PhaseBatch, ScanBatch
from longflow.methods.method import Method
from longflow.methods.registry import build_method
from longflow.plans import Plans
from longflow.private import fake_tensors, storage_key, watch_operations

GB = 1024**3
#: what optimizers keep of each weight: Adam's first and second moment, the momentum of SGD
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}
#: what the weights' update holds for a moment: two lists of the parameters' size
UPDATE_COPIES = 2
#: glibc takes blocks up to this size from its heap, which is full of holes after a step; larger ones come from the
#: system and go back to it
HEAP_BLOCK = 32 * 1024**2
#: share of the heap's blocks that is lost to holes; measured 0.1 to 0.5, differently in each run
HOLES = 0.33


class LiveBytes:
    """Counts the bytes of tensors that are alive, and the most that ever were, while the mode is on.

    Views share their storage and are counted once.

    :param device: "cpu" adds what resident memory holds beside tensors, once :attr:`fragments` is set.
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
            # oneDNN brings its two large inputs into its own order
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
    """Peak of a training step, in bytes, of all that the step holds on its device; 0 for a method that does not train.

    Of a method with several stages it is that of the largest.

    :param device: kind of device, "cpu" or "cuda". :param bf16: whether the step runs in bf16 autocast.
    :param batch_size: None: the configuration's.
    """
    plan = plans.configuration(configuration)
    with fake_tensors(), LiveBytes(device) as memory:
        model = build_method(method, plans, configuration)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if not model.trains:
            return 0.0
        memory.fragments = True
        batch = _batch_of(model, plans, configuration, batch_size or plan.batch_size)
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


def _batch_of(method: Method, plans: Plans, configuration: str, batch_size: int) -> Batch | PhaseBatch | ScanBatch:
    patch_size = plans.configuration(configuration).patch_size
    if method.samples == "forecast":
        return largest_batch(plans, patch_size, batch_size)
    if method.samples == "phases":
        return largest_phase_batch(plans, patch_size, batch_size)
    return largest_scan_batch(plans, configuration, batch_size, method.samples)


def largest_batch(plans: Plans, patch_size: list[int], batch_size: int, device: str = "cpu") -> Batch:
    """A batch of full sequences, with contents that mean nothing.

    :param patch_size: of the sample, 2 or 3 axes.
    """
    scans, channels = plans.temporal.sequence_length, len(plans.channel_names)
    horizon = plans.temporal.shortest_interval / plans.temporal.time_scale
    return Batch(
        context=torch.rand(batch_size, scans, channels, *patch_size, device=device),
        context_times=torch.arange(1.0 - scans, 1.0, device=device).repeat(batch_size, 1) * horizon,
        context_mask=torch.ones(batch_size, scans, dtype=torch.bool, device=device),
        target_time=torch.full((batch_size,), horizon, device=device),
        target=torch.rand(batch_size, channels, *patch_size, device=device),
    )


def largest_phase_batch(plans: Plans, patch_size: list[int], batch_size: int, device: str = "cpu") -> PhaseBatch:
    """A batch of pairs to translate, both directions in it, with contents that mean nothing.

    :param patch_size: of the sample, 2 or 3 axes.
    """
    shape = (batch_size, len(plans.channel_names), *patch_size)
    return PhaseBatch(
        source=torch.rand(shape, device=device),
        source_phase=torch.arange(batch_size, device=device) % 2,
        target=torch.rand(shape, device=device),
    )


def largest_scan_batch(plans: Plans, configuration: str, batch_size: int, samples: str) -> ScanBatch:
    """A batch of patches for segmentation or pretraining, with contents that mean nothing.

    :param samples: "labelled", "pairs", or "labelled_pairs" for both.
    """
    plan = plans.configuration(configuration)
    channels, patch_size = len(plans.channel_names), plan.patch_size
    batch = ScanBatch()
    if samples != "pairs":
        batch.image = torch.rand(batch_size, channels, *patch_size)
        batch.labels = [torch.zeros(batch_size, *size) for size in _label_sizes(plans, configuration)]
    if samples != "labelled":
        pairs = max(1, batch_size // 2)
        batch.pair = torch.rand(pairs, 2, channels, *patch_size)
        batch.clean_pair = torch.rand(pairs, 2, channels, *patch_size)
        batch.pair_times = torch.arange(2.0).repeat(pairs, 1)
        batch.position = torch.rand(pairs)
        batch.subject = torch.arange(pairs)
    return batch


def _label_sizes(plans: Plans, configuration: str) -> list[tuple[int, ...]]:
    """Shape of a sample's labels at each scale of deep supervision, finest first: (1 or regions, *spatial)."""
    plan = plans.configuration(configuration)
    manager = label_manager(plans.labels, plans.regions_class_order)
    maps = len(structures(plans.labels)) if manager.has_regions else 1
    sizes, divisor = [], [1] * len(plan.patch_size)
    for stride in plan.network.strides[:-1]:
        divisor = [whole * step for whole, step in zip(divisor, stride, strict=True)]
        sizes.append((maps, *(size // step for size, step in zip(plan.patch_size, divisor, strict=True))))
    return sizes
