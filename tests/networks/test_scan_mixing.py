import torch
from torch import nn

from longflow.networks.scan_mixing import ScanMixing


def mixing() -> ScanMixing:
    torch.manual_seed(0)
    module = ScanMixing(scans=4, features=6, further=2)
    nn.init.normal_(module.weights_of[-1].weight)
    return module


def inputs(scans: int):
    generator = torch.Generator().manual_seed(1)
    times, further = torch.randn(2, scans, 6, generator=generator), torch.randn(2, 2, generator=generator)
    return torch.randn(2, scans, 1, 3, 3, generator=generator), times, further, torch.ones(2, scans, dtype=torch.bool)


def test_it_starts_at_zero():
    assert not ScanMixing(4, 6, 2)(*inputs(3)).any()


def test_every_place_is_the_weighted_sum_of_the_scans():
    stack, times, further, mask = inputs(3)
    weights = mixing().weights(times, further, mask)
    found = mixing()(stack, times, further, mask)
    expected = sum(weights[:, :, scan, None, None, None] * stack[:, None, scan] for scan in range(3))
    torch.testing.assert_close(found, expected)


def test_what_all_scans_share_does_not_matter():
    stack, times, further, mask = inputs(4)
    torch.testing.assert_close(
        mixing()(stack + 100, times, further, mask), mixing()(stack, times, further, mask), atol=1e-4, rtol=1e-4
    )


def test_padding_carries_no_weight_and_changes_nothing():
    stack, times, further, mask = inputs(3)
    padded = [torch.cat([torch.full_like(value[:, :1], 9), value], 1) for value in (stack, times)]
    padded_mask = torch.cat([torch.zeros(2, 1, dtype=torch.bool), mask], 1)
    found = mixing()(padded[0], padded[1], further, padded_mask)
    torch.testing.assert_close(found[:, 1:], mixing()(stack, times, further, mask))


def test_weights_depend_on_which_scan_has_which_time():
    _, times, further, mask = inputs(3)
    swapped = mixing().weights(times.flip(1), further, mask)
    assert not torch.allclose(swapped, mixing().weights(times, further, mask))
    assert not torch.allclose(swapped.flip(1, 2), mixing().weights(times, further, mask))
