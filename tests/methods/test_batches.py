import torch

from longflow.methods.batches import ScanBatch


def test_a_batch_moves_with_its_lists_and_leaves_the_original():
    batch = ScanBatch(image=torch.zeros(1, 1, 4), labels=[torch.zeros(1, 1, 4), torch.zeros(1, 1, 2)])
    moved = batch.to("meta")
    assert moved.image.device.type == "meta" and [scale.device.type for scale in moved.labels] == ["meta", "meta"]
    assert moved.pair is None
    assert batch.image.device.type == batch.labels[0].device.type == "cpu"
