from contextlib import contextmanager
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from longflow.methods.batches import Batch, ScanBatch
from longflow.training.loader import ahead_on_gpu, training_batches, training_loader
from tests.tasks.forecast.test_samples import equal, samples_of


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(dataset):
    """Two workers, spawned as in training, against none; and every second batch, as one of two processes sees them."""
    samples = samples_of(dataset)
    alone = [samples[number] for number in range(3, 8)]
    helped = training_loader(samples, 3, 1, workers=2, pin=False)
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=False))
    every_second = training_loader(samples, 3, 2, workers=0, pin=False)
    assert all(equal(a, b) for a, b in zip(alone[::2], every_second, strict=False))


def test_on_a_cpu_batches_are_augmented_where_they_are_drawn(dataset):
    samples = samples_of(dataset)
    found = islice(training_batches(samples, 3, 2, workers=0, device=torch.device("cpu")), 2)
    assert not samples.deferred
    assert all(equal(a, b) for a, b in zip(found, (samples[3], samples[5]), strict=True))


def test_a_gpu_copies_and_augments_on_a_stream_of_its_own(monkeypatch):
    """Streams that write down what happens, in place of a GPU's."""
    happened = []

    @contextmanager
    def on(stream):
        happened.append(f"on {stream.name}")
        yield
        happened.append("off")

    def stream(name):
        return SimpleNamespace(name=name, wait_stream=lambda other: happened.append(f"{name} waits for {other.name}"))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream("copies"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream("steps"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(Batch, "to", lambda self, device: happened.append(f"to {device}") or self)
    monkeypatch.setattr(Batch, "used_by", lambda self, stream: happened.append(f"kept for {stream.name}"))
    batch = Batch(*[torch.zeros(1)] * 4)
    given = iter([batch, batch])
    yielded = ahead_on_gpu(given, torch.device("cuda"), lambda batch: happened.append("augmented") or batch)
    assert next(yielded) is batch and next(given) is batch  # the second one is not fetched before it is asked for
    expected = ["on copies", "to cuda", "augmented", "off", "steps waits for copies", "kept for steps"]
    assert happened == expected


def test_all_tensors_of_a_batch_are_pinned_and_kept(monkeypatch):
    """The loader's own pinning passes over a dataclass without ``pin_memory``."""
    pinned, kept = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: kept.append((self, stream)))
    batch = ScanBatch(image=torch.zeros(1), labels=[torch.zeros(2), torch.zeros(3)])
    assert [tensor.numel() for tensor in (batch.pin_memory().image, *batch.labels)] == [1, 2, 3]
    batch.used_by("steps")
    assert [len(tensor) for tensor in pinned] == [1, 2, 3] == [len(tensor) for tensor, _ in kept]
    assert torch.utils.data._utils.pin_memory.pin_memory(batch) is not batch and len(pinned) == 6
