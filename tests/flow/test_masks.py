import torch

from longflow.flow.masks import as_weights


def test_scans_that_were_not_observed_are_multiplied_by_zero():
    stack = torch.ones(2, 3, 1, 2, 2, 2, dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    weights = as_weights(mask, stack)
    assert weights.dtype == torch.float64 and weights.shape == (2, 3, 1, 1, 1, 1)
    assert (weights * stack).flatten(2).mean(2).tolist() == [[1, 0, 1], [0, 0, 1]]
