"""Segmentation of a scan that looks at the subject's other scans."""

from typing import ClassVar

from torch import Tensor

from longflow.flow.times import time_frequencies
from longflow.methods.batches import ScanBatch
from longflow.methods.method import Options
from longflow.methods.segmentation.unet import Unet
from longflow.networks.longitudinal_unet import LongitudinalUNet

#: sines and cosines by which the network sees times
FREQUENCIES = 8


class UnetLongitudinal(Unet):
    """``unet``, given the subject's other scans: any number, at any times before and after.

    The other scans need no labels, but must be aligned with the scan. Training draws how many of them a sample has,
    none included, so that the network knows every number. A scan without others is segmented as by the U-Net alone.

    ``options``: with ``only_earlier`` later scans are not looked at, as where a scan is read when it is acquired. Scans
    that look shifted against the one that is segmented are not looked at, unless ``unregistered`` is on.
    """

    summary = "supervised segmentation that looks at the subject's other scans"
    samples = "labelled_series"
    uses_other_scans = True
    options: ClassVar[Options] = {"adam": False, "only_earlier": False, "unregistered": False}

    def make_network(self, outputs: int) -> LongitudinalUNet:
        """Make the network; it sees times in units of the plan's time scale."""
        temporal = self.plans.temporal
        shortest, longest = (span / temporal.time_scale for span in (temporal.shortest_interval, temporal.longest_span))
        frequencies = time_frequencies(shortest, longest, FREQUENCIES)
        return LongitudinalUNet(len(self.plans.channel_names), outputs, self.configuration.network, frequencies)

    def training_step(self, batch: ScanBatch) -> Tensor:
        """Compute nnU-Net's loss over all scales."""
        logits = self.network(batch.image, batch.others, batch.other_times, self.used(batch))
        loss = self.supervised_loss(logits, batch.labels)
        self.terms = {"supervised": loss.detach()}
        return loss

    def predict(self, batch: ScanBatch) -> dict[str, Tensor]:
        """Compute the finest logits, (batch, classes or regions, *spatial)."""
        return {"logits": self.network.finest(batch.image, batch.others, batch.other_times, self.used(batch))}

    def used(self, batch: ScanBatch) -> Tensor | None:
        """Choose the other scans that are looked at: (batch, scans); None where the batch has none."""
        if batch.others is None:
            return None
        used = batch.other_mask
        if self.options["only_earlier"]:
            used = used & (batch.other_times < 0)
        return used if self.options["unregistered"] else used & batch.other_aligned


METHOD = UnetLongitudinal
