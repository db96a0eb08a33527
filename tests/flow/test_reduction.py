import torch

from longflow.flow.reduction import reduce_scans


def test_last_is_the_last_scan_and_mean_the_mean_of_the_observed():
    stack = torch.arange(6.0).view(1, 3, 1, 1, 2)
    found = reduce_scans(stack, torch.ones(1, 3, dtype=torch.bool))
    assert found["last"].flatten().tolist() == [4.0, 5.0]
    assert found["mean"].flatten().tolist() == [2.0, 3.0]


def test_last_is_the_last_observed():
    stack = torch.arange(6.0).view(2, 3, 1, 1, 1)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert reduce_scans(stack, mask)["last"].flatten().tolist() == [1.0, 3.0]


def test_padding_carries_no_weight():
    stack = torch.tensor([1e9, 2.0, 4.0]).view(1, 3, 1, 1, 1)
    assert reduce_scans(stack, torch.tensor([[False, True, True]]))["mean"].item() == 3.0
