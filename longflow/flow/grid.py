"""Put series on a regular temporal grid: quantiser, occupancy, embedding, filling (CRONOS A.1, eq. 12-21; TFM 2.4).

The grid ends one spacing before the target: g_K = t_target - spacing. Slots between the last scan and the target stay
empty and are then filled. From them a discrete method learns the horizon. In the paper's experiments, too, frames are
masked out of a regular sequence that ends right before the target (section 4.1).
"""

import torch
from torch import Tensor

from longflow.flow.masks import as_weights


def grid_slots(times: Tensor, target_time: Tensor, spacing: float, length: int) -> Tensor:
    """Find the slot of each scan: q(t) = clip(1 + floor((t - g_1) / spacing + 1/2), 1, K) (CRONOS eq. 13), from 0.

    :param times: (batch, scans).
    :param target_time: (batch,).
    :param spacing: of the grid, in the unit of the times.
    :param length: K.
    :returns: slot indices 0 ... K - 1, (batch, scans); a tie goes to the later slot.
    """
    first = target_time - length * spacing
    return torch.floor((times - first.unsqueeze(1)) / spacing + 0.5).clamp(0, length - 1).long()


def embed_on_grid(scans: Tensor, slots: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Put each scan into its slot; of several scans in a slot the latest stays (CRONOS eq. 14-18).

    :param scans: (batch, scans, channels, *spatial), in order of time.
    :param slots: (batch, scans).
    :param mask: (batch, scans), True where a scan was observed.
    :returns: embedded stack (batch, length, channels, *spatial) with zeros in empty slots, occupancy (batch, length).
    """
    latest = latest_in_slot(slots, mask, length)
    occupied = latest >= 0
    return _take(scans, latest.clamp_min(0)) * as_weights(occupied, scans), occupied


def latest_in_slot(slots: Tensor, mask: Tensor, length: int) -> Tensor:
    """Find i*(k) (CRONOS eq. 16): the index of the latest scan in each slot, -1 where it is empty (m_k = 0, eq. 15).

    :param slots: (batch, scans).
    :param mask: (batch, scans), True where a scan was observed.
    :returns: (batch, length).
    """
    positions = torch.arange(slots.shape[1], device=slots.device).expand_as(slots)
    latest = torch.full((slots.shape[0], length), -1, device=slots.device, dtype=torch.long)
    return latest.scatter_reduce(1, slots, torch.where(mask, positions, -1), reduce="amax")


def fill_forward(scans: Tensor, occupied: Tensor) -> Tensor:
    """Carry the last observation forward (CRONOS eq. 19-21); slots before the first scan take the first (TFM 2.4).

    :param scans: (batch, length, channels, *spatial).
    :param occupied: (batch, length), at least one True in each row.
    :returns: a stack of the same shape without empty slots.
    """
    return _take(scans, carried_forward(occupied))


def carried_forward(occupied: Tensor) -> Tensor:
    """Find the slot whose scan each slot shows after filling (CRONOS eq. 19, 20).

    :param occupied: (batch, length), True where a slot holds a scan.
    :returns: (batch, length).
    """
    positions = torch.arange(occupied.shape[1], device=occupied.device).expand_as(occupied)
    last_seen = torch.where(occupied, positions, -1).cummax(1).values
    first = occupied.long().argmax(1, keepdim=True)
    return torch.where(last_seen < 0, first, last_seen)


def _take(stack: Tensor, index: Tensor) -> Tensor:
    """Take entries of the second axis, sample by sample."""
    rows = torch.arange(stack.shape[0], device=stack.device).unsqueeze(1)
    return stack[rows, index]
