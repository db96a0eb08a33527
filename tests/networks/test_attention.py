import pytest
import torch

from longflow.networks.attention import WindowAttention, split_windows


@pytest.mark.parametrize("shape", [(8, 8, 8), (4, 16, 24), (9, 5), (7, 13, 17)])
def test_windows_are_put_back_where_they_were(shape):
    x = torch.randn(2, 3, *shape)
    windows, restore = split_windows(x)
    assert windows.shape[0] * windows.shape[1] == 2 * torch.Size(shape).numel()
    assert torch.equal(restore(windows), x)


def test_a_window_holds_neighbours():
    x = torch.arange(16.0).view(1, 1, 16)
    windows, _ = split_windows(x)
    assert windows[:, :, 0].tolist() == [list(range(8)), list(range(8, 16))]


def test_attention_starts_as_the_identity_and_stays_within_its_window():
    torch.manual_seed(0)
    block = WindowAttention(8)
    x = torch.randn(1, 8, 16, 8, 8)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.out.weight)
    block.norm = torch.nn.Identity()  # its statistics are global
    changed = x.clone()
    changed[:, :, 0] += 1
    difference = (block(changed) - block(x)).abs().amax((0, 1, 3, 4))
    assert (difference[:8] > 0).all()
    assert not difference[8:].any()
