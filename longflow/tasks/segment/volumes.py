"""Volumes of structures: counted when a label map is made, collected in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.dataset import parse_time, read_rows, sidecar_path
from longflow.data.images import Geometry
from longflow.errors import DataError
from longflow.files import write_csv
from longflow.reading import read_json
from longflow.tasks.segment.calibration import CALIBRATED_COLUMNS, calibrated_columns

VOLUME_COLUMNS = ("subject", "case", "time", "structure", "voxels", "volume_ml")


def structure_volumes(
    labels: np.ndarray, geometry: Geometry, structures: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, Any]]:
    """Measure the volume of each structure of a label map.

    :param labels: (z, y, x).
    :param geometry: grid of the label map.
    :param structures: label values of each structure by its name (``data.labels.structures``).
    :returns: ``voxels`` and ``volume_ml`` of each structure.
    """
    voxel_ml = float(np.prod(geometry.array_spacing)) / 1000
    largest = max(value for own_values in structures.values() for value in own_values)
    # slice by slice: bincount makes a copy of 64 bits
    counts = sum(np.bincount(one.ravel(), minlength=largest + 1)[: largest + 1] for one in labels)
    volumes = {}
    for name, own_values in structures.items():
        voxels = int(counts[list(own_values)].sum())
        volumes[name] = {"voxels": voxels, "volume_ml": round(voxels * voxel_ml, 6)}
    return volumes


def write_volumes(
    folder: Path, calibration: Mapping[str, Any] | None = None, keep_largest: Sequence[Sequence[str]] | None = None
) -> None:
    """Write ``volumes.csv`` of a folder of label maps: a row for each scan and structure, by subject and time.

    The volumes are read from the sidecars, so no label map is read again.

    :param folder: of the label maps.
    :param calibration: of each structure (``calibration.calibration_of``); empty or None: there are no columns for it.
    :param keep_largest: as the sidecars name it where the calibration holds; label maps that were made otherwise have
        empty cells.
    :raises DataError: a sidecar was changed.
    """
    rows = []
    for scan in read_rows(folder / "scans.csv"):
        sidecar = sidecar_path(folder, scan.case)
        try:
            content = read_json(sidecar, dict)
            lines = calibration if calibration and content.get("keep_largest") == keep_largest else {}
            for structure, volume in content.get("volumes", {}).items():
                place = {"subject": scan.subject, "case": scan.case, "time": scan.time, "structure": structure}
                cells = calibrated_columns(volume["volume_ml"], lines.get(structure)) if calibration else {}
                rows.append({**place, **{name: volume[name] for name in ("voxels", "volume_ml")}, **cells})
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{sidecar} has no volumes of structures, as longflow_predict writes them. Delete it and its label "
                "map, then predict again."
            ) from error
    rows.sort(key=lambda row: (row["subject"], parse_time(row["time"]), row["case"]))
    write_csv((*VOLUME_COLUMNS, *(CALIBRATED_COLUMNS if calibration else ())), rows, folder / "volumes.csv")
