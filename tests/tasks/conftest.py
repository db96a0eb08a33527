"""A tiny dataset on disk: two channels or one, a few voxels, forecasts with sidecars."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longflow.data.dataset import DatasetDescription, Scan, image_path, read_rows, write_description, write_scans
from longflow.data.images import Geometry, read_scan, write_volume
from longflow.files import write_json
from longflow.paths import DatasetPaths

SHAPE = (4, 8, 9)
GEOMETRY = Geometry((9, 8, 4), (1.0, 1.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


@pytest.fixture
def description() -> DatasetDescription:
    return DatasetDescription(channel_names={"0": "MR"}, file_ending=".nii.gz", time_unit="months")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch, description) -> DatasetPaths:
    """A dataset with an empty raw folder and nothing trained."""
    monkeypatch.setenv("LONGFLOW_HOME", str(tmp_path))
    paths = DatasetPaths("Dataset101_Tiny")
    (paths.raw / "imagesTr").mkdir(parents=True)
    write_description(description, paths.raw / "dataset.json")
    return paths


@pytest.fixture
def write_scan(description) -> Callable[..., None]:
    """Write a scan of (z, y, x) or (channels, z, y, x) into a folder."""

    def write(folder: Path, case: str, array: np.ndarray, geometry: Geometry = GEOMETRY) -> None:
        for channel, volume in enumerate(array.reshape(-1, *array.shape[-3:])):
            write_volume(volume, geometry, "float32", image_path(folder, case, channel, description))

    return write


@pytest.fixture
def write_forecast(write_scan) -> Callable[..., None]:
    """Write a forecast with its sidecar."""

    def write(folder: Path, case: str, array: np.ndarray, context: list[str], **sidecar) -> None:
        write_scan(folder, case, array, sidecar.pop("geometry", GEOMETRY))
        content = {
            "case": case,
            "subject": case.split("_")[0],
            "target_time": float(len(context)),
            "horizon": 1.0,
            "context": context,
            "context_times": [float(position) for position in range(len(context))],
            "method": "cronos",
            **sidecar,
        }
        write_json({key: value for key, value in content.items() if value is not None}, folder / f"{case}.json")

    return write


@pytest.fixture
def write_table() -> Callable[..., None]:
    """Write scans.csv from (case, subject, time)."""

    def write(path: Path, *rows: tuple[str, str, float]) -> None:
        write_scans([Scan(case, subject, time, ()) for case, subject, time in rows], path)

    return write


@pytest.fixture
def labelled() -> DatasetDescription:
    """A dataset of task segment: two structures, a region of both, voxels that nobody knows the truth of."""
    return DatasetDescription(
        channel_names={"0": "MR"},
        file_ending=".nii.gz",
        time_unit="months",
        task="segment",
        labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        regions_class_order=[1, 2],
    )


@pytest.fixture
def write_labels() -> Callable[..., None]:
    """Write a label map (z, y, x)."""

    def write(folder: Path, case: str, array: np.ndarray, geometry: Geometry = GEOMETRY, kind: str = "uint8") -> None:
        write_volume(array, geometry, kind, folder / f"{case}.nii.gz")

    return write


@pytest.fixture
def write_translation(tmp_path) -> Callable[..., None]:
    """Write a translation of a case of a dataset (tests.data.helpers.write_phase_dataset): truth + error.

    The dataset is ``raw`` in tmp_path, or what ``raw=`` says. The source may be a translation
    (``p1_0_arterial_native``); the folder gets a table, as longflow_predict writes it.
    """

    def write(folder: Path, source: str, phase: str, error: float | np.ndarray, /, **sidecar) -> None:
        subject, time, *phases = source.split("_")
        case = f"{source}_{phase}"
        raw = sidecar.pop("raw", tmp_path / "raw")
        truth = read_scan((raw / "imagesTr" / f"{subject}_{time}_{phase}_0000.nii.gz",))
        write_volume(truth.array[0] + error, truth.geometry, "float32", folder / f"{case}_0000.nii.gz")
        content = {
            "case": case,
            "subject": subject,
            "time": float(time),
            "source": source,
            "source_phase": phases[-1],
            "target_phase": phase,
            "round_trip": False,
            "seconds": 2.0,
            "slices": 4,
            "method": "mfm",
            **sidecar,
        }
        write_json({key: value for key, value in content.items() if value is not None}, folder / f"{case}.json")
        rows = read_rows(folder / "scans.csv") if (folder / "scans.csv").is_file() else []
        scans = [Scan(row.case, row.subject, float(row.time), (), covariates=row.covariates) for row in rows]
        write_scans([*scans, Scan(case, subject, float(time), (), covariates={"phase": phase})], folder / "scans.csv")

    return write
