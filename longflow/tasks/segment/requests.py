"""The scans of a folder to segment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longflow.data.dataset import DatasetDescription, Scan
from longflow.inference.requests import scans_with_images
from longflow.task import get_task
from longflow.tasks.segment.keep_largest import Step


@dataclass(frozen=True)
class SegmentationRequest:
    """One scan to segment.

    :param others: scans of its subject that the method looks at; empty for methods of single scans.
    :param keep_largest: structures of which the largest component alone is kept (``keep_largest.keep_largest``).
    """

    target: Scan
    others: tuple[Scan, ...] = field(default=(), kw_only=True)
    keep_largest: tuple[Step, ...] = field(default=(), kw_only=True)

    def provenance(self) -> dict[str, Any]:
        """Return the fields of the sidecar that say which scan is segmented."""
        return {
            "case": self.target.case,
            "subject": self.target.subject,
            "time": self.target.time,
            "images": [path.name for path in self.target.images],
            "keep_largest": [list(step) for step in self.keep_largest] or None,
            **({"other_scans": [scan.case for scan in self.others]} if self.others else {}),
        }


def segmentation_requests(folder: Path, description: DatasetDescription) -> list[SegmentationRequest]:
    """List the scans of a folder that have images; rows without an image (requested forecasts) are excluded.

    :returns: a request for each scan, by subject and time.
    :raises DataError: there is no scan; a scan lacks a channel or has one too many.
    """
    return [SegmentationRequest(scan) for scan in scans_with_images(folder, description, get_task("segment").words)]
