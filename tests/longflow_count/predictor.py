"""Predict the count of every scan of a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longflow.data.dataset import Scan
from longflow.data.images import read_scan
from longflow.inference.predictor import Predictor
from longflow.inference.requests import scans_with_images
from longflow.preprocessing.prepared import RawSeries
from longflow.preprocessing.series import prepare_volumes

from .method import CountBatch


@dataclass(frozen=True)
class CountRequest:
    """A scan to count."""

    target: Scan

    def provenance(self) -> dict:
        """Return the fields of the sidecar that name the scan."""
        return {"case": self.target.case, "subject": self.target.subject, "time": self.target.time}


class Counter(Predictor[CountRequest]):
    """Trained models that count."""

    task = "count"

    def requests(self, folder, description):
        return [CountRequest(scan) for scan in scans_with_images(folder, description, self.words)]

    def files(self, item, folder, description):
        return [count_file(item, folder)]

    def make(self, item, folder, description):
        (member,) = self.models.members
        count = count_volume(member.methods, item, member.plans, member.configuration)
        write_count(count, item, folder)
        return {"count": count}


def count_file(item: CountRequest, folder: Path) -> Path:
    """Return the file with the count of a scan."""
    return folder / f"{item.target.case}.txt"


def write_count(count: float, item: CountRequest, folder: Path) -> None:
    """Write the file with the count of a scan."""
    folder.mkdir(parents=True, exist_ok=True)
    count_file(item, folder).write_text(f"{count:.2f}\n")


@torch.no_grad()
def count_volume(methods, item: CountRequest, plans, configuration: str) -> float:
    """Count a scan, prepared from its files, with the mean of several folds."""
    prepared = prepare_volumes(RawSeries.of_scan(item.target.case, read_scan(item.target.images)), plans, configuration)
    image = torch.from_numpy(np.asarray(prepared.images[0], dtype=np.float32))[None]
    counts = []
    for method in methods:
        device = next(method.parameters()).device
        counts.append(float(method.predict(CountBatch(image.to(device)))["count"]))
    return float(np.mean(counts))
