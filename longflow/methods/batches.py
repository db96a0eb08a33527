"""Batches that methods are given: of forecasts, of scans and of pairs of phases."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class OnDevice:
    """A batch of tensors that can move to a device."""

    def to(self, device: torch.device | str):
        """Return the same batch on another device, with the tensors in its lists."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self):
        """Return the same batch in memory from which a GPU copies without the processor; loaders call it."""
        return self._with_each(Tensor.pin_memory)

    def used_by(self, stream: "torch.cuda.Stream") -> None:
        """Keep the tensors' memory until the work that a stream has at their end is done.

        :param stream: other than the one on which they were made.
        """
        self._with_each(lambda tensor: tensor.record_stream(stream))

    def _with_each(self, function: Callable[[Tensor], Any]):
        """Apply a function to each tensor, those in lists included."""

        def applied(value):
            if isinstance(value, list):
                return [applied(one) for one in value]
            return function(value) if isinstance(value, Tensor) else value

        return replace(self, **{name: applied(value) for name, value in vars(self).items()})


@dataclass
class Batch(OnDevice):
    """Samples of one forecast each, in the normal form, on one device.

    Times are relative to each sample's last context scan and in units of the plan's ``time_scale``: the last context
    scan is at 0, earlier ones are negative, ``target_time`` is the horizon. Scans are in order of time. Where samples
    of a batch have different numbers of context scans, the missing *first* ones are zero and masked out.

    :param context: (batch, scans, channels, *spatial).
    :param context_times: (batch, scans).
    :param context_mask: (batch, scans), True where a scan was observed.
    :param target_time: (batch,).
    :param target: (batch, channels, *spatial), or None where it is to be predicted.
    :param period: (batch,), after which each subject's scans repeat, given or inferred, in units of the time scale; NaN
        where it is not known. None where scans do not repeat.
    :param recurrence: (batch, scans), weights of the context scans in the scan that is expected at the target time
        because scans repeat (``data.recurrence``), sum 1. None where they do not.
    :param covariates: (batch, 2 n): of each of the n covariates the scaled value at the target time, 0 where it is not
        known; then, for each, 1 where it is known. None where the plans have no covariates.
    :param noise: (batch, channels, *spatial), standard normal, from which a method with ``noise`` predicts; cut from
        one field for the whole volume. None in training.
    :param weights: of the target's voxels in the loss, (batch, channels, *spatial), with mean 1 in each sample; None:
        all alike.
    :param draws: of each sample, augmentation that is still to be applied; None where there is none.
    """

    context: Tensor
    context_times: Tensor
    context_mask: Tensor
    target_time: Tensor
    target: Tensor | None = None
    period: Tensor | None = None
    recurrence: Tensor | None = None
    covariates: Tensor | None = None
    noise: Tensor | None = None
    weights: Tensor | None = None
    draws: list[Any] | None = None


def expected_scan(context: Tensor, recurrence: Tensor) -> Tensor:
    """Sum the context scans with their weights: the scan that is expected because scans repeat.

    :param context: (batch, scans, channels, *spatial).
    :param recurrence: (batch, scans), as in :class:`Batch`.
    :returns: (batch, channels, *spatial).
    """
    return torch.einsum("bs,bs...->b...", recurrence.to(context), context)


@dataclass
class ScanBatch(OnDevice):
    """Patches of single scans, of neighbouring scans j and j + 1 of a subject, or of both, in the normal form.

    :param image: (batch, channels, *spatial), augmented; None where the samples are pairs alone.
    :param labels: nnU-Net's targets, finest first: (batch, 1 or regions, *spatial of the scale) for each scale of deep
        supervision. None where labels are to be predicted.
    :param others: (batch, scans, channels, *spatial): other scans of the subject under the spatial draw of the image
        and an intensity draw each, 0 where one is missing. None where a method looks at single scans.
    :param other_times: (batch, scans), since the image, negative before it, in units of the plan's ``time_scale``.
    :param other_mask: (batch, scans), False where a scan is missing.
    :param other_aligned: (batch, scans), False where a scan looks shifted against the image.
    :param pair: (pairs, 2, channels, *spatial): both scans under one spatial draw A_g and an intensity draw A_i each.
        None where the samples have no pairs.
    :param clean_pair: the same under the spatial draw alone, A_g(x).
    :param pair_times: (pairs, 2): times in units of the plan's ``time_scale``, the first of each pair at 0.
    :param position: (pairs,): position of the patch's centre along the image's first axis, 0 to 1.
    :param subject: (pairs,): number of the subject, which distinguishes the subjects of a batch.
    """

    image: Tensor | None = None
    labels: list[Tensor] | None = None
    others: Tensor | None = None
    other_times: Tensor | None = None
    other_mask: Tensor | None = None
    other_aligned: Tensor | None = None
    pair: Tensor | None = None
    clean_pair: Tensor | None = None
    pair_times: Tensor | None = None
    position: Tensor | None = None
    subject: Tensor | None = None


@dataclass
class PhaseBatch(OnDevice):
    """Scans of one subject and time in two contrast phases, each in its own normal form.

    :param source: the scan to translate, (batch, channels, *spatial).
    :param source_phase: (batch,), 0 or 1: the end at which each source is, from ``plans.phases[0]`` to ``phases[1]``
        (MFM: t = 0 is native, t = 1 is contrast); the target is at the other end.
    :param target: like ``source``, or None where it is to be predicted.
    :param noise: like ``source``, standard normal, from which a method with ``noise`` predicts; the same in all slices
        of a subject. None in training.
    :param draws: of each sample, augmentation that is still to be applied; None where there is none.
    """

    source: Tensor
    source_phase: Tensor
    target: Tensor | None = None
    noise: Tensor | None = None
    draws: list[Any] | None = None
