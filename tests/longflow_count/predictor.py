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

    def read(self, item):
        (member,) = self.models.members
        return prepare_scan(item, member.plans, member.configuration)

    def make(self, item, scans):
        (member,) = self.models.members
        return count_scan(member.methods, scans)

    def write(self, item, made, folder, description):
        write_count(made, item, folder)
        return {"count": made}


def count_file(item: CountRequest, folder: Path) -> Path:
    """Return the file with the count of a scan."""
    return folder / f"{item.target.case}.txt"


def write_count(count: float, item: CountRequest, folder: Path) -> None:
    """Write the file with the count of a scan."""
    folder.mkdir(parents=True, exist_ok=True)
    count_file(item, folder).write_text(f"{count:.2f}\n")


def prepare_scan(item: CountRequest, plans, configuration: str) -> np.ndarray:
    """Read and prepare a scan: (channels, z, y, x)."""
    prepared = prepare_volumes(RawSeries.of_scan(item.target.case, read_scan(item.target.images)), plans, configuration)
    return np.asarray(prepared.images[0], dtype=np.float32)


@torch.no_grad()
def count_scan(methods, scan: np.ndarray) -> float:
    """Count a prepared scan with the mean of several folds."""
    image = torch.from_numpy(scan)[None]
    counts = []
    for method in methods:
        device = next(method.parameters()).device
        counts.append(float(method.predict(CountBatch(image.to(device)))["count"]))
    return float(np.mean(counts))
