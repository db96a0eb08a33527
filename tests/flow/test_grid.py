import numpy as np
import torch

from longflow.flow.grid import carried_forward, embed_on_grid, fill_forward, grid_slots, latest_in_slot


def quantised(time: float, first: float, spacing: float, length: int) -> int:
    """CRONOS eq. 13 as printed, 1-based."""
    return int(min(max(1 + np.floor((time - first) / spacing + 0.5), 1), length))


def test_slots_match_equation_13_at_edges_and_ties():
    spacing, length, target = 2.0, 5, 10.0
    first = target - length * spacing
    times = torch.tensor([[-7.0, 0.0, 0.9999, 1.0, 1.0001, 2.0, 3.0, 7.0, 8.0, 9.5, 9.99]])
    found = grid_slots(times, torch.tensor([target]), spacing, length)[0] + 1
    assert found.tolist() == [quantised(time, first, spacing, length) for time in times[0].tolist()]
    assert found.tolist() == [1, 1, 1, 2, 2, 2, 3, 5, 5, 5, 5]


def test_slots_do_not_change_when_all_dates_are_shifted():
    times, target = torch.tensor([[-4.0, -1.0, 0.0]]), torch.tensor([3.0])
    before = grid_slots(times, target, 1.5, 6)
    assert torch.equal(before, grid_slots(times + 7300, target + 7300, 1.5, 6))


def test_the_latest_scan_wins_a_slot_and_padding_never_does():
    slots = torch.tensor([[0, 2, 2, 3]])
    mask = torch.tensor([[True, True, True, False]])
    assert latest_in_slot(slots, mask, 5).tolist() == [[0, -1, 2, -1, -1]]


def test_embedding_places_scans_and_leaves_zeros():
    scans = torch.arange(1.0, 4.0).view(1, 3, 1, 1, 1)
    stack, occupied = embed_on_grid(scans, torch.tensor([[1, 1, 3]]), torch.ones(1, 3, dtype=torch.bool), 5)
    assert stack.flatten().tolist() == [0.0, 2.0, 0.0, 3.0, 0.0]
    assert occupied.tolist() == [[False, True, False, True, False]]


def locf(values: list[float], occupied: list[bool]) -> list[float]:
    """CRONOS eq. 19, 20 as printed, in plain Python."""
    first = values[occupied.index(True)]
    filled = [first]
    for value, there in zip(values[1:], occupied[1:], strict=True):
        filled.append(value if there else filled[-1])
    return filled


def test_filling_matches_equations_19_and_20_for_every_occupancy():
    for pattern in range(1, 2**5):
        occupied = [bool(pattern >> slot & 1) for slot in range(5)]
        values = [float(slot + 1) * there for slot, there in enumerate(occupied)]
        stack = torch.tensor(values).view(1, 5, 1, 1, 1)
        found = fill_forward(stack, torch.tensor([occupied])).flatten().tolist()
        assert found == locf(values, occupied)


def test_samples_of_a_batch_are_filled_apart():
    occupied = torch.tensor([[False, True, False], [True, False, True]])
    assert carried_forward(occupied).tolist() == [[1, 1, 1], [0, 0, 2]]
